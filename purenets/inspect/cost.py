"""Counting the floating-point operations of a program from its jaxpr, without running or compiling it.

The counts are the ones XLA makes of its own programs: two for each multiplication and addition of a product or a
convolution, at the places where a kernel lies on the picture and not on its padding; one for each element that
arithmetic makes; one less than is summed for each sum. Exponentials, roots, logarithms and the like are not among
them. Unlike in XLA's analysis, a loop counts as often as it runs (``while`` once, since nobody knows), of the branches
of a ``cond`` the dearest counts, and so does what the program computes and then does not use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from purenets.programs import programs_inside

__all__ = ["flops", "flops_by_scope", "scope_of", "scopes_of"]

_ARITHMETIC = frozenset(
    """add add_any sub mul div rem max min neg abs sign square integer_pow floor ceil round select_n clamp gt ge lt le
    eq ne and or xor not is_finite convert_element_type nextafter cumsum cumprod cummax cummin""".split()  # noqa: SIM905
)
_REDUCTIONS = frozenset(
    """reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin""".split()  # noqa: SIM905
)
_ADDED = ("", "checkpoint", "rematted_computation")  # what JAX itself puts between the names
_TRANSFORMS = re.compile(r"\w+\(|\)")


def flops(fn: Callable[..., Any], *args: Any) -> int:
    """How many floating-point operations ``fn(*args)`` takes; shapes will do for the arguments.

    >>> flops(lambda a, b: a @ b, jax.ShapeDtypeStruct((4, 5), "float32"), jax.ShapeDtypeStruct((5, 6), "float32"))
    240
    """
    return sum(flops_by_scope(fn, *args).values())


def flops_by_scope(fn: Callable[..., Any], *args: Any) -> dict[str, int]:
    """The same by name scope, which inside a model is the path of a layer; what has none is under ``""``.

    Operations of the backward pass are under the scope of those they come from.
    """
    return scopes_of(jax.make_jaxpr(fn)(*args))


def scopes_of(program: Any) -> dict[str, int]:
    """The operations of a closed jaxpr by name scope."""
    found: dict[str, int] = {}
    for scope, count in _count(program.jaxpr, ""):
        found[scope] = found.get(scope, 0) + count
    return found


def _count(jaxpr: Any, outer: str) -> Iterator[tuple[str, int]]:
    for eqn in jaxpr.eqns:
        scope = scope_of(eqn, outer)
        inner = programs_inside(eqn)
        if not inner:
            if count := _of_equation(eqn):
                yield scope, count
            continue
        if eqn.primitive.name == "cond":
            inner = [max(inner, key=lambda branch: sum(count for _, count in _count(branch, "")))]
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for part in inner:
            for where, count in _count(part, scope):
                yield where, times * count


def scope_of(eqn: Any, outer: str) -> str:
    """The name scope of an equation of a jaxpr that lies within ``outer``."""
    own = _TRANSFORMS.sub("", str(eqn.source_info.name_stack))
    parts = [part for part in own.split("/") if part not in _ADDED]
    half = len(parts) // 2
    if eqn.primitive.name.startswith(("remat", "checkpoint")) and parts[:half] == parts[half:]:
        parts = parts[half:]  # the backward pass of ``jax.checkpoint`` has its place twice
    return "/".join([*([outer] if outer else []), *parts])


def _of_equation(eqn: Any) -> int:
    name = eqn.primitive.name
    size = math.prod(eqn.outvars[0].aval.shape) if hasattr(eqn.outvars[0].aval, "shape") else 0
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        left = eqn.invars[0].aval.shape
        return int(2 * size * math.prod(left[axis] for axis in contracted))
    if name == "conv_general_dilated":
        return _of_convolution(eqn)
    if name in _ARITHMETIC:
        return size
    if name in _REDUCTIONS:
        return int(math.prod(eqn.invars[0].aval.shape)) - size
    if name.startswith("reduce_window") or name == "select_and_scatter_add":
        return int(math.prod(eqn.outvars[0].aval.shape) * (math.prod(eqn.params["window_dimensions"]) - 1))
    if name.startswith("scatter") and name != "scatter":
        return int(math.prod(eqn.invars[2].aval.shape))
    return 0


def _of_convolution(eqn: Any) -> int:
    p = eqn.params
    numbers = p["dimension_numbers"]
    left, kernel, out = (v.aval.shape for v in (*eqn.invars, eqn.outvars[0]))
    batch, features_in, *space = (left[axis] for axis in numbers.lhs_spec)
    features_out, _, *window = (kernel[axis] for axis in numbers.rhs_spec)
    out_space = [out[axis] for axis in numbers.out_spec[2:]]
    places = 1
    for i, (n, k, n_out) in enumerate(zip(space, window, out_space, strict=True)):
        places *= _valid(
            n,
            k,
            n_out,
            p["window_strides"][i],
            p["padding"][i][0],
            p["lhs_dilation"][i],
            p["rhs_dilation"][i],
        )
    products = features_in // p["feature_group_count"] * features_out * (batch // p["batch_group_count"])
    return int(2 * products * places)


def _valid(n: int, k: int, n_out: int, stride: int, low: int, spread: int, dilation: int) -> int:
    """How many pairs of an output's place and a kernel's lie on an element of the input, along one axis."""
    at = np.arange(n_out)[:, None] * stride + np.arange(k)[None] * dilation - low
    return int(np.sum((at >= 0) & (at % spread == 0) & (at // spread < n)))
