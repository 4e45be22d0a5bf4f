"""What layers refuse, each with a likely cause where one is plain.

These checks are of shapes, dtypes and values that are known: they run while tracing and cost nothing in the
compiled program.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from purenets.checks import concrete
from purenets.layer import describe

__all__ = ["check_channels", "check_floating", "check_last_axis", "check_lengths", "check_sequence"]


def check_floating(label: str, x: Any) -> None:
    """Refuse an input of integers or booleans."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        error = ValueError(f"{label} needs floating numbers, got {describe(x)}")
        error.add_note("token ids go through an embedding first; pixels through x / 255")
        raise error


def check_last_axis(label: str, x: Any, size: int) -> None:
    """Refuse an input whose last axis is not ``size`` or that is not of floating numbers."""
    check_floating(label, x)
    shape = jnp.shape(x)
    if not shape or shape[-1] != size:
        error = ValueError(f"{label} needs a last axis of {size}, got {describe(x)}")
        if size in shape:
            error.add_note(f"an axis of {size} is there, but not last: the input may be transposed")
        elif math.prod(shape[1:]) == size:
            error.add_note("the input may lack a flatten before this layer")
        elif math.prod(shape) == size:
            error.add_note("the input may be a single example without its batch axis")
        raise error


def check_channels(label: str, x: Any) -> None:
    """Refuse an input that is not ``[batch, ..., channels]`` with at least one axis in between."""
    check_floating(label, x)
    if jnp.ndim(x) < 3:
        error = ValueError(f"{label} needs [batch, ..., channels] with space in between, got {describe(x)}")
        error.add_note("the input may be a single example without its batch axis, or flat already")
        raise error


def check_sequence(label: str, x: Any, n_in: int) -> None:
    """Refuse an input that is not ``[batch, time, n_in]``."""
    check_last_axis(label, x, n_in)
    if jnp.ndim(x) != 3:
        error = ValueError(f"{label} needs [batch, time, {n_in}], got {describe(x)}")
        if jnp.ndim(x) == 2:
            error.add_note("the input may be a single sequence without its batch axis: x[None]")
        raise error


def check_lengths(label: str, lengths: Any, x: jax.Array) -> None:
    """Refuse lengths of another shape than ``[batch]``, or known to lie outside of the time."""
    if lengths is None:
        return
    if jnp.shape(lengths) != x.shape[:1] or not jnp.issubdtype(jnp.result_type(lengths), jnp.integer):
        raise ValueError(
            f"{label} needs integer lengths [{x.shape[0]}], got {describe(jnp.asarray(lengths))}"
        )
    known = concrete(lengths)
    if known is not None and known.size and not 0 <= known.min() <= known.max() <= x.shape[1]:
        raise ValueError(f"{label} has {x.shape[1]} steps, got lengths from {known.min()} to {known.max()}")
