"""Reading traced programs."""

from __future__ import annotations

from typing import Any

__all__ = ["programs_inside"]


def programs_inside(eqn: Any) -> list[Any]:
    """The programs inside an equation. Of a custom derivative the function itself, not its rules."""
    found = []
    for value in eqn.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(one, "jaxpr"):
                found.append(one.jaxpr)
            elif hasattr(one, "eqns"):
                found.append(one)
    return found
