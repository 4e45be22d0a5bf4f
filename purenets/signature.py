"""What a function declares: its keyword-only arguments are what it is given.

The *modes* ``key``, ``train`` and ``stream`` come with every call of a layer; any other keyword-only argument
is a *side input* (``mask=``, ``lengths=``). An argument before the bare ``*`` is an ordinary input.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["MODES", "keywords_of", "side_inputs", "signed"]

MODES = ("key", "train", "stream")
"""The keyword arguments that every layer takes."""


def keywords_of(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    """The keyword-only parameters of a function.

    Raises:
        TypeError: a mode has a default but can be given by position, so it would never be given at all.
    """
    parameters = inspect.signature(fn).parameters.values()
    for p in parameters:
        if p.name in MODES and p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty:
            raise TypeError(
                f"{getattr(fn, '__name__', 'the function')} has {p.name!r} among its inputs, "
                "where it is never given: write a bare * before it"
            )
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def side_inputs(fn: Callable[..., Any]) -> frozenset[str]:
    """The names of the keyword-only parameters that are not modes.

    >>> sorted(side_inputs(lambda params, x, *, mask=None, train: x))
    ['mask']
    """
    return frozenset(p.name for p in keywords_of(fn) if p.name not in MODES)


def signed(apply: Callable[..., Any], keywords: Iterable[inspect.Parameter]) -> Callable[..., Any]:
    """Give an ``apply`` that takes anything the signature that names its side inputs, and return it."""
    positional = [
        inspect.Parameter("params", inspect.Parameter.POSITIONAL_ONLY),
        inspect.Parameter("state", inspect.Parameter.POSITIONAL_ONLY),
        inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL),
    ]
    modes = [
        inspect.Parameter("key", inspect.Parameter.KEYWORD_ONLY, default=None),
        inspect.Parameter("train", inspect.Parameter.KEYWORD_ONLY, default=False),
        inspect.Parameter("stream", inspect.Parameter.KEYWORD_ONLY, default=False),
    ]
    side = [p for p in keywords if p.name not in MODES]
    apply.__signature__ = inspect.Signature([*positional, *modes, *side])  # type: ignore[attr-defined]
    return apply
