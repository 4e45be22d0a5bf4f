"""L5, composition: an optimizer inside others is still itself.

In a chain with identities; behind clipping; masked, where it sees a smaller tree; accumulating, where two
gradients count as their mean; with its numbers injected; stopped, written out, read back by a new instance and
gone on with. Run as a plain loop in float64 and compared with the optimizer alone.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]

from purenets.conform.report import Note, Question, Skip, one_line
from purenets.conform.sequences import SMALL, sequence, shapes_for
from purenets.conform.subject import Subject, Transform
from purenets.conform.transforms import agree, eager, in_float64
from purenets.paths import flatten, unflatten

__all__ = ["questions"]

STEPS = 4


def questions(subject: Subject) -> Iterator[tuple[str, Question]]:
    """What L5 asks."""
    with jax.enable_x64(True):
        within = _Within(subject)
    for name, way in (
        ("saved and restored", within.restored),
        ("in a chain", within.chained),
        ("clipped first", within.clipped),
        ("masked", within.masked),
        ("accumulated over two", within.accumulated),
        ("numbers injected", within.injected),
    ):
        yield name, in_float64(way)


class _Within:
    """A subject inside other transforms."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        shapes = shapes_for(SMALL, subject)
        run = sequence(21, shapes, STEPS, np.float64, kinds=("normal",))
        as_jax = lambda tree, t: jax.tree.map(lambda x: jnp.asarray(x[t]), tree)
        self.grads = [as_jax(run.grads, t) for t in range(STEPS)]
        self.params = [as_jax(run.params, t) for t in range(STEPS)]
        self._alone: list[Any] | None = None

    def alone(self) -> list[Any]:
        if self._alone is None:
            self._alone = eager(self.subject, self.grads, self.params)
        return self._alone

    def wrapped(self, tx: Transform | None = None) -> Any:
        """The subject as one of optax's own, extra arguments included."""
        made = tx or self.subject.build()

        def update(updates: Any, state: Any, params: Any = None, **_extra: Any) -> Any:
            return self.subject.step(made, updates, state, params)

        return optax.GradientTransformationExtraArgs(made.init, update)

    def through(self, tx: Any, grads: list[Any] | None = None, steps: int = STEPS) -> list[Any]:
        state, out = tx.init(self.params[0]), []
        for g, p in zip((grads or self.grads)[:steps], self.params, strict=False):
            updates, state = tx.update(g, state, p)
            out.append(updates)
        return out

    def restored(self) -> None:
        """Half the steps, the state as bytes, a new instance, the other half."""
        half = STEPS // 2
        tx = self.subject.build()
        state, out = tx.init(self.params[0]), []
        for t in range(half):
            updates, state = self.subject.step(tx, self.grads[t], state, self.params[t])
            out.append(updates)
        again = self.subject.build()
        blank = again.init(self.params[0])
        state = _read(_written(state), blank)
        for t in range(half, STEPS):
            updates, state = self.subject.step(again, self.grads[t], state, self.params[t])
            out.append(updates)
        agree("after restoring", out, self.alone())

    def chained(self) -> None:
        tx = optax.chain(optax.identity(), self.wrapped(), optax.identity())
        agree("in a chain", self.through(tx), self.alone())

    def clipped(self) -> None:
        small = [jax.tree.map(lambda x: jnp.clip(x, -0.02, 0.02), g) for g in self.grads]
        tx = optax.chain(optax.clip(0.02), self.wrapped())
        agree("behind clip", self.through(tx), eager(self.subject, small, self.params))

    def masked(self) -> None:
        chosen = {path: not path.endswith("bias") for path in flatten(self.grads[0])}
        tx = optax.masked(self.wrapped(), unflatten(chosen))
        out = self.through(tx)
        keep = lambda tree, inside: unflatten({p: x for p, x in flatten(tree).items() if chosen[p] is inside})
        grads, params = ([keep(tree, True) for tree in trees] for trees in (self.grads, self.params))
        agree("masked", [keep(u, True) for u in out], eager(self.subject, grads, params))
        agree("outside the mask", [keep(u, False) for u in out], [keep(g, False) for g in self.grads])

    def accumulated(self) -> None:
        tx = optax.MultiSteps(self.wrapped(), 2)
        moved = [jax.tree.map(lambda x: x * 0.3 + 0.1, g) for g in self.grads[:2]]
        pairs = [g for a, b in zip(self.grads[:2], moved, strict=True) for g in (a, b)]
        params = [p for p in self.params[:2] for _ in range(2)]
        update = jax.jit(tx.update)
        state, out = tx.init(params[0]), []
        for g, p in zip(pairs, params, strict=True):
            updates, state = update(g, state, p)
            out.append(updates)
        means = [
            jax.tree.map(lambda a, b: (a + b) / 2, a, b) for a, b in zip(self.grads[:2], moved, strict=True)
        ]
        # MultiSteps accumulates in float32.
        agree("accumulated", out[1::2], eager(self.subject, means, self.params[:2]), 1e-3)

    def injected(self) -> None:
        subject = self.subject
        numbers = {
            name: subject.default(name)
            for name in subject.parameters
            if isinstance(subject.default(name), float)
        }
        if not numbers:
            raise Skip("no numbers to inject")
        if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(subject.factory).parameters.values()):
            raise Skip("the factory does not name its arguments")

        def factory(**numbers: Any) -> Any:
            return self.wrapped(subject.build(numbers))

        # inject_hyperparams reads the signature to know what there is to inject.
        factory.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in numbers
        ])  # fmt: skip
        try:
            out = self.through(optax.inject_hyperparams(factory)(**numbers))
        except jax.errors.JAXTypeError as error:
            raise Note(f"looks at the value of a number: {one_line(error, 100)}") from None
        # inject_hyperparams holds its numbers in float32, and a difference of near numbers shows it.
        half = subject.keeps("float64") & {"bfloat16", "float16"}
        agree("injected", out, self.alone(), 0.1 if half else 1e-3)


def _written(state: Any) -> bytes:
    plain = lambda x: jax.random.key_data(x) if _is_key(x) else x
    buffer = io.BytesIO()
    np.savez(buffer, *(np.asarray(plain(x)) for x in jax.tree.leaves(state)))
    return buffer.getvalue()


def _read(data: bytes, like: Any) -> Any:
    arrays = list(np.load(io.BytesIO(data)).values())
    leaves, structure = jax.tree.flatten(like)
    restore = lambda a, old: (
        jax.random.wrap_key_data(jnp.asarray(a), impl=jax.random.key_impl(old))
        if _is_key(old)
        # NumPy's files know no bfloat16, and give its bytes back.
        else jnp.asarray(a.view(old.dtype) if a.dtype.kind == "V" else a)
    )
    return jax.tree.unflatten(structure, [restore(a, old) for a, old in zip(arrays, leaves, strict=True)])


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(getattr(x, "dtype", jnp.float32), jax.dtypes.prng_key)
