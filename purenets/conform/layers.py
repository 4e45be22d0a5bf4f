"""``check_layer``: the laws of :mod:`purenets.conform.laws` over one layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from purenets.conform.case import Case
from purenets.conform.laws import LAYER_LAWS
from purenets.conform.report import NonConformance, Report, ask
from purenets.conform.subject import name_of
from purenets.conform.value_laws import equals_reference

__all__ = ["check_layer"]


def check_layer(
    layer: Any,
    *inputs: Any,
    reference: Any = None,
    laws: str | Iterable[str] | None = None,
    skip: Iterable[str] = (),
    side: Mapping[str, Any] | None = None,
    raises: bool = True,
) -> Report:
    """Hold a layer to its laws.

    Args:
        layer: a purenets layer, or any object with ``init(key) -> (params, state)`` and ``apply(params,
            state, *inputs, key=, train=) -> (output, state)``.
        inputs: arrays, or shapes to be filled with ordinary float32 numbers; small ones, since gradients are
            measured number by number.
        reference: a layer that is right, or its ``apply``, which takes the same params and state: outputs and
            states are compared over three steps of training and in evaluation.
        laws: the names of those to check; by default all of :data:`purenets.conform.LAYER_LAWS`.
        skip: names to leave out, such as the gradients of a layer that is not differentiable on purpose.
        side: side inputs (``mask=``, ``lengths=``), given at every call.
        raises: raise on failure; otherwise the report says it.

    Raises:
        NonConformance: a law is broken. The report is its ``report``.
        ValueError: there is no law of that name.

    >>> from purenets.layer import layer
    >>> import jax.numpy as jnp
    >>> scale = layer(lambda key: {"scale": jnp.ones(3)}, lambda p, x: x * p["scale"], label="scale(3)")
    >>> check_layer(scale, (2, 3), laws=["plain_trees", "state_keeps_form"]).ok
    True
    """
    wanted = [laws] if isinstance(laws, str) else list(LAYER_LAWS if laws is None else laws)
    if unknown := ({*wanted, *skip} - set(LAYER_LAWS)):
        raise ValueError(f"there is no law {sorted(unknown)}; there are {list(LAYER_LAWS)}")
    case = Case(layer, inputs, side)
    rows = [
        ask("law", name, lambda name=name: LAYER_LAWS[name](case))  # type: ignore[misc]
        for name in wanted
        if name not in set(skip)
    ]
    if reference is not None:
        rows.append(ask("law", "reference", lambda: equals_reference(case, reference)))
    named = [getattr(x, "label", None) or name_of(x) for x in (layer, reference)]
    report = Report(named[0], named[1] if reference is not None else None, tuple(rows))
    if raises and not report.ok:
        raise NonConformance(report)
    return report
