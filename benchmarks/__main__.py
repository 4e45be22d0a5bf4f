"""``python -m benchmarks [rows] [--rounds N] [--out FOLDER] [--scale SCALE] [--quick] [--list] [--page]``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import jax

from benchmarks.protocol import EXTRA, ROWS, SCALES, absent, row
from benchmarks.results import load
from benchmarks.run import run, write


def _settings() -> None:
    """Float32 throughout, nothing compiled from disk, and as many threads for torch as there are cores for JAX."""
    jax.config.update("jax_enable_compilation_cache", False)
    if jax.default_backend() == "gpu":
        jax.config.update("jax_default_matmul_precision", "highest")
    if importlib.util.find_spec("torch"):
        import torch

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(cores)
        torch.backends.cudnn.allow_tf32 = False


def main() -> int:
    """0 where the losses of all contestants agreed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "rows",
        nargs="*",
        metavar="row",
        help=f"{', '.join(ROWS)}, which are all run by default; {', '.join(EXTRA)}",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="by default 20 to 40 by row, in at most a minute a case",
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder to write into")
    scale = "small on CPU and full on an accelerator by default"
    parser.add_argument("--scale", choices=SCALES, help=f"sizes: {scale}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and 2 rounds: does it run?")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--page", action="store_true", help="write page and figure again, time nothing")
    given = parser.parse_args()
    if given.list:
        for name in ROWS + EXTRA:
            print(f"{name:<14}{row(name).TITLE}")
        print(f"absent: {', '.join(absent()) or 'none'}")
        return 0
    if given.page:
        write(given.out, load(given.out / f"{jax.default_backend()}.json"))
        return 0
    if unknown := [name for name in given.rows if name not in ROWS + EXTRA]:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS + EXTRA)}")
    _settings()
    chosen = given.scale or ("tiny" if given.quick else "small" if jax.default_backend() == "cpu" else "full")
    rounds = given.rounds or (2 if given.quick else None)
    return 0 if run(given.rows or ROWS, given.out, scale=chosen, rounds=rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
