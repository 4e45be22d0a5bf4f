"""Torch in eager mode, with the update of all leaves in one kernel."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.loops import repeated
from benchmarks.loops.torch import loop, tensor
from benchmarks.protocol import Call, Case
from benchmarks.rows.dispatch import RATE


class Leaves(nn.Module):
    """Many parameters."""

    def __init__(self, weights: Any) -> None:
        super().__init__()
        self.leaves = nn.ParameterList([tensor(leaf) for leaf in weights.values()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All of them."""
        return x * torch.stack(list(self.leaves))


def contestants(case: Case) -> dict[str, Call]:
    """One step."""
    batch = tuple(map(tensor, case.given["batch"]))
    loss = lambda output, y: F.mse_loss(output, y.expand_as(output))
    made = loop(Leaves(case.given["weights"]), partial(torch.optim.SGD, lr=RATE, fused=True), loss)
    return {"eager": repeated(made, batch)}
