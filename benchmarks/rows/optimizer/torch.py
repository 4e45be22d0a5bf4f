"""Torch's own optimizers, fused and for each."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.loops.torch import tensor
from benchmarks.protocol import Call, Case
from benchmarks.rows.optimizer import DECAY, RATE, tree


def contestants(case: Case) -> dict[str, Call]:
    """The method of the case, where torch has the same."""
    kind, settings = {
        "adam": (torch.optim.Adam, {}),
        "adamw": (torch.optim.AdamW, {"weight_decay": DECAY}),
        "momentum": (torch.optim.SGD, {"momentum": 0.9}),
        "nadam": (None, {}),
    }[case.given["method"]]
    if kind is None:
        return {}

    def made(**form: Any) -> Call:
        params = [tensor(leaf).requires_grad_() for leaf in tree(case, 0).values()]
        for param, gradient in zip(params, tree(case, 1).values(), strict=True):
            param.grad = tensor(gradient)
        optimizer = kind(params, lr=RATE, **settings, **form)

        def call() -> Any:
            optimizer.step()
            return params

        return call

    return {"fused": made(fused=True), "foreach": made(foreach=True)}
