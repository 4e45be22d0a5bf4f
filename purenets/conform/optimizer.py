"""``check_optimizer``: all levels over one optimizer.

::

    report = check_optimizer(my_adam, reference="optax:adam", raises=False)
    print(report)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from purenets.conform import (
    algebra,
    composition,
    convergence,
    protocol,
    stability,
    surroundings,
    trajectory,
    transforms,
)
from purenets.conform.references import resolve
from purenets.conform.report import LEVELS, NonConformance, Note, Question, Report, Row, ask
from purenets.conform.subject import Subject
from purenets.conform.traits import Measured, declared
from purenets.conform.widened import Widened, narrow

__all__ = ["check_optimizer"]

ORDER = ("L0", "L1", "L3", "L4", "L2", "L5", "L6")
"""What is cheap, and finds most, first; it matters only with ``stop``."""

ROUNDED = ("L2", "L3", "L4", "L5")
"""Levels whose failures may be the rounding of scalars."""


def check_optimizer(
    factory: Any,
    reference: Any = None,
    traits: Mapping[str, Any] | Iterable[str] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    levels: Iterable[str] = tuple(LEVELS),
    allow: Mapping[str, str] | Iterable[str] = (),
    stop: bool = False,
    raises: bool = True,
) -> Report:
    """Check an optimizer against the laws, against declared traits, and against a reference.

    Args:
        factory: a function of hyperparameters that makes an optimizer, a made optimizer (any object with
            ``init`` and ``update``, or a tuple of the two), or the text ``package.module:name``.
        reference: likewise; ``paper:adam`` is the NumPy oracle of that name, ``torch:Adam`` torch's
            optimizer. Without it nothing is compared step by step, and only laws and traits are checked.
        traits: what is declared of the algebra, name to bool, or names of which ``!name`` declares no; see
            :data:`purenets.conform.TRAITS`. ``first_step`` declares a closed form for one leaf.
        settings: hyperparameters held throughout, given to the reference too where it takes them.
        levels: which of ``L0`` to ``L6`` to run.
        allow: names of checks that may fail, with the reason; they become notes.
        stop: stop at the first failure.
        raises: raise on failure; otherwise the report says it.

    Returns:
        The report, a row for each question.

    Raises:
        NonConformance: something failed, and ``raises`` is set. The report is its ``report``.
        ValueError: the factory or the reference cannot be used as asked, or a trait or level is unknown.
    """
    levels = [levels] if isinstance(levels, str) else list(levels)
    if unknown := set(levels) - set(LEVELS):
        raise ValueError(f"there is no level {sorted(unknown)}; there are {list(LEVELS)}")
    subject, against = _sides(factory, reference, dict(settings or {}))
    rounding = _Rounding(subject, against)
    found: dict[str, bool | None] = {}
    wanted = declared(traits)
    excuses = dict(allow) if isinstance(allow, Mapping) else dict.fromkeys(allow, "allowed")
    rows: list[Row] = []
    for level in (level for level in ORDER if level in levels):
        asked = _questions(level, subject, against, wanted, found)
        theirs = _same_of_reference(level, against)
        try:
            for check, question in asked:
                row = ask(level, check, question, theirs.get(check))
                if row.status == "fail" and level in ROUNDED:
                    row = rounding.excuse(row, wanted)
                if row.status == "fail" and check in excuses:
                    row = Row(level, check, "note", f"{excuses[check]}: {row.detail}", row.seconds)
                rows.append(row)
                if stop and row.status == "fail":
                    break
        except Exception as error:  # an optimizer that cannot be built has no questions to ask further
            rows.append(ask(level, "can be asked", _raising(error)))
        if stop and rows and rows[-1].status == "fail":
            break
    rows.sort(key=lambda row: row.level)
    report = Report(subject.name, against.name if against else None, tuple(rows), dict(sorted(found.items())))
    if raises and not report.ok:
        raise NonConformance(report)
    return report


def _sides(factory: Any, reference: Any, settings: dict[str, Any]) -> tuple[Subject, Subject | None]:
    if reference is None:
        return Subject(factory, settings), None
    against = Subject(resolve(reference), settings, lenient=True)
    against.name = reference if isinstance(reference, str) else against.name
    subject = Subject(factory, settings, like=against)
    trajectory.shared_settings(subject, against)
    return subject, against


class _Rounding:
    """Asks a question again with the scalars of both sides in float64, where either has them in float32."""

    def __init__(self, subject: Subject, reference: Subject | None) -> None:
        self.subject, self.reference = subject, reference
        self._again: dict[str, dict[str, Question]] = {}

    @cached_property
    def _asked(self) -> bool:
        sides = [side for side in (self.subject, self.reference) if side is not None]
        return self._arrays or any(map(narrow, sides))

    @cached_property
    def _arrays(self) -> bool:
        return self.reference is not None and narrow(self.reference, arrays=True)

    def excuse(self, row: Row, wanted: Mapping[str, Any]) -> Row:
        """The row of a failure; or a note, where nothing fails without that rounding."""
        if not self._asked:
            return row
        if row.level not in self._again:
            reference = None if self.reference is None else Widened(self.reference, self._arrays)
            asked = _questions(row.level, Widened(self.subject, self._arrays), reference, wanted, {})
            self._again[row.level] = dict(asked)
        question = self._again[row.level].get(row.check)
        if question is None or ask(row.level, row.check, question).status != "pass":
            return row
        detail = f"in float64, but for scalars that are computed in float32: {row.detail}"
        return Row(row.level, row.check, "note", detail, row.seconds)


def _raising(error: Exception) -> Question:
    def question() -> str | None:
        raise error

    return question


def _questions(
    level: str,
    subject: Subject,
    reference: Subject | None,
    wanted: Mapping[str, Any],
    found: dict[str, bool | None],
) -> Iterator[tuple[str, Question]]:
    if level == "L3":
        return algebra.questions(Measured(subject, reference), wanted, found)
    if level == "L4":
        return trajectory.questions(subject, reference) if reference else iter([("trajectory", _unasked)])
    alone: dict[str, Callable[[Subject], Iterator[tuple[str, Question]]]] = {
        "L0": protocol.questions,
        "L1": stability.questions,
        "L2": lambda s: itertools.chain(transforms.questions(s), surroundings.questions(s)),
        "L5": composition.questions,
        "L6": convergence.questions,
    }
    return alone[level](subject)


def _same_of_reference(level: str, reference: Subject | None) -> dict[str, Question]:
    """The same questions for the reference, so that nobody is held to what the reference does not do."""
    if reference is None or level == "L4" or reference.build().numpy:
        return {}
    if level == "L0":
        return dict(protocol.questions(reference, as_reference=True))
    return dict(_questions(level, reference, None, {}, {}))


def _unasked() -> str | None:
    raise Note("no reference was given, so no number was compared; try --reference optax:NAME or paper:NAME")
