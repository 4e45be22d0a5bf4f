"""Contestants in turn, round by round; what counts is the ratio within a round.

A machine's speed drifts, so absolute times say little. Each round times every contestant once, in a
random order. The ratio of two contestants is the median over the rounds of the ratios of their times in the same round,
with the middle half of them.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from benchmarks.protocol import Call

__all__ = ["disagreements", "numbers", "ratio", "take_turns", "wait"]

Name = TypeVar("Name", bound=Hashable)


def wait(result: Any) -> None:
    """Wait until what a call returned has been computed."""
    jax.block_until_ready(result)
    for leaf in jax.tree.leaves(result):
        if getattr(leaf, "is_cuda", False):
            import torch

            torch.cuda.synchronize()
            return


def numbers(result: Any) -> np.ndarray:
    """All numbers of a result, of JAX or of torch, in the order of its leaves."""

    def flat(leaf: Any) -> np.ndarray:
        leaf = leaf.detach().cpu() if hasattr(leaf, "detach") else leaf
        return np.asarray(leaf, np.float64).ravel()

    return np.concatenate([flat(leaf) for leaf in jax.tree.leaves(result)])


def disagreements(
    calls: Mapping[Name, Call], reference: Name, count: int, tolerance: float
) -> dict[Name, str]:
    """Who differs from the reference in the numbers of its first ``count`` calls, and by how much.

    The difference allowed is ``tolerance``, relative to the reference where that is beyond 1.
    """
    expected = [numbers(calls[reference]()) for _ in range(count)]
    found: dict[Name, str] = {}
    for name, call in calls.items():
        if name == reference:
            continue
        for number, right in enumerate(expected):
            got = numbers(call())
            if got.shape != right.shape:
                found[name] = f"{got.size} numbers where {reference} has {right.size}"
                break
            # Written so that NaN differs.
            near = np.abs(got - right) <= tolerance * np.maximum(1, np.abs(right))
            if not near.all():
                place = int(np.argmin(near))
                found[name] = f"call {number + 1}: {got[place]:.7g} where {reference} has {right[place]:.7g}"
                break
    return found


def take_turns(
    calls: Mapping[Name, Call],
    *,
    rounds: int,
    repeats: int = 1,
    seconds: float = math.inf,
    before: Callable[[], object] = lambda: None,
    told: Callable[[int], object] = lambda number: None,
) -> dict[Name, list[float]]:
    """Seconds a call for each round and contestant.

    Each time is that of ``repeats`` calls in a row, the last of which is waited for. ``before`` is called, untimed,
    before each; ``told`` after each round with its number. After five rounds, none is begun that is likely to end
    later than ``seconds`` after the first.
    """
    names = list(calls)
    times: dict[Name, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        for number in range(rounds):
            if number >= 5 and (time.perf_counter() - began) * (number + 1) / number > seconds:
                break
            # In a fixed order, or one that rotates, everyone would always follow the same other.
            for place in np.random.default_rng(number).permutation(len(names)):
                name = names[place]
                call = calls[name]
                before()
                # Threads of the one before, such as those of OpenMP, wait for more work in a busy loop for a while.
                time.sleep(0.02)
                started = time.perf_counter()
                for _ in range(repeats):
                    result = call()
                wait(result)
                times[name].append((time.perf_counter() - started) / repeats)
                del result
            told(number + 1)
    finally:
        gc.enable()
    return times


def ratio(times: list[float], base: list[float]) -> tuple[float, float, float]:
    """The median of the ratios within a round, and the ends of their middle half."""
    low, middle, high = np.quantile(np.array(times) / np.array(base), [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)
