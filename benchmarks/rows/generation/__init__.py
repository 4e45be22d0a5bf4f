"""Greedy generation of 112 tokens after a prompt of 16, by the decoder of the row ``transformer``, batches of 8.

From a cache of keys and values, and by running the padded prefix again for each token, which needs no cache. Not a
comparison of libraries: both are purenets. This row runs only where it is named.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.protocol import Case, Scale
from benchmarks.rows.transformer import Sizes, given

TITLE = "Generation"


def cases(scale: Scale) -> Iterator[Case]:
    """One case."""
    sizes = Sizes(5, 8, 2, 2, 8, 2) if scale == "tiny" else Sizes(65, 128, 4, 6, 128, 8)
    yield Case("generation", "112 tokens", given(sizes), rounds=10, checked=1)
