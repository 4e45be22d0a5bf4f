"""Torch in eager mode."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.loops.torch import device as device_of
from benchmarks.loops.torch import fill, loop, tensor
from benchmarks.protocol import Call, Case
from benchmarks.rows.mlp import BATCH, RATE, SIZES


class MLP(nn.Module):
    """The network."""

    def __init__(self) -> None:
        super().__init__()
        self.dense_1, self.dense_2, self.dense_3 = (nn.Linear(n_in, n_out) for n_in, n_out in pairwise(SIZES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """To logits."""
        return self.dense_3(torch.sigmoid(self.dense_2(torch.sigmoid(self.dense_1(x)))))


def contestants(case: Case) -> dict[str, Call]:
    """Batches are views of the data, or gathered by a permutation."""
    model = MLP().to(device_of())
    fill(model, case.given["weights"])
    step, _ = loop(model, partial(torch.optim.SGD, lr=RATE))
    x, y = tensor(case.given["x"]), tensor(np.asarray(case.given["y"]))
    steps = len(x) // BATCH

    def call() -> Any:
        if case.given["shuffle"]:
            order = torch.randperm(len(x), device=x.device)[: steps * BATCH].split(BATCH)
            return [step(None, (x[chosen], y[chosen]))[1] for chosen in order]
        cuts = zip(x.split(BATCH)[:steps], y.split(BATCH)[:steps], strict=True)
        return [step(None, batch)[1] for batch in cuts]

    return {"eager": call}
