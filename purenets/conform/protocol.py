"""L0, protocol: the shape of the pair ``(init, update)``.

Any pytree may hold the parameters, of any containers, with scalars, with leaves of no elements, with no leaf
at all; the updates come back in the same tree. ``init`` may be traced. ``update`` is called with three
positional arguments; where it does without the parameters they may be left out, and where it does not it says
so. All of this is asked of shapes alone, so nothing is computed.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.conform.report import Fail, Note, Question, Soft, one_line
from purenets.conform.subject import Subject
from purenets.paths import path_of

__all__ = ["questions", "same_form"]


class Pair(NamedTuple):
    """A named tuple as parameters."""

    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclass
class Node:
    """A registered class as parameters."""

    kernel: Any
    bias: Any


RARE = ("an absent leaf", "an empty tree", "a leaf without elements")
"""What an optimizer may refuse, as long as its reference does too."""


def _containers() -> dict[str, Any]:
    matrix, vector = jnp.ones((4, 3)), jnp.ones(3)
    return {
        "a bare array": vector,
        "a list": [matrix, vector],
        "a tuple": (matrix, (vector,)),
        "a named tuple": Pair(matrix, vector),
        "a registered class": Node(matrix, vector),
        "nested containers": {"x": [matrix, {"y": (vector,)}], "z": {"w": vector}},
        "an absent leaf": {"w": matrix, "none": None},
        "an empty tree": {},
        "a scalar": {"gain": jnp.ones(()), "w": matrix},
        "a leaf without elements": {"empty": jnp.ones((0, 3)), "w": matrix},
        "many axes": {"w": jnp.ones((2, 1, 3, 2, 2))},
    }


def same_form(what: str, expected: Any, got: Any) -> None:
    """Raise :class:`Fail` unless two trees agree in structure, shapes and dtypes."""
    if operator.ne(jax.tree.structure(expected), jax.tree.structure(got)):
        raise Fail(f"{what} is {jax.tree.structure(got)} instead of {jax.tree.structure(expected)}")
    for (path, a), b in zip(
        jax.tree_util.tree_flatten_with_path(expected)[0], jax.tree.leaves(got), strict=True
    ):
        if jnp.shape(a) != jnp.shape(b):
            raise Fail(f"{what} has shape {jnp.shape(b)} instead of {jnp.shape(a)} at {path_of(path)!r}")
        if jnp.result_type(a) != jnp.result_type(b):
            raise Fail(f"{what} is {jnp.result_type(b)} instead of {jnp.result_type(a)} at {path_of(path)!r}")


def questions(subject: Subject, as_reference: bool = False) -> Iterator[tuple[str, Question]]:
    """What L0 asks; of a reference, whether it does without params and not how it says that it does not."""
    yield "makes an optimizer", lambda: _builds(subject)
    for label, tree in _containers().items():
        rare = label in RARE
        yield label, lambda tree=tree, rare=rare: _keeps_tree(subject, tree, rare)  # type: ignore[misc]
    yield "without params", lambda: _without_params(subject, as_reference)
    yield "unknown extra arguments", lambda: _extra_arguments(subject)


def _builds(subject: Subject) -> None:
    subject.build()


def _keeps_tree(subject: Subject, tree: Any, rare: bool = False) -> None:
    tx = subject.build()

    def once(p: Any) -> Any:
        out = subject.step(tx, p, tx.init(p), p)
        if not isinstance(out, tuple) or len(out) != 2:
            raise Fail(f"update must return (updates, state), got {type(out).__name__}")
        return out

    try:
        same_form("the updates", tree, jax.eval_shape(once, tree)[0])
    except Exception as error:
        if rare:
            raise Soft(one_line(error)) from None
        raise


def _without_params(subject: Subject, as_reference: bool) -> str:
    tx = subject.build()
    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    extra = subject.extras(tree, tree)
    try:
        updates, _ = jax.eval_shape(lambda p: tx.update(p, tx.init(p), **extra), tree)
    except Exception as error:
        if "param" in str(error).lower() and not as_reference:
            return "needs them, and says so"
        raise Soft(f"needs the parameters, and the error does not say so: {one_line(error, 120)}") from None
    same_form("the updates", tree, updates)
    return "does without them"


def _extra_arguments(subject: Subject) -> None:
    tx = subject.build()
    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    known = subject.extras(tree, tree)
    ask = lambda **extra: jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, **extra), tree)
    try:
        ask(**known)
    except Exception as error:
        raise Soft(f"it refuses these parameters anyway: {one_line(error, 120)}") from None
    try:
        ask(**{"value": jnp.ones(()), "unheard_of": 1.0, **known})
    except Exception as error:
        text = f"refuses arguments that it does not know: {one_line(error, 120)}"
        raise (Fail if tx.claims_extra else Note)(text) from None
