"""A sweep is a vmap of runs: every combination of settings and every seed in one program.

A *run* is a pure function ``run(key, **settings) -> result``. Its settings are numbers that may be traced:
rates, decays, dropout-free coefficients, but not sizes, which change shapes. A *member* is one run of a sweep.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from purenets.errors import describe
from purenets.layer import Key

__all__ = ["BatchedRun", "Sweep", "batch_runs", "sweep"]

Run = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep gave. The members with the same settings stand together, seed by seed."""

    settings: dict[str, np.ndarray]
    """The value of each setting, ``[members]``."""
    seed: np.ndarray
    """The number of the seed, ``[members]``."""
    results: Any
    """What the runs returned, each leaf ``[members, ...]``."""

    def member(self, index: int) -> Any:
        """What one run returned."""
        return jax.tree.map(lambda leaf: leaf[index], self.results)

    def rows(self, value: Callable[[Any], Any]) -> list[dict[str, float]]:
        """A row for each combination of settings: they, and mean, deviation and extremes over the seeds.

        ``value(results)`` picks a number for each member, ``[members]``. The deviation is that of 1/(n - 1),
        NaN for a single seed.
        """
        seeds = int(self.seed.max()) + 1
        numbers = np.asarray(value(self.results), np.float64)
        if numbers.shape != self.seed.shape:
            raise ValueError(
                f"a table needs one number for each of {len(self.seed)} members, got {describe(numbers)}"
            )
        rows = []
        for first in range(0, len(numbers), seeds):
            group = numbers[first : first + seeds]
            spread = float(group.std(ddof=1)) if seeds > 1 else math.nan
            measured = {"mean": group.mean(), "deviation": spread, "min": group.min(), "max": group.max()}
            picked = {name: values[first] for name, values in self.settings.items()}
            rows.append({name: float(x) for name, x in {**picked, **measured}.items()})
        return rows

    def table(self, value: Callable[[Any], Any]) -> str:
        """The rows as Markdown."""
        rows = self.rows(value)
        lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---:|" * len(rows[0])]
        lines += ["| " + " | ".join(f"{x:.4g}" for x in row.values()) + " |" for row in rows]
        return "\n".join(lines)

    def figure(self, value: Callable[[Any], Any], *, label: str = "value", log: str | None = None) -> Any:
        """A curve over the one setting that differs or a map over two: :func:`purenets.inspect.plot_sweep`."""
        # Figures look at what trainings give, not the other way, so this is no import of the module's.
        from purenets.inspect.plots import plot_sweep

        return plot_sweep(self, value, label=label, log=log)

    def best(self, value: Callable[[Any], Any], mode: Literal["min", "max"] = "min") -> dict[str, float]:
        """The row with the best mean over its seeds; one with NaN is never best.

        Raises:
            ValueError: every combination has a NaN.
        """
        rows = [row for row in self.rows(value) if not math.isnan(row["mean"])]
        if not rows:
            raise ValueError("no combination of the sweep has a mean that is a number: all of them are NaN")
        return (min if mode == "min" else max)(rows, key=lambda row: row["mean"])


@dataclass(frozen=True, eq=False)
class BatchedRun:
    """Many runs as one program, of :func:`batch_runs`."""

    run: Run
    chunk: int | None = None
    devices: tuple[jax.Device, ...] | None = None
    _programs: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __call__(self, given: Callable[[np.ndarray], Any], members: int) -> Any:
        """The results of all members, whose keys and settings ``given(rows)`` are."""
        if self.devices is not None:
            return self._over_devices(given(np.arange(members)), members, self.devices)
        if jax.default_backend() == "cpu":
            return self._over_cores(given, members)
        everything = given(np.arange(members))
        return self._program(everything, lambda: jax.jit(self._together(self.chunk)))(everything)

    def _together(self, chunk: int | None) -> Callable[[Any], Any]:
        def one(given: tuple[Key, dict[str, jax.Array]]) -> Any:
            return self.run(given[0], **given[1])

        def some(given: Any) -> Any:
            if chunk is None or chunk >= len(given[0]):
                return jax.vmap(one)(given)
            return jax.lax.map(one, given, batch_size=chunk)

        return some

    def _program(self, given: Any, jitted: Callable[[], Any]) -> Any:
        """The compiled program for such keys and settings, made at the first call and then kept."""
        kind = str(jax.tree.map(jax.typeof, given))
        if kind not in self._programs:
            self._programs[kind] = jitted().lower(given).compile()
        return self._programs[kind]

    def _over_devices(self, given: Any, members: int, devices: Sequence[jax.Device]) -> Any:
        if members % len(devices):
            raise ValueError(f"{len(devices)} devices do not divide the {members} members of the sweep")
        # Axes that JAX shards by itself, so that the results can be indexed like any array.
        mesh = jax.make_mesh((len(devices),), ("members",), (AxisType.Auto,), devices=list(devices))
        spec = PartitionSpec("members")
        given = jax.device_put(given, NamedSharding(mesh, spec))

        def spread() -> Any:
            some = self._together(self.chunk)
            return jax.jit(jax.shard_map(some, mesh=mesh, in_specs=(spec,), out_specs=spec, check_vma=False))

        return self._program(given, spread)(given)

    def _over_cores(self, given: Callable[[np.ndarray], Any], members: int) -> Any:
        """One program, run at once for a share of the members by each core.

        XLA's CPU backend spreads one operation over all cores and waits for them before the next, which the
        small operations of a sweep are not worth; threads that each run whole members do not wait for each
        other.
        """
        cores = min(_cores(), members, self.chunk or members)
        size = math.ceil(members / cores)
        # A last share that is not full runs the last member again, since another size would be another program.
        rows = np.minimum(np.arange(math.ceil(members / size) * size), members - 1).reshape(-1, size)
        shares = [given(share) for share in rows]
        chunk = None if self.chunk is None else self.chunk // cores
        program = self._program(shares[0], lambda: jax.jit(self._together(chunk)))
        if len(shares) == 1:
            return program(shares[0])
        with ThreadPoolExecutor(len(shares)) as pool:
            found = list(pool.map(lambda share: jax.block_until_ready(program(share)), shares))
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:members], *found)


def batch_runs(
    run: Run, *, chunk: int | None = None, devices: Sequence[jax.Device] | None = None
) -> BatchedRun:
    """A run that :func:`sweep` takes again and again without compiling again, as a search in rounds wants.

    Args:
        run: ``run(key, **settings) -> result``, pure; settings come as traced scalars.
        chunk: members to run at once, the others after them, where memory is short; all by default.
        devices: devices to spread the members over; their number divides that of the members.

    Raises:
        ValueError: ``chunk`` is not positive.

    >>> doubled = batch_runs(lambda key, rate: 2 * rate)
    >>> [sweep(doubled, {"rate": rates}).results.tolist() for rates in ([1.0, 2.0], [3.0, 4.0])]
    [[2.0, 4.0], [6.0, 8.0]]
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"a sweep needs a chunk of 1 at least, got chunk={chunk}")
    return BatchedRun(run, chunk, None if devices is None else tuple(devices))


def sweep(
    run: Run | BatchedRun,
    over: Mapping[str, Sequence[float] | np.ndarray | jax.Array] | None = None,
    *,
    seeds: int = 1,
    key: Key | None = None,
    paired: bool = False,
    chunk: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Sweep:
    """Run every combination of settings with every seed, in one program.

    On CPU each core runs that program for its share of the members; elsewhere all members are one batch.

    Args:
        run: ``run(key, **settings) -> result``, pure; settings come as traced scalars. Or one of
            :func:`batch_runs`, which keeps its program from sweep to sweep.
        over: the values of each setting, all combinations of which are run.
        seeds: how many keys; seed i has the same key with all settings, ``split(key, seeds)[i]``.
        key: where the keys come from, ``jax.random.key(0)`` by default.
        paired: run the i-th values of all settings together instead, for values drawn at random.
        chunk: members to run at once, the others after them, where memory is short; all by default.
        devices: devices to spread the members over; their number divides that of the members.

    Returns:
        A :class:`Sweep`, on the host but for its results.

    Raises:
        ValueError: a setting has no values; under ``paired`` their numbers differ; ``seeds`` or ``chunk`` is
            not positive; or the devices do not divide the members.

    >>> def run(key, rate):
    ...     return rate * 2 + jax.random.uniform(key) * 0
    >>> sweep(run, {"rate": [0.1, 0.2]}, seeds=2).results.tolist() == np.float32([0.2, 0.2, 0.4, 0.4]).tolist()
    True
    """
    if seeds < 1:
        raise ValueError(f"a sweep needs 1 seed at least, got seeds={seeds}")
    if isinstance(run, BatchedRun):
        if chunk is not None or devices is not None:
            raise ValueError("a batched run has its chunk and devices already: give them to batch_runs")
        runs = run
    else:
        runs = batch_runs(run, chunk=chunk, devices=devices)
    points = _points(over or {}, paired)
    count = len(next(iter(points.values()))) if points else 1
    settings = {name: np.repeat(values, seeds) for name, values in points.items()}
    members = count * seeds
    keys = jax.random.split(jax.random.key(0) if key is None else key, seeds)
    index = np.tile(np.arange(seeds), count)

    def given(rows: np.ndarray) -> Any:
        # Deliberately one key for several members, which indexing would report as reuse.
        repeated = jax.random.wrap_key_data(
            jax.random.key_data(keys)[index[rows]], impl=jax.random.key_impl(keys)
        )
        return repeated, {name: jnp.asarray(values[rows]) for name, values in settings.items()}

    return Sweep(settings, index, runs(given, members))


def _cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _points(over: Mapping[str, Any], paired: bool) -> dict[str, np.ndarray]:
    """The values of each setting, ``[points]``."""
    values = {name: np.atleast_1d(np.asarray(given)) for name, given in over.items()}
    for name, given in values.items():
        if given.ndim != 1 or not len(given):
            raise ValueError(f"setting {name!r} of a sweep needs a list of values, got {describe(given)}")
    if paired:
        counts = {name: len(given) for name, given in values.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"paired settings need one number of values, got {counts}")
        return values
    grid = itertools.product(*(range(len(given)) for given in values.values()))
    places = np.array(list(grid), int).reshape(-1, len(values)) if values else np.zeros((1, 0), int)
    return {name: given[places[:, i]] for i, (name, given) in enumerate(values.items())}
