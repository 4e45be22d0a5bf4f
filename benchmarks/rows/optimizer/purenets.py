"""``purenets.optim``."""

from __future__ import annotations

from benchmarks.protocol import Call, Case
from benchmarks.rows.optimizer import of_library
from purenets import optim


def contestants(case: Case) -> dict[str, Call]:
    """The method of the case."""
    return {"update": of_library(case, optim)}
