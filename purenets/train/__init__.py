"""Training. A step is a scan body, a run is a scan of steps, a sweep is a vmap of runs."""

from purenets.train.best import train_best
from purenets.train.checkpoint import Checkpoints
from purenets.train.fit import Callback, Epoch, History, early_stopping, fit
from purenets.train.guard import Guarded, NonFiniteError, guard_fit, guarded
from purenets.train.logs import jsonl_log, read_jsonl, run_log, tensorboard_log
from purenets.train.loss_scale import LossScale, LossScaled, loss_scaled
from purenets.train.nonfinite import NonFinite, locate_nonfinite
from purenets.train.objective import Metrics, Objective, Supervised, supervised
from purenets.train.retrace import RetraceError, limit_traces
from purenets.train.run import evaluate, train
from purenets.train.step import Step, TrainState, make_step, start
from purenets.train.sweep import BatchedRun, Sweep, batch_runs, sweep

__all__ = [
    "BatchedRun",
    "Callback",
    "Checkpoints",
    "Epoch",
    "Guarded",
    "History",
    "LossScale",
    "LossScaled",
    "Metrics",
    "NonFinite",
    "NonFiniteError",
    "Objective",
    "RetraceError",
    "Step",
    "Supervised",
    "Sweep",
    "TrainState",
    "batch_runs",
    "early_stopping",
    "evaluate",
    "fit",
    "guard_fit",
    "guarded",
    "jsonl_log",
    "limit_traces",
    "locate_nonfinite",
    "loss_scaled",
    "make_step",
    "read_jsonl",
    "run_log",
    "start",
    "supervised",
    "sweep",
    "tensorboard_log",
    "train",
    "train_best",
]
