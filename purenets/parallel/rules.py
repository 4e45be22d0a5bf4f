"""Rules: which axis of which leaf is spread over which axis of the mesh.

A rule is a pattern over paths and a ``PartitionSpec`` that names the *last* axes of a leaf, so that one rule
serves a layer and a stack of such layers under ``repeat``::

    [("**/up/kernel", P(None, "model")), ("**/down/kernel", P("model", None))]

The first rule that matches counts, and what none matches lies whole on every device. Rules are for params. The
optimizer's averages have the paths of their params at the end of their own, ``0/mu/blocks/up/kernel``, and follow
them.

*Fully sharded* (ZeRO, Rajbhandari et al. 2020): of what the rules leave whole, the longest axis that can be is
spread over the data axis, for every leaf that is large enough to be worth it.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any, TypeAlias

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from purenets.errors import describe
from purenets.paths import leaf_paths, matching, path_of, path_regex

__all__ = [
    "DATA_PARALLEL",
    "LLAMA_RULES",
    "RESNET_RULES",
    "TRANSFORMER_RULES",
    "Rules",
    "names_in",
    "shardings",
    "sliced",
]

P = PartitionSpec
Rules: TypeAlias = Sequence[tuple[str, PartitionSpec]]
"""Pairs of a pattern and what it spreads; the first that matches counts."""

DATA_PARALLEL: Rules = ()
"""Nothing spread but the batch."""

LLAMA_RULES: Rules = (
    ("**/{query,key,value}/kernel", P(None, "model", None)),
    ("**/{attention,cross}/out/kernel", P("model", None, None)),
    ("**/{up,gate}/kernel", P(None, "model")),
    ("**/down/kernel", P("model", None)),
)
"""Heads and hidden units over ``model`` (Shoeybi et al. 2019): one sum over devices after each part of a block.

For the Transformers of :mod:`purenets.models` that have no biases, such as ``models.llama``.
"""

TRANSFORMER_RULES: Rules = (
    *LLAMA_RULES,
    ("**/{query,key,value}/bias", P("model", None)),
    ("**/{up,gate}/bias", P("model")),
)
"""The same for those that have biases, such as ``models.gpt``."""

RESNET_RULES: Rules = (
    ("**/conv_1/kernel", P(None, None, None, "model")),
    ("**/conv_2/kernel", P(None, None, "model", None)),
)
"""The channels inside each basic block over ``model``, for :func:`purenets.models.resnet_cifar`."""

SMALL = 2**13
"""Leaves of fewer numbers are not worth an exchange and lie whole on every device."""


def shardings(
    tree: Any,
    mesh: Mesh | AbstractMesh,
    rules: Rules = DATA_PARALLEL,
    *,
    fully: str | None = None,
    averages_of: Any = None,
) -> Any:
    """A ``NamedSharding`` for each leaf of a tree of arrays or ``ShapeDtypeStruct``.

    Args:
        tree: params, optimizer state or a whole TrainState.
        mesh: the devices.
        rules: see above.
        fully: an axis of the mesh to spread all large leaves over as well.
        averages_of: the params, where the tree is an optimizer's state. A leaf then lies as the param whose path its
            own ends in, or whole if it has another shape, as the averages of factored optimizers.

    Raises:
        ValueError: a rule names an axis that the mesh lacks; and of params, a pattern matches nothing, a spec has
            more axes than its leaf, or an axis of the leaf does not divide by that of the mesh.
    """
    used = {name for _, spec in rules for entry in spec for name in names_in(entry)} | (
        {fully} if fully else set()
    )
    if missing := sorted(used - set(mesh.axis_names)):
        raise ValueError(
            f"the rules spread over {', '.join(missing)}, the mesh has {', '.join(mesh.axis_names)}"
        )
    strict = averages_of is None
    params = set() if strict else set(leaf_paths(averages_of))
    if strict:
        for pattern, _ in rules:
            matching(pattern, leaf_paths(tree))

    def place(key_path: Any, leaf: Any) -> NamedSharding:
        path = _param_at_end(path_of(key_path), params)
        spec = next((spec for pattern, spec in rules if path_regex(pattern).fullmatch(path)), None)
        entries = [None] * len(leaf.shape) if spec is None else _aligned(path, leaf, spec, mesh, strict)
        if fully:
            entries = _spread(leaf, entries, fully, mesh.shape[fully])
        while entries and entries[-1] is None:  # as compiled programs write it, or the next call traces again
            entries.pop()
        return NamedSharding(mesh, P(*entries))

    return jax.tree_util.tree_map_with_path(place, tree)


def sliced(sharding: NamedSharding, axes: int) -> NamedSharding:
    """That of a slice which has lost so many of the first axes."""
    return NamedSharding(sharding.mesh, P(*sharding.spec[axes:]))


def _param_at_end(path: str, params: Container[str]) -> str:
    """The path of a param that a path ends in, or all of it."""
    end = path
    while end not in params and "/" in end:
        end = end.partition("/")[2]
    return end if end in params else path


def names_in(entry: Any) -> tuple[str, ...]:
    """The axes of the mesh that an entry of a ``PartitionSpec`` names."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _aligned(path: str, leaf: Any, spec: PartitionSpec, mesh: Mesh | AbstractMesh, strict: bool) -> list[Any]:
    """The spec for all axes of the leaf, its entries being those of the last ones."""
    shape = leaf.shape
    entries = [None] * (len(shape) - len(spec)) + list(spec)
    parts = [math.prod(mesh.shape[name] for name in names_in(entry)) for entry in entries]
    if len(entries) == len(shape) and all(size % part == 0 for size, part in zip(shape, parts, strict=True)):
        return entries
    if not strict:
        return [None] * len(shape)
    if len(spec) > len(shape):
        raise ValueError(f"the rule for {path!r} names {len(spec)} axes, {spec}, but it is {describe(leaf)}")
    axis = next(i for i, (size, part) in enumerate(zip(shape, parts, strict=True)) if size % part)
    raise ValueError(
        f"the rule for {path!r} cuts axis {axis} of {describe(leaf)} into {parts[axis]} parts by {spec}, "
        f"which do not divide {shape[axis]}"
    )


def _spread(leaf: Any, entries: list[Any], axis: str, parts: int) -> list[Any]:
    """The longest axis that is whole and divides goes over ``axis`` too.

    The first of more than two is taken last: it may be that of stacked layers, which a scan cuts into slices.
    """
    if math.prod(leaf.shape) < SMALL or any(axis in names_in(entry) for entry in entries):
        return entries
    free = [i for i, entry in enumerate(entries) if entry is None and leaf.shape[i] % parts == 0]
    if not free:
        return entries
    chosen = max(free, key=lambda i: (i > 0 or len(entries) < 3, leaf.shape[i]))
    return [axis if i == chosen else entry for i, entry in enumerate(entries)]
