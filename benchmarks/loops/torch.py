"""Torch in eager mode: ``zero_grad``, ``backward``, ``step``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.loops import Loop

__all__ = ["cross_entropy", "device", "fill", "loop", "tensor"]


def device() -> str:
    """That which JAX computes on."""
    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def tensor(array: Any) -> torch.Tensor:
    """A copy on the device; integers as labels and indices want them."""
    found = torch.from_numpy(np.array(array)).to(device())
    return found if found.is_floating_point() else found.long()


def fill(module: torch.nn.Module, weights: Any) -> None:
    """Set the params that the weights name by attribute; kernels are turned to have outputs first."""
    for name, value in weights.items():
        if isinstance(value, dict):
            fill(getattr(module, name), value)
            continue
        array = np.asarray(value)
        if name == "kernel":
            array = array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
        target = module.bias if name == "bias" else module.weight
        with torch.no_grad():
            target.copy_(torch.from_numpy(np.array(array)))


def cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean over all labels."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def loop(
    model: torch.nn.Module,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = cross_entropy,
) -> Loop:
    """A training step of a module; the carry is within it."""
    updates = optimizer([p for p in model.parameters() if p.requires_grad])

    def step(carry: None, batch: Any) -> tuple[None, torch.Tensor]:
        updates.zero_grad(set_to_none=True)
        value = loss(model(batch[0]), batch[1])
        value.backward()
        updates.step()
        return None, value.detach()

    return step, None
