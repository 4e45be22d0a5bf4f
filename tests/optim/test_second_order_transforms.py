"""L-BFGS and the line searches against optax, step by step, and where optax is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from purenets import optim

START = {
    "a": [-1.2, 1.0, 0.3],
    "b": {"c": [[0.5, 2.0], [0.0, -1.0]], "none": []},
    "s": 0.7,
}


def valley(params):
    """Rosenbrock's valley through all entries, with a slope of scale 1e-4 and a wall of scale 1e2."""
    x = jnp.concatenate([params["a"], params["b"]["c"].ravel(), params["s"][None]])
    walls = 100.0 * jnp.sum((x[1:] - x[:-1] ** 2) ** 2)
    return walls + jnp.sum((1.0 - x[:-1]) ** 2) + 1e-4 * jnp.sum(params["a"])


def start(dtype):
    is_list = lambda x: isinstance(x, list)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), START, is_leaf=is_list)


def run(optimizer, fn, params, steps, conj=False):
    """The parameters and states after each step."""

    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(fn)(params)
        grad = jax.tree.map(jnp.conj, grad) if conj else grad
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    both = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), None, steps)[1])
    return both(params)


def assert_same(ours, theirs, rtol):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, x), y in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        assert x.dtype == y.dtype, jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol, err_msg=jax.tree_util.keystr(path))


PAIRS = {
    "lbfgs": (lambda lib: lib.lbfgs(), 200),
    "lbfgs small memory unscaled": (lambda lib: lib.lbfgs(memory_size=3, scale_init_precond=False), 40),
    "lbfgs by a schedule": (
        lambda lib: lib.lbfgs(optax.cosine_decay_schedule(1e-2, 100), memory_size=2, linesearch=None),
        200,
    ),
    "zoom after gradient descent, all settings": (
        lambda lib: lib.chain(
            optax.sgd(0.7),
            lib.scale_by_zoom_linesearch(
                15, max_learning_rate=0.5, tol=1e-3, increase_factor=1.7, slope_rtol=1e-3, curv_rtol=0.4,
                approx_dec_rtol=None, stepsize_precision=1e-3,
            ),
        ),
        100,
    ),
    "backtracking after momentum, all settings": (
        lambda lib: lib.chain(
            optax.sgd(1e-3, momentum=0.5),
            lib.scale_by_backtracking_linesearch(
                12, slope_rtol=0.1, decrease_factor=0.6, increase_factor=2.0, max_learning_rate=3.0,
                atol=1e-4, rtol=1e-5, store_grad=True,
            ),
        ),
        200,
    ),
}  # fmt: skip


@pytest.mark.covers("O35", "O36")
@pytest.mark.parametrize("name", PAIRS)
def test_every_step_and_state_equals_optax_in_float64(name, x64):
    make, steps = PAIRS[name]
    ours, theirs = (run(make(lib), valley, start(jnp.float64), steps) for lib in (optim, optax))
    assert_same(ours[0], theirs[0], 1e-10)
    # Later, at the minimum, the remembered differences are themselves of the size of the rounding.
    early = lambda tree: jax.tree.map(lambda x: x[:25], tree)
    assert_same(early(ours[1]), early(theirs[1]), 1e-10)


def test_every_step_equals_optax_in_float32_while_rounding_allows():
    ours, theirs = (run(lib.lbfgs(), valley, start(jnp.float32), 8) for lib in (optim, optax))
    assert_same(ours[0], theirs[0], 5e-5)


def test_ours_among_theirs_and_theirs_among_ours_equal_optax_alone(x64):
    ours_outside = optim.chain(
        optax.scale_by_lbfgs(4),
        optim.scale(-1.0),
        optax.scale_by_zoom_linesearch(20, initial_guess_strategy="one"),
    )
    theirs_outside = optax.chain(
        optim.scale_by_lbfgs(4),
        optax.scale(-1.0),
        optim.scale_by_zoom_linesearch(20, initial_guess_strategy="one"),
    )
    ours, theirs = (run(opt, valley, start(jnp.float64), 30) for opt in (ours_outside, theirs_outside))
    assert_same(ours, theirs, 1e-10)


@pytest.mark.parametrize("search", ["scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"])
def test_complex_parameters_walk_as_optax_does(search, x64):
    matrix = jnp.array([[1.0, -2.0], [3.0, 4.0], [-4.0 + 2.0j, 5.0 - 3.0j], [-2.0 - 2.0j, 6.0]])
    fn = lambda z: jnp.sum(jnp.abs(matrix @ z) ** 1.5)
    z = jnp.array([1.0 - 1.0j, 0.0 + 1.0j])
    ours, theirs = (
        run(lib.lbfgs(linesearch=getattr(lib, search)(20)), fn, z, 15, conj=True) for lib in (optim, optax)
    )
    assert_same(ours, theirs, 1e-10)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64, jnp.complex64])
@pytest.mark.parametrize(
    "make",
    [lambda lib: lib.lbfgs(), lambda lib: lib.scale_by_backtracking_linesearch(5, store_grad=True)],
    ids=["lbfgs", "backtracking"],
)
def test_the_state_keeps_structure_shapes_and_dtypes_which_are_optaxs(make, dtype, x64):
    params = {"w": jnp.ones((2, 3), dtype), "b": jnp.ones((), dtype)}
    optimizer = make(optim)
    fn = lambda p: jnp.sum(jnp.abs(p["w"]) ** 2).astype(jnp.float32) + jnp.abs(p["b"]).astype(jnp.float32)

    def step(params, state):
        value, grad = jax.value_and_grad(fn)(params)
        return optimizer.update(grad, state, params, value=value, grad=grad, value_fn=fn)

    types = lambda tree, weak=True: jax.tree.map(lambda x: (x.shape, x.dtype, weak and x.weak_type), tree)
    before = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(step, params, before)
    assert types(after) == types(before)
    assert types(updates) == types(jax.eval_shape(lambda: params))
    assert types(before, weak=False) == types(jax.eval_shape(make(optax).init, params), weak=False)
    shapes = jax.eval_shape(lambda: params)
    assert jax.tree.structure(optimizer.init(shapes)) == jax.tree.structure(before)


@pytest.mark.parametrize(
    ("axes", "optimizer"),
    [(AxisType.Auto, optim.lbfgs(0.1, 3, linesearch=None)), (AxisType.Explicit, optim.lbfgs(memory_size=3))],
    ids=["auto", "explicit, with a line search"],
)
def test_parameters_may_be_split_over_devices_which_the_state_then_is(axes, optimizer):
    """Under an explicit mesh, where optax's inner products are refused."""
    fn = lambda p: jnp.sum(jnp.cosh(p["w"] * jnp.arange(1.0, 17.0) / 8 - 1)) + p["b"] ** 2
    params = {"w": jnp.linspace(-1, 1, 16), "b": jnp.array(2.0)}

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return optax.apply_updates(params, updates), state

    alone, _ = step(*step(params, optimizer.init(params)))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
    with jax.set_mesh(mesh):
        spread = jax.NamedSharding(mesh, jax.P("data"))
        split = params | {"w": jax.device_put(params["w"], spread)}
        state = optimizer.init(split)
        assert state[0].params["w"].sharding == spread
        assert state[0].diff_params_memory["w"].sharding.spec == jax.P(None, "data")
        together, state = step(*step(split, state))
        assert together["w"].sharding == spread
    for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_minimize_takes_parameters_that_an_explicit_mesh_splits_and_splits_the_solution_alike(x64):
    """Two leaves along different axes of eight devices; the solution is that of one device."""

    def fn(p):
        return jnp.sum(jnp.cosh(p["w"] - 1)) + jnp.sum((jnp.sum(p["k"], 1) - 1) ** 2) + jnp.sum(p["k"] ** 2)

    params = {"k": jnp.ones((2, 8)), "w": jnp.linspace(-1, 1, 8)}
    specs = {"k": jax.P(None, "data"), "w": jax.P("data")}
    alone = optim.minimize(fn, params, optim.newton_cg())
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))):
        solution = optim.minimize(fn, jax.tree.map(jax.device_put, params, specs), optim.newton_cg())
    assert solution.message == "the tolerance is reached"
    assert solution.evaluations == alone.evaluations
    # Each row of k is equal entries x with x + (8 x - 1) = 0, and cosh is least at zero.
    np.testing.assert_allclose(solution.params["k"], 1 / 9, atol=1e-5)
    np.testing.assert_allclose(solution.params["w"], 1, atol=1e-5)
    for name, spec in specs.items():
        assert solution.params[name].sharding.spec == spec
        np.testing.assert_allclose(solution.params[name], alone.params[name], atol=1e-8)


def test_numbers_may_be_traced_and_runs_vmapped_over_them(x64):
    fn = lambda x: jnp.sum(jnp.cosh(x * jnp.array([1.0, 3.0])))
    x = jnp.array([1.0, -0.5])

    def final(lib, c1, c2):
        searches = lib.scale_by_zoom_linesearch(12, slope_rtol=c1, curv_rtol=c2, max_learning_rate=c2 + 0.5)
        return run(lib.chain(lib.scale(-0.3), searches), fn, x, 5)[0]

    c1, c2 = jnp.array([1e-4, 0.2]), jnp.array([0.9, 0.3])
    together = jax.vmap(lambda a, b: final(optim, a, b))(c1, c2)
    alone = jax.jit(lambda a, b: final(optax, a, b))
    for k in range(2):
        np.testing.assert_allclose(together[k], alone(c1[k], c2[k]), rtol=1e-10)

    def shrunk(lib, factor):
        search = lib.scale_by_backtracking_linesearch(15, 0.1, factor)
        return run(lib.chain(lib.scale(-5.0), search), fn, x, 5)[0]

    factors = jnp.array([0.5, 0.8])
    together, alone = jax.vmap(lambda f: shrunk(optim, f))(factors), jax.jit(lambda f: shrunk(optax, f))
    for k in range(2):
        np.testing.assert_allclose(together[k], alone(factors[k]), rtol=1e-10)


def test_the_function_stands_once_in_the_zoom_program():
    fn = lambda x: jnp.sum(jnp.sin(x) ** 2)
    x = jnp.ones(2)

    def sines(lib):
        search = lib.scale_by_zoom_linesearch(10)
        update = lambda x, state: search.update(-x, state, x, value=1.0, grad=x, value_fn=fn)
        return str(jax.make_jaxpr(update)(x, search.init(x))).count("= sin ")

    assert sines(optim) == 1
    assert sines(optax) == 2


@pytest.mark.parametrize("search", ["scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"])
def test_a_search_goes_on_after_one_in_which_nothing_was_finite(search):
    """Optax records the rate 0 then, starts from it the next time, and never moves again."""
    logarithm = lambda x: jnp.log(x)
    x = jnp.asarray(1.0)

    def second_move(lib):
        optimizer = getattr(lib, search)(4)
        state = optimizer.init(x)
        nowhere, state = optimizer.update(
            jnp.asarray(-1e6), state, x, value=0.0, grad=1.0, value_fn=logarithm
        )
        assert nowhere == 0
        return optimizer.update(jnp.asarray(-0.5), state, x, value=0.0, grad=1.0, value_fn=logarithm)[0]

    assert second_move(optax) == 0
    assert second_move(optim) < 0


def test_value_and_gradient_come_from_the_state_once_they_are_there():
    calls = []

    def fn(x):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sum(x**2)

    x = jnp.array([1.0, 2.0])
    optimizer = optim.chain(optim.scale(-0.1), optim.scale_by_backtracking_linesearch(5, store_grad=True))
    reuse = optim.value_and_grad_from_state(fn)
    state = optimizer.init(x)
    value, grad = reuse(x, state=state)
    assert value == 5.0
    assert grad.tolist() == [2.0, 4.0]
    updates, state = optimizer.update(grad, state, x, value=value, grad=grad, value_fn=fn)
    jax.effects_barrier()
    calls.clear()
    value, grad = reuse(x + updates, state=state)
    jax.effects_barrier()
    assert not calls
    np.testing.assert_allclose(value, jnp.sum((x + updates) ** 2), rtol=1e-6)
    np.testing.assert_allclose(grad, 2 * (x + updates), rtol=1e-6)


def test_value_and_gradient_that_are_not_there_or_there_twice_are_refused():
    x = jnp.ones(2)
    reuse = optim.value_and_grad_from_state(lambda x: jnp.sum(x))
    with pytest.raises(ValueError, match=r"no state holds a value and a gradient.*store_grad=True"):
        reuse(x, state=optim.adam(0.1).init(x))
    with pytest.raises(ValueError, match="no state holds a value and a gradient"):
        reuse(x, state=optim.scale_by_backtracking_linesearch(3).init(x))
    twice = optim.chain(optim.scale_by_zoom_linesearch(3), optim.scale_by_zoom_linesearch(3))
    with pytest.raises(KeyError, match="2 states hold a value and a gradient"):
        reuse(x, state=twice.init(x))


def test_a_failed_search_says_so_when_asked(capfd):
    bowl = lambda x: jnp.sum(x**2)
    x = jnp.array([60.0, 0.0])
    up = optim.scale_by_zoom_linesearch(5, verbose=True)
    up.update(x, up.init(x), x, value=3600.0, grad=2 * x, value_fn=bowl)
    jax.effects_barrier()
    assert "not a descent direction" in capfd.readouterr().out
    short = optim.scale_by_zoom_linesearch(5, max_learning_rate=0.01, verbose=True)
    short.update(-x, short.init(x), x, value=3600.0, grad=2 * x, value_fn=bowl)
    jax.effects_barrier()
    out = capfd.readouterr().out
    assert "maximal possible stepsize" in out
    assert "curvature condition not satisfied" in out
    steep = optim.scale_by_backtracking_linesearch(1, verbose=True)
    steep.update(-100 * x, steep.init(x), x, value=3600.0, grad=2 * x, value_fn=bowl)
    jax.effects_barrier()
    assert "no rate with sufficient decrease" in capfd.readouterr().out


def bowl(x):
    return jnp.sum(x**2)


def test_mistakes_are_refused_with_what_was_expected():
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="memory_size must be >= 1, got 0"):
        optim.scale_by_lbfgs(0)
    curvature = optim.scale_by_lbfgs()
    with pytest.raises(ValueError, match="scale_by_lbfgs needs the parameters"):
        curvature.update(x, curvature.init(x))
    with pytest.raises(ValueError, match="'kernel'"):
        curvature.update({"kernel": jnp.ones(3)}, curvature.init({"kernel": x}), {"kernel": x})
    for search in (optim.scale_by_zoom_linesearch(3), optim.scale_by_backtracking_linesearch(3)):
        state = search.init(x)
        with pytest.raises(ValueError, match="needs the parameters"):
            search.update(x, state, None, value=1.0, grad=x, value_fn=bowl)
        with pytest.raises(
            TypeError, match=r"Unexpected keyword arguments.*value_fn does not take \['batch'\]"
        ):
            search.update(x, state, x, value=1.0, grad=x, value_fn=bowl, batch=1)
        with pytest.raises(ValueError, match="needs floating point parameters, got int32 at 'steps'"):
            search.init({"steps": jnp.arange(3)})
        with pytest.raises(ValueError, match="the tree is empty"):
            search.init({})
    strange = optim.scale_by_zoom_linesearch(3, initial_guess_strategy="two")
    with pytest.raises(ValueError, match="Unknown initial guess strategy: 'two'; there are 'one' and 'keep'"):
        strange.update(x, strange.init(x), x, value=1.0, grad=x, value_fn=bowl)


def test_further_arguments_reach_the_function():
    fn = lambda x, batch: jnp.sum((x - batch) ** 2)
    x, batch = jnp.zeros(2), jnp.array([1.0, -1.0])
    for search in (optim.scale_by_zoom_linesearch(5), optim.scale_by_backtracking_linesearch(5)):
        updates, _ = search.update(
            batch, search.init(x), x, value=2.0, grad=-2 * batch, value_fn=fn, batch=batch
        )  # fmt: skip
        np.testing.assert_allclose(updates, batch)
