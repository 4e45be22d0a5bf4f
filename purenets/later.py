"""Names of a package that are loaded when they are first used, so that importing the package takes little time."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["loader"]


def loader(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for the package: it loads a name from the module that has it, or a module of that name.

    Args:
        package: the package's ``__name__``.
        modules: the module within the package for each name; a name that is its own module stands for it.
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{modules[name]}")
        return module if modules[name] == name else getattr(module, name)

    return load
