"""Neural networks in JAX with nothing hidden: pure functions over plain parameter trees."""

from typing import TYPE_CHECKING

from purenets import activations, data, initializers, losses, metrics, paths
from purenets.compose import Wiring, branch, compose, residual, serial
from purenets.generate import Generated, generate
from purenets.later import loaders
from purenets.layer import Layer, fold_name, function, identity, layer, need_key, open_stream, stateless
from purenets.layers import *  # noqa: F403
from purenets.layers import __all__ as _layers
from purenets.lift import Policy, cast, ensemble, frozen, remat, repeat, wrapper
from purenets.surgery import check, edit, inside, layer_paths, out_shape, outline, tap, taps
from purenets.train import (
    BatchedRun,
    Callback,
    Checkpoints,
    Epoch,
    History,
    NonFiniteError,
    Objective,
    RetraceError,
    Step,
    Supervised,
    Sweep,
    TrainState,
    batch_runs,
    early_stopping,
    evaluate,
    fit,
    guard_fit,
    guarded,
    jsonl_log,
    limit_traces,
    loss_scaled,
    make_step,
    run_log,
    start,
    supervised,
    sweep,
    tensorboard_log,
    train,
    train_best,
)
from purenets.version import __version__

if TYPE_CHECKING:
    from purenets import classic, conform, inspect, interop, models, optim, parallel, regularizers, theory
    from purenets.beam import Beams, beam_search
    from purenets.data_init import data_dependent, lsuv
    from purenets.weights import LoadReport, load_weights, save_weights

__all__ = [
    "Beams",
    "Callback",
    "Checkpoints",
    "Epoch",
    "Generated",
    "History",
    "Layer",
    "LoadReport",
    "NonFiniteError",
    "Objective",
    "Policy",
    "RetraceError",
    "Step",
    "Supervised",
    "BatchedRun",
    "Sweep",
    "TrainState",
    "Wiring",
    "__version__",
    "activations",
    "beam_search",
    "branch",
    "cast",
    "check",
    "compose",
    "data",
    "data_dependent",
    "early_stopping",
    "edit",
    "ensemble",
    "evaluate",
    "fit",
    "fold_name",
    "frozen",
    "function",
    "generate",
    "guard_fit",
    "guarded",
    "identity",
    "initializers",
    "inside",
    "inspect",
    "jsonl_log",
    "layer",
    "layer_paths",
    "limit_traces",
    "load_weights",
    "loss_scaled",
    "losses",
    "lsuv",
    "make_step",
    "metrics",
    "models",
    "need_key",
    "open_stream",
    "optim",
    "out_shape",
    "outline",
    "parallel",
    "paths",
    "regularizers",
    "remat",
    "repeat",
    "residual",
    "run_log",
    "save_weights",
    "serial",
    "start",
    "stateless",
    "supervised",
    "batch_runs",
    "sweep",
    "tap",
    "taps",
    "tensorboard_log",
    "train",
    "train_best",
    "wrapper",
    "theory",
    "interop",
    "conform",
    "classic",
    *_layers,
]

# An import of purenets takes little longer than that of jax, and brings no optax.
_LATER = {
    name: name
    for name in (
        "classic", "conform", "inspect", "interop", "models", "optim", "parallel", "regularizers", "theory"
    )
} | {
    "Beams": "beam",
    "LoadReport": "weights",
    "beam_search": "beam",
    "data_dependent": "data_init",
    "load_weights": "weights",
    "lsuv": "data_init",
    "save_weights": "weights",
}  # fmt: skip
__getattr__, __dir__ = loaders(globals(), _LATER)
