"""The first call of a training step of the decoder Transformer by its depth, 2, 8 and 24 blocks; gradient descent.

Tracing, lowering, compiling and one step on a small batch, with everything forgotten that was compiled before. Each
library takes part in the form that compiles fastest in depth, a loop over stacked blocks. Torch in eager mode compiles
nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.protocol import Case, Scale
from benchmarks.rows.transformer import RATE, Sizes, given

TITLE = "First call by depth"
_DEPTHS = {"tiny": (2,), "small": (2, 8, 24), "full": (2, 8, 24)}


def cases(scale: Scale) -> Iterator[Case]:
    """One for each depth."""
    for depth in _DEPTHS[scale]:
        content = given(Sizes(65, 64, 4, depth, 32, 2)) | {"forms": (True,), "optimizer": _descent}
        title = f"First call, {depth} blocks"
        yield Case(f"compile-{depth}", title, content, checked=2, seconds=60, fresh=True)


def _descent(library: Any) -> Any:
    return library.sgd(RATE)
