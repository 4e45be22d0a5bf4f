"""``models.lenet`` and ``optim.adam``."""

from __future__ import annotations

from benchmarks.loops import purenets, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.lenet import RATE
from purenets import models, optim


def contestants(case: Case) -> dict[str, Call]:
    """The model of the library."""
    loop = purenets.loop(models.lenet(), optim.adam(RATE), case.given["weights"])
    return {"make_step": repeated(loop, case.given["batch"])}
