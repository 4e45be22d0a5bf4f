"""How the users of each library write a training step around a model: one module for each.

Each gives ``(step, carry)`` with ``step(carry, batch) -> (carry, loss)``, jitted and donated where the library's
idiom has that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from benchmarks.protocol import Call

__all__ = ["Loop", "repeated"]

Loop: TypeAlias = tuple[Callable[[Any, Any], tuple[Any, Any]], Any]


def repeated(loop: Loop, batch: Any) -> Call:
    """Steps on one batch again and again, each from where the last one ended."""
    step, carry = loop
    held = [carry]
    del carry, loop

    def call() -> Any:
        held[0], loss = step(held[0], batch)
        return loss

    return call
