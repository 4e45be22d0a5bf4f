"""The page of a platform's results: a summary, a figure, and a table for each case with what there is to say of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.protocol import EXTRA, ROWS, row
from benchmarks.results import best_peer, ours

__all__ = ["notes_of", "page"]

WITHIN = 1.03
_METHOD = """\
All contestants of a case start from the same weights and data, and do the same: the losses of their first calls are
compared, to 1 part in 10,000, before anything is timed. Then they take turns. Every round times each of them once, in
an order of its own, and a ratio is the median over the rounds of the ratios of two times from the same round, with
the middle half in brackets. Ratios are to the *best JAX peer*, the fastest form of raw JAX, Flax linen, Flax nnx,
Equinox, Haiku and optax in that case. Below 1 is faster. All numbers are float32."""


def notes_of(path: Path) -> dict[str, str]:
    """Remarks by row or case: the sections ``## name`` of a Markdown file, if there is one."""
    if not path.exists():
        return {}
    parts = re.split(r"^## +(\S+)\s*$", path.read_text(), flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def page(platform: str, results: Mapping[str, Any], figure: str, notes: Mapping[str, str]) -> str:
    """The page as Markdown."""
    title = {"cpu": "on CPU", "gpu": "on GPU"}.get(platform, f"on {platform}")
    blocks = [f"# Benchmarks {title}", _METHOD, *_machines(results), "## Summary", _summary(results)]
    blocks += [f"![Ratios to the best JAX peer, by case]({figure})"]
    if "summary" in notes:
        blocks.append(notes["summary"])
    for name in ROWS + EXTRA:
        cases = [result for result in results.values() if result["row"] == name]
        if cases:
            package = row(name)
            about = inspect.cleandoc(package.__doc__ or "").replace("``", "`")
            blocks += [f"## {package.TITLE}", about]
            for result in cases:
                blocks += [f"### {result['title']}", _table(result)]
                blocks += (
                    [notes[result["name"]]] if result["name"] in notes and result["name"] != name else []
                )
            blocks += [notes[name]] if name in notes else []
    return "\n\n".join(blocks) + "\n"


def _machines(results: Mapping[str, Any]) -> list[str]:
    """Where and with what, once where it is the same for all."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for result in results.values():
        groups.setdefault(tuple(result["environment"].items()), []).append(result["title"])
    lines = []
    for number, (about, titles) in enumerate(sorted(groups.items(), key=lambda item: -len(item[1]))):
        known = dict(about)
        machine = f"{known.pop('processor')}, {known.pop('cores')} cores, device {known.pop('device')}"
        versions = ", ".join(f"{name} {value}" for name, value in known.items())
        lines.append(f"{'Machine' if not number else '; '.join(titles)}: {machine}; {versions}.")
    missing = sorted({name for result in results.values() for name in result["absent"]})
    return [*lines, *([f"Absent, since they are not installed: {', '.join(missing)}."] if missing else [])]


def _summary(results: Mapping[str, Any]) -> str:
    lines = ["| case | purenets | best JAX peer | torch | losses |", "|---|---:|---|---:|---|"]
    for result in sorted(results.values(), key=_place):
        mine, peer = ours(result), best_peer(result)
        torches = [e["ratio"] for e in result["contestants"] if e["library"] == "torch" and "ratio" in e]
        differ = sum("differs" in entry for entry in result["contestants"])
        said = f"{differ} differ" if differ else "agree"
        name = f"{peer['library']}, {peer['form']}" if peer else ""
        mark = f"{_bold(mine['ratio'])}" if mine else ""
        lines.append(
            f"| {result['title']} | {mark} | {name} | {f'{min(torches):.2f}' if torches else ''} | {said} |"
        )
    return "\n".join([*lines, "", f"Bold where purenets is within {WITHIN} of the best JAX peer, or ahead."])


def _bold(value: float) -> str:
    return f"**{value:.2f}**" if value <= WITHIN else f"{value:.2f}"


def _place(result: Mapping[str, Any]) -> tuple[int, int]:
    """The order of the rows, and that in which a row's cases were timed."""
    return (ROWS + EXTRA).index(result["row"]), result["number"]


def _table(result: Mapping[str, Any]) -> str:
    lines = ["| library | form | ratio | middle half | time | losses |", "|---|---|---:|---|---:|---|"]
    timed = [entry for entry in result["contestants"] if "ratio" in entry]
    for entry in sorted(timed, key=lambda entry: entry["ratio"]):
        name = f"**{entry['library']}**" if entry["library"] == "purenets" else entry["library"]
        half = f"{entry['low']:.2f} to {entry['high']:.2f}"
        cells = [name, entry["form"], f"{entry['ratio']:.2f}", half, _time(entry["seconds"]), "agree"]
        lines.append(f"| {' | '.join(cells)} |")
    wrong = [entry for entry in result["contestants"] if "differs" in entry]
    lines += [f"| {e['library']} | {e['form']} | not timed | | | {e['differs']} |" for e in wrong]
    rounds = f"{result['rounds']} rounds, {result['calls']} call{'s' * (result['calls'] > 1)} each."
    return "\n".join([*lines, "", rounds])


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
