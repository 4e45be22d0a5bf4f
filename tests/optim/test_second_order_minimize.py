"""Every method on every problem: known minima, SciPy's evaluations, and the Wolfe conditions at each step."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from purenets import optim
from purenets.optim.problems import logistic_regression, problems, rosenbrock

SIZE = 10
TOLERANCE = 1e-6
METHODS = {
    "steepest_descent": optim.steepest_descent(),
    "polak_ribiere_plus": optim.nonlinear_cg(),
    "polak_ribiere": optim.nonlinear_cg(optim.polak_ribiere),
    "fletcher_reeves": optim.nonlinear_cg(optim.fletcher_reeves),
    "bfgs": optim.bfgs(),
    "limited_memory_bfgs": optim.limited_memory_bfgs(),
    "newton": optim.newton(),
    "newton_cg": optim.newton_cg(),
}
CURVATURE = {name: method.curvature for name, method in METHODS.items()}
SCIPY = {
    "polak_ribiere_plus": "CG",
    "polak_ribiere": "CG",
    "fletcher_reeves": "CG",
    "bfgs": "BFGS",
    "limited_memory_bfgs": "L-BFGS-B",
    "newton": "Newton-CG",
    "newton_cg": "Newton-CG",
}
NAMES = ["quadratic", "rosenbrock", "beale", "himmelblau", "long_valley", "logistic_regression"]
# Gradient descent needs thousands of steps in the curved valley, whatever chooses the rate.
TOO_SLOW = {("steepest_descent", "rosenbrock")}


@lru_cache
def flat_problems():
    """The problems over one vector of ten numbers; a bowl takes those that a problem does not use."""
    with jax.enable_x64(True):
        made = problems()
        starts, functions = [], []
        for name in NAMES:
            flat, unravel = ravel_pytree(made[name].start)
            starts.append(jnp.zeros(SIZE).at[: flat.size].set(flat))
            functions.append(
                lambda x, fn=made[name].fn, unravel=unravel, n=flat.size: (
                    fn(unravel(x[:n])) + 0.5 * jnp.sum(x[n:] ** 2)
                )
            )
        return made, jnp.stack(starts), lambda which, x: jax.lax.switch(which, functions, x)


@lru_cache
def paths(method):
    """The path of one method on each problem, in one program."""
    with jax.enable_x64(True):
        _, starts, value = flat_problems()

        @jax.jit
        def walk(which, start):
            return optim.trajectory(
                lambda x: value(which, x), start, METHODS[method], 1000, tolerance=TOLERANCE
            )

        found = {}
        for which, name in enumerate(NAMES):
            path = walk(which, starts[which])
            _, grads = derivatives()[0](which, path.params)
            found[name] = jax.tree.map(np.asarray, (path, grads))
        return found


@lru_cache
def scipys(method, problem):
    """SciPy's minimum and how often it evaluated value and gradient to reach the same tolerance."""
    with jax.enable_x64(True):
        _, starts, _ = flat_problems()
        which = NAMES.index(problem)
        value_and_grads, hessian = derivatives()
        options = {"Newton-CG": {"xtol": 1e-8}, "L-BFGS-B": {"ftol": 0.0, "gtol": TOLERANCE}}
        more = {"hess": lambda x: np.asarray(hessian(which, x))} if method == "Newton-CG" else {}
        result = scipy.optimize.minimize(
            lambda x: [np.asarray(y[0]) for y in value_and_grads(which, jnp.asarray(x)[None])],
            np.asarray(starts[which]),
            jac=True,
            method=method,
            options=options.get(method, {"gtol": TOLERANCE}),
            **more,
        )
        return result.fun, result.nfev


@lru_cache
def derivatives():
    """Value and gradient at many points of one problem, and the Hessian at one."""
    _, _, value = flat_problems()
    value_and_grads = jax.vmap(jax.value_and_grad(value, 1), (None, 0))
    return jax.jit(value_and_grads), jax.jit(jax.hessian(value, 1))


@pytest.mark.parametrize("problem", problems())
def test_the_minima_of_a_problem_are_where_it_says(problem, x64):
    """The gradient is zero there, the value the lowest of all around, and the Hessian not negative."""
    _, fn, start, minima, value = problems()[problem]
    assert jnp.isfinite(fn(start))
    _, unravel = ravel_pytree(start)
    derivatives = jax.jit(
        lambda x: (jax.grad(lambda y: fn(unravel(y)))(x), jax.hessian(lambda y: fn(unravel(y)))(x))
    )
    for minimum in minima:
        slopes, hessian = derivatives(ravel_pytree(minimum)[0])
        np.testing.assert_allclose(fn(minimum), value, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(slopes, 0.0, atol=1e-4)
        assert np.linalg.eigvalsh(hessian).min() > 0
        assert value < fn(start)
    if problem == "saddle":
        assert fn(jnp.array([0.0, 1e6])) < -1e11
        assert value == -np.inf


@pytest.mark.covers("O31", "O33", "O34", "O35")
@pytest.mark.parametrize("problem", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_it_converges_to_a_known_minimum(method, problem):
    made, _, _ = flat_problems()
    path, grads = paths(method)[problem]
    assert path.value[-1] <= path.value[0]
    if (method, problem) in TOO_SLOW:
        assert optim.Status(path.status[-1]) is optim.Status.RUNNING
        return
    assert optim.Status(path.status[-1]) is optim.Status.CONVERGED
    assert np.abs(grads[-1]).max() <= TOLERANCE * (1 + 1e-6)
    np.testing.assert_allclose(path.gradient_norm[-1], np.abs(grads[-1]).max(), rtol=1e-6, atol=1e-14)
    minima = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(m)]) for m in made[problem].minima]
    if minima:
        near = [np.abs(path.params[-1][: len(minimum)] - minimum).max() for minimum in minima]
        assert min(near) < 1e-4
        np.testing.assert_allclose(path.value[-1], made[problem].value, atol=1e-9)
    else:
        np.testing.assert_allclose(path.value[-1], scipys("BFGS", problem)[0], rtol=1e-9)


@pytest.mark.covers("O36")
@pytest.mark.parametrize("method", METHODS)
def test_every_accepted_step_satisfies_armijo_and_curvature(method):
    checked = 0
    for path, grads in paths(method).values():
        taken = np.diff(path.iterations) > 0
        steps = np.diff(path.params, axis=0)[taken]
        before, after = grads[:-1][taken], grads[1:][taken]
        slope, slope_after = np.sum(steps * before, 1), np.sum(steps * after, 1)
        value, value_after = path.value[:-1][taken], path.value[1:][taken]
        rounding = 10 * np.finfo(np.float64).eps * np.abs(value)
        assert np.all(slope < 0)
        assert np.all(value_after <= value + 1e-4 * slope + rounding)
        assert np.all(np.abs(slope_after) <= CURVATURE[method] * np.abs(slope) * (1 + 1e-6))
        checked += taken.sum()
    assert checked > 30


@pytest.mark.covers("O33", "O34", "O35")
@pytest.mark.parametrize("problem", NAMES)
@pytest.mark.parametrize("method", SCIPY)
def test_it_evaluates_at_most_twice_as_often_as_scipy(method, problem):
    """And ten times more, for a lucky first guess. Newton's method is held against Newton-CG.

    On the bowl SciPy's conjugate gradients happen to step exactly and end early; there it is five times.
    """
    path, _ = paths(method)[problem]
    theirs_value, theirs = scipys(SCIPY[method], problem)
    factor = 5 if (SCIPY[method], problem) == ("CG", "quadratic") else 2
    assert path.evaluations[-1] <= factor * theirs + 10
    assert path.value[-1] <= theirs_value + 1e-8


@pytest.mark.covers("O33", "O34", "O35")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("bfgs", "BFGS"), ("limited_memory_bfgs", "LBFGS"), ("nonlinear_cg", "NonlinearCG")],
    ids=str,
)
def test_it_ends_where_optimistix_does_with_no_more_evaluations(ours, theirs, x64):
    """A step of Optimistix is an evaluation, whether its search accepts it or not."""
    optimistix = pytest.importorskip("optimistix")
    problem = problems()["beale"]
    mine = optim.minimize(problem.fn, problem.start, getattr(optim, ours)(), tolerance=1e-8)
    other = optimistix.minimise(
        lambda x, _: problem.fn(x), getattr(optimistix, theirs)(1e-9, 1e-9), problem.start, max_steps=5000
    )
    assert mine.message == "the tolerance is reached"
    np.testing.assert_allclose(mine.params, other.value, atol=1e-7)
    assert mine.evaluations <= other.stats["num_steps"]


def fletcher_reeves_in_numpy(value_and_grad, x, steps, restart):
    """The rule with SciPy's own strong-Wolfe search; gives the number of evaluations and the last value."""
    value, grad = value_and_grad(x)
    before, direction, evaluations = value + np.linalg.norm(grad) / 2, -grad, 1
    for _ in range(steps):
        step, calls, *_ = scipy.optimize.line_search(
            lambda x: value_and_grad(x)[0], lambda x: value_and_grad(x)[1], x, direction, grad, value, before,
            c2=0.1,
        )  # fmt: skip
        x, before, last, evaluations = x + step * direction, value, grad, evaluations + calls
        value, grad = value_and_grad(x)
        if np.abs(grad).max() <= 1e-5:
            break
        beta = 0.0 if abs(grad @ last) >= restart * (grad @ grad) else (grad @ grad) / (last @ last)
        direction = beta * direction - grad
    return evaluations, value


@pytest.mark.covers("O33")
def test_fletcher_reeves_jams_in_ten_variables_unless_it_restarts(x64):
    """So it does in NumPy with SciPy's search: it is the rule, not the search. SciPy's CG is Polak-Ribiere."""
    problem = rosenbrock(SIZE)
    value_and_grad = jax.jit(jax.value_and_grad(problem.fn))
    solve = jax.jit(
        lambda restart: optim.minimize(
            problem.fn, problem.start, optim.nonlinear_cg(optim.fletcher_reeves, restart=restart)
        )
    )
    in_numpy = partial(
        fletcher_reeves_in_numpy, lambda x: [np.asarray(y) for y in value_and_grad(x)], problem.start, 500
    )
    jammed, restarted = solve(jnp.inf), solve(0.2)
    assert jammed.status == optim.Status.MAX_ITERATIONS
    assert jammed.value > 1
    assert in_numpy(np.inf)[1] > 1
    assert restarted.message == "the tolerance is reached"
    np.testing.assert_allclose(restarted.params, 1.0, atol=1e-4)
    evaluations, value = in_numpy(0.2)
    assert value < 1e-9
    assert restarted.evaluations < 1.5 * evaluations
    theirs = scipy.optimize.minimize(value_and_grad, np.asarray(problem.start), jac=True, method="CG")
    assert theirs.success
    for method in (optim.nonlinear_cg(optim.fletcher_reeves), optim.nonlinear_cg()):
        mine = optim.minimize(problem.fn, problem.start, method)
        assert mine.gradient_norm <= 1e-5
        assert mine.evaluations <= theirs.nfev


def test_conjugate_gradients_that_always_restart_are_steepest_descent(x64):
    problem = rosenbrock(3)
    walk = lambda method: optim.trajectory(problem.fn, problem.start, method, 8).params
    np.testing.assert_allclose(
        walk(optim.nonlinear_cg(restart=0.0)), walk(optim.steepest_descent()), rtol=1e-9
    )


@pytest.mark.covers("O33", "O34", "O35", "O36")
def test_second_order_beats_steepest_descent_in_the_valley():
    slow = paths("steepest_descent")["rosenbrock"][0]
    for method in METHODS.keys() - {"steepest_descent"}:
        fast = paths(method)["rosenbrock"][0]
        reached = np.argmax(fast.value < slow.value[-1])
        assert fast.evaluations[reached] < slow.evaluations[-1] / 5


def test_minimize_ends_where_its_trajectory_does(x64):
    _, starts, value = flat_problems()
    solve = jax.jit(
        lambda which, x, limit: optim.minimize(
            lambda x: value(which, x), x, optim.bfgs(), tolerance=TOLERANCE, max_iterations=limit
        )
    )
    for which in (1, 2):
        path, _ = paths("bfgs")[NAMES[which]]
        end = solve(which, starts[which], 1000)
        np.testing.assert_allclose(end.params, path.params[-1], rtol=1e-6, atol=1e-9)
        assert end.evaluations == path.evaluations[-1]
        assert end.iterations == path.iterations[-1]
        assert end.message == "the tolerance is reached"
        cut = solve(which, starts[which], 3)
        np.testing.assert_allclose(cut.params, path.params[3], rtol=1e-9)
        assert (int(cut.iterations), cut.message) == (
            3, "the iterations ran out first; allow more, or a larger tolerance",
        )  # fmt: skip


@pytest.mark.covers("O34", "O35")
def test_l_bfgs_walks_as_dense_bfgs_while_its_memory_lasts(x64):
    _, starts, value = flat_problems()

    @jax.jit
    def walk(which):
        solve = lambda method: optim.trajectory(lambda x: value(which, x), starts[which], method, 8)
        return solve(optim.limited_memory_bfgs(8, scale=False)), solve(
            optim.limited_memory_bfgs(3, scale=False)
        )

    dense, _ = paths("bfgs")[NAMES[1]]
    limited, forgetful = walk(1)
    np.testing.assert_allclose(limited.params, dense.params[:9], rtol=1e-9, atol=1e-10)
    assert np.array_equal(limited.evaluations, dense.evaluations[:9])
    np.testing.assert_allclose(forgetful.params[:4], dense.params[:4], rtol=1e-9)
    assert np.max(np.abs(forgetful.params[6:] - dense.params[6:9])) > 1e-3


def test_vmapped_over_data_starts_and_tolerances_it_solves_each_alone(x64):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(3, 40, 2))
    labels = (inputs @ [1.0, -2.0] + rng.normal(size=(3, 40)) > 0) * 1.0
    starts, tolerances = jnp.array([0.5, 3.0, -2.0]), jnp.array([1e-3, 1e-8, 1e-5])

    def solve(x, y, start, tolerance):
        problem = logistic_regression(x, y, l2=0.01)
        start = jax.tree.map(lambda p: p + start, problem.start)
        return optim.minimize(problem.fn, start, optim.limited_memory_bfgs(), tolerance=tolerance)

    together, alone = jax.jit(jax.vmap(solve))(inputs, labels, starts, tolerances), jax.jit(solve)
    assert together.params["kernel"].shape == (3, 2)
    assert together.status.tolist() == [0, 0, 0]
    for k in range(3):
        one = alone(inputs[k], labels[k], starts[k], tolerances[k])
        assert one.gradient_norm <= tolerances[k]
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(y[k], x, rtol=1e-6, atol=1e-9)


def test_parameters_keep_their_dtypes_and_half_precision_is_computed_in_float32():
    seen = []

    def fn(p):
        seen.append((p["half"].dtype, p["single"].dtype))
        return jnp.sum((p["half"] - 2.0) ** 2) + (p["single"] + 1.0) ** 2

    start = {"half": jnp.ones(2, jnp.bfloat16), "single": jnp.float32(3.0)}
    solution = optim.minimize(fn, start, optim.bfgs(), tolerance=1e-2)
    assert set(seen) == {(jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32))}
    assert (solution.params["half"].dtype, solution.params["single"].dtype) == (jnp.bfloat16, jnp.float32)
    assert solution.value.dtype == jnp.float32
    assert solution.message == "the tolerance is reached"
    np.testing.assert_allclose(solution.params["half"].astype(np.float32), 2.0)


def test_what_goes_wrong_while_running_is_told_by_the_status(x64):
    """A bowl, a slope without end, a logarithm of a negative number; then tolerances that are none."""

    def fn(x, kind):
        return jnp.select([kind == 0, kind == 1], [x**2, -x], jnp.log(x))

    @jax.jit
    @jax.vmap
    def solve(kind, x, tolerance):
        return optim.minimize(lambda x: fn(x, kind), x, optim.steepest_descent(), tolerance=tolerance)

    kinds, starts = jnp.array([0, 1, 2, 0, 0]), jnp.array([3.0, 1.0, -1.0, 3.0, 3.0])
    solutions = solve(kinds, starts, jnp.array([1e-5, 1e-5, 1e-5, -1.0, jnp.nan]))
    status = [optim.Status(s).name for s in solutions.status.tolist()]
    assert status == ["CONVERGED", "LINE_SEARCH_FAILED", "NON_FINITE_START", "BAD_TOLERANCE", "BAD_TOLERANCE"]
    assert optim.Status.LINE_SEARCH_FAILED.message.startswith(
        "no step along the direction satisfies the strong"
    )
    assert optim.Status.NON_FINITE_START.message == "the value or the gradient at the start is not finite"
    assert jnp.isnan(solutions.value[2])
    assert solutions.iterations[2] == 0


def test_a_direction_uphill_is_not_searched():
    uphill = optim.Method(lambda x: (), lambda fn, x, grad, state: (grad, state))
    solution = optim.minimize(lambda x: x**2, 3.0, uphill)
    assert solution.message.startswith("the direction does not point downhill")
    assert (float(solution.params), int(solution.iterations), int(solution.evaluations)) == (3.0, 0, 1)


def test_mistakes_known_beforehand_raise():
    bowl = lambda p: jnp.sum(p["x"] ** 2)
    with pytest.raises(ValueError, match="minimize needs real floating point parameters, got int32 at 'x'"):
        optim.minimize(bowl, {"x": jnp.arange(3)}, optim.bfgs())
    with pytest.raises(
        ValueError, match="minimize needs real floating point parameters, got complex64 at 'x'"
    ):
        optim.minimize(bowl, {"x": jnp.ones(2, jnp.complex64)}, optim.bfgs())
    with pytest.raises(ValueError, match="the tree is empty"):
        optim.minimize(bowl, {}, optim.bfgs())
    with pytest.raises(ValueError, match=r"must return a scalar, got shape \(3,\); take a mean or a sum"):
        optim.minimize(lambda p: p["x"], {"x": jnp.ones(3)}, optim.bfgs())
    with pytest.raises(ValueError, match=r"tolerance must not be negative, got -0\.1"):
        optim.minimize(bowl, {"x": jnp.ones(3)}, optim.bfgs(), tolerance=-0.1)
    with pytest.raises(ValueError, match=r"restart must not be negative, got -0\.2; infinity is for never"):
        optim.nonlinear_cg(restart=-0.2)
    with pytest.raises(ValueError, match="needs both inputs and labels"):
        logistic_regression(jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"needs \[examples, features\] and \[examples\]"):
        logistic_regression(jnp.ones((3, 2)), jnp.ones(2))
