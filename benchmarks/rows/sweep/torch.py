"""Torch: ``torch.func.vmap`` of the gradient over stacked weights; these are drawn before the time is taken."""

from __future__ import annotations

from typing import Any

import jax
import torch
import torch.nn.functional as F
from torch.func import grad_and_value, vmap

from benchmarks.loops.torch import tensor
from benchmarks.protocol import Call, Case
from benchmarks.rows.sweep import BATCH, init, members


def _loss(p: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    for name in ("dense_1", "dense_2"):
        x = torch.sigmoid(x @ p[name]["kernel"] + p[name]["bias"])
    return F.cross_entropy(x @ p["dense_3"]["kernel"] + p["dense_3"]["bias"], y)


def contestants(case: Case) -> dict[str, Call]:
    """One form."""
    shuffle = case.given["shuffle"]
    keys, rates = members(case)
    weights = jax.tree.map(tensor, jax.jit(jax.vmap(init))(keys))
    x, y, rates = tensor(case.given["x"]), tensor(case.given["y"]), tensor(rates)
    steps, own = len(x) // BATCH, 0 if shuffle else None
    gradient = vmap(grad_and_value(_loss), in_dims=(0, own, own))

    def call() -> torch.Tensor:
        params, total = weights, torch.zeros(len(rates), device=x.device)
        order = torch.rand(len(rates), len(x), device=x.device).argsort(1) if shuffle else None
        for number in range(steps):
            cut = slice(number * BATCH, (number + 1) * BATCH)
            chosen = cut if order is None else order[:, cut]
            grads, values = gradient(params, x[chosen], y[chosen])
            params = {
                name: {
                    leaf: p - rates.view(-1, *(1,) * (p.ndim - 1)) * grads[name][leaf]
                    for leaf, p in part.items()
                }
                for name, part in params.items()
            }
            total = total + values / steps
        return total

    return {"torch.func.vmap of the step": call}
