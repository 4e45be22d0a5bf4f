"""Results on disk: one JSON file for each platform, to which every case is added as soon as it is timed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol import Case
from benchmarks.timing import ratio

__all__ = ["best_peer", "load", "ours", "save", "summarise"]

_NOT_JAX_PEERS = ("purenets", "torch")
Result = dict[str, Any]


def summarise(
    row: str,
    case: Case,
    times: Mapping[tuple[str, str], Sequence[float]],
    differ: Mapping[tuple[str, str], str],
    **more: Any,
) -> Result:
    """What is kept of a case.

    Ratios are to the best JAX peer: the form of another library on JAX that took the least median time.
    """
    timed = {name: list(values) for name, values in times.items()}
    peers = {name: np.median(values) for name, values in timed.items() if name[0] not in _NOT_JAX_PEERS}
    base = min(peers, key=lambda name: float(peers[name])) if peers else next(iter(timed), None)
    entries = []
    for (library, form), values in timed.items():
        middle, low, high = ratio(values, timed[base]) if base else (1.0, 1.0, 1.0)
        entry = {"library": library, "form": form, "seconds": float(np.median(values))}
        entries.append(entry | {"ratio": middle, "low": low, "high": high, "base": (library, form) == base})
    entries += [{"library": name[0], "form": name[1], "differs": why} for name, why in differ.items()]
    about = {"row": row, "name": case.name, "title": case.title, "calls": case.calls}
    about |= {"rounds": max(map(len, timed.values()), default=0)}
    return about | {"fresh": case.fresh, "contestants": entries, **more}


def ours(result: Result) -> Any:
    """The entry of the fastest form of purenets, or None."""
    return _fastest(result, lambda entry: entry["library"] == "purenets")


def best_peer(result: Result) -> Any:
    """The entry that the ratios are to, or None."""
    return _fastest(result, lambda entry: entry.get("base", False))


def _fastest(result: Result, chosen: Any) -> Any:
    found = [entry for entry in result["contestants"] if "ratio" in entry and chosen(entry)]
    return min(found, key=lambda entry: entry["ratio"]) if found else None


def load(path: Path) -> dict[str, Result]:
    """Results by the name of the case; none where there is no file."""
    return json.loads(path.read_text())["results"] if path.exists() else {}


def save(path: Path, results: Mapping[str, Result]) -> None:
    """Write all results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text(json.dumps({"results": results}, indent=1) + "\n")
    os.replace(half, path)
