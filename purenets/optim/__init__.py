"""Optimizers, by hand, in optax's protocol and with optax's names."""

# ruff: noqa: F401, F403

from purenets.optim import contrib
from purenets.optim.accumulation import *
from purenets.optim.adam_rules import *
from purenets.optim.adam_variants import *
from purenets.optim.adaptive import *
from purenets.optim.alias_adam import *
from purenets.optim.alias_adaptive import *
from purenets.optim.alias_gradient import *
from purenets.optim.apply import *
from purenets.optim.base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    Mask,
    MaskedNode,
    OptState,
    Params,
    Scalar,
    ScalarOrSchedule,
    Schedule,
    Updates,
)
from purenets.optim.by_leaf import leaf_by_leaf, update_params
from purenets.optim.choose import *
from purenets.optim.clipping import *
from purenets.optim.combine import *
from purenets.optim.conditions import *
from purenets.optim.decay import *
from purenets.optim.explain import *
from purenets.optim.forms import *
from purenets.optim.inject import *
from purenets.optim.layouts import *
from purenets.optim.lookahead import *
from purenets.optim.masking import *
from purenets.optim.memory import *
from purenets.optim.momentum import *
from purenets.optim.monitor import *
from purenets.optim.noise import *
from purenets.optim.norms import *
from purenets.optim.numerics import (
    bias_correction,
    global_norm,
    safe_increment,
    safe_int32_increment,
    safe_norm,
    safe_root_mean_squares,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
)
from purenets.optim.schedules import *
from purenets.optim.schedules_joined import *
from purenets.optim.second_order import (
    LinearSolution,
    Method,
    Root,
    Solution,
    Status,
    best_step,
    bfgs,
    conjugate_gradient,
    fletcher_reeves,
    grid_search,
    lbfgs,
    limited_memory_bfgs,
    linearized_step,
    minimize,
    newton,
    newton_1d,
    newton_cg,
    newton_root,
    nonlinear_cg,
    polak_ribiere,
    polak_ribiere_plus,
    quadratic_minimum,
    scale_by_backtracking_linesearch,
    scale_by_lbfgs,
    scale_by_zoom_linesearch,
    steepest_descent,
    trajectory,
    value_and_grad_from_state,
)
from purenets.optim.states import *
