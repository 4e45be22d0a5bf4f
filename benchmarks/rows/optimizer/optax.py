"""Optax."""

from __future__ import annotations

from typing import Any

import optax

from benchmarks.protocol import Call, Case
from benchmarks.rows.optimizer import optimizer_of, updates


def contestants(case: Case) -> dict[str, Call]:
    """The method of the case."""
    optimizer = optimizer_of(case, optax)

    def update(params: Any, state: Any, gradients: Any) -> Any:
        change, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, change), state

    return {"update": updates(case, optimizer.init, update)}
