"""``check_gradients``: what differentiates against central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform.report import Fail, NonConformance, Report, Row, Skip, ask
from purenets.conform.runs import fast_jit
from purenets.conform.subject import name_of
from purenets.gradients import central_differences
from purenets.paths import path_of

__all__ = ["check_gradients", "gradients_agree"]

RELATIVE = 1e-6


def gradients_agree(
    fn: Callable[..., Any],
    *args: Any,
    epsilon: float = 1e-5,
    relative: float = RELATIVE,
    single: bool = True,
) -> str:
    """Compare reverse mode and forward mode with central differences, with respect to every float of ``args``.

    Of an output that is no scalar a weighted sum is differentiated, the weights being arbitrary and fixed, so
    that no error can cancel. With ``single`` the gradient in float32 is held against that in float64 too.

    Raises:
        Fail: they differ; the message has the leaf and both values.
        Skip: there is no float to differentiate with respect to, or none in the output.
    """
    with jax.enable_x64(True):
        leaves, structure = jax.tree_util.tree_flatten_with_path(args)
        floats = [np.asarray(x, np.float64) if _is_float(x) else None for _, x in leaves]
        moving = {str(i): x for i, x in enumerate(floats) if x is not None and x.size}
        if not moving:
            raise Skip("no float to differentiate with respect to")

        def scalar(values: dict[str, Any]) -> Any:
            full = [values.get(str(i), x) for i, (_, x) in enumerate(leaves)]
            out = [y for y in jax.tree.leaves(fn(*jax.tree.unflatten(structure, full))) if _is_float(y)]
            if not out:
                raise Skip("no float in the output")
            weights = lambda y, i: jnp.cos(1.0 + i + 0.7 * jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
            return sum((jnp.sum(weights(y, i) * y) for i, y in enumerate(out)), start=jnp.zeros(()))

        start = {key: jnp.asarray(x) for key, x in moving.items()}
        reverse = jax.tree.map(np.asarray, jax.jit(jax.grad(scalar))(start))
        numeric = central_differences(scalar, moving, epsilon)
        if not all(_near(reverse[key], numeric[key], relative) for key in numeric):
            # Where the function bends much, extrapolate to a step of zero (Richardson).
            closer = central_differences(scalar, moving, epsilon / 4)
            numeric = jax.tree.map(lambda far, near: (16 * near - far) / 15, numeric, closer)
        size = max(float(np.max(np.abs(x))) for x in jax.tree.leaves(numeric))
        for key, b in numeric.items():
            a, b = np.asarray(reverse[key]), np.asarray(b)
            good = np.isclose(a, b, rtol=relative, atol=relative * max(size, 1.0) * 1e-1)
            if not good.all():
                at = tuple(int(i) for i in np.argwhere(~good)[0])
                place = path_of(leaves[int(key)][0])
                raise Fail(
                    f"argument {place}{list(at) or ''}: the gradient is {float(a[at])!r}, "
                    f"central differences say {float(b[at])!r}"
                )
        if single:
            _single(scalar, start, reverse, leaves)
        without = "" if _forward(scalar, start, reverse, size) else ", no forward mode"
        return f"{sum(x.size for x in moving.values())} numbers{without}"


def _forward(scalar: Callable[..., Any], start: Any, reverse: Any, size: float) -> bool:
    """Compare forward mode with reverse mode along a direction; False where there is none."""
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), start)
    try:
        forward = float(jax.jvp(scalar, (start,), (direction,))[1])
    except TypeError as error:  # a custom_vjp has reverse mode alone
        if "custom_vjp" not in str(error):
            raise
        return False
    product = float(sum(np.sum(np.asarray(reverse[k]) * np.asarray(direction[k])) for k in start))
    if not np.isclose(forward, product, rtol=1e-8, atol=1e-8 * max(size, 1.0)):
        raise Fail(f"forward mode gives {forward!r} where reverse mode gives {product!r}")
    return True


def _single(scalar: Callable[..., Any], start: Any, exact: Any, leaves: Any) -> None:
    """Raise :class:`Fail` unless the gradient in float32 is about that in float64."""
    single = {key: x.astype(jnp.float32) for key, x in start.items()}
    try:
        found = fast_jit(jax.grad(scalar))(single)
    except Exception:  # what computes in float64 throughout need not take float32
        return
    size = max(float(np.max(np.abs(x), initial=0.0)) for x in exact.values())
    for key, b in exact.items():
        good = np.isclose(np.asarray(found[key], np.float64), b, rtol=0.02, atol=0.01 * max(size, 1e-3))
        if not good.all():
            at = tuple(int(i) for i in np.argwhere(~good)[0])
            raise Fail(
                f"argument {path_of(leaves[int(key)][0])}{list(at) or ''}: in float32 the gradient is "
                f"{float(found[key][at])!r}, in float64 {float(b[at])!r}"
            )


def _near(a: Any, b: Any, relative: float) -> bool:
    return bool(np.allclose(np.asarray(a), np.asarray(b), rtol=relative, atol=relative * 0.1))


def _is_float(x: Any) -> bool:
    return isinstance(x, float) or jnp.issubdtype(getattr(x, "dtype", np.int32), jnp.floating)


def check_gradients(
    fn: Callable[..., Any], *args: Any, epsilon: float = 1e-5, relative: float = RELATIVE, raises: bool = True
) -> Report:
    """Check the gradient of a function at a place, with respect to every float in its arguments.

    Args:
        fn: any function of pytrees; integers, booleans and keys in the arguments are left as they are.
        args: where; few numbers, since each costs two evaluations.
        epsilon: how far each number is moved both ways.
        relative: the error that is allowed, relative to the largest gradient.
        raises: raise on failure; otherwise the report says it.

    Raises:
        NonConformance: the gradient is wrong.

    >>> check_gradients(lambda x: x**3, 2.0).ok
    True
    """
    row: Row = ask("L3", "gradient", lambda: gradients_agree(fn, *args, epsilon=epsilon, relative=relative))
    report = Report(name_of(fn), "central differences", (row,))
    if raises and not report.ok:
        raise NonConformance(report)
    return report
