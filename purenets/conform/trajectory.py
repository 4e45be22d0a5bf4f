"""L4, trajectory: equal to the reference, step by step.

Every hyperparameter alone and all together, flags, options and a scheduled rate; float64, float32 and bfloat16;
small leaves and a large one; a long run; and runs whose counters say that thousands, millions or billions of
updates were made before, so that what goes wrong late shows early. Gradients are those of
:mod:`purenets.conform.sequences`; nothing depends on a loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform import edges
from purenets.conform import knobs as turning
from purenets.conform.against import Case, compare_runs, kept
from purenets.conform.compare import rounded_with
from purenets.conform.fields import named_leaves
from purenets.conform.knobs import Config, Knob
from purenets.conform.report import Fail, Note, Question, Skip, one_line
from purenets.conform.runs import counts_updates, run
from purenets.conform.sequences import BIG, FULL, SMALL, GradientRun, Shapes, sequence, shapes_for, stack
from purenets.conform.subject import Subject
from purenets.paths import flatten

__all__ = ["data", "questions", "shared_settings"]

STEPS = 160
BIG_STEPS = 24
LONG_STEPS = 2400
LONG: Shapes = {"w": (5,), "gain": ()}
JUMPS = (0, 0, 995, 9_990, 99_990, 2**24 - 5, 2**31 - 3_000)


SETS: Mapping[str, Shapes] = {"small": SMALL, "full": FULL, "big": {**SMALL, **BIG}, "long": LONG}


@lru_cache(maxsize=16)
def _data(token: str, paths: tuple[str, ...]) -> GradientRun:
    """The gradients of a token, ``shapes/steps/dtype``; deterministic, so the token stands for them."""
    name, steps, dtype = token.split("/")
    shapes = {path: SETS[name][path] for path in paths}
    firsts = (("normal", False), ("quiet", False), ("sparse", dtype == "float64"))
    return stack([
        sequence(101 + i, shapes, int(steps), np.dtype(dtype), first, extreme)
        for i, (first, extreme) in enumerate(firsts[: 1 if name == "big" else 3])
    ])  # fmt: skip


def data(token: str, *subjects: Subject | None) -> GradientRun:
    """Three runs of gradients and parameters for ``small|full|big|long/steps/dtype``, stacked."""
    return _data(token, tuple(shapes_for(SETS[token.split("/")[0]], *subjects)))


def shared_settings(subject: Subject, reference: Subject) -> dict[str, Any]:
    """What both sides must be given so that they mean the same: the rate, and what either requires.

    Raises:
        ValueError: one side was guessed a learning rate that the other does not take.
    """
    shared = {}
    for name in {*subject.held, *reference.held}:
        if name in subject.parameters and name in reference.parameters:
            own = subject.default(name)
            shared[name] = reference.default(name) if own is None else own
    for one, other in ((reference, subject), (subject, reference)):
        if one.rate in one.guessed and one.rate not in other.parameters:
            raise ValueError(
                f"{one.name} requires {one.rate!r}, which {other.name} does not take: the two cannot be "
                f"known to mean the same; hold it with settings={{{one.rate!r}: ...}}, or build it in: "
                f"lambda: {one.name.split(':')[-1]}({one.rate}=...)"
            )
    return shared


def questions(subject: Subject, reference: Subject) -> Iterator[tuple[str, Question]]:
    """What L4 asks."""
    turned = turning.knobs(subject, reference)
    shared = shared_settings(subject, reference)
    comparison = _Comparison(subject, reference, turned, shared)
    yield "defaults, float64", lambda: comparison.untouched("full", "float64")
    rate = subject.rate if subject.rate in reference.parameters else None
    for config in turning.configs(turned, rate):
        label = "each number alone, all together" if config.label == "defaults" else config.label
        yield label, lambda config=config: comparison.config(config)  # type: ignore[misc]
    yield "everything turned, as plain numbers", comparison.everything
    yield "without params", comparison.without_params
    yield "defaults, float32, a large leaf", lambda: comparison.untouched("big", "float32")
    yield f"{LONG_STEPS} steps, and counters far on", comparison.long_run
    yield "bfloat16", comparison.bfloat16
    yield "dtypes of the state", lambda: comparison.state_dtypes(turned)
    yield from edges.questions(subject, reference, turned, shared)


class _Comparison:
    """One subject against one reference."""

    def __init__(
        self, subject: Subject, reference: Subject, turned: list[Knob], shared: Mapping[str, Any]
    ) -> None:
        self.subject, self.reference = subject, reference
        self.turned, self.shared = turned, dict(shared)

    def case(self, shapes: str, steps: int, dtype: str, **parts: Any) -> Case:
        token = f"{shapes}/{steps}/{dtype}"
        both = data(token, self.subject, self.reference)
        rows = parts.setdefault("rows", [{}])
        parts.setdefault("labels", ["defaults"] * len(rows))
        return Case(f"{token}/{list(flatten(both.grads))}", both.grads, both.params, **parts)

    def default(self, name: str) -> Any:
        """The value both sides get for a number that is not turned."""
        return self.shared.get(name, self.subject.default(name))

    def untouched(self, shapes: str, dtype: str) -> str | None:
        """Nothing is passed but what must be, so that a different default shows."""
        with jax.enable_x64(dtype == "float64"):
            which = [0] if shapes == "big" else [0, 1, 2]
            steps = BIG_STEPS if shapes == "big" else STEPS
            rows: list[dict[str, float]] = [{}] * len(which)
            static = self.shared
            case = self.case(shapes, steps, dtype, which=which, rows=rows, static=static, concrete=True)
            return compare_runs(self.subject, self.reference, case)

    def config(self, config: Config) -> str | None:
        """All numbers of one config, as rows of a batch."""
        plain = config.label == "defaults"
        static = {k: v for k, v in {**self.shared, **config.static}.items() if k not in self._numbers(config)}
        labels, rows = turning.number_rows(self.turned, self.default, config.static, full=plain)
        which = [i % 3 for i in range(len(rows))]
        scheduled = config.label.startswith("scheduled ")
        with jax.enable_x64(True):
            case = self.case("small", STEPS, "float64", which=which, rows=rows, labels=labels, static=static)
            if config.static and not plain:
                self._accepted(config, scheduled)
            return compare_runs(self.subject, self.reference, case, config.relative)

    def _numbers(self, config: Config) -> set[str]:
        return {k.name for k in self.turned if k.kind == "number" and k.name not in config.static}

    def _accepted(self, config: Config, scheduled: bool) -> None:
        """Whether the subject takes what the reference takes; a rate that may not be scheduled is no failure."""
        tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}

        def once(side: Subject) -> None:
            tx = side.build({**self.shared, **config.static})
            if not tx.numpy:
                jax.eval_shape(lambda p: side.step(tx, p, tx.init(p), p), tree)

        try:
            once(self.reference)
        except Exception as error:
            raise Skip(f"the reference does not take it: {one_line(error, 100)}") from None
        if said := self.subject.refuses({**self.shared, **config.static}):
            raise Note(f"refused: {said}")
        try:
            once(self.subject)
        except Exception as error:
            text = f"the reference takes it: {one_line(error, 140)}"
            raise (Note if scheduled else Fail)(text) from None

    def _everything(self) -> dict[str, Any]:
        values = {k.name: k.values[0] for k in self.turned if k.kind in ("number", "option")}
        return {**self.shared, **values}

    def everything(self) -> str | None:
        """All numbers and options turned at once, as Python numbers and not traced."""
        with jax.enable_x64(True):
            case = self.case(
                "small", STEPS, "float64", which=[0, 1], rows=[{}, {}], static=self._everything(), concrete=True,
                labels=["everything turned"] * 2,
            )  # fmt: skip
            return compare_runs(self.subject, self.reference, case)

    def without_params(self) -> str | None:
        with jax.enable_x64(True):
            case = self.case("small", 40, "float64", which=[0], with_params=False, static=self.shared)
            return compare_runs(self.subject, self.reference, case)

    def long_run(self) -> str | None:
        """Thousands of steps, and steps after counters were moved on, where both sides count in integers."""
        with jax.enable_x64(True):
            if not self._same_counting():
                return self._long(JUMPS[:2])
            try:
                return self._long(JUMPS)
            except Fail:
                # Only now, since it costs a run: counters that are no counts of updates cannot be moved.
                both = (counts_updates(side, self.shared) for side in (self.subject, self.reference))
                if all(x for side in both for x in side.values()):
                    raise
            return self._long(JUMPS[:2])

    def _long(self, jumps: Sequence[int]) -> str | None:
        rows: list[dict[str, float]] = [{} for _ in jumps]
        labels = ["defaults" if j == 0 else f"counters {j:,} updates on" for j in jumps]
        which = [i % 3 for i in range(len(jumps))]
        case = self.case(
            "long", LONG_STEPS, "float64", which=which, rows=rows, labels=labels, static=self.shared,
            jumps=list(jumps), concrete=True,
        )  # fmt: skip
        compare_runs(self.subject, self.reference, case)
        return None if len(jumps) > 2 else "counters not moved: the two count differently"

    def _same_counting(self) -> bool:
        """Whether moving integer counters on means the same to both sides."""
        found = []
        for side in (self.subject, self.reference):
            tx = side.build(self.shared)
            if tx.numpy:
                return False
            state = jax.eval_shape(tx.init, {"w": jnp.ones((2, 3))})
            scalars = [x for x in jax.tree.leaves(state) if x.shape == ()]
            floats = [x for x in scalars if jnp.issubdtype(x.dtype, jnp.floating)]
            whole = sorted(str(x.dtype) for x in scalars if jnp.issubdtype(x.dtype, jnp.signedinteger))
            found.append((len(floats), whole))
        return found[0] == found[1] and found[0][0] == 0 and bool(found[0][1])

    def bfloat16(self) -> str | None:
        """A few steps on plain gradients, where a defect in half precision is larger than its rounding."""
        oracle = self.reference.build(self.shared).numpy
        shapes = shapes_for(SMALL, self.subject, self.reference)
        plain = stack([sequence(31 + i, shapes, 5, np.float32, kinds=("normal",)) for i in range(2)])
        tame = lambda x: np.sign(x) * (0.5 + np.abs(x) / (1 + np.abs(x)))
        half = jax.tree.map(lambda x: np.asarray(tame(x), jnp.bfloat16), plain)
        single = jax.tree.map(lambda x: np.asarray(x, np.float32), half)
        rows: list[dict[str, float]] = [{}, {}]
        args = (self.shared, rows, [0, 1])
        try:
            theirs, exact = kept(self.reference, "bfloat16", lambda: [
                run(self.reference, *args, both.grads, both.params, concrete=True).updates
                for both in ((single, single) if oracle else (half, single))
            ])  # fmt: skip
        except Exception as error:
            raise Skip(f"the reference does not run: {one_line(error)}") from None
        ours = run(self.subject, *args, half.grads, half.params, concrete=True).updates
        own = rounded_with(ours, flatten(half.params))
        for path, x in ours.items():
            a, b, c = (np.asarray(y, np.float64) for y in (x, theirs[path], exact[path]))
            size = np.abs(c).max(axis=(0, 1), keepdims=True) + np.abs(c)
            # What is added up may cancel, and keeps the rounding of its parts.
            size = np.maximum(size, 0.25 * np.abs(c).max(initial=0.0))
            allowed = (0.15 if oracle else 0.05) * size + 4 * np.abs(b - c) + own.get(path, 0.0)
            good = (np.abs(a - b) <= allowed) | (np.abs(a - c) <= allowed) | (np.isnan(a) & np.isnan(b))
            if not good.all():
                row, step, *at = (int(i) for i in np.argwhere(~good)[0])
                place = f"{path}{at}" if at else path
                value = a[(row, step, *at)], b[(row, step, *at)]
                raise Fail(f"step {step}, {place}: {value[0]:.4g} instead of about {value[1]:.4g}")
        return None

    def state_dtypes(self, turned: list[Knob]) -> str | None:
        """Fields of the same name have the same dtypes, also where a dtype is asked for."""
        tree = {"w": jnp.ones((2, 3))}
        asked: list[dict[str, Any]] = [{}, *({k.name: k.values[0]} for k in turned if k.kind == "dtype")]
        options = {k.name: k.values[0] for k in turned if k.kind == "option"}
        shared, wider = 0, ""
        for dtype in ("bfloat16", "float32"):
            for extra in asked:
                forms = []
                for side in (self.subject, self.reference):
                    tx = side.build({**self.shared, **(options if extra else {}), **extra})
                    if tx.numpy:
                        raise Skip("the reference computes in NumPy")
                    params = jax.tree.map(lambda x, d=dtype: x.astype(d), tree)
                    forms.append(named_leaves(jax.eval_shape(tx.init, params)))
                for name in forms[0].keys() & forms[1].keys():
                    shared += 1
                    a, b = (form[name].dtype for form in forms)
                    under = f" under {next(iter(extra))}" if extra else ""
                    told = f"state {name.split('.', 1)[-1]} is {a} instead of {b}{under}, {dtype} params"
                    if not extra and jnp.issubdtype(b, jnp.floating) and jnp.promote_types(a, b) == a != b:
                        wider = told  # more precision than the reference has, where no dtype is asked for
                    elif a != b:
                        raise Fail(told)
        if wider:
            raise Note(wider)
        return None if shared else "no state field of the same name"
