"""What an oracle is made of: slots of one leaf, and the rule that moves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Mask", "Number", "Oracle", "chosen", "oracle_of", "value"]

Array = np.ndarray
Number = float | Callable[[int], Any]
"""A hyperparameter, constant or a function of the number of updates made before."""
Mask = Callable[[dict[str, Array]], dict[str, Any]] | None
"""From the params to which of them are meant; None means all."""


class Oracle(NamedTuple):
    """An optimizer over a flat dict of arrays, computed in the dtype of the arrays it is given."""

    init: Callable[[dict[str, Array]], Any]
    update: Callable[..., Any]
    numpy: bool = True


def value(number: Any, t: int) -> float:
    """A hyperparameter at update ``t``, counted from one; schedules count from zero."""
    return float(number(t - 1)) if callable(number) else float(number)


def chosen(mask: Any, params: dict[str, Array]) -> dict[str, bool]:
    """Which leaves a mask takes: all without one."""
    if mask is None or isinstance(mask, bool):
        return dict.fromkeys(params, mask is not False)
    picked = mask(params) if callable(mask) else mask
    return {path: bool(picked[path]) for path in params}


def oracle_of(
    slots: Callable[[Array], tuple[Any, ...]], rule: Callable[..., tuple[Any, ...]], mask: Any = None
) -> Oracle:
    """An oracle of the rule of one leaf.

    Args:
        slots: from a parameter to the slots it starts with.
        rule: ``rule(t, g, p, masked, *slots) -> (update, *slots)``, where ``t`` counts from one and
            ``masked`` says whether the mask takes the leaf.
        mask: which leaves, as optax's masks say it.
    """

    def init(params: dict[str, Array]) -> Any:
        return 0, {path: slots(np.asarray(p)) for path, p in params.items()}

    def update(grads: dict[str, Array], state: Any, params: dict[str, Array] | None = None) -> Any:
        count, held = state
        given = params if params is not None else {path: np.full_like(g, np.nan) for path, g in grads.items()}
        inside = chosen(mask, given)
        out, kept = {}, {}
        with np.errstate(all="ignore"):
            for path, g in grads.items():
                p = np.asarray(given[path])
                update, *new = rule(count + 1, np.asarray(g), p, inside[path], *held[path])
                out[path], kept[path] = np.asarray(update), tuple(new)
        return out, (count + 1, kept)

    return Oracle(init, update)
