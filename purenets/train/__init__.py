"""Training. A step is a scan body, a run is a scan of steps, a sweep is a vmap of runs."""

from purenets.train.best import train_best
from purenets.train.checkpoint import Checkpoints
from purenets.train.fit import Callback, Epoch, History, early_stopping, fit
from purenets.train.objective import Metrics, Objective, Supervised, supervised
from purenets.train.run import evaluate, train
from purenets.train.step import Step, TrainState, make_step, start
from purenets.train.sweep import Sweep, sweep

__all__ = [
    "Callback",
    "Checkpoints",
    "Epoch",
    "History",
    "Metrics",
    "Objective",
    "Step",
    "Supervised",
    "Sweep",
    "TrainState",
    "early_stopping",
    "evaluate",
    "fit",
    "make_step",
    "start",
    "supervised",
    "sweep",
    "train",
    "train_best",
]
