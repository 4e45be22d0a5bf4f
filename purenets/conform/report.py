"""What a check says: rows, gathered in a report, and the error that carries one.

A *row* is one question asked of the subject and its answer: ``pass``, ``fail``, ``note`` (worth knowing, but no
law is broken) or ``skip`` (the question could not be asked). Rows belong to *levels*, from the cheapest and
plainest to the last and least:

==  ===========  ==============================================================
L0  protocol     the shape of the pair: containers, scalars, empty trees, params
L1  stability    structure and dtypes of state, one trace, donation, counters
L2  transforms   eager = jit = scan = vmap = sharded
L3  algebra      laws and declared traits
L4  trajectory   equal to a reference, step by step, over every hyperparameter
L5  composition  in chains, masks, accumulation, injection; saved and restored
L6  convergence  goes downhill on a bowl
==  ===========  ==============================================================
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

__all__ = [
    "LEVELS",
    "Fail",
    "NonConformance",
    "Note",
    "Question",
    "Report",
    "Row",
    "Skip",
    "Soft",
    "ask",
    "one_line",
]

Question: TypeAlias = Callable[[], str | None]
"""A check to run: it returns a remark or nothing, or raises one of the answers below."""

LEVELS = {
    "L0": "protocol",
    "L1": "stability",
    "L2": "transforms",
    "L3": "algebra",
    "L4": "trajectory",
    "L5": "composition",
    "L6": "convergence",
}
"""The levels of a check of an optimizer, in the order in which they are run."""


class Fail(Exception):
    """Raised inside a check: the law is broken, and how."""


class Soft(Fail):
    """Raised inside a check: a failure where the reference passes, and otherwise only worth knowing."""


class Note(Exception):
    """Raised inside a check: no law is broken, but the reader should know."""


class Skip(Exception):
    """Raised inside a check: the question cannot be asked here."""


@dataclass(frozen=True)
class Row:
    """One question and its answer."""

    level: str
    check: str
    status: str
    """``pass``, ``fail``, ``note`` or ``skip``."""
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """All rows of one check, printable as a table and as JSON."""

    subject: str
    reference: str | None
    rows: tuple[Row, ...]
    traits: Mapping[str, bool | None] = field(default_factory=dict)
    """What was measured of the algebra, by name; None where it could not be measured."""

    @property
    def ok(self) -> bool:
        """Whether no row failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.status == "fail")

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return sum(row.seconds for row in self.rows)

    def table(self) -> str:
        """The report as aligned text; the last line is the verdict."""
        title = f"{self.subject} against {self.reference}" if self.reference else f"{self.subject} alone"
        width = max((len(row.check) for row in self.rows), default=0)
        mark = {"pass": "ok  ", "fail": "FAIL", "note": "note", "skip": "-   "}
        lines = [title]
        for row in self.rows:
            first, *rest = row.detail.splitlines() or [""]
            lines.append(f"{row.level:<3} {mark[row.status]}  {row.check:<{width}}  {first}".rstrip())
            lines += [" " * (width + 12) + more for more in rest]
        if self.traits:
            held = [name for name, value in self.traits.items() if value]
            lines.append("traits: " + (", ".join(held) or "none"))
        verdict = "conforms" if self.ok else f"{len(self.failures)} of {len(self.rows)} checks failed"
        lines.append(f"{verdict} ({self.seconds:.1f} s)")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "subject": self.subject,
            "reference": self.reference,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "traits": dict(self.traits),
            "rows": [{**asdict(row), "seconds": round(row.seconds, 3)} for row in self.rows],
        }

    def json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.as_dict(), indent=2)

    def __str__(self) -> str:
        return self.table()


class NonConformance(AssertionError):
    """A checked thing broke a law; ``report`` has every row."""

    def __init__(self, report: Report) -> None:
        self.report = report
        failed = "\n".join(f"{row.level} {row.check}: {row.detail}" for row in report.failures)
        super().__init__(f"{report.subject} does not conform\n{failed}\n\n{report.table()}")


def one_line(error: BaseException, limit: int = 300) -> str:
    """An exception as its kind and the start of its text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}{'…' if len(text) > limit else ''}"


def ask(level: str, check: str, question: Question, reference: Question | None = None) -> Row:
    """Ask one question; whatever it raises becomes the answer, any other exception a failure.

    Args:
        level: ``L0`` to ``L6``.
        check: what is asked, as it stands in the table.
        question: asks it of the subject.
        reference: asks it of the reference, only where the subject failed: what the reference does not do
            either is no failure of the subject.
    """
    start = time.perf_counter()
    status, detail, soft = _answer(question)
    if status == "fail" and reference is not None and _answer(reference)[0] == "fail":
        status, detail = "note", f"{detail} (so does the reference)"
    elif status == "fail" and soft and reference is None:
        status = "note"
    return Row(level, check, status, detail, time.perf_counter() - start)


def _answer(question: Question) -> tuple[str, str, bool]:
    try:
        return "pass", question() or "", False
    except Fail as answer:
        return "fail", str(answer), isinstance(answer, Soft)
    except Note as answer:
        return "note", str(answer), False
    except Skip as answer:
        return "skip", str(answer), False
    except Exception as error:  # a checked optimizer may raise anything at all
        return "fail", f"raised {one_line(error)}", False
