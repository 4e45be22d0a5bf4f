"""Torch's ``nn.LSTM``; of its two biases one is held at zero, so that there is one as elsewhere."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.loops import repeated
from benchmarks.loops.torch import device, loop, tensor
from benchmarks.protocol import Call, Case
from benchmarks.rows.lstm import RATE


class LSTM(nn.Module):
    """The outputs alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, size, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All outputs."""
        return self.lstm(x)[0]


def contestants(case: Case) -> dict[str, Call]:
    """One step."""
    model, weights = LSTM(case.given["size"]).to(device()), case.given["weights"]
    with torch.no_grad():
        model.lstm.weight_ih_l0.copy_(tensor(weights["kernel"]).T)
        model.lstm.weight_hh_l0.copy_(tensor(weights["recurrent_kernel"]).T)
        model.lstm.bias_ih_l0.copy_(tensor(weights["bias"]))
        model.lstm.bias_hh_l0.zero_()
    model.lstm.bias_hh_l0.requires_grad_(False)
    batch = tuple(map(tensor, case.given["batch"]))
    return {"eager": repeated(loop(model, partial(torch.optim.SGD, lr=RATE), F.mse_loss), batch)}
