"""Runs cases: compares the contestants, times them in turn, and writes page and figure after each case."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from benchmarks.figure import draw
from benchmarks.machine import environment
from benchmarks.page import notes_of, page
from benchmarks.protocol import EXTRA, LIBRARIES, ROWS, Case, Scale, absent, cases_of, contestants
from benchmarks.results import best_peer, load, ours, save, summarise
from benchmarks.timing import disagreements, take_turns, wait

__all__ = ["run", "run_case", "write"]

Tell = Callable[[str], object]


def run_case(row: str, case: Case, tell: Tell = print, libraries: Sequence[str] = tuple(LIBRARIES)) -> Any:
    """The result of one case."""
    started = time.perf_counter()
    calls = contestants(row, case.compared or case, libraries)
    reference = next((name for name in calls if name[0] == "raw"), next(iter(calls)))
    differ = disagreements(calls, reference, case.checked, case.tolerance)
    if case.compared:
        calls = contestants(row, case, libraries)
    for name, why in differ.items():
        tell(f"  DIFFERS: {', '.join(name)}: {why}")
        calls.pop(name, None)
    if case.compared:
        for call in calls.values():
            wait(call())
    tell(f"  {len(calls)} contestants agree after {time.perf_counter() - started:.0f} s")
    began = time.perf_counter()

    def told(number: int) -> None:
        if number == 1:
            whole = case.rounds * (time.perf_counter() - began)
            tell(f"  {case.rounds} rounds, about {min(whole, case.seconds):.0f} s")

    # Only an executable that is built anew shows what a first call costs.
    before = jax.clear_caches if case.fresh else lambda: None
    turns = {"rounds": case.rounds, "repeats": case.calls, "seconds": case.seconds}
    times = take_turns(calls, **turns, before=before, told=told)
    taken = time.perf_counter() - started
    return summarise(row, case, times, differ, environment=environment(), absent=absent(), taken=taken)


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """JSON, figure and page of a platform; its remarks are in ``cpu-remarks.txt`` or ``gpu-remarks.txt``."""
    platform = jax.default_backend()
    save(folder / f"{platform}.json", results)
    draw(list(results.values()), folder / f"{platform}.svg")
    notes = notes_of(folder / f"{platform}-remarks.txt")
    (folder / f"{platform}.md").write_text(page(platform, results, f"{platform}.svg", notes))


def run(
    rows: Sequence[str],
    folder: Path,
    *,
    scale: Scale,
    rounds: int | None = None,
    tell: Tell = print,
    libraries: Sequence[str] = tuple(LIBRARIES),
) -> bool:
    """Run rows and merge their results into those of the folder; whether all losses agreed."""
    path = folder / f"{jax.default_backend()}.json"
    results, started, agreed = load(path), time.perf_counter(), True
    left = _expected(rows, results)
    for row in rows:
        names = []
        for number, case in enumerate(cases_of(row, scale)):
            tell(f"{case.name}: {case.title}; {time.perf_counter() - started:.0f} s so far{_said(left)}")
            if rounds:
                case = replace(case, rounds=rounds, seconds=math.inf)
            result = run_case(row, case, tell, libraries) | {"number": number, "scale": scale}
            agreed &= not any("differs" in entry for entry in result["contestants"])
            mine, peer = ours(result), best_peer(result)
            if mine and peer:
                tell(f"  purenets {mine['ratio']:.3f} of {peer['library']}, {peer['form']}")
            results[case.name] = result
            names.append(case.name)
            left.pop(case.name, None)
            results = dict(sorted(results.items(), key=lambda item: _place(item[1])))
            write(folder, results)
            # What the case holds goes before the next one is made.
            del case
        gone = [name for name, result in results.items() if result["row"] == row and name not in names]
        for name in gone:
            del results[name]
    write(folder, results)
    tell(f"{time.perf_counter() - started:.0f} s; {folder / jax.default_backend()}.md")
    return agreed


def _place(result: Mapping[str, Any]) -> tuple[int, int]:
    return (ROWS + EXTRA).index(result["row"]), result["number"]


def _expected(rows: Sequence[str], results: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that the cases of these rows took the last time."""
    return {name: result["taken"] for name, result in results.items() if result["row"] in rows}


def _said(left: Mapping[str, float]) -> str:
    return f", about {sum(left.values()):.0f} s to go by the last time" if left else ""
