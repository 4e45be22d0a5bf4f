"""What an optimizer is made of, read from its two functions.

An optimizer is ``(init, update)`` and nothing else; what it was made with is in what these functions
*captured*, the variables of the factory around them. A factory is known by its name and its variables by the
names of its arguments, which are the same in optax and here, so both can be read, inside each other too. What
this cannot read (a transform that is no closure, a factory of another library) it passes over.

A *finding* is one number that acts on some leaves: a factor of the learning rate, a weight decay, a limit of
a clipping, or the fact that they are held still. Its *scope* is the way to these leaves: a sequence of named
selections, each a function from a tree to the part of it that is selected.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from purenets.optim.base import GradientTransformation, MaskedNode
from purenets.optim.choose import _chosen, _divide, _take
from purenets.optim.masking import _resolve
from purenets.paths import Where, leaf_paths

__all__ = ["Finding", "Selection", "findings"]


@dataclass(frozen=True)
class Selection:
    """A part of the tree: its name, where it has one, and how to cut it out."""

    label: str | None
    cut: Callable[[Any], Any]


@dataclass(frozen=True)
class Finding:
    """One fact about the leaves of a scope.

    ``kind`` is ``"rate"`` (a factor of the learning rate), ``"decay"``, ``"clip"`` (with ``how`` it limits),
    ``"still"``, ``"group"`` (they belong to one) or ``"injected"`` (a dict of the hyperparameters in the
    state).
    """

    kind: str
    value: Any
    scope: tuple[Selection, ...]
    how: str = ""


CLIPS = {
    "clip": ("max_delta", "value"),
    "clip_by_global_norm": ("max_norm", "norm"),
    "clip_by_block_rms": ("threshold", "block rms"),
    "adaptive_grad_clip": ("clipping", "adaptive"),
    "differentially_private_aggregate": ("l2_norm_clip", "example norm"),
}
"""Factory of a clipping: the argument that limits, and how it is called here."""

INNER_STATES = ("inner", "inner_state", "inner_opt_state", "base_optimizer_state", "fast_state", "opt_state")
"""What the wrappers call the state of what they wrap."""

TRANSPARENT = ("with_extra_args_support", "flatten", "scale_by_learning_rate")
"""The wrappers whose state is that of what they wrap."""


def captured(fn: Any) -> dict[str, Any]:
    """The variables that a function holds: of its closure, of its object, or of ``functools.partial``.

    Those of the helpers that the same factory made count as its own.
    """
    if isinstance(fn, functools.partial):
        return {**captured(fn.func), **fn.keywords}
    fn = getattr(fn, "__wrapped__", fn)
    if owner := getattr(fn, "__self__", None):
        return {name.lstrip("_"): value for name, value in vars(owner).items()}
    names = fn.__code__.co_freevars if hasattr(fn, "__code__") else ()
    held: dict[str, Any] = {}
    for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=True):
        with contextlib.suppress(ValueError):  # A variable that the factory never came to assign.
            held[name] = cell.cell_contents
    for helper in [value for value in held.values() if hasattr(value, "__code__") and value is not fn]:
        if factory_of(helper) == factory_of(fn):
            held = {**captured(helper), **held}
    return held


def factory_of(fn: Any) -> str:
    """The name of the function, or of the class, that made this one."""
    fn = getattr(fn.func if isinstance(fn, functools.partial) else fn, "__wrapped__", fn)
    return getattr(fn, "__qualname__", type(fn).__name__).partition(".")[0]


def findings(optimizer: GradientTransformation, state: Any = None) -> Iterator[Finding]:
    """All that can be read of an optimizer, in the order in which updates pass.

    Args:
        optimizer: ours, optax's or any mixture.
        state: its state, for the counts of its schedules and the hyperparameters in it; by default all
            schedules are read at the first update.
    """
    return _of_transform(optimizer.init, optimizer.update, state, ())


def _of_transform(init: Any, update: Any, state: Any, scope: tuple[Selection, ...]) -> Iterator[Finding]:
    factory, held = factory_of(update), captured(update)
    if factory in ("chain", "named_chain"):
        yield from _of_chain(factory, captured(init), held, state, scope)
    elif factory == "masked":
        yield from _of_transform(*_pair(held["inner"]), _inner(state), (*scope, _masked(held["mask"])))
    elif factory == "partition":
        for label, tx in held["transforms"].items():
            part = (*scope, _labelled(label, held["param_labels"]))
            yield Finding("group", label, part)
            yield from _of_transform(*_pair(tx), _at(state, label), part)
    elif factory in ("only", "groups"):
        yield from _of_choice(factory, held, state, scope)
    elif factory == "inject_hyperparams":
        yield from _of_injection(init, held, state, scope)
    else:
        yield from _of_closure(factory, held, state, scope, {id(update)})


def _of_chain(
    factory: str, at_init: dict[str, Any], held: dict[str, Any], state: Any, scope: tuple[Selection, ...]
) -> Iterator[Finding]:
    if "update_fns" in held:  # optax's chain holds the functions apart.
        pairs = list(zip(at_init["init_fns"], held["update_fns"], strict=True))
    else:
        transforms = held["transforms"]
        named = transforms.items() if isinstance(transforms, Mapping) else transforms
        pairs = [_pair(tx[1] if factory == "named_chain" else tx) for tx in named]
    states: Iterable[Any] = [None] * len(pairs)
    if state is not None:
        if not isinstance(state, (tuple, list, Mapping)) or len(state) != len(pairs):
            return  # Inside a wrapper that keeps the state where nobody knows.
        states = state.values() if isinstance(state, Mapping) else state
    for (init, update), part in zip(pairs, states, strict=True):
        yield from _of_transform(init, update, part, scope)


def _of_choice(
    factory: str, held: dict[str, Any], state: Any, scope: tuple[Selection, ...]
) -> Iterator[Finding]:
    if factory == "only":
        where = held["where"]
        label = where if isinstance(where, str) else "{" + ",".join(where) + "}"
        yield Finding("still", True, (*scope, Selection(None, functools.partial(_all_but, where))))
        part = (*scope, Selection(label, lambda tree: _take(tree, _chosen(where, tree))))
        yield Finding("group", label, part)
        yield from _of_transform(*_pair(held["optimizer"]), _inner(state), part)
        return
    transforms = held["transforms"]
    for pattern, tx in transforms.items():
        part = (*scope, Selection(pattern, functools.partial(_group, transforms, pattern)))
        yield Finding("group", pattern, part)
        yield from _of_transform(*_pair(tx), _at(state, pattern), part)


def _all_but(where: Where, tree: Any) -> Any:
    return _take(tree, set(leaf_paths(tree)) - _chosen(where, tree))


def _group(transforms: Mapping[str, Any], pattern: str, tree: Any) -> Any:
    return _take(tree, _divide(transforms, tree)[pattern])


def _of_injection(
    init: Any, held: dict[str, Any], state: Any, scope: tuple[Selection, ...]
) -> Iterator[Finding]:
    if state is None:
        at_init = captured(init)
        schedules = at_init["schedules" if "schedules" in at_init else "sched_hps"]
        numbers = at_init["numbers" if "numbers" in at_init else "numeric_hps"]
        hyperparams = {**numbers, **{name: f(f.init()) for name, f in schedules.items()}}
    elif hasattr(state, "hyperparams"):
        hyperparams = state.hyperparams
    else:
        return
    yield Finding("injected", hyperparams, scope)
    inner = (
        held["build"](hyperparams)
        if "build" in held
        else held["inner_factory"](**held["other_hps"], **hyperparams)
    )
    yield from _of_transform(*_pair(inner), _inner(state), scope)


def _of_closure(
    factory: str, held: dict[str, Any], state: Any, scope: tuple[Selection, ...], seen: set[int]
) -> Iterator[Finding]:
    """The findings of a rule, or of a wrapper: what it does itself, then what it holds."""

    def now(value: Any) -> Any:
        return _now(value, state)

    if factory == "scale" and "step_size" in held:
        yield Finding("rate", jnp.abs(held["step_size"]), scope)
    elif factory == "scale_by_schedule" and "step_size_fn" in held:
        if (value := now(held["step_size_fn"])) is not None:
            yield Finding("rate", jnp.abs(value), scope)
        return
    elif factory == "add_decayed_weights" and "weight_decay" in held:
        if (value := now(held["weight_decay"])) is not None:
            yield Finding("decay", value, scope)
        return
    elif factory == "set_to_zero":
        yield Finding("still", True, scope)
        return
    elif factory in CLIPS and CLIPS[factory][0] in held:
        yield Finding("clip", held[CLIPS[factory][0]], scope, CLIPS[factory][1])
    inside, inner_state = False, state if factory in TRANSPARENT else _inner(state)
    for name, value in held.items():
        # A helper's variables are among these already, and an adversary's step is taken back.
        if name == "adv_optimizer" or (hasattr(value, "__code__") and factory_of(value) == factory):
            continue
        for found in _of_value(value, state, inner_state, scope, seen):
            inside |= found.kind == "rate"
            yield found
    # A rule that applies its own rate; a wrapper that holds one too has it from what it wraps.
    if "learning_rate" in held and not inside and (value := now(held["learning_rate"])) is not None:
        yield Finding("rate", value, scope)
    own_decay = "weight_decay" in held and factory != "add_decayed_weights"
    if own_decay and (value := now(held["weight_decay"])) is not None:
        yield Finding("decay", value, scope)


def _of_value(
    value: Any, state: Any, inner_state: Any, scope: tuple[Selection, ...], seen: set[int]
) -> Iterator[Finding]:
    if isinstance(value, GradientTransformation) or (hasattr(value, "init") and hasattr(value, "update")):
        yield from _of_transform(*_pair(value), inner_state, scope)
    elif hasattr(value, "__code__") and id(value) not in seen:
        seen.add(id(value))
        yield from _of_closure(factory_of(value), captured(value), state, scope, seen)


def _pair(tx: Any) -> tuple[Any, Any]:
    return tx.init, tx.update


def _now(value: Any, state: Any) -> Any:
    """A number, or a schedule at the last update, which is the first where none has been made.

    ``None`` where the state does not tell how many there were.
    """
    if not callable(value):
        return value
    if state is None:
        return value(0)
    return value(jnp.maximum(state.count - 1, 0)) if hasattr(state, "count") else None


def _inner(state: Any) -> Any:
    """The state inside a wrapper's, or the same state where the wrapper adds none."""
    for name in INNER_STATES:
        if hasattr(state, name):
            return getattr(state, name)
    return state


def _at(state: Any, label: Any) -> Any:
    """The state of one group, from under the mask that optax's ``partition`` puts around it."""
    if state is None:
        return None
    part = state.inner_states[label]
    return part.inner_state if type(part).__name__ == "MaskedState" else part


def _masked(mask: Any) -> Selection:
    def cut(tree: Any) -> Any:
        return jax.tree.map(lambda m, leaf: leaf if m else MaskedNode(), _resolve(mask, tree), tree)

    return Selection(None, cut)


def _labelled(label: Any, labels: Any) -> Selection:
    def cut(tree: Any) -> Any:
        given = labels(tree) if callable(labels) else labels
        return jax.tree.map(lambda name, leaf: leaf if name == label else MaskedNode(), given, tree)

    return Selection(str(label), cut)
