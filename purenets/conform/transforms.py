"""L2, transforms: one optimizer, run in every way that JAX can run it, gives one result.

Eagerly, compiled step by step, in a scan under a vmap, with sharded parameters; twice over; two instances
taking turns; the same leaves in other containers. Computed in float64, where ways that differ by rounding
alone agree to 1e-9, and any other difference shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.report import Fail, Question, Skip
from purenets.conform.runs import fast_jit, take
from purenets.conform.sequences import SMALL, sequence, shapes_for
from purenets.conform.subject import Subject
from purenets.paths import path_of

__all__ = ["agree", "eager", "in_float64", "questions"]

STEPS = 4


def questions(subject: Subject) -> Iterator[tuple[str, Question]]:
    """What L2 asks."""
    ways = _Ways(subject)
    for name, way in (
        ("eager twice", ways.twice),
        ("two instances in turn", ways.in_turn),
        ("other containers", ways.containers),
        ("eager = jit", ways.jit),
        ("eager = vmap of scan", ways.scan),
        ("one device = many", ways.sharded),
    ):
        yield name, in_float64(way)


def in_float64(way: Callable[[], str | None]) -> Question:
    """A question that is asked with 64 bits enabled."""

    def asked() -> str | None:
        with jax.enable_x64(True):
            return way()

    return asked


def agree(what: str, ours: Any, theirs: Any, relative: float = 1e-9, floor: float = 0.0) -> None:
    """Raise :class:`Fail` unless two trees of arrays agree, naming the leaf and both values.

    ``floor`` is the share of the largest number of the whole tree below which a difference is rounding: gradients
    that are zero but for it, such as that of a bias before a batch norm, differ from one program to another.
    """
    flat = jax.tree_util.tree_flatten_with_path(theirs)[0]
    whole = max((float(np.max(np.abs(x), initial=0.0)) for x in _finite(theirs)), default=0.0)
    for (path, b), a in zip(flat, jax.tree.leaves(ours), strict=True):
        if jnp.issubdtype(getattr(a, "dtype", np.float32), jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        x, y = np.asarray(a), np.asarray(b)
        if x.shape != y.shape:
            raise Fail(f"{what}: {path_of(path)} has shape {x.shape} instead of {y.shape}")
        x, y = x.astype(np.float64), y.astype(np.float64)
        size = float(np.max(np.abs(y), where=np.isfinite(y), initial=0.0))
        near = relative * 1e-3 * size + max(relative * 1e-5, floor) * whole
        good = np.isclose(x, y, rtol=relative, atol=near, equal_nan=True)
        if not good.all():
            at = tuple(int(i) for i in np.argwhere(~good)[0])
            raise Fail(
                f"{what}: {path_of(path)}{list(at) or ''} is {float(x[at])!r} instead of {float(y[at])!r}"
            )


def _finite(tree: Any) -> list[np.ndarray]:
    leaves = [
        np.asarray(x, np.float64)
        for x in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(x), jnp.floating)
    ]
    return [np.where(np.isfinite(x), x, 0.0) for x in leaves]


def eager(subject: Subject, grads: list[Any], params: list[Any], tx: Any = None) -> list[Any]:
    """The updates of a plain Python loop."""
    tx = tx or subject.build()
    state, out = tx.init(params[0]), []
    for g, p in zip(grads, params, strict=True):
        updates, state = subject.step(tx, g, state, p)
        out.append(updates)
    return out


class _Ways:
    """The ways of running a subject, on the same few steps."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._done: list[Any] | None = None
        shapes = shapes_for(SMALL, subject)
        self.runs = [sequence(seed, shapes, STEPS, np.float64, kinds=("normal",)) for seed in (11, 12)]

    def steps(self, which: int = 0) -> tuple[list[Any], list[Any]]:
        run = self.runs[which]
        as_jax = lambda tree, t: jax.tree.map(lambda x: jnp.asarray(x[t]), tree)
        return [as_jax(run.grads, t) for t in range(STEPS)], [as_jax(run.params, t) for t in range(STEPS)]

    def plain(self) -> list[Any]:
        """The updates of the eager loop, computed once."""
        if self._done is None:
            self._done = eager(self.subject, *self.steps())
        return self._done

    def twice(self) -> None:
        agree("the second time", eager(self.subject, *self.steps()), self.plain(), 0.0)

    def in_turn(self) -> None:
        (g1, p1), (g2, p2) = self.steps(0), self.steps(1)
        tx, other = self.subject.build(), self.subject.build()
        first, second, out = tx.init(p1[0]), other.init(p2[0]), []
        third = tx.init(p2[0])
        for t in range(STEPS):
            updates, first = self.subject.step(tx, g1[t], first, p1[t])
            _, second = self.subject.step(other, g2[t], second, p2[t])
            _, third = self.subject.step(tx, g2[t], third, p2[t])
            out.append(updates)
        agree("with another instance between", out, self.plain())

    def containers(self) -> None:
        grads, params = self.steps()
        nested = lambda tree: {
            "b": list(jax.tree.leaves(tree)[:1]),
            "c": (*jax.tree.leaves(tree)[1:],),
        }
        flat = lambda trees: [jax.tree.leaves(tree) for tree in trees]
        ours = eager(self.subject, [nested(g) for g in grads], [nested(p) for p in params])
        theirs = eager(self.subject, flat(grads), flat(params))
        agree("the same leaves in other containers", flat(ours), theirs)
        agree("the same leaves in a list", theirs, flat(self.plain()))

    def jit(self) -> None:
        grads, params = self.steps()
        tx = self.subject.build()
        compiled = jax.jit(lambda g, s, p: self.subject.step(tx, g, s, p))
        state, out = tx.init(params[0]), []
        for g, p in zip(grads, params, strict=True):
            updates, state = compiled(g, state, p)
            out.append(updates)
        agree("compiled", out, self.plain())

    def scan(self) -> None:
        tx = self.subject.build()

        def whole(grads: Any, params: Any) -> Any:
            def body(state: Any, at: Any) -> Any:
                updates, state = self.subject.step(tx, at[0], state, at[1])
                return state, updates

            return jax.lax.scan(body, tx.init(take(params, 0)), (grads, params))[1]

        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *self.runs)
        out = fast_jit(jax.vmap(whole))(stacked.grads, stacked.params)
        agree("scanned, one of two", [take(take(out, 0), t) for t in range(STEPS)], self.plain())
        second = eager(self.subject, *self.steps(1))
        agree("scanned, the other of two", [take(take(out, 1), t) for t in range(STEPS)], second)

    def sharded(self) -> str:
        devices = jax.devices()
        if len(devices) < 2:
            raise Skip("one device only; jax.config.update('jax_num_cpu_devices', 8) makes eight")
        n = min(8, len(devices))
        shapes = shapes_for({"w": (2 * n, 4), "b": (n,), "s": ()}, self.subject)
        run = sequence(13, shapes, 2, np.float64, kinds=("normal",))
        mesh = jax.sharding.Mesh(np.array(devices[:n]), ("data",))
        place = lambda x: jax.device_put(
            jnp.asarray(x), jax.NamedSharding(mesh, jax.P("data") if np.ndim(x) else jax.P())
        )
        at = lambda tree, t: jax.tree.map(lambda x: x[t], tree)
        tx = self.subject.build()
        compiled = fast_jit(lambda g, s, p: self.subject.step(tx, g, s, p))
        results = []
        for put in (place, jnp.asarray):
            state, out = tx.init(jax.tree.map(put, at(run.params, 0))), []
            for t in range(2):
                updates, state = compiled(
                    jax.tree.map(put, at(run.grads, t)), state, jax.tree.map(put, at(run.params, t))
                )
                out.append(updates)
            results.append(out)
        sharded, whole = results
        agree(f"on {n} devices", sharded, whole)
        return f"{n} devices"
