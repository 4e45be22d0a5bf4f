"""Torch in eager mode, channels last in memory."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.loops import repeated
from benchmarks.loops.torch import device, fill, loop, tensor
from benchmarks.protocol import Call, Case
from benchmarks.rows.resnet import DECAY, EPS, MOMENTUM, RATE, flat, sizes, strides


def _conv(n_in: int, n_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPS, momentum=1 - DECAY)


class Block(nn.Module):
    """Two convolutions and the shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = _conv(n_in, n_out, stride), _conv(n_out, n_out, 1)
        self.norm_1, self.norm_2, self.stride = _norm(n_out), _norm(n_out), stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """To the same, or half as large and twice as wide."""
        y = self.norm_2(self.conv_2(F.relu(self.norm_1(self.conv_1(x)))))
        if x.shape != y.shape:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return F.relu(x + y)


class ResNet(nn.Module):
    """The network."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem, self.norm, self.count = _conv(3, 16, 1), _norm(16), len(strides(depth))
        for number, (size, stride) in enumerate(zip(sizes(depth), strides(depth), strict=True), 1):
            setattr(self, f"block_{number}", Block(*size, stride))
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """To logits."""
        x = F.relu(self.norm(self.stem(x)))
        for number in range(1, self.count + 1):
            x = getattr(self, f"block_{number}")(x)
        return self.head(x.mean((2, 3)))


def contestants(case: Case) -> dict[str, Call]:
    """One step."""
    model = ResNet(case.given["depth"]).to(device())
    fill(model, flat(case.given["weights"]))
    model = model.to(memory_format=torch.channels_last)
    x, y = case.given["batch"]
    batch = (tensor(x).permute(0, 3, 1, 2), tensor(y))
    made = loop(model, partial(torch.optim.SGD, lr=RATE, momentum=MOMENTUM, fused=True))
    return {"eager, channels last": repeated(made, batch)}
