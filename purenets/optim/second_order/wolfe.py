"""A step along a direction that satisfies the strong Wolfe conditions.

Along the line ``x + a p`` the function is ``phi(a)``, with slope ``phi'(a) = grad f(x + a p) . p``; ``p`` is
a *descent direction* where ``phi'(0) < 0``. The *strong Wolfe conditions* on a step ``a`` are

- sufficient decrease (Armijo): ``phi(a) <= phi(0) + c1 a phi'(0)``,
- small curvature: ``|phi'(a)| <= c2 |phi'(0)|``.

The search (Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6) first makes the step longer
until an interval must contain such a step, then *zooms* into the interval by cubic or quadratic interpolation
or, where these fall near its ends, bisection. ``low`` is the end with the smaller value, not the left one.

Near a minimum the decrease drowns in rounding. There the *approximate* condition of Hager and Zhang (2006,
equation 23), ``phi'(a) <= (2 c1 - 1) phi'(0)`` together with ``phi(a) <= phi(0) + c3 |phi(0)|``, takes its
place.

Both phases propose one trial step at a time, so the function stands once in the program and, under ``vmap``,
is evaluated once a round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from purenets.optim.second_order.trees import cast_like, select

__all__ = ["Point", "Search", "Wolfe", "wolfe_search"]

Line = Callable[[jax.Array], tuple[jax.Array, jax.Array, Any]]
"""From a step to the value, the slope and the gradient there."""


class Wolfe(NamedTuple):
    """The numbers of the search, mostly under optax's names for them.

    Attributes:
        max_steps: How many steps may be tried.
        max_learning_rate: The longest step tried; None for no limit.
        tol: Absolute slack of both conditions.
        increase_factor: What the step is multiplied by before there is an interval.
        slope_rtol: ``c1``.
        curv_rtol: ``c2``.
        approx_dec_rtol: ``c3``; None does without the approximate condition.
        stepsize_precision: An interval narrower than this ends the search if some step decreases enough.
        rounding: Values closer than this, relative to the first, count as equal, and the slopes decide.
        follow: Follow the interpolations as far as is safe: instead of multiplying, go to where the secant of
            the slopes is zero, at most ten times as far; instead of halving, go nine tenths of the way to the
            end where the minimum seems to be.
    """

    max_steps: ArrayLike = 30
    max_learning_rate: ArrayLike | None = None
    tol: ArrayLike = 0.0
    increase_factor: ArrayLike = 2.0
    slope_rtol: ArrayLike = 1e-4
    curv_rtol: ArrayLike = 0.9
    approx_dec_rtol: ArrayLike | None = 1e-6
    stepsize_precision: ArrayLike = 1e-5
    rounding: ArrayLike = 0.0
    follow: bool = False


class Point(NamedTuple):
    """A step along the line, with the value and the slope there."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array


class Search(NamedTuple):
    """Where the search stands.

    Attributes:
        evaluations: how many trials were made.
        start: the line at step zero.
        last: the last trial.
        grad: the gradient at the last trial.
        decrease_error: by how much the last trial misses sufficient decrease; 0 if it does not.
        curvature_error: the same for small curvature.
        low: the end of the interval with the smaller value.
        high: its other end.
        reference: a third point for the cubic.
        bracketed: whether ``low`` and ``high`` enclose a step that satisfies both conditions.
        safe: the best trial with sufficient decrease; step zero before there is one.
        safe_grad: the gradient there.
        done: whether the last trial is accepted.
        failed: whether the search has given up.
    """

    evaluations: jax.Array
    start: Point
    last: Point
    grad: Any
    decrease_error: jax.Array
    curvature_error: jax.Array
    low: Point
    high: Point
    reference: Point
    bracketed: jax.Array
    safe: Point
    safe_grad: Any
    done: jax.Array
    failed: jax.Array


def wolfe_search(
    line: Line, start: Point, grad: Any, guess: jax.Array, rules: Wolfe, give_up: ArrayLike = False
) -> Search:
    """Search the line for a step that satisfies the strong Wolfe conditions.

    Args:
        line: the function along the direction.
        start: the line at step zero.
        grad: the gradient at step zero.
        guess: the first step to try.
        rules: the numbers of the conditions and of the search.
        give_up: do not search at all; the result has failed with no evaluation.

    Returns:
        The final state; if it has failed, ``last`` is the best step with sufficient decrease where there is
        one, step zero where every trial was non-finite, and else the last trial.
    """
    start = Point(*(jnp.asarray(x, guess.dtype) for x in start))
    zero = Point(jnp.zeros_like(guess), start.value, start.slope)
    infinite = jnp.full_like(guess, jnp.inf)
    state = Search(
        evaluations=jnp.asarray(0), start=zero, last=zero, grad=grad,
        decrease_error=infinite, curvature_error=infinite,
        low=zero, high=zero, reference=zero, bracketed=jnp.asarray(False),
        safe=zero, safe_grad=grad, done=jnp.asarray(False), failed=jnp.asarray(give_up),
    )  # fmt: skip

    def trial(s: Search) -> Search:
        step, at_limit = _longer(s, guess, rules)
        step = jnp.where(s.bracketed, _between(s.low, s.high, s.reference, rules), step)
        value, slope, new_grad = line(step)
        new = Point(step, value.astype(step.dtype), slope.astype(step.dtype))
        return _judge(s, new, new_grad, at_limit & ~s.bracketed, rules)

    final = jax.lax.while_loop(lambda s: ~(s.done | s.failed), trial, state)
    retreat = final.failed & ((final.safe.step > 0) | jnp.isinf(final.decrease_error))
    return final._replace(
        last=select(retreat, final.safe, final.last), grad=select(retreat, final.safe_grad, final.grad)
    )


def _longer(s: Search, guess: jax.Array, rules: Wolfe) -> tuple[jax.Array, jax.Array]:
    """The next step before there is an interval, and whether it is the longest one allowed."""
    farther = _secant(s) if rules.follow else rules.increase_factor * s.last.step
    step = jnp.where(s.evaluations == 0, guess, farther).astype(guess.dtype)
    if rules.max_learning_rate is None:
        return step, jnp.asarray(False)
    limit = jnp.asarray(rules.max_learning_rate, step.dtype)
    return jnp.minimum(step, limit), step >= limit


def _secant(s: Search) -> jax.Array:
    """Where the slope would be zero if it went on as from the start to the last trial, within bounds."""
    bend = s.last.slope - s.start.slope
    zero = s.last.step * -s.start.slope / jnp.where(bend > 0, bend, 1.0)
    return jnp.where(bend > 0, jnp.clip(zero, 1.1 * s.last.step, 10 * s.last.step), 10 * s.last.step)


def _between(low: Point, high: Point, reference: Point, rules: Wolfe) -> jax.Array:
    """The next step inside the interval: a minimum by interpolation if it is well inside, else the middle."""
    width = jnp.abs(high.step - low.step)
    left, right = jnp.minimum(low.step, high.step), jnp.maximum(low.step, high.step)
    cubic, quadratic = _cubic_minimum(low, high, reference), _quadratic_minimum(low, high)
    middle = (low.step + high.step) / 2
    inside = lambda x, margin: (x > left + margin * width) & (x < right - margin * width)
    if rules.follow:
        best = jnp.where(jnp.isfinite(cubic), cubic, quadratic)
        middle = jnp.where(
            jnp.isfinite(best), jnp.clip(best, left + 0.1 * width, right - 0.1 * width), middle
        )
    step = jnp.where(inside(quadratic, 0.1), quadratic, middle)
    return jnp.where(inside(cubic, 0.2), cubic, step)


def _quadratic_minimum(low: Point, high: Point) -> jax.Array:
    """Where the parabola through both ends with the slope of the low one is stationary."""
    width = high.step - low.step
    curvature = (high.value - low.value - low.slope * width) / width**2
    return low.step - low.slope / (2 * curvature)


def _cubic_minimum(low: Point, high: Point, reference: Point) -> jax.Array:
    """Where the cubic through three points with the slope of the low one has its minimum, or NaN.

    With ``t`` the distance from ``low``, the cubic is ``a t**3 + b t**2 + slope t + value``, and the two
    other points give two linear equations for ``a`` and ``b`` (Nocedal and Wright, before equation 3.58).
    """
    t, u = high.step - low.step, reference.step - low.step
    above = [point.value - low.value - low.slope * (point.step - low.step) for point in (high, reference)]
    matrix = jnp.array([[u**2, -(t**2)], [-(u**3), t**3]])
    a, b = jnp.dot(matrix, jnp.array(above), precision="highest") / ((t * u) ** 2 * (t - u))
    return low.step + (-b + jnp.sqrt(b * b - 3.0 * a * low.slope)) / (3.0 * a)


def _violation(excess: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(excess), jnp.inf, jnp.maximum(excess, 0.0))


def _errors(start: Point, new: Point, rules: Wolfe) -> tuple[jax.Array, jax.Array]:
    """By how much the point violates sufficient decrease and small curvature."""
    decrease = new.value - start.value - rules.slope_rtol * new.step * start.slope
    if rules.approx_dec_rtol is not None:
        flat = new.value - start.value - rules.approx_dec_rtol * jnp.abs(start.value)
        approximate = new.slope - (2 * rules.slope_rtol - 1) * start.slope
        decrease = jnp.minimum(jnp.maximum(approximate, flat), decrease)
    curvature = jnp.abs(new.slope) - rules.curv_rtol * jnp.abs(start.slope)
    dtype = new.value.dtype
    return _violation(decrease).astype(dtype), _violation(curvature).astype(dtype)


def _judge(s: Search, new: Point, grad: Any, at_limit: jax.Array, rules: Wolfe) -> Search:
    """Take in a trial: keep the interval around a good step, and see whether the search is over."""
    decrease, curvature = _errors(s.start, new, rules)
    good = jnp.maximum(decrease, curvature) <= rules.tol
    # Before there is an interval, the trial is compared with the one before it; the very first with nothing.
    other = select(s.bracketed, s.low, s.last)
    noise = rules.rounding * jnp.abs(s.start.value)
    too_high = (decrease > 0) | ((new.value - noise >= other.value) & (s.bracketed | (s.evaluations > 0)))
    turned = ~too_high & jnp.where(
        s.bracketed, new.slope * (s.high.step - s.low.step) >= 0, new.slope >= 0
    )  # fmt: skip
    low = select(too_high | ~(s.bracketed | turned), other, new)
    high = select(too_high, new, select(turned, other, select(s.bracketed, s.high, new)))
    reference = select(s.bracketed, select(too_high | turned, s.high, s.low), low)
    bracketed = s.bracketed | too_high | turned | good
    done = good | (at_limit & ~bracketed)

    safer = (decrease <= rules.tol) & (~s.bracketed | (new.value < s.safe.value))
    safe = select(safer, new, s.safe)
    narrow = jnp.abs(s.high.step - s.low.step) <= rules.stepsize_precision
    spent = (s.evaluations + 1 >= rules.max_steps) | (s.bracketed & narrow & (safe.step > 0))
    return Search(
        evaluations=s.evaluations + 1, start=s.start, last=new, grad=cast_like(grad, s.grad),
        decrease_error=decrease, curvature_error=curvature,
        low=low, high=high, reference=reference, bracketed=bracketed,
        safe=safe, safe_grad=select(safer, grad, s.safe_grad), done=done, failed=spent & ~done,
    )  # fmt: skip
