"""L2, surroundings: what stands beside a leaf, and what JAX does around an update, changes no number.

Leaves under other names in another order, more of them than ten, one without elements among them; an update
under a bare ``vmap``, while it is differentiated, on arrays that lie on several devices; ``init`` compiled;
the parameters left out, where it works without them. Computed in float64, eagerly where that is the point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.report import Fail, Question, Skip, one_line
from purenets.conform.runs import fast_jit, take
from purenets.conform.sequences import SMALL, sequence, shapes_for
from purenets.conform.subject import Subject
from purenets.conform.transforms import agree, eager, in_float64
from purenets.paths import flatten
from purenets.programs import programs_inside

__all__ = ["callbacks", "questions"]

STEPS = 3
MANY = 12
HOST = ("debug_print", "infeed", "outfeed")


def questions(subject: Subject) -> Iterator[tuple[str, Question]]:
    """What L2 asks of surroundings."""
    with jax.enable_x64(True):
        around = _Around(subject)
    for name, way in (
        ("leaves in another order", around.order),
        ("more than ten leaves", around.many),
        ("an empty leaf beside", around.empty),
        ("params left out", around.without_params),
        ("init compiled", around.init),
        ("eager = vmap", around.vmapped),
        ("while differentiated", around.differentiated),
        ("eager on many devices", around.sharded),
        ("another one made beside", around.another),
        ("no host callbacks", around.no_callbacks),
    ):
        yield name, in_float64(way)


class _Around:
    """A subject on a few ordinary steps, as flat dicts of leaves."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        run = sequence(41, shapes_for(SMALL, subject), STEPS, np.float64, kinds=("normal",))
        at = lambda tree, t: {path: jnp.asarray(x[t]) for path, x in flatten(tree).items()}
        self.grads = [at(run.grads, t) for t in range(STEPS)]
        self.params = [at(run.params, t) for t in range(STEPS)]
        self._alone: list[Any] | None = None

    def alone(self) -> list[Any]:
        """The updates of the plain loop, computed once."""
        if self._alone is None:
            self._alone = eager(self.subject, self.grads, self.params)
        return self._alone

    def unless_random(self) -> None:
        """Raise :class:`Skip` where the state has a key: what a leaf draws may depend on its place."""
        if self.subject.draws:
            raise Skip("draws random numbers, which may depend on the place of a leaf")

    def renamed(self, names: Callable[[str], str]) -> list[Any]:
        """The updates of the leaves under other names, under their own again."""
        turn = lambda tree: {names(path): x for path, x in tree.items()}
        out = eager(self.subject, [turn(g) for g in self.grads], [turn(p) for p in self.params])
        return [{path: u[names(path)] for path in self.grads[0]} for u in out]

    def order(self) -> None:
        self.unless_random()
        ranks = {path: f"{len(self.grads[0]) - i}" for i, path in enumerate(sorted(self.grads[0]))}
        agree("under names in the opposite order", self.renamed(lambda path: ranks[path]), self.alone())

    def many(self) -> None:
        self.unless_random()
        rng = np.random.default_rng(43)
        draw = lambda: [jnp.asarray(rng.standard_normal(3)) for _ in range(MANY)]
        grads, params = [draw() for _ in range(2)], [draw() for _ in range(2)]
        # All of one shape, and of one last name: only the whole path tells them apart.
        named = lambda trees: [
            {f"{(i * 5) % MANY:02d}": {"w": x} for i, x in enumerate(tree)} for tree in trees
        ]
        ours = eager(self.subject, grads, params)
        theirs = eager(self.subject, named(grads), named(params))
        same = [[u[f"{(i * 5) % MANY:02d}"]["w"] for i in range(MANY)] for u in theirs]
        agree(f"{MANY} leaves in a list, and in a dict in another order", ours, same)

    def empty(self) -> None:
        self.unless_random()
        more = lambda trees: [{**tree, "empty": jnp.zeros((0, 3))} for tree in trees]
        if not self.subject.takes((0, 3)):
            raise Skip("takes no leaf without elements")
        out = eager(self.subject, more(self.grads), more(self.params))
        agree("beside a leaf without elements", [{k: u[k] for k in self.grads[0]} for u in out], self.alone())

    def without_params(self) -> None:
        tx = self.subject.build()
        extras = [self.subject.extras(g, p) for g, p in zip(self.grads, self.params, strict=True)]
        state, out = tx.init(self.params[0]), []
        try:
            for g, extra in zip(self.grads, extras, strict=True):
                updates, state = tx.update(g, state, **extra)
                out.append(updates)
        except Exception:
            raise Skip("needs the parameters") from None
        agree("it works without params, and they change something", self.alone(), out)

    def init(self) -> None:
        tx = self.subject.build()
        agree("jit(init)", fast_jit(tx.init)(self.params[0]), tx.init(self.params[0]))

    def vmapped(self) -> None:
        """A vmap of a single update, whose leaves are batched and not traced."""
        tx = self.subject.build()
        last = STEPS - 1
        state = self._state(tx, last)
        both = lambda tree: jax.tree.map(lambda x: jnp.stack([x, x]), tree)
        step = lambda g, s, p: self.subject.step(tx, g, s, p)[0]
        # Compiled, a vmap batches the leaves all the same; a scan inside of it would hide that.
        out = fast_jit(jax.vmap(step))(both(self.grads[last]), both(state), both(self.params[last]))
        for i in range(2):
            agree(f"vmapped, member {i}", take(out, i), self.alone()[last])

    def _state(self, tx: Any, steps: int) -> Any:
        """The state after some steps."""
        state = tx.init(self.params[0])
        for g, p in zip(self.grads[:steps], self.params[:steps], strict=True):
            state = self.subject.step(tx, g, state, p)[1]
        return state

    def differentiated(self) -> None:
        tx = self.subject.build()
        last = STEPS - 1
        state, params = self._state(tx, last), self.params[last]
        step = lambda g: self.subject.step(tx, g, state, params)[0]
        grads = self.grads[last]
        out = fast_jit(lambda g: jax.jvp(step, (g,), (jax.tree.map(jnp.ones_like, g),))[0])(grads)
        agree("while differentiated", out, self.alone()[last])

    def sharded(self) -> str:
        devices = jax.devices()
        if len(devices) < 2:
            raise Skip("one device only; jax.config.update('jax_num_cpu_devices', 8) makes eight")
        n = 4 if len(devices) >= 4 else 2
        run = sequence(13, {"w": (4, 3)}, 2, np.float64, kinds=("normal",))
        mesh = jax.sharding.Mesh(np.array(devices[:n]), ("data",))
        place = lambda x: jax.device_put(jnp.asarray(x), jax.NamedSharding(mesh, jax.P("data")))
        each = lambda put: [
            [jax.tree.map(lambda x, t=t: put(x[t]), tree) for t in range(2)] for tree in (run.grads, run.params)
        ]  # fmt: skip
        agree(
            f"eagerly on {n} devices",
            eager(self.subject, *each(place)),
            eager(self.subject, *each(jnp.asarray)),
        )
        return f"{n} devices"

    def another(self) -> None:
        """What was made before is as it was, when one with other numbers was made and used since."""
        expected, tx = self.alone(), self.subject.build()
        defaults = {name: self.subject.default(name) for name in self.subject.parameters}
        other = {name: x / 2 for name, x in defaults.items() if type(x) is float and x}
        if not other:
            raise Skip("takes no numbers")
        try:
            second = self.subject.build(other)
            self.subject.step(second, self.grads[0], second.init(self.params[0]), self.params[0])
        except Exception as error:
            raise Skip(f"not with half of every number: {one_line(error, 80)}") from None
        agree("after another one was made", eager(self.subject, self.grads, self.params, tx), expected)

    def no_callbacks(self) -> None:
        tx = self.subject.build()
        step = lambda g, p: self.subject.step(tx, g, tx.init(p), p)
        if found := callbacks(step, self.grads[0], self.params[0]):
            raise Fail(f"update calls back into Python ({found}): it waits for the host at every step")


def callbacks(fn: Callable[..., Any], *args: Any) -> str:
    """The name of a primitive in the program of ``fn`` that runs Python on the host, or nothing."""
    return _callback_in(jax.make_jaxpr(fn)(*args).jaxpr)


def _callback_in(jaxpr: Any) -> str:
    for equation in jaxpr.eqns:
        if "callback" in equation.primitive.name or equation.primitive.name in HOST:
            return str(equation.primitive.name)
        for inner in programs_inside(equation):
            if found := _callback_in(inner):
                return found
    return ""
