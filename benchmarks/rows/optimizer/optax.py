"""Optax."""

from __future__ import annotations

from typing import Any

import optax

from benchmarks.protocol import Call, Case
from benchmarks.rows.optimizer import DECAY, RATE, updates


def contestants(case: Case) -> dict[str, Call]:
    """The method of the case."""
    optimizer = {
        "adam": lambda: optax.adam(RATE),
        "adamw": lambda: optax.adamw(RATE, weight_decay=DECAY),
        "momentum": lambda: optax.sgd(RATE, momentum=0.9),
        "nadam": lambda: optax.nadam(RATE),
    }[case.given["method"]]()

    def update(params: Any, state: Any, gradients: Any) -> Any:
        change, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, change), state

    return {"update": updates(case, optimizer.init, update)}
