"""Laws that every optimizer keeps, and traits that each has or has not, measured.

A *law* holds for every optimizer unless it is declared otherwise. A *trait* is a yes or no of one algorithm;
what was declared must be what is measured, and what was not declared is measured and reported. All are
measured on one short run of ordinary gradients and its variations, in float64, to a relative 1e-6, so that an
epsilon of 1e-8 does not count against an invariance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.against import Case, compare_runs
from purenets.conform.regular import REGULAR
from purenets.conform.report import Fail, Note, Skip, one_line
from purenets.conform.runs import Run, run
from purenets.conform.sequences import SMALL, sequence, shapes_for, stack
from purenets.conform.subject import Subject
from purenets.conform.variations import STEPS, variations
from purenets.paths import flatten, unflatten

__all__ = ["LAWS", "TRAITS", "Measured", "declared", "same"]

TRAITS = {
    "ignores_params": "other parameters, the same updates",
    "leaf_local": "a leaf's updates depend on that leaf alone",
    "leaf_split_equivariant": "a leaf cut in pieces has its updates cut in pieces",
    "linear_in_lr": "twice the learning rate, twice the updates",
    "nan_stays_in_leaf": "a NaN in one leaf's gradient leaves the other leaves as they were",
    "odd": "minus the gradients, minus the updates",
    "permutation_equivariant": "entries of a leaf permuted, its updates permuted",
    "scale_equivariant": "eight times the gradients, eight times the updates",
    "scale_invariant": "eight times the gradients, the same updates",
    "shift_invariant": "all parameters moved by a constant, the same updates",
    "sign_equivariant": "signs of single entries turned in gradients and parameters, the same in the updates",
    "zero_gradient_fixed_point": "no gradient ever, no update ever",
}
"""Traits that an optimizer may have or lack, in words; each is measured, and may be declared."""

LAWS = {
    "moves_at_once": "a first gradient gives a first update, in every leaf",
    "downhill_at_first": "the first update goes against the first gradient, in every leaf",
    "answers_at_once": "an update depends on the gradient of its own step, in every leaf",
    "schedule_from_zero": "a scheduled rate is asked for steps 0, 1, 2, ... once each",
    "finite": "finite gradients of any size, zeros too, give finite updates",
    **{name: what for name, (what, _) in REGULAR.items()},
}
"""Laws that every optimizer keeps, in words."""

NEAR = 1e-6


def declared(traits: Mapping[str, Any] | Iterable[str] | None) -> dict[str, Any]:
    """Declared traits as name to value; of plain names, ``odd`` declares yes and ``!odd`` no.

    ``first_step`` is declared by a function ``(gradient, parameter) -> update`` of one leaf, its closed form.

    Raises:
        ValueError: there is no trait of that name.

    >>> declared(["odd", "!ignores_params"])
    {'odd': True, 'ignores_params': False}
    """
    if traits is None:
        return {}
    if not isinstance(traits, Mapping):
        names = [traits] if isinstance(traits, str) else list(traits)
        traits = {name.removeprefix("!"): not name.startswith("!") for name in names}
    known = {*TRAITS, *LAWS, "first_step"}
    if unknown := set(traits) - known:
        raise ValueError(f"there is no trait {sorted(unknown)[0]!r}; there are: {', '.join(sorted(known))}")
    return dict(traits)


class Measured:
    """The traits of a subject, each measured when first asked for."""

    def __init__(self, subject: Subject, reference: Subject | None = None) -> None:
        self.subject, self.reference = subject, reference
        self.shapes = shapes_for(SMALL, subject, reference)
        self.first = next(iter(self.shapes))
        self.index, self.grads, self.params = variations(self.shapes)
        self._run: Run | None = None

    @property
    def rate(self) -> str | None:
        """The name of the learning rate, where it is a number."""
        name = self.subject.rate
        return name if name and isinstance(self.subject.default(name), int | float) else None

    def rows(self) -> tuple[list[dict[str, float]], list[int]]:
        """Hyperparameters by row, and the row of each run."""
        rows: list[dict[str, float]] = [{} for _ in self.index]
        which = list(self.index.values())
        if self.rate:
            base = float(self.subject.default(self.rate))
            rows = [{self.rate: base} for _ in rows] + [{self.rate: 2 * base}]
            which = [*which, 0]
        return rows, which

    def updates(self, name: str) -> dict[str, np.ndarray]:
        """The updates ``[steps, ...]`` of one variation, ``faster`` being twice the rate."""
        if self._run is None:
            with jax.enable_x64(True):
                rows, which = self.rows()
                self._run = run(self.subject, {}, rows, which, self.grads, self.params)
        row = -1 if name == "faster" else self.index[name]
        return {path: x[row] for path, x in self._run.updates.items()}

    def trait(self, name: str) -> str | None:
        """None where the trait holds, or the first place where it does not."""
        base = self.updates("base")
        rest = lambda tree: {path: x for path, x in tree.items() if path != self.first}
        if name == "linear_in_lr":
            if not self.rate:
                raise Skip("no learning rate that is a number")
            return same(self.updates("faster"), {path: 2 * x for path, x in base.items()})
        if name == "leaf_split_equivariant":
            return self._split(base)
        if name == "sign_equivariant":
            g, flipped = (
                flatten(jax.tree.map(lambda x, i=i: x[i], self.grads)) for i in (0, self.index["signs"])
            )
            turned = {path: np.sign(g[path] * flipped[path]) for path in g}
            return same(self.updates("signs"), {path: x * turned[path] for path, x in base.items()})
        if name == "permutation_equivariant":
            turn = {path: x[..., ::-1] if x.ndim > 1 else x for path, x in base.items()}
            return same(self.updates("turned"), turn)
        simple: dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {
            "odd": (self.updates("odd"), {path: -x for path, x in base.items()}),
            "scale_invariant": (self.updates("scaled"), base),
            "scale_equivariant": (self.updates("scaled"), {path: 8 * x for path, x in base.items()}),
            "shift_invariant": (self.updates("shifted"), base),
            "ignores_params": (self.updates("other params"), base),
            "zero_gradient_fixed_point": (self.updates("zero"), {path: 0 * x for path, x in base.items()}),
            "nan_stays_in_leaf": (rest(self.updates("nan")), rest(base)),
            "leaf_local": (rest(self.updates("one leaf")), rest(base)),
        }
        return same(*simple[name])

    def _split(self, base: dict[str, np.ndarray]) -> str | None:
        """The first leaf, a matrix, cut into a flat piece and a smaller matrix."""
        g, p = (flatten(jax.tree.map(lambda x: x[:1], tree)) for tree in (self.grads, self.params))
        cut = lambda tree: unflatten({
            **{path: x for path, x in tree.items() if path != self.first},
            "cut/flat": tree[self.first][:, :, :2].reshape(1, STEPS, -1),
            "cut/rest": tree[self.first][:, :, 2:],
        })  # fmt: skip
        with jax.enable_x64(True):
            out = run(self.subject, {}, [{}], [0], cut(g), cut(p)).updates
        mine = {path: x[0] for path, x in out.items()}
        flat, rest = mine.pop("cut/flat"), mine.pop("cut/rest")
        mine[self.first] = np.concatenate([flat.reshape(STEPS, 2, -1), rest], axis=1)
        return same(mine, base)

    def law(self, name: str) -> str | None:
        """None where the law holds, or how it is broken."""
        if name == "schedule_from_zero":
            return _schedule(self.subject)
        if name == "finite":
            return _finite(self.subject)
        if name in REGULAR:
            return REGULAR[name][1](self)
        base = self.updates("base")
        grads = flatten(jax.tree.map(lambda x: x[0], self.grads))
        for path, u in base.items():
            if name == "moves_at_once" and not np.any(u[0]):
                return f"the first update of {path} is exactly zero"
            if name == "downhill_at_first":
                if not self.rate or "scale_by" in self.subject.name:
                    raise Skip("no optimizer but a part of one, so no direction to expect")
                if np.sum(u[0] * grads[path][0]) > 0:
                    return f"the first update of {path} goes with its gradient and not against it"
            if name == "answers_at_once" and u.any():
                others = (self.updates(which)[path][STEPS - 2] for which in ("late up", "late down"))
                waits = not any(x[STEPS - 2].any() for x in base.values())
                if not waits and all(np.array_equal(other, u[STEPS - 2]) for other in others):
                    return f"step {STEPS - 2}: quite another gradient of {path}, the same update"
        return None

    def against_reference(self) -> str | None:
        """The variations compared with the reference's."""
        if self.reference is None:
            raise Skip("no reference")
        with jax.enable_x64(True):
            rows, which = self.rows()
            if self.rate and self.rate not in self.reference.parameters:
                rows, which = [{} for _ in self.index], list(self.index.values())
            # What becomes of the poisoned leaf is nobody's business, what becomes of the others a trait.
            kept = [i for i, w in enumerate(which) if w != self.index["nan"]]
            names = list(self.index)
            labels = [f"variation {names[w]!r}" for w in which]
            labels[len(names) :] = ["twice the rate"] * (len(labels) - len(names))
            token = "variations" + ("" if "gain" in self.shapes else "/no scalars")
            pick = lambda xs: [xs[i] for i in kept]
            case = Case(token, self.grads, self.params, pick(which), pick(rows), pick(labels))
            compare_runs(self.subject, self.reference, case, relative=1e-10)
            if self.reference.build().numpy or Measured(self.reference).trait("nan_stays_in_leaf"):
                return None
            if broken := self.trait("nan_stays_in_leaf"):
                raise Fail(f"a NaN in {self.first} reaches other leaves, and not in the reference: {broken}")
            return None


def same(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> str | None:
    """None where two runs agree to a relative 1e-6, or the first place where they do not."""
    for path, b in theirs.items():
        a = ours[path]
        size = np.max(np.abs(b), where=np.isfinite(b), initial=0.0)
        good = np.isclose(a, b, rtol=NEAR, atol=1e-3 * NEAR * size)
        if not good.all():
            step, *at = (int(i) for i in np.argwhere(~good)[0])
            place = f"{path}{at}" if at else path
            return f"step {step}, {place}: {float(a[(step, *at)])!r} and not {float(b[(step, *at)])!r}"
    return None


def _schedule(subject: Subject) -> str | None:
    """Run with a schedule that writes down what it is asked."""
    if subject.rate is None:
        raise Skip("no learning rate")
    asked: list[float] = []

    def schedule(count: Any) -> Any:
        asked.append(float(count))
        return 0.1 / (1.0 + jnp.asarray(count, jnp.float32))

    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    try:
        tx = subject.build({subject.rate: schedule})
        state = tx.init(tree)
        asked.clear()
        steps = []
        for _ in range(3):
            updates, state = subject.step(tx, tree, state, tree)
            if not any(np.any(u) for u in jax.tree.leaves(updates)):
                raise Skip("no update at once, as when gradients are gathered")
            steps.append(sorted(set(asked)))
            asked.clear()
    except Skip:
        raise
    except jax.errors.ConcretizationTypeError:
        raise Skip("the schedule is called under a trace") from None
    except Exception as error:
        raise Note(f"the rate cannot be scheduled: {one_line(error, 100)}") from None
    if steps != [[0.0], [1.0], [2.0]]:
        return f"at updates 0, 1 and 2 the schedule was asked for {steps}"
    return None


def _finite(subject: Subject) -> str | None:
    for dtype in ("float64", "float32"):
        with jax.enable_x64(dtype == "float64"):
            shapes = shapes_for(SMALL, subject)
            both = stack([
                sequence(201 + i, shapes, 100, np.dtype(dtype), first) for i, first in enumerate(("normal", "quiet"))
            ])  # fmt: skip
            out = run(subject, {}, [{}, {}], [0, 1], both.grads, both.params).updates
        for path, x in out.items():
            if not np.isfinite(x).all():
                row, step, *_ = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
                first = ", the first gradient being zero" if row else ""
                return f"{dtype}: {path} is not finite from step {step}{first}"
    return None
