"""Optax."""

from __future__ import annotations

import optax

from benchmarks.protocol import Call, Case
from benchmarks.rows.optimizer import of_library


def contestants(case: Case) -> dict[str, Call]:
    """The method of the case."""
    return {"update": of_library(case, optax)}
