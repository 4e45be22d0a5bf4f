"""torch's optimizers as references: ``torch:Adam`` and the others, where torch is installed.

Each factory takes hyperparameters by optax's names and defaults them as torch does. At every update the gradients
are put into a torch optimizer, and what it adds to the parameters is the update. Its parameters are zero then, where
they do not matter to the rule, since a small update is lost in the rounding of a large parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from purenets.conform.oracles.rule import Oracle

__all__ = ["TORCH", "reference"]


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError("the reference is torch's, and torch is not installed: pip install torch") from None
    return torch


def _oracle(name: str, **options: Any) -> Oracle:
    torch = _torch()
    plain = {key: float(x) if isinstance(x, (float, np.floating)) else x for key, x in options.items()}

    def init(params: dict[str, Any]) -> Any:
        tensors = {path: torch.nn.Parameter(torch.from_numpy(np.array(p))) for path, p in params.items()}
        return tensors, getattr(torch.optim, name)(list(tensors.values()), foreach=False, **plain)

    def update(grads: dict[str, Any], state: Any, params: dict[str, Any] | None = None) -> Any:
        tensors, optimizer = state
        out = {}
        with torch.no_grad():
            for path, tensor in tensors.items():
                if not options.get("weight_decay"):
                    tensor.zero_()
                elif params is not None:
                    tensor.copy_(torch.from_numpy(np.array(params[path])))
                tensor.grad = torch.from_numpy(np.array(grads[path]))
            before = {path: tensor.detach().clone() for path, tensor in tensors.items()}
            optimizer.step()
            for path, tensor in tensors.items():
                out[path] = (tensor - before[path]).numpy().copy()
        return out, state

    return Oracle(init, update)


def _constant(rate: Any) -> float:
    if callable(rate):
        raise TypeError("torch schedules rates outside of its optimizers")
    return float(rate)


def _sgd(learning_rate: Any, momentum: float | None = None, nesterov: bool = False) -> Oracle:
    return _oracle("SGD", lr=_constant(learning_rate), momentum=momentum or 0.0, nesterov=nesterov)


def _adam(learning_rate: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Oracle:
    return _oracle("Adam", lr=_constant(learning_rate), betas=(b1, b2), eps=eps)


def _amsgrad(learning_rate: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Oracle:
    return _oracle("Adam", lr=_constant(learning_rate), betas=(b1, b2), eps=eps, amsgrad=True)


def _adamw(
    learning_rate: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-2
) -> Oracle:
    rate = _constant(learning_rate)
    return _oracle("AdamW", lr=rate, betas=(b1, b2), eps=eps, weight_decay=weight_decay)


def _nadam(learning_rate: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Oracle:
    return _oracle("NAdam", lr=_constant(learning_rate), betas=(b1, b2), eps=eps)


def _radam(learning_rate: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Oracle:
    return _oracle("RAdam", lr=_constant(learning_rate), betas=(b1, b2), eps=eps)


def _adamax(learning_rate: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Oracle:
    return _oracle("Adamax", lr=_constant(learning_rate), betas=(b1, b2), eps=eps)


def _adadelta(learning_rate: Any, rho: float = 0.9, eps: float = 1e-6) -> Oracle:
    return _oracle("Adadelta", lr=_constant(learning_rate), rho=rho, eps=eps)


def _adagrad(learning_rate: Any, initial_accumulator_value: float = 0.0, eps: float = 1e-10) -> Oracle:
    rate = _constant(learning_rate)
    return _oracle("Adagrad", lr=rate, initial_accumulator_value=initial_accumulator_value, eps=eps)


def _rmsprop(
    learning_rate: Any,
    decay: float = 0.99,
    eps: float = 1e-8,
    centered: bool = False,
    momentum: float | None = None,
) -> Oracle:
    rate = _constant(learning_rate)
    return _oracle("RMSprop", lr=rate, alpha=decay, eps=eps, centered=centered, momentum=momentum or 0.0)


def _rprop(
    learning_rate: Any,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> Oracle:
    sizes = (float(min_step_size), float(max_step_size))
    etas = (float(eta_minus), float(eta_plus))
    return _oracle("Rprop", lr=_constant(learning_rate), etas=etas, step_sizes=sizes)


TORCH: dict[str, Callable[..., Oracle]] = {
    "SGD": _sgd,
    "Adam": _adam,
    "AMSGrad": _amsgrad,
    "AdamW": _adamw,
    "NAdam": _nadam,
    "RAdam": _radam,
    "Adamax": _adamax,
    "Adadelta": _adadelta,
    "Adagrad": _adagrad,
    "RMSprop": _rmsprop,
    "Rprop": _rprop,
}
"""torch's name to factory; ``AMSGrad`` is ``Adam(amsgrad=True)``."""


def reference(name: str) -> Callable[..., Oracle]:
    """The factory of one of torch's optimizers, whatever the case of the name.

    Raises:
        ValueError: torch is not installed, or the name is not among :data:`TORCH`.
    """
    found = {key.lower(): factory for key, factory in TORCH.items()}.get(name.lower())
    if found is None:
        raise ValueError(f"there is no torch reference {name!r}; there are: {', '.join(TORCH)}")
    _torch()
    return found
