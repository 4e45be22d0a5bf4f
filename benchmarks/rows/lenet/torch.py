"""Torch in eager mode, channels last in memory, with the fused Adam."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.loops import repeated
from benchmarks.loops.torch import device, fill, loop, tensor
from benchmarks.protocol import Call, Case
from benchmarks.rows.lenet import RATE, channels_first


class LeNet(nn.Module):
    """The network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.dense_1, self.dense_2, self.head = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """To logits."""
        x = F.max_pool2d(F.relu(self.conv_1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv_2(x)), 2)
        x = F.relu(self.dense_1(x.flatten(1)))
        return self.head(F.relu(self.dense_2(x)))


def contestants(case: Case) -> dict[str, Call]:
    """One step."""
    model = LeNet().to(device())
    fill(model, channels_first(case.given["weights"]))
    model = model.to(memory_format=torch.channels_last)
    x, y = case.given["batch"]
    batch = (tensor(x).permute(0, 3, 1, 2), tensor(y))
    made = loop(model, partial(torch.optim.Adam, lr=RATE, fused=True))
    return {"eager, channels last": repeated(made, batch)}
