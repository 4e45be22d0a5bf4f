"""Looking inside: what a model holds and costs, and what its loss is like."""

from purenets.inspect.activity import Activity, LayerActivity, activity, dead_units
from purenets.inspect.attention_maps import attention_maps
from purenets.inspect.cost import flops, flops_by_scope
from purenets.inspect.curvature import Eigenvalues, Estimate, hessian_eigenvalues, hessian_trace
from purenets.inspect.dtypes import DtypeRow, Dtypes, dtypes
from purenets.inspect.examples import neural_tangent_kernel, per_example_gradients, per_example_norms
from purenets.inspect.gradient_sizes import GradientSizes, gradient_sizes
from purenets.inspect.half_precision import half_precision_by_scope
from purenets.inspect.landscape import filter_normalized_direction, landscape, roughness
from purenets.inspect.layer_plots import plot_activity, plot_gradients, weight_pictures
from purenets.inspect.map_plots import plot_attention, plot_landscape
from purenets.inspect.plots import plot_history, plot_sweep
from purenets.inspect.step_cost import StepCost, step_cost
from purenets.inspect.summary import Summary, SummaryRow, summary
from purenets.inspect.trees import TreeRow, TreeView, tree

__all__ = [
    "Activity",
    "DtypeRow",
    "Dtypes",
    "Eigenvalues",
    "Estimate",
    "GradientSizes",
    "LayerActivity",
    "StepCost",
    "Summary",
    "SummaryRow",
    "TreeRow",
    "TreeView",
    "activity",
    "attention_maps",
    "dead_units",
    "dtypes",
    "filter_normalized_direction",
    "flops",
    "flops_by_scope",
    "gradient_sizes",
    "half_precision_by_scope",
    "hessian_eigenvalues",
    "hessian_trace",
    "landscape",
    "neural_tangent_kernel",
    "per_example_gradients",
    "per_example_norms",
    "plot_activity",
    "plot_attention",
    "plot_gradients",
    "plot_history",
    "plot_landscape",
    "plot_sweep",
    "roughness",
    "step_cost",
    "summary",
    "tree",
    "weight_pictures",
]
