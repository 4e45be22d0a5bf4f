"""A training step of ResNet-110, where depth decides: the network of the row ``resnet`` with 54 blocks.

purenets runs the equal blocks of a stage as a loop from five on. The others have them one after another, as their
published examples have. This row takes some minutes to compile and runs only where it is named.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.protocol import Case, Scale
from benchmarks.rows.resnet import given_at

TITLE = "ResNet-110, a training step"


def cases(scale: Scale) -> Iterator[Case]:
    """The step, and its first call."""
    depth, batch, side = (38, 2, 8) if scale == "tiny" else (110, 64, 32)
    # Rounding grows with depth, and with each step.
    step = Case("resnet110", TITLE, given_at(depth, batch, side), rounds=10, checked=1, tolerance=1e-3)
    yield step
    if scale != "tiny":
        small = given_at(depth, 2, side)
        first = "ResNet-110, first call"
        yield Case("resnet110-first", first, small, rounds=3, checked=1, tolerance=1e-3, fresh=True)
