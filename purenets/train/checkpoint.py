"""Checkpoints of a whole training, by Orbax: written while training goes on, whole or not at all.

::

    ts, history = pn.fit(step, ts, data, epochs=20, batch_size=128, checkpoints=Checkpoints("runs/a"), resume=True)

The order of the data follows from the key and the number of the step, which are part of the TrainState. So a training
that was stopped at any moment and resumed ends bit for bit where it would have ended.

Beside each checkpoint stands a *manifest* with the versions it was written with, the shape and dtype of every leaf, and
the hash of every file, by which a damaged one is found and named.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from purenets.paths import path_of
from purenets.train.keys import without_keys
from purenets.train.step import TrainState
from purenets.version import __version__

__all__ = ["Checkpoints"]


class Checkpoints:
    """A folder of checkpoints, numbered by the epochs that were done; many processes share one folder.

    Args:
        folder: where they go; it is made.
        every: epochs from one to the next.
        keep: how many of the latest stay.
        best: a metric; the checkpoint with the best value stays as well.
        mode: whether small or large is best.

    Raises:
        ImportError: Orbax is not installed.
        ValueError: a number is not positive.
        OSError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int = 1,
        keep: int = 3,
        best: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if every < 1 or keep < 1:
            raise ValueError(f"Checkpoints needs every and keep of at least 1, got {every} and {keep}")
        try:
            import orbax.checkpoint as ocp  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError("Checkpoints needs Orbax: pip install orbax-checkpoint") from error
        from orbax.checkpoint.checkpoint_managers import (  # type: ignore[import-untyped]
            AnyPreservationPolicy,
            BestN,
            LatestN,
        )

        self.folder, self.every, self.best = Path(folder).expanduser().absolute(), every, best
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "manifests").mkdir(exist_ok=True)
        kept: list[Any] = [LatestN(keep)]
        if best is not None:
            kept.append(BestN(get_metric_fn=lambda metrics: metrics[best], reverse=mode == "min", n=1))
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            self.folder / "epochs",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(kept), create=True
            ),
        )
        self._pending: dict[int, Any] = {}

    def check_writable(self) -> None:
        """Find out before a training whether anything can be saved at all.

        Raises:
            OSError: the folder cannot be written.
        """
        with tempfile.TemporaryFile(dir=self.folder / "manifests"):
            pass

    def due(self, epochs: int, last: bool) -> bool:
        """Whether to save after so many epochs."""
        return last or epochs % self.every == 0

    def save(
        self,
        epochs: int,
        ts: TrainState,
        metrics: Mapping[str, float],
        *,
        order: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin to write the state after ``epochs``; training may go on meanwhile.

        Args:
            epochs: its number.
            ts: the state.
            metrics: of the epoch, among them ``best``.
            order: what the order of the data follows from, as JSON, to be held against that of who goes on.

        Raises:
            ValueError: there is no such metric as ``best``.
            OSError: the last one could not be written, on a full disk for instance; earlier ones are untouched.
        """
        if self.best is not None and self.best not in metrics:
            raise ValueError(
                f"Checkpoints keeps the best {self.best!r}, but the metrics are {sorted(metrics)}"
            )
        self.wait()
        try:
            self.check_writable()  # where a folder cannot be made, Orbax waits for minutes
        except OSError as error:
            raise self._unwritten(epochs, error) from error
        bare, _ = without_keys(ts)
        args = self._ocp.args.StandardSave(_flat(bare))
        self._manager.save(epochs, args=args, metrics={name: float(value) for name, value in metrics.items()})
        leaves = {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in _flat(bare).items()}
        self._pending[epochs] = {"leaves": leaves} | ({} if order is None else {"order": dict(order)})

    def wait(self) -> None:
        """Until all is on disk, with its manifest.

        Raises:
            OSError: as :meth:`save`.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            lost = ", ".join(map(str, self._pending))
            self._pending.clear()
            raise self._unwritten(lost, error) from error
        if jax.process_index() == 0:
            self._write_manifests()
        self._pending.clear()

    def _unwritten(self, lost: Any, error: Exception) -> OSError:
        return OSError(
            f"the checkpoint after {lost} epochs could not be written to {self.folder}: "
            f"{str(error).splitlines()[0]}; whole ones are there after {self.epochs() or 'none'}: make room, or "
            "make it writable, and go on with fit(resume=True)"
        )

    def _write_manifests(self) -> None:
        for epochs, told in self._pending.items():
            versions = {name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint")}
            versions["purenets"] = __version__
            record = {**told, "versions": versions, "files": self._hashes(epochs)}
            part = self._manifest(epochs).with_suffix(".part")
            part.write_text(json.dumps(record))
            part.replace(self._manifest(epochs))
        for manifest in (self.folder / "manifests").glob("*.json"):
            if int(manifest.stem) not in self._manager.all_steps():
                manifest.unlink()

    def epochs(self) -> list[int]:
        """After how many epochs there are whole checkpoints, ascending."""
        return sorted(step for step in self._manager.all_steps() if self._manifest(step).is_file())

    def restore(
        self, like: TrainState, epochs: int | None = None, *, order: Mapping[str, Any] | None = None
    ) -> TrainState:
        """The state after ``epochs``, the latest by default, placed as ``like`` is.

        Args:
            like: a TrainState of the same step, of arrays or ``ShapeDtypeStruct``, whose shardings may be others
                than those it was saved with.
            epochs: which.
            order: what the order of the data follows from now; it must be what it was saved with, if that is known.

        Raises:
            FileNotFoundError: there is none, or not that one.
            ValueError: a file is damaged or missing, a leaf has another shape or dtype, or the order of the data is
                another; the message has its path, or both orders. Nothing is changed then.
        """
        there = self.epochs()
        chosen = epochs if epochs is not None else (there[-1] if there else None)
        if chosen not in there:
            after = "" if chosen is None else f" after {chosen} epochs"
            raise FileNotFoundError(
                f"no whole checkpoint{after} in {self.folder}; there are {there or 'none'}"
            )
        record = self._record(chosen)
        self._check_files(chosen, record["files"])
        if order is not None:
            _check_order(self.folder, record.get("order", order), order)
        bare, keyed = without_keys(like)
        wanted = _flat(bare)
        _check_leaves(self.folder, record["leaves"], wanted)
        target = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))
            for path, leaf in wanted.items()
        }
        found = self._manager.restore(chosen, args=self._ocp.args.StandardRestore(target))
        return keyed(
            jax.tree.unflatten(jax.tree.structure(bare), [jnp.asarray(found[path]) for path in wanted])
        )

    def _manifest(self, epochs: int) -> Path:
        return self.folder / "manifests" / f"{epochs}.json"

    def _hashes(self, epochs: int) -> dict[str, str]:
        root = self.folder / "epochs" / str(epochs)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def _check_files(self, epochs: int, expected: dict[str, str]) -> None:
        found = self._hashes(epochs)
        for name, digest in expected.items():
            if found.get(name) != digest:
                state = "damaged" if name in found else "missing"
                raise self._not_whole(epochs, f"{name} is {state}")

    def _record(self, epochs: int) -> dict[str, Any]:
        file = self._manifest(epochs)
        try:
            record = json.loads(file.read_text())
            return {**record, "files": dict(record["files"]), "leaves": dict(record["leaves"])}
        except (ValueError, KeyError, TypeError) as error:
            raise self._not_whole(epochs, f"its manifest {file.name} is damaged") from error

    def _not_whole(self, epochs: int, why: str) -> ValueError:
        error = ValueError(f"the checkpoint after {epochs} epochs in {self.folder} is not whole: {why}")
        error.add_note(f"others there are: {[step for step in self.epochs() if step != epochs]}")
        error.add_note(f"to go on from one before, delete {self.folder / 'epochs' / str(epochs)}")
        return error


def _flat(tree: Any) -> dict[str, Any]:
    """Path to leaf, in the order of the tree."""
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _check_order(folder: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [name for name in now if saved.get(name) != now[name]]
    if differing:
        lines = [f"{name} {saved.get(name)} there and {now[name]} here" for name in differing]
        error = ValueError(
            f"the checkpoint in {folder} is of a training with another order of the data: {', '.join(lines)}"
        )
        error.add_note(
            "to go on with another, restore the state by Checkpoints.restore and fit in a new folder"
        )
        raise error


def _check_leaves(folder: Path, saved: dict[str, list[Any]], wanted: dict[str, Any]) -> None:
    lines = [f"{path} is missing" for path in wanted if path not in saved]
    lines += [f"{path} is there, and not wanted" for path in saved if path not in wanted]
    for path, leaf in wanted.items():
        if path in saved and saved[path] != [list(leaf.shape), str(leaf.dtype)]:
            shape, dtype = saved[path]
            lines.append(f"{path} is {dtype}{shape}, wanted {leaf.dtype}{list(leaf.shape)}")
    if lines:
        error = ValueError(f"the checkpoint in {folder} is of another training: " + "; ".join(lines[:8]))
        error.add_note("the model, the optimizer and trainable must be those that it was saved with")
        raise error
