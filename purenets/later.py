"""Names of a package that are loaded when they are first used, so that importing the package takes little time."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["loaders"]


def loaders(
    namespace: Mapping[str, Any], modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package: a name is loaded from the module that has it, or is that module.

    Args:
        namespace: the package's ``globals()``.
        modules: the module within the package for each name; a name that is its own module stands for it.
    """
    package = namespace["__name__"]

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{modules[name]}")
        return module if modules[name] == name else getattr(module, name)

    def names() -> list[str]:
        return sorted({*namespace, *modules})

    return load, names
