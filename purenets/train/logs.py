"""Where the metrics of a training go: callbacks for :func:`~purenets.train.fit.fit`.

``fit`` reads metrics one epoch late and hands them over as numbers, so a log costs the training itself nothing. All
logs write an epoch at once, so what a killed training has logged is whole.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Protocol

from purenets.train.fit import Callback, Epoch

__all__ = ["MetricSink", "jsonl_log", "read_jsonl", "run_log", "tensorboard_log"]

_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def jsonl_log(file: str | Path) -> Callback:
    """Append a line of JSON for every epoch: ``epoch``, ``step``, ``time`` and the metrics.

    ``time`` is in seconds since 1970. JSON has no numbers that are not finite, so these are the strings
    ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. :func:`read_jsonl` reads it all back.

    Raises:
        OSError: the file cannot be written, before any training.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.open("a").close()

    def callback(epoch: Epoch) -> None:
        row = {"epoch": epoch.number, "step": int(epoch.ts.step), "time": time.time(), **epoch.metrics}
        line = json.dumps({name: _json(value) for name, value in row.items()}, allow_nan=False)
        with file.open("a") as log:
            log.write(line + "\n")

    return callback


def read_jsonl(file: str | Path) -> list[dict[str, Any]]:
    """The rows of a log by step; of an epoch that was done again after a resume, the last.

    A last line that was cut off by a kill is left out.

    Raises:
        ValueError: another line is no JSON; the message has its number.
    """
    rows: dict[int, dict[str, Any]] = {}
    lines = Path(file).read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"line {number} of {file} is no JSON: {line[:40]!r}") from error
        rows[row["step"]] = {name: _number(value) for name, value in row.items()}
    return [rows[step] for step in sorted(rows)]


def tensorboard_log(folder: str | Path) -> Callback:
    """Write the metrics as scalars for TensorBoard, by tensorboardX; ``validation/loss`` is the tag of that.

    Raises:
        ImportError: tensorboardX is not installed.
    """
    try:
        from tensorboardX.event_file_writer import EventsWriter  # type: ignore[import-untyped]
        from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboardX.summary import scalar  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("tensorboard_log needs tensorboardX: pip install tensorboardX") from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Its SummaryWriter hands events to a thread, and those of the last epochs are lost where the process ends.
    writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")

    def callback(epoch: Epoch) -> None:
        for name, value in epoch.metrics.items():
            summary = scalar(name, value)
            writer.write_event(Event(wall_time=time.time(), step=int(epoch.ts.step), summary=summary))
        writer.flush()

    return callback


class MetricSink(Protocol):
    """A run of Weights & Biases, of trackio, or of anything else that logs as they do."""

    def log(self, data: dict[str, Any], step: int | None = None) -> Any:
        """Take the metrics of one step."""


def run_log(run: MetricSink) -> Callback:
    """Hand the metrics to a run: ``run_log(wandb.init(project="digits"))``; likewise of trackio.

    Raises:
        TypeError: it has no ``log``.
    """
    if not callable(getattr(run, "log", None)):
        raise TypeError(
            f"run_log needs a run with a log, such as wandb.init() gives, got {type(run).__name__}"
        )

    def callback(epoch: Epoch) -> None:
        run.log({"epoch": epoch.number, **epoch.metrics}, step=int(epoch.ts.step))

    return callback


def _json(value: float) -> Any:
    return value if math.isfinite(value) else _NAMES[str(float(value))]


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value
