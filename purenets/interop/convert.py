"""Trees of parameters in one naming as trees in another.

Where shapes are Flax's, as those of purenets are, only names differ: ``{"Dense_0/**": "hidden/**"}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purenets.paths import flatten, unflatten
from purenets.rename import rename_all

__all__ = ["convert", "inverse"]


def convert(tree: dict[str, Any], rename: Mapping[str, str | None]) -> dict[str, Any]:
    """The nested dict with its leaves under other paths; the leaves themselves are untouched.

    Args:
        tree: params, state or variables.
        rename: old pattern to new path, as of :func:`~purenets.rename.rename_all`; ``None`` leaves leaves out, and
            what no rule matches keeps its path.

    Raises:
        ValueError: a rule matches nothing or has other wildcards on its sides, or two leaves become the same.

    >>> convert({"Dense_0": {"kernel": 1, "bias": 2}}, {"Dense_0/**": "hidden/**"})
    {'hidden': {'kernel': 1, 'bias': 2}}
    """
    flat = flatten(tree)
    return unflatten({new: flat[old] for old, new in rename_all(rename, flat).items() if new is not None})


def inverse(rename: Mapping[str, str | None]) -> dict[str, str]:
    """The rules that lead back.

    Raises:
        ValueError: a rule leaves leaves out, or two rules lead to the same name.

    >>> inverse({"Dense_0/**": "hidden/**"})
    {'hidden/**': 'Dense_0/**'}
    """
    back: dict[str, str] = {}
    for old, new in rename.items():
        if new is None:
            raise ValueError(f"the rule for {old!r} leaves leaves out, and nothing leads back to them")
        if new in back:
            raise ValueError(f"the rules for {back[new]!r} and {old!r} both lead to {new!r}")
        back[new] = old
    return back
