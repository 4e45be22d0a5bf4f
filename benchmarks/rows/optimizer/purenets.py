"""``purenets.optim``."""

from __future__ import annotations

from typing import Any

from benchmarks.protocol import Call, Case
from benchmarks.rows.optimizer import DECAY, RATE, updates
from purenets import optim


def contestants(case: Case) -> dict[str, Call]:
    """The method of the case."""
    optimizer = {
        "adam": lambda: optim.adam(RATE),
        "adamw": lambda: optim.adamw(RATE, weight_decay=DECAY),
        "momentum": lambda: optim.sgd(RATE, momentum=0.9),
        "nadam": lambda: optim.nadam(RATE),
    }[case.given["method"]]()

    def update(params: Any, state: Any, gradients: Any) -> Any:
        change, state = optimizer.update(gradients, state, params)
        return optim.apply_updates(params, change), state

    return {"update": updates(case, optimizer.init, update)}
