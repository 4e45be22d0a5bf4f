"""The mutant bank: correct optimizers, and defects put into them one at a time.

:data:`CLEAN` are the correct ones and what each is compared with; :data:`MUTANTS` are the defects. What share
of them the kit finds is its kill rate (:func:`purenets.conform.kill_rate`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purenets.conform.mutants import foreign, moments, norms, plain
from purenets.conform.mutants.bank import MUTANTS
from purenets.conform.mutants.edit import Mutant, edited

__all__ = ["CLEAN", "MUTANTS", "Mutant", "mutated", "reference_of"]

CLEAN: dict[str, Callable[..., Any]] = {
    name: getattr(module, name) for module in (plain, moments, norms, foreign) for name in module.__all__
}
"""Name to factory of the correct optimizers."""


def reference_of(base: str) -> Any:
    """What an optimizer of the bank is compared with: optax, and the paper or itself where optax is of no use."""
    if base in foreign.REFERENCES:
        return foreign.REFERENCES[base]
    if base in ("rprop", "sm3"):
        return f"paper:{base}"
    return CLEAN[base] if base == "muon" else f"optax:{base}"


def mutated(mutant: Mutant) -> Callable[..., Any]:
    """The factory with the defect in it."""
    return edited(CLEAN[mutant.base], mutant.old, mutant.new)
