"""Conjugate gradients: directions that do not undo one another.

For a linear system ``A x = b`` with a symmetric positive definite ``A``, each direction is *conjugate* to
those before it, ``p_i . A p_j = 0``, so that a step along it is final and ``n`` of them suffice (Hestenes and
Stiefel 1952). Only products with ``A`` are needed.

For a function that is not quadratic the direction is the new steepest descent plus ``beta`` times the last
direction. The rules for ``beta`` agree on quadratics with exact steps and differ elsewhere: after a bad step
Fletcher-Reeves goes on almost across the gradient, in ever shorter steps (Powell 1977), Polak-Ribiere forgets
it, and its *plus* form never turns back. What helps Fletcher-Reeves is to *restart* from steepest descent when
two gradients in a row are far from orthogonal, as those of a quadratic would be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from purenets.optim.second_order.solver import Method
from purenets.optim.second_order.status import LinearSolution, Status
from purenets.optim.second_order.trees import add_scaled, check_floating, check_tolerance, dot

__all__ = [
    "conjugate_gradient",
    "fletcher_reeves",
    "nonlinear_cg",
    "polak_ribiere",
    "polak_ribiere_plus",
]

Tree = Any
Beta = Callable[[jax.Array, jax.Array], jax.Array]


class _Linear(NamedTuple):
    x: Tree
    residual: Tree
    direction: Tree
    square: jax.Array
    iterations: jax.Array
    status: jax.Array


def conjugate_gradient(
    matvec: Callable[[Tree], Tree],
    b: Tree,
    x0: Tree | None = None,
    *,
    tolerance: ArrayLike = 1e-5,
    max_iterations: ArrayLike | None = None,
) -> LinearSolution:
    """Solve ``A x = b`` for a symmetric positive definite ``A`` given by its products with vectors.

    Exact arithmetic needs at most ``n`` steps; rounding may ask for more. It stops where a direction shows
    that ``A`` is not positive definite, with the last good ``x``.

    Args:
        matvec: ``A`` times a tree like ``b``; linear.
        b: the right-hand side, a pytree of real arrays with ``n`` entries in all.
        x0: where to start; zero by default.
        tolerance: it has converged where ``|b - A x| <= tolerance |b|``.
        max_iterations: how many steps may be taken; ``10 n`` by default.

    Raises:
        ValueError: ``b`` is empty or not real floating point, or ``tolerance`` is a negative Python number.

    >>> A = jnp.array([[4.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradient(lambda v: A @ v, jnp.array([1.0, 2.0])).x.round(4).tolist()
    [0.09..., 0.63...]
    """
    check_floating(b, "conjugate_gradient", real=True)
    check_tolerance(tolerance)
    if max_iterations is None:
        max_iterations = 10 * sum(jnp.size(leaf) for leaf in jax.tree.leaves(b))
    b = jax.tree.map(jnp.asarray, b)
    start = jax.tree.map(jnp.zeros_like, b) if x0 is None else x0
    residual = b if x0 is None else add_scaled(b, -1.0, matvec(start))
    limit = jnp.square(jnp.asarray(tolerance)) * dot(b, b)

    def step(s: _Linear) -> _Linear:
        product = matvec(s.direction)
        curvature = dot(s.direction, product)
        positive = curvature > 0
        length = jnp.where(positive, s.square / jnp.where(positive, curvature, 1.0), 0.0)
        x = add_scaled(s.x, length, s.direction)
        residual = add_scaled(s.residual, -length, product)
        square = dot(residual, residual)
        direction = add_scaled(residual, square / s.square, s.direction)
        status = jnp.where(square <= limit, Status.CONVERGED.value, Status.RUNNING.value)
        status = jnp.where(positive, status, Status.NOT_POSITIVE_DEFINITE.value)
        return _Linear(x, residual, direction, square, s.iterations + positive, status)

    square = dot(residual, residual)
    status = jnp.where(square <= limit, Status.CONVERGED.value, Status.RUNNING.value)
    end = jax.lax.while_loop(
        lambda s: (s.status == Status.RUNNING) & (s.iterations < max_iterations),
        step,
        _Linear(start, residual, residual, square, jnp.zeros((), jnp.int32), status),
    )
    ended = jnp.where(end.status == Status.RUNNING, Status.MAX_ITERATIONS.value, end.status)
    return LinearSolution(end.x, jnp.sqrt(end.square), end.iterations, ended.astype(jnp.int32))


def fletcher_reeves(grad: jax.Array, last: jax.Array) -> jax.Array:
    """``|g|^2 / |g_last|^2`` (1964; Nocedal and Wright, equation 5.41a)."""
    return _dot(grad, grad) / _dot(last, last)


def polak_ribiere(grad: jax.Array, last: jax.Array) -> jax.Array:
    """``g . (g - g_last) / |g_last|^2`` (1969; Nocedal and Wright, equation 5.44)."""
    return _dot(grad, grad - last) / _dot(last, last)


def polak_ribiere_plus(grad: jax.Array, last: jax.Array) -> jax.Array:
    """Polak-Ribiere, but never negative (Powell 1986; Nocedal and Wright, equation 5.45)."""
    return jnp.maximum(polak_ribiere(grad, last), 0.0)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.vdot(a, b, precision="highest")


class _State(NamedTuple):
    grad: jax.Array
    direction: jax.Array


def nonlinear_cg(beta: Beta = polak_ribiere_plus, *, restart: ArrayLike | None = None) -> Method:
    """Nonlinear conjugate gradients (Nocedal and Wright, algorithm 5.4).

    Where the new direction does not point downhill, which exact steps or Fletcher-Reeves would never give, it
    starts afresh from steepest descent.

    Args:
        beta: the weight of the last direction, from the new and the last gradient:
            :func:`fletcher_reeves`, :func:`polak_ribiere` or :func:`polak_ribiere_plus`.
        restart: start afresh too where ``|g . g_last| >= restart |g|^2`` (Powell 1977; Nocedal and Wright,
            equation 5.52); infinity for never. By default 0.2, Powell's number, for :func:`fletcher_reeves`,
            which on Rosenbrock's valley in ten variables stands still without, and never for the others,
            whose ``beta`` is small by itself where the gradient hardly changes.

    Raises:
        ValueError: ``restart`` is a negative Python number.
    """
    if restart is None:
        restart = 0.2 if beta is fletcher_reeves else jnp.inf
    if isinstance(restart, int | float) and not restart >= 0:
        raise ValueError(f"restart must not be negative, got {restart}; infinity is for never")

    def init(x: jax.Array) -> _State:
        return _State(jnp.zeros_like(x), jnp.zeros_like(x))

    def direction(_fn: Any, _x: jax.Array, grad: jax.Array, state: _State) -> tuple[jax.Array, _State]:
        overlap, square = jnp.abs(_dot(grad, state.grad)), _dot(grad, grad)
        goes_on = jnp.any(state.grad != 0) & ~(overlap >= restart * square)
        weight = jnp.where(goes_on, beta(grad, jnp.where(goes_on, state.grad, 1.0)), 0.0)
        step = weight * state.direction - grad
        step = jnp.where(_dot(step, grad) < 0, step, -grad)
        return step, _State(grad, step)

    return Method(init, direction, curvature=0.1, guess="free")
