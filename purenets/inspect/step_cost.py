"""What a step costs in time and memory on this machine: measured seconds, and the bytes that XLA has planned."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from purenets.inspect.cost import flops
from purenets.inspect.table import text_table
from purenets.train.step import Step, TrainState

__all__ = ["StepCost", "step_cost"]


@dataclass(frozen=True)
class StepCost:
    """What :func:`step_cost` measured; ``str`` makes a table of it."""

    trace_seconds: float
    """To run the Python of the step once."""
    compile_seconds: float
    """To make a program of it; little where the program was in JAX's cache on disk."""
    step_seconds: float
    """One step of many one after another: the median over rounds."""
    flops: int
    """Floating-point operations of a step, by :mod:`purenets.inspect.cost`."""
    held: dict[str, int]
    """Bytes of params, model state, optimizer state and batch."""
    argument_bytes: int
    output_bytes: int
    """Without what takes the place of an argument."""
    temporary_bytes: int
    """For what is computed on the way, activations above all."""

    @property
    def peak_bytes(self) -> int:
        """The most that the step needs at once, of one device."""
        return self.argument_bytes + self.output_bytes + self.temporary_bytes

    @property
    def flops_per_second(self) -> float:
        """What the machine reached."""
        return self.flops / self.step_seconds

    def __str__(self) -> str:
        rows = [
            ("trace", f"{self.trace_seconds:.3g} s"),
            ("compile", f"{self.compile_seconds:.3g} s"),
            ("step", f"{self.step_seconds:.3g} s"),
            ("operations", f"{self.flops:,}"),
            ("operations per second", f"{self.flops_per_second:.3g}"),
            *((name, f"{size:,} bytes") for name, size in self.held.items()),
            ("arguments", f"{self.argument_bytes:,} bytes"),
            ("outputs beside them", f"{self.output_bytes:,} bytes"),
            ("temporaries", f"{self.temporary_bytes:,} bytes"),
            ("peak", f"{self.peak_bytes:,} bytes"),
        ]
        return text_table(("of a step", "cost"), rows, right=("cost",))


def step_cost(step: Step, ts: TrainState, batch: Any, *, steps: int = 20, rounds: int = 3) -> StepCost:
    """Compile a step, take ``rounds`` times ``steps`` of them, and report time and memory.

    The TrainState is donated from step to step, as in ``fit``; the one that is given is copied first. Bytes are
    those of one device, as XLA's memory analysis has them.

    Args:
        step: ``(ts, batch) -> (ts, metrics)``.
        ts: where to start.
        batch: what every step is given.
        steps: how many to take without waiting for one; few of them measure the waiting as well.
        rounds: how often to do so.

    Raises:
        ValueError: ``steps`` or ``rounds`` is less than 1.
    """
    if steps < 1 or rounds < 1:
        raise ValueError(f"step_cost needs at least 1 step and 1 round, got {steps} and {rounds}")
    begin = time.perf_counter()
    traced = jax.jit(step, donate_argnums=0).trace(ts, batch)
    middle = time.perf_counter()
    compiled = traced.lower().compile()
    end = time.perf_counter()
    ts = jax.block_until_ready(jax.tree.map(jnp.copy, ts))
    batch = jax.tree.map(jnp.asarray, batch)
    held = {"params": ts.params, "model state": ts.state, "optimizer state": ts.opt_state, "batch": batch}
    # The first step may still allocate.
    ts, _ = jax.block_until_ready(compiled(ts, batch))
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            ts, _ = compiled(ts, batch)
        jax.block_until_ready(ts)
        seconds.append((time.perf_counter() - start) / steps)
    memory = compiled.memory_analysis()
    return StepCost(
        trace_seconds=middle - begin,
        compile_seconds=end - middle,
        step_seconds=statistics.median(seconds),
        flops=flops(step, ts, batch),
        held={name: _bytes(tree) for name, tree in held.items()},
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
    )


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
