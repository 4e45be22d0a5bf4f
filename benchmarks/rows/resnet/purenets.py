"""``models.resnet_cifar`` and ``optim.sgd``."""

from __future__ import annotations

from benchmarks.loops import purenets, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.resnet import MOMENTUM, RATE
from purenets import models, optim


def contestants(case: Case) -> dict[str, Call]:
    """The model of the library."""
    model = models.resnet_cifar(case.given["depth"])
    loop = purenets.loop(model, optim.sgd(RATE, momentum=MOMENTUM), case.given["weights"])
    return {"make_step": repeated(loop, case.given["batch"])}
