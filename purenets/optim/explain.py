"""What happens to each parameter, before training and during it.

>>> import jax.numpy as jnp
>>> from purenets import optim
>>> optimizer = optim.groups({
...     "embed/**": optim.set_to_zero(),
...     "**/kernel": optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(1e-3, weight_decay=0.01)),
...     "**": optim.adam(1e-2),
... })
>>> params = {"embed": {"embedding": jnp.zeros((10, 4))},
...           "head": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}}
>>> print(explain(optimizer, params))
path             group      learning rate  decay  clip    frozen  state
embed/embedding  embed/**   -              -      -       yes     0 B
head/bias        **         0.01           -      -       no      16 B
head/kernel      **/kernel  0.001          0.01   norm 1  no      64 B
state 88 B, of which 8 B belong to no leaf
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from optax.schedules import (  # type: ignore[import-untyped]
    InjectHyperparamsState,
    InjectStatefulHyperparamsState,
)

from purenets.optim.anatomy import Finding, Selection, findings
from purenets.optim.base import GradientTransformation, OptState, Params
from purenets.paths import leaf_paths, path_of

__all__ = ["Explanation", "LeafRow", "explain", "hyperparameters"]


_HEAD = ("path", "group", "learning rate", "decay", "clip", "frozen", "state")


@dataclass(frozen=True)
class LeafRow:
    """What an optimizer does to one leaf.

    Attributes:
        path: the leaf.
        group: the pattern or label that took it, outermost first; ``None`` outside of any group.
        learning_rate: the product of all rates and scales it meets, at the first update; ``None`` where none
            could be read.
        decay: the sum of its weight decays, or ``None``.
        clip: the clippings that it passes, such as ``"norm 1"``, or ``None``.
        frozen: whether its updates are always zero.
        state_bytes: the size of the state held for it.
    """

    path: str
    group: str | None
    learning_rate: float | None
    decay: float | None
    clip: str | None
    frozen: bool
    state_bytes: int


class Explanation(list[LeafRow]):
    """A row for every leaf, and a table where it is printed.

    ``shared_bytes`` is the size of the state that belongs to no leaf.
    """

    shared_bytes: int = 0

    def _cells(self) -> list[tuple[str, ...]]:
        rows = (
            (
                row.path,
                row.group or "-",
                _number(row.learning_rate),
                _number(row.decay),
                row.clip or "-",
                "yes" if row.frozen else "no",
                _size(row.state_bytes),
            )
            for row in self
        )
        return [_HEAD, *rows]

    def _total(self) -> str:
        total = sum(row.state_bytes for row in self) + self.shared_bytes
        return f"state {_size(total)}, of which {_size(self.shared_bytes)} belong to no leaf"

    def __str__(self) -> str:
        rows = self._cells()
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
        lines = [
            "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([*lines, self._total()])

    def _repr_html_(self) -> str:
        # Imported here, since optimizers stand below what looks into models.
        from purenets.inspect.table import html_table

        return f"{html_table(_HEAD, self._cells()[1:])}<p>{self._total()}</p>"


def explain(optimizer: GradientTransformation, params: Params) -> Explanation:
    """A table of what an optimizer does to each leaf, without allocating anything.

    Args:
        optimizer: ours, optax's or any mixture. What it was made with is read from its functions
            (:mod:`purenets.optim.anatomy`); where a rule of another library keeps its rate to itself, the
            learning rate is ``None``.
        params: the parameters, or their shapes.

    Raises:
        ValueError: a pattern, mask or label in the optimizer does not fit the parameters.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), params)
    state = jax.eval_shape(optimizer.init, shapes)
    found = list(findings(optimizer))
    taken = {id(f): set(leaf_paths(_cut(shapes, f.scope))) for f in found}
    sizes, shared = _sizes(state, shapes)
    rows = []
    for path in leaf_paths(shapes):
        here = [f for f in found if path in taken[id(f)]]
        values: dict[str, list[Finding]] = {kind: [f for f in here if f.kind == kind] for kind in KINDS}
        still = bool(values["still"])
        labels = max((_labels(f.scope) for f in here), key=len, default="")
        rows.append(
            LeafRow(
                path=path,
                group=labels or None,
                learning_rate=math.prod(float(f.value) for f in values["rate"])
                if values["rate"] and not still
                else None,
                decay=sum(float(f.value) for f in values["decay"]) if values["decay"] and not still else None,
                clip=", ".join(f"{f.how} {_number(float(f.value))}" for f in values["clip"]) or None,
                frozen=still,
                state_bytes=sizes.get(path, 0),
            )
        )
    table = Explanation(rows)
    table.shared_bytes = shared
    return table


KINDS = ("rate", "decay", "clip", "still", "injected")


def hyperparameters(opt_state: OptState, optimizer: GradientTransformation | None = None) -> dict[str, Any]:
    """The hyperparameters in use: name to value, of the last update, or of the first before there was one.

    Everything that ``inject_hyperparams`` (ours or optax's) put into the state is found, wherever it stands.
    A schedule that is not injected leaves only its count in the state: give the optimizer too, and the
    learning rate is read from both, as are the constant ones. All works inside ``jit``.

    Where several groups have one of the same name, it is preceded by the group, ``"head/**/learning_rate"``.

    >>> from purenets.optim import adam, inject_hyperparams
    >>> optimizer = inject_hyperparams(adam)(lambda count: 0.1 / (1 + count), b1=0.5)
    >>> state = optimizer.init(jnp.zeros(2))
    >>> for _ in range(4):
    ...     _, state = optimizer.update(jnp.ones(2), state)
    >>> print(hyperparameters(state)["learning_rate"], hyperparameters(state)["b1"])
    0.025 0.5
    >>> optimizer = adam(lambda count: 0.1 / (1 + count))
    >>> print(hyperparameters(optimizer.init(jnp.zeros(2)), optimizer)["learning_rate"])
    0.1
    """
    entries: list[tuple[str, str, Any]] = []
    if optimizer is None:
        entries = _injected(opt_state)
    else:
        found = list(findings(optimizer, opt_state))
        for f in found:
            if f.kind == "injected":
                entries += [(_labels(f.scope), name, value) for name, value in f.value.items()]
        entries += _rates(found, {label for label, name, _ in entries if name == "learning_rate"})
    names = [name for _, name, _ in entries]
    return {
        f"{label}/{name}" if label and names.count(name) > 1 else name: value
        for label, name, value in entries
    }


def _injected(state: Any) -> list[tuple[str, str, Any]]:
    """Group, name and value of every hyperparameter in a state."""
    kinds = (InjectHyperparamsState, InjectStatefulHyperparamsState)
    nodes = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: isinstance(x, kinds))[0]
    entries = []
    for path, node in nodes:
        if isinstance(node, kinds):
            label = "/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
            entries += [(label, name, value) for name, value in node.hyperparams.items()]
            entries += [(label + inner, name, value) for inner, name, value in _injected(node.inner_state)]
    return entries


def _rates(found: list[Finding], known: set[str]) -> list[tuple[str, str, Any]]:
    """Group and learning rate of every innermost scope that has one."""
    rates = [f for f in found if f.kind == "rate"]
    entries: dict[tuple[Selection, ...], Any] = {}
    for f in rates:
        outside = [g.value for g in rates if g.scope == f.scope[: len(g.scope)]]
        deeper = any(g.scope[: len(f.scope)] == f.scope and len(g.scope) > len(f.scope) for g in rates)
        if not deeper and _labels(f.scope) not in known:
            entries[f.scope] = math.prod(outside)
    return [(_labels(scope), "learning_rate", jnp.asarray(value)) for scope, value in entries.items()]


def _cut(tree: Any, scope: tuple[Selection, ...]) -> Any:
    for selection in scope:
        tree = selection.cut(tree)
    return tree


def _labels(scope: tuple[Selection, ...]) -> str:
    return " ".join(selection.label for selection in scope if selection.label)


def _sizes(state: Any, params: Params) -> tuple[dict[str, int], int]:
    """Bytes of the state by leaf, and of what belongs to none."""
    known = {tuple(path): path_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]}
    sizes, shared = dict.fromkeys(known.values(), 0), 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        size = math.prod(leaf.shape) * leaf.dtype.itemsize if hasattr(leaf, "dtype") else 0
        owner = _owner(path, known)
        if owner is None:
            shared += size
        else:
            sizes[owner] += size
    return sizes, shared


def _owner(path: tuple[Any, ...], known: dict[tuple[Any, ...], str]) -> str | None:
    """The leaf whose path ends the path in the state, or stands after a field there with more behind it."""
    ends = [(i, len(path)) for i in range(len(path) + 1)]
    fields = [i + 1 for i, key in enumerate(path) if isinstance(key, jax.tree_util.GetAttrKey)]
    within = [(i, j) for i in fields for j in range(len(path) - 1, i, -1)]
    return next((known[path[i:j]] for i, j in ends + within if path[i:j] in known), None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _size(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.3g} GB"
