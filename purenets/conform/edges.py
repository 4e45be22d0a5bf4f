"""L4 at the edges: where numbers are huge or tiny, not finite, zero, traced, or in less precision.

The same gradients on both sides, as everywhere in L4, but chosen for what is rare: sizes from 1e-90 to 1e90 and
zeros of both signs; a NaN or an infinity now and then, after which an optimizer recovers or does not; more leaves
than have one digit, with axes of one entry and with five axes among them;
hyperparameters of exactly zero, which a test of truth takes for "not given"; hyperparameters that are traced;
float16 beside float32; derivatives of the update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.against import Case, compare_runs, kept
from purenets.conform.compare import rounded_with
from purenets.conform.knobs import Knob
from purenets.conform.report import Fail, Note, Question, Skip, one_line
from purenets.conform.runs import fast_jit, run, take, traceable
from purenets.conform.sequences import SMALL, sequence, shapes_for, stack
from purenets.conform.subject import Subject
from purenets.conform.transforms import agree
from purenets.paths import flatten, unflatten

__all__ = ["questions"]

STEPS = 24
INFINITE = 1
SHAPES = ((3,), (3, 1), (1, 4), (3,), (2, 3), (3,), (1, 1), (2, 1, 2, 2, 3))
MANY = {f"leaf_{at:02}": SHAPES[at % len(SHAPES)] for at in range(15)}
TREE = {"w": np.array([[0.3, -1.2, 0.0], [2.0, -0.1, 0.7]]), "b": np.array([-0.4, 0.9, 1.1])}


def questions(
    subject: Subject, reference: Subject, turned: list[Knob], shared: Mapping[str, Any]
) -> Iterator[tuple[str, Question]]:
    """What L4 asks at the edges."""
    edges = _Edges(subject, reference, turned, dict(shared))
    yield "gradients of extreme size", edges.extreme
    yield "gradients that are not finite", edges.not_finite
    yield "many leaves", edges.many
    yield "numbers of exactly zero", edges.zeros
    yield "other numbers scheduled", edges.scheduled
    yield "numbers traced", edges.traced
    yield "float16 beside float32", edges.halves
    yield "derivative of an update", edges.derivative


class _Edges:
    """One subject against one reference."""

    def __init__(
        self, subject: Subject, reference: Subject, turned: list[Knob], shared: dict[str, Any]
    ) -> None:
        self.subject, self.reference = subject, reference
        self.turned, self.shared = turned, shared
        self.shapes = shapes_for(SMALL, subject, reference)
        self.numbers = [k.name for k in turned if k.kind == "number"]

    def _compare(
        self,
        token: str,
        rows: list[Any],
        labels: list[str],
        unasked: Any = None,
        settings: Mapping[str, Any] | None = None,
    ) -> str | None:
        both = stack(rows)
        scalars = "" if "gain" in self.shapes else "/no scalars"
        nothing: list[dict[str, float]] = [{} for _ in labels]
        case = Case(
            token + scalars,
            both.grads,
            both.params,
            range(len(labels)),
            nothing,
            labels,
            {**self.shared, **(settings or {})},
            concrete=True,
        )
        return compare_runs(self.subject, self.reference, case, unasked=unasked)

    def extreme(self) -> str | None:
        """Each entry on its own scale, and zeros of both signs."""
        with jax.enable_x64(True):
            rows = []
            for seed, decades in ((61, 90.0), (62, 25.0), (63, 2.0)):
                rng = np.random.default_rng(seed)
                plain = sequence(seed, self.shapes, STEPS, np.float64, kinds=("normal", "flip"))
                grads = {}
                for path, g in flatten(plain.grads).items():
                    scale = 10.0 ** rng.uniform(-decades, decades, g.shape[1:])
                    zero = np.where(rng.random(g.shape) < 0.5, -0.0, 0.0)
                    grads[path] = np.where(rng.random(g.shape) < 0.3, zero, np.sign(g) * scale)
                rows.append(plain._replace(grads=unflatten(grads)))
            return self._compare("extreme", rows, ["sizes 1e±90", "sizes 1e±25", "zeros of both signs"])

    def not_finite(self) -> str | None:
        """Entries, leaves and whole gradients that are not finite, once and several times in a row."""
        if self.reference.build(self.shared).numpy:
            raise Skip("no paper says what comes of NaN")
        with jax.enable_x64(True):
            first, *_, last = self.shapes
            plans = {  # of an infinity there is something in row INFINITE alone
                "one NaN": ([(first, 3)], np.nan),
                "one infinity": ([(first, 3), (last, 9)], np.inf),
                "NaN throughout, once": ([(path, 4) for path in self.shapes], np.nan),
                "six NaNs in a row": ([(last, t) for t in range(5, 11)], np.nan),
                "NaN at every third step": ([(last, t) for t in range(5, STEPS, 3)], np.nan),
            }
            rows = []
            for seed, (places, value) in enumerate(plans.values()):
                plain = sequence(71 + seed, self.shapes, STEPS, np.float64, kinds=("normal",))
                grads = {path: g.copy() for path, g in flatten(plain.grads).items()}
                for path, t in places:
                    whole = len(places) > 2
                    grads[path].reshape(STEPS, -1)[t, : None if whole else 1] = value
                rows.append(plain._replace(grads=unflatten(grads)))
            return self._compare("not finite", rows, list(plans), _lost)

    def many(self) -> str | None:
        """More than ten leaves, some of the same shape, some with axes of one entry, some with five axes."""
        with jax.enable_x64(True):
            both = stack([sequence(81, MANY, STEPS // 2, np.float64, kinds=("normal", "flip"))])
            case = Case("many", both.grads, both.params, [0], [{}], ["defaults"], self.shared, concrete=True)
            return compare_runs(self.subject, self.reference, case)

    def _eagerly(self, side: Subject, settings: Mapping[str, Any]) -> list[Any]:
        tx = side.build({**self.shared, **settings})
        if tx.numpy:
            raise Skip("the reference computes in NumPy")
        params = jax.tree.map(jnp.asarray, TREE)
        state, out = tx.init(params), []
        for t in range(3):
            grads = jax.tree.map(lambda x, t=t: (1.7 - t) * (x + 0.3), params)
            updates, state = side.step(tx, grads, state, params)
            out.append(updates)
        return out

    def _alike(self, settings: Mapping[str, Any], label: str, refused: type[Exception] = Fail) -> bool:
        """Compare both sides under settings, eagerly; False where the reference does not take them.

        Where it does and the subject breaks, ``refused`` is raised. What its factory refuses it need not take.
        """
        if self.subject.refuses({**self.shared, **settings}):
            return False
        try:
            theirs = self._eagerly(self.reference, settings)
        except Skip:
            raise
        except Exception:  # what the reference does not take, nobody need take
            return False
        try:
            ours = self._eagerly(self.subject, settings)
        except Exception as error:
            raise refused(f"with {label}: raised {one_line(error, 160)}") from None
        if all(np.isfinite(x).all() for x in jax.tree.leaves(theirs)):
            try:
                agree(f"with {label}", ours, theirs)
            except Fail as apart:
                self._measured(settings, label, apart)
        return True

    def _measured(self, settings: Mapping[str, Any], label: str, apart: Fail) -> None:
        """Compare once more with rounding measured: under some settings equal numbers are subtracted."""
        plain = sequence(91, self.shapes, STEPS // 2, np.float64, kinds=("normal",))
        try:
            self._compare("settings", [plain], [label], settings=settings)
        except Skip:
            raise apart from None

    def zeros(self) -> str | None:
        """Each number at exactly zero, the rate as a whole number, both plain Python, and None for a number."""
        rate = self.subject.rate
        asked: list[tuple[str, Any]] = [(name, 0.0) for name in self.numbers]
        asked += [(rate, 1)] if rate in self.numbers else []
        asked += [(k.name, 0.0) for k in self.turned if k.kind == "option" and k.name != rate]
        with jax.enable_x64(True):
            taken = [f"{n}={v}" for n, v in asked if self._alike({n: v}, f"{n}={v}")]
            taken += [f"{n}=None" for n in self.numbers if self._without(n)]
        return ", ".join(taken)

    def _without(self, name: str) -> bool:
        """Compare both sides with None for a number; False where either does not take it, which is no mistake."""
        try:
            return self._alike({name: None}, f"{name}=None", Note)
        except Note:
            return False

    def scheduled(self) -> str | None:
        """Numbers besides the rate that the reference takes as functions of the step."""
        names = [k.name for k in self.turned if k.kind == "number" and k.name != self.subject.rate]
        with jax.enable_x64(True):
            taken = [name for name in names if self._alike({name: _falling}, f"{name} scheduled", Note)]
        return ", ".join(taken) or "none"

    def traced(self) -> str:
        """What the reference takes traced, the subject takes traced.

        The rate must be, for sweeps. Who looks at another number, to see whether it is allowed or zero, is told so.
        """
        if self.reference.build(self.shared).numpy:
            raise Skip("the reference computes in NumPy")
        taken, looked_at = [], []
        for name in self.numbers:
            value = {name: float(self.shared.get(name, self.subject.default(name)))}
            static = {k: v for k, v in self.shared.items() if k != name}
            if not traceable(self.reference, static, value):
                continue
            if traceable(self.subject, static, value):
                taken.append(name)
            elif name == self.subject.rate:
                raise Fail(f"{name} may be traced in the reference, and not here: it looks at the value")
            else:
                looked_at.append(name)
        if looked_at:
            raise Note(
                f"it looks at the value of {', '.join(looked_at)}, which may be traced in the reference"
            )
        return ", ".join(taken)

    def halves(self) -> str | None:
        """Leaves of both precisions in one tree, to a tenth."""
        plain = stack([sequence(81, self.shapes, 5, np.float32, kinds=("normal",))])
        tame = lambda x: np.sign(x) * (0.5 + np.abs(x) / (1 + np.abs(x)))
        kinds = (np.float16, np.float32)
        cast = lambda tree: unflatten({
            path: np.asarray(tame(x), kinds[i % 2]) for i, (path, x) in enumerate(flatten(tree).items())
        })  # fmt: skip
        grads, params = cast(plain.grads), cast(plain.params)
        go = lambda side: run(side, self.shared, [{}], [0], grads, params, concrete=True).updates
        if self.reference.build(self.shared).numpy:
            raise Skip("the reference computes in NumPy")
        try:
            theirs = kept(self.reference, "halves" + str(list(self.shapes)), lambda: go(self.reference))
        except Exception as error:
            raise Skip(f"the reference does not run: {one_line(error)}") from None
        ours = go(self.subject)
        own = rounded_with(ours, flatten(params))
        for path, x in ours.items():
            a, b = np.asarray(x, np.float64), np.asarray(theirs[path], np.float64)
            size = np.max(np.abs(b), where=np.isfinite(b), initial=0.0)
            good = (np.abs(a - b) <= 0.1 * size + own.get(path, 0.0)) | ~np.isfinite(b)
            if not good.all():
                at = tuple(int(i) for i in np.argwhere(~good)[0])
                kind = grads_dtype(grads, path)
                raise Fail(f"step {at[1]}, {path} in {kind}: {a[at]:.4g} instead of about {b[at]:.4g}")
        return None

    def derivative(self) -> str | None:
        """How an update depends on the gradients, for those who differentiate through a training."""
        if self.reference.build(self.shared).numpy:
            raise Skip("the reference computes in NumPy")
        with jax.enable_x64(True):
            plain = sequence(91, self.shapes, 3, np.float64, kinds=("normal",))
            along = jax.tree.map(
                lambda g: np.cos(np.arange(g.size)).reshape(g.shape) * np.abs(g), plain.grads
            )

            def slope(side: Subject) -> Any:
                tx = side.build(self.shared)

                def whole(grads: Any) -> Any:
                    state, out = tx.init(take(plain.params, 0)), None
                    for t in range(3):
                        out, state = side.step(tx, take(grads, t), state, take(plain.params, t))
                    return out

                return fast_jit(lambda g: jax.jvp(whole, (g,), (along,)))(plain.grads)

            try:
                updates, theirs = kept(
                    self.reference, "slope" + str(list(self.shapes)), lambda: slope(self.reference)
                )
            except Exception as error:
                raise Skip(f"the reference has none: {one_line(error, 100)}") from None
            if not all(np.isfinite(x).all() for x in jax.tree.leaves(theirs)):
                raise Skip("that of the reference is not finite")
            # A derivative that is zero but for rounding, on the scale of the update.
            near = lambda x, y, u: np.where(np.abs(x - y) <= 1e-12 * np.max(np.abs(u), initial=0.0), y, x)
            ours = jax.tree.map(near, slope(self.subject)[1], theirs, updates)
            agree("the derivative", ours, theirs, 1e-6)
        return None


def _falling(count: Any) -> Any:
    """A schedule that is another number at every step."""
    return 0.5 / (1.5 + count)


def _lost(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Where nothing is asked: an entry that the reference has lost is lost, whatever follows.

    But an entry that moves at the step at which the reference loses it has swallowed what it was given. One
    that stands still has not: zero is what a guarded division makes of it. Nor is an entry asked that an infinity made
    NaN of: forms that are equal on paper part there, as ``x / (1 + x)`` and ``1 / (1 + 1 / x)`` do.
    """
    lost = np.logical_or.accumulate(~np.isfinite(theirs), axis=1)
    first = lost.copy()
    first[:, 1:] &= ~lost[:, :-1]
    met = np.zeros(ours.shape, bool)
    met[INFINITE].reshape(ours.shape[1], -1)[:, :1] = True
    met &= np.logical_or.accumulate(np.isnan(ours), axis=1)
    return (lost & ~(first & np.isfinite(ours) & (ours != 0))) | met


def grads_dtype(grads: Any, path: str) -> str:
    """The dtype of the gradient at a path."""
    return str(flatten(grads)[path].dtype)
