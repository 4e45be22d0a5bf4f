"""Minimise a function: one loop for every method.

A :class:`Method` says in which direction to go. The loop goes there: with a strong-Wolfe line search, or one
whole step where the method asks for that. It works on one flat vector, the parameters unrolled, in at least
float32. Parameters that an explicit mesh splits are gathered for it; ``fn`` gets them split as they came.

The loop is a ``lax.while_loop`` and everything in it is traceable, so :func:`minimize` can stand under
``jit``, ``vmap`` (over starts, over the data that ``fn`` closes over, over ``tolerance`` or ``damping``) and
inside other programs. Called bare it compiles at every call; for repeated use::

    solve = jax.jit(lambda params: minimize(fn, params, bfgs()))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jax.typing import ArrayLike

from purenets.optim.second_order.status import Solution, Status
from purenets.optim.second_order.trees import check_floating, check_tolerance
from purenets.optim.second_order.wolfe import Point, Wolfe, wolfe_search
from purenets.optim.trees import gathered

__all__ = ["Method", "minimize", "steepest_descent", "trajectory"]

Params = Any
Flat = Callable[[jax.Array], jax.Array]


class Method(NamedTuple):
    """How the direction of each step is chosen, over a flat vector of parameters ``[size]``.

    Attributes:
        init: from the vector to the state of the method.
        direction: ``(fn, x, grad, state) -> (direction, state)``.
        curvature: ``c2`` of the strong Wolfe conditions: 0.9 for (quasi-)Newton, tighter for conjugate
            gradients.
        guess: the first step to try on each line: ``"one"``; ``"expected"``, the step that would give the
            last decrease again (Nocedal and Wright, equation 3.60), but at most 1; or ``"free"``, the same
            but at most twice the last step.
        line_search: whether there is a line search; without, each step is the direction itself.
    """

    init: Callable[[jax.Array], Any]
    direction: Callable[[Flat, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
    curvature: float = 0.9
    guess: Literal["one", "expected", "free"] = "one"
    line_search: bool = True


def steepest_descent() -> Method:
    """The direction is minus the gradient: gradient descent with a line search instead of a rate."""
    return Method(lambda x: (), lambda fn, x, grad, state: (-grad, state), curvature=0.1, guess="free")


class _Run(NamedTuple):
    x: jax.Array
    value: jax.Array
    grad: jax.Array
    method: Any
    decrease: jax.Array
    step: jax.Array
    iterations: jax.Array
    evaluations: jax.Array
    status: jax.Array


def minimize(
    fn: Callable[[Params], ArrayLike],
    params: Params,
    method: Method,
    *,
    tolerance: ArrayLike = 1e-5,
    max_iterations: ArrayLike = 1000,
) -> Solution:
    """Minimise a scalar function of a pytree of parameters.

    Args:
        fn: from the parameters to a scalar; differentiable, and without randomness of its own.
        params: where to start; real floating point leaves.
        method: ``bfgs()``, ``limited_memory_bfgs()``, ``nonlinear_cg()``, ``newton()``, ``newton_cg()``,
            ``steepest_descent()``, or your own.
        tolerance: it has converged where no entry of the gradient is larger than this in absolute value.
        max_iterations: how many steps may be taken.

    Returns:
        The solution; its ``status`` tells whether it has converged and, if not, why it stopped.

    Raises:
        ValueError: there are no parameters, some are not real floating point; ``fn``
            does not return a scalar; ``tolerance`` is a negative Python number.

    >>> from purenets.optim.second_order import bfgs
    >>> solution = minimize(lambda p: (p["x"] - 3.0) ** 2, {"x": 0.0}, bfgs())
    >>> round(float(solution.params["x"]), 3), solution.message
    (3.0, 'the tolerance is reached')
    """
    flat, unravel = _unrolled(fn, params)
    step = _stepper(flat, method, tolerance)
    going = lambda run: (run.status == Status.RUNNING) & (run.iterations < max_iterations)
    run = jax.lax.while_loop(going, step, _start(flat, unravel.start, method, tolerance))
    ended = jnp.where(run.status == Status.RUNNING, Status.MAX_ITERATIONS.value, run.status)
    return _solution(run._replace(status=ended.astype(jnp.int32)), unravel)


def trajectory(
    fn: Callable[[Params], ArrayLike],
    params: Params,
    method: Method,
    steps: int,
    *,
    tolerance: ArrayLike = 0.0,
) -> Solution:
    """The same minimisation with every point it passes: a solution with a leading axis ``[steps + 1]``.

    Entry 0 is the start. After the method has stopped its last point is repeated.
    """
    flat, unravel = _unrolled(fn, params)
    step = _stepper(flat, method, tolerance)
    start = _start(flat, unravel.start, method, tolerance)

    def advance(run: _Run, _: None) -> tuple[_Run, Solution]:
        # Not a select: a method that has stopped costs nothing further.
        run = jax.lax.cond(run.status == Status.RUNNING, step, lambda same: same, run)
        return run, _solution(run, unravel)

    _, after = jax.lax.scan(advance, start, None, length=steps)
    return jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest]), _solution(start, unravel), after
    )


class _Unravel(NamedTuple):
    start: jax.Array
    back: Callable[[jax.Array], Params]


def _unrolled(fn: Callable[[Params], ArrayLike], params: Params) -> tuple[Flat, _Unravel]:
    """The function over one flat vector of at least float32, the start, and the way back."""
    check_floating(params, "minimize", real=True)
    params = jax.tree.map(jnp.asarray, params)
    # On an explicit mesh leaves that are cut differently make no vector, so each device has all of it.
    whole = jax.tree.map(gathered, params)
    wide = jax.tree.map(
        lambda p, pair: pair[0].astype(jnp.promote_types(p.dtype, jnp.float32)), params, whole
    )
    start, unravel = jax.flatten_util.ravel_pytree(wide)
    back = lambda x: jax.tree.map(
        lambda p, like, pair: pair[1](p.astype(like.dtype)), unravel(x), params, whole
    )
    out = jax.eval_shape(lambda x: jnp.asarray(fn(back(x))), start)
    if out.shape != ():
        raise ValueError(
            f"the function to minimise must return a scalar, got shape {out.shape}; take a mean or a sum"
        )
    return lambda x: jnp.asarray(fn(back(x))).astype(start.dtype), _Unravel(start, back)


def _start(flat: Flat, x: jax.Array, method: Method, tolerance: ArrayLike) -> _Run:
    check_tolerance(tolerance)
    value, grad = jax.value_and_grad(flat)(x)
    none = jnp.zeros((), jnp.int32)
    run = _Run(
        x, value, grad, method.init(x), jnp.zeros_like(value), jnp.zeros_like(value), none, none + 1, none
    )
    status = jnp.where(_finite(value, grad), _judged(run, tolerance), Status.NON_FINITE_START.value)
    status = jnp.where(jnp.asarray(tolerance) >= 0, status, Status.BAD_TOLERANCE.value)
    return run._replace(status=status.astype(jnp.int32))


def _judged(run: _Run, tolerance: ArrayLike) -> jax.Array:
    converged = jnp.max(jnp.abs(run.grad)) <= tolerance
    return jnp.where(converged, Status.CONVERGED.value, Status.RUNNING.value)


def _finite(*arrays: jax.Array) -> jax.Array:
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(x)) for x in arrays]))


def _stepper(flat: Flat, method: Method, tolerance: ArrayLike) -> Callable[[_Run], _Run]:
    move = _searched if method.line_search else _whole

    def step(run: _Run) -> _Run:
        direction, state = method.direction(flat, run.x, run.grad, run.method)
        after, trouble = move(flat, run, direction, method)
        after = after._replace(method=state)
        status = jnp.where(trouble == 0, _judged(after, tolerance), trouble)
        return after._replace(status=status.astype(jnp.int32))

    return step


def _searched(flat: Flat, run: _Run, direction: jax.Array, method: Method) -> tuple[_Run, jax.Array]:
    """One step by line search, and the status of what went wrong or 0."""
    slope = jnp.vdot(direction, run.grad, precision="highest")
    finite = _finite(direction)
    rounding = 10 * float(jnp.finfo(run.x.dtype).eps)
    rules = Wolfe(
        curv_rtol=method.curvature,
        approx_dec_rtol=rounding,
        stepsize_precision=0.0,
        rounding=rounding,
        follow=True,
    )

    def line(step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        value, grad = jax.value_and_grad(flat)(run.x + step * direction)
        return value, jnp.vdot(grad, direction, precision="highest"), grad

    start = Point(jnp.zeros_like(slope), run.value, slope)
    uphill = ~(slope < 0)
    search = wolfe_search(
        line, start, run.grad, _first_try(run, direction, slope, method), rules, give_up=uphill | ~finite
    )
    # A failed search may still have found a lower point; then that is where it ends.
    best, grad = jax.tree.map(
        lambda safe, last: jnp.where(search.failed, safe, last),
        (search.safe, search.safe_grad),
        (search.last, search.grad),
    )
    trouble = jnp.where(search.failed, Status.LINE_SEARCH_FAILED.value, 0)
    trouble = jnp.where(uphill, Status.NOT_DESCENT.value, trouble)
    trouble = jnp.where(finite, trouble, Status.BAD_DIRECTION.value)
    x = run.x + jnp.where(best.step > 0, best.step * direction, 0)
    after = run._replace(
        x=x, value=best.value, grad=grad, decrease=run.value - best.value, step=best.step,
        iterations=run.iterations + (best.step > 0),
        evaluations=run.evaluations + search.evaluations.astype(jnp.int32),
    )  # fmt: skip
    return after, trouble


def _first_try(run: _Run, direction: jax.Array, slope: jax.Array, method: Method) -> jax.Array:
    """The first step to try on the line."""
    if method.guess == "one":
        return jnp.ones_like(slope)
    limit = jnp.ones_like(slope) if method.guess == "expected" else 2 * run.step
    expected = jnp.minimum(2.02 * run.decrease / -slope, limit)
    return jnp.where(run.decrease > 0, expected, jnp.minimum(1.0, 1 / jnp.linalg.norm(direction)))


def _whole(flat: Flat, run: _Run, direction: jax.Array, _: Method) -> tuple[_Run, jax.Array]:
    """One whole step, and the status of what went wrong or 0."""
    x = run.x + direction
    value, grad = jax.value_and_grad(flat)(x)
    evaluations = run.evaluations + 1
    after = run._replace(
        x=x, value=value, grad=grad, decrease=run.value - value, iterations=run.iterations + 1
    )  # fmt: skip
    fine = _finite(value, grad)
    trouble = jnp.where(_finite(direction), Status.NON_FINITE.value, Status.BAD_DIRECTION.value)
    kept = jax.tree.map(lambda new, old: jnp.where(fine, new, old), after, run)
    return kept._replace(evaluations=evaluations), jnp.where(fine, 0, trouble)


def _solution(run: _Run, unravel: _Unravel) -> Solution:
    norm = jnp.max(jnp.abs(run.grad))
    return Solution(unravel.back(run.x), run.value, norm, run.iterations, run.evaluations, run.status)
