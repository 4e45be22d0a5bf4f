"""One update of 10 million parameters in 200 leaves by Adam, AdamW, momentum and Nadam.

The update and its application to the parameters, on given gradients, in one jitted program that donates parameters and
state. Compared are all parameters after each of three updates. This is bound by memory: Adam reads parameters,
gradients and two averages and writes three of them. Nadam has no torch, whose rule of that name is another one (its
momentum follows a schedule); Flax, Haiku and Equinox run optax here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.protocol import Call, Case, Scale

TITLE = "Optimizer update"
RATE, DECAY = 1e-3, 1e-2
_SHAPES = {"tiny": (3, 5), "small": (200, 50_000), "full": (200, 2_000_000)}
METHODS = {"adam": "Adam", "adamw": "AdamW", "momentum": "Momentum", "nadam": "Nadam"}


def cases(scale: Scale) -> Iterator[Case]:
    """One for each method."""
    leaves, size = _SHAPES[scale]
    for method, title in METHODS.items():
        given = {"method": method, "leaves": leaves, "size": size}
        yield Case(f"optimizer-{method}", f"{title}, an update", given, rounds=25, calls=3, seconds=25)


def tree(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Parameters or gradients."""
    rng = np.random.default_rng(seed)
    size = case.given["size"]
    return {f"leaf_{i:03d}": rng.standard_normal(size, np.float32) for i in range(case.given["leaves"])}


def optimizer_of(case: Case, library: Any) -> Any:
    """The method of the case, from a module with the names of optax."""
    return {
        "adam": lambda: library.adam(RATE),
        "adamw": lambda: library.adamw(RATE, weight_decay=DECAY),
        "momentum": lambda: library.sgd(RATE, momentum=0.9),
        "nadam": lambda: library.nadam(RATE),
    }[case.given["method"]]()


def updates(case: Case, init: Callable[[Any], Any], update: Callable[[Any, Any, Any], Any]) -> Call:
    """Updates by ``update(params, state, gradients) -> (params, state)``, again and again."""
    params, gradients = (jax.tree.map(jnp.asarray, tree(case, seed)) for seed in (0, 1))
    held = [(params, init(params))]
    del params

    @partial(jax.jit, donate_argnums=0)
    def step(carry: Any, gradients: Any) -> Any:
        return update(*carry, gradients)

    def call() -> Any:
        held[0] = step(held[0], gradients)
        return held[0][0]

    return call
