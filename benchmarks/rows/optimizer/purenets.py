"""``purenets.optim``, leaf by leaf."""

from __future__ import annotations

from typing import Any

from benchmarks.protocol import Call, Case
from benchmarks.rows.optimizer import optimizer_of, updates
from purenets import optim


def contestants(case: Case) -> dict[str, Call]:
    """The method of the case."""
    optimizer = optimizer_of(case, optim)

    def update(params: Any, state: Any, gradients: Any) -> Any:
        return optim.update_params(optimizer, gradients, state, params)

    return {"update_params": updates(case, optimizer.init, update)}
