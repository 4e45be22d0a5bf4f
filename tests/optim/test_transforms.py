"""What every first-order optimizer and transform keeps, whatever its rule: optax's protocol, JAX's laws."""

import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from purenets import optim
from tests.optim.every import ALIASES, EVERY, MATRICES, TRANSFORMS, every_optimizer, quick_jit
from tests.optim.trajectory import gradients_of, params_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Specifying a key")

LOSS = jnp.float32(3.0)


def first(dtype="float32", shapes=MATRICES):
    """Parameters and one gradient."""
    return params_of(dtype, shapes), jax.tree.map(lambda g: g[0], gradients_of(dtype, steps=1, shapes=shapes))


def shapes_and_dtypes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


def numbers(tree):
    """The tree as NumPy arrays, keys as their data."""

    def number(x):
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return jax.tree.map(number, tree)


def assert_close(mine, theirs, rtol=2e-5, atol=1e-6):
    chex.assert_trees_all_close(numbers(mine), numbers(theirs), rtol=rtol, atol=atol)


def assert_equal(mine, theirs):
    chex.assert_trees_all_equal(numbers(mine), numbers(theirs))


@partial(quick_jit, static_argnums=0)
def walked(optimizer, params, gradient):
    """The third update for one gradient."""
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(gradient, state, params)
    return updates


def test_no_optimizer_or_transform_of_optax_is_left_out():
    of_transforms = ("optax._src.alias", "optax._src.transform", "optax._src.factorized", "optax.transforms.")
    theirs = {
        name
        for name, value in vars(optax).items()
        if inspect.isfunction(value) and value.__module__.startswith(of_transforms)
    }
    assert {"adam", "scale_by_adam", "trace", "clip", "scale_by_factored_rms"} <= theirs
    assert theirs <= set(vars(optim))
    covered_elsewhere = {"chain", "freeze", "identity", "lbfgs", "masked", "monitor", "partition", "scale"}
    aliases = {name for name in theirs if getattr(optax, name).__module__ == "optax._src.alias"}
    assert aliases | {"nadam", "nadamw"} == set(ALIASES) | {"rprop", "lbfgs"}
    assert {n for n in theirs if n.startswith("scale_by")} - {"scale_by_lbfgs"} <= set(TRANSFORMS) | {
        "scale_by_learning_rate",
        "scale_by_schedule",
        "scale_by_rprop",
    }
    assert covered_elsewhere.isdisjoint(EVERY)


def test_arguments_have_optax_s_names_order_kinds_and_defaults_and_states_its_fields():
    """Of everything public that both have: optimizers, transforms, wrappers, schedules, helpers, states."""

    def shown(default):
        made = isinstance(default, optax.GradientTransformation)
        return "made" if made or (callable(default) and not isinstance(default, type)) else default

    def arguments(function):
        # The signature of a partial shows what it fixed as keyword-only.
        return [(p.name, p.kind, shown(p.default)) for p in inspect.signature(function).parameters.values()]

    shared = {
        name: (getattr(optim, name), value)
        for name, value in vars(optax).items()
        if inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, partial)
        if hasattr(optim, name) and not name.startswith("_")
    }
    assert len(shared) > 150
    assert {*ALIASES, *TRANSFORMS, "rprop", "lbfgs", "partition", "MultiSteps", "sgdr_schedule"} <= set(
        shared
    )
    for name, (mine, theirs) in shared.items():
        if inspect.isclass(theirs):
            assert getattr(mine, "_fields", None) == getattr(theirs, "_fields", None), name
        if mine is not theirs and not issubclass(theirs if inspect.isclass(theirs) else object, tuple):
            assert arguments(mine) == arguments(theirs), name


def test_types_are_optax_s_and_unknown_keyword_arguments_are_ignored():
    params, gradient = first()
    for name, optimizer in every_optimizer().items():
        assert isinstance(getattr(optim, name)(**EVERY[name].usual()), optax.GradientTransformationExtraArgs)
        knows = {"value": LOSS} if "polyak" in name else {}

        def update(g, s, p, optimizer=optimizer, **more):
            return optimizer.update(g, s, p, **more)

        with_more = jax.make_jaxpr(partial(update, **knows, unheard_of="x"))(
            gradient, optimizer.init(params), params
        )
        without = jax.make_jaxpr(partial(update, **knows))(gradient, optimizer.init(params), params)
        assert str(with_more) == str(without), name


def test_init_is_the_same_from_shapes_alone_and_equal_to_optax_s():
    params, _ = first()
    abstract = jax.eval_shape(lambda: params)
    for name, optimizer in every_optimizer().items():
        state = optimizer.init(params)
        assert shapes_and_dtypes(jax.eval_shape(optimizer.init, abstract)) == shapes_and_dtypes(state), name
        if name in ALIASES | TRANSFORMS:
            theirs = getattr(optax, name)(**EVERY[name].usual()).init(params)
            chex.assert_trees_all_equal_shapes_and_dtypes(state, theirs)
            assert_equal(state, theirs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_states_and_updates_keep_structure_shape_dtype_and_strength(dtype):
    params, gradient = first(dtype)
    abstract = jax.eval_shape(lambda: (gradient, params))
    for name, optimizer in every_optimizer().items():
        state = jax.eval_shape(optimizer.init, abstract[1])
        updates, after = jax.eval_shape(
            lambda g, s, p, update=optimizer.update: update(g, s, p, value=LOSS),
            abstract[0],
            state,
            abstract[1],
        )
        assert shapes_and_dtypes(after) == shapes_and_dtypes(state), name
        assert jax.tree.structure(updates) == jax.tree.structure(params), name
        for u, p in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
            # Adafactor's float32 momentum and DoG's float32 distance widen what comes out; nothing else does.
            widens = name in ("adafactor", "scale_by_distance_over_gradients")
            assert u.shape == p.shape, name
            assert u.dtype == (jnp.promote_types(dtype, jnp.float32) if widens else p.dtype), name


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "nadam", "sgd"])
def test_bfloat16_gradients_move_a_float32_state_that_keeps_its_dtype(name):
    params, gradient = first()
    low = jax.tree.map(lambda g: g.astype(jnp.bfloat16), gradient)
    optimizer, twin = (getattr(lib, name)(0.1) for lib in (optim, optax))
    state = optimizer.init(params)
    updates, after = optimizer.update(low, state, params)
    chex.assert_trees_all_equal_dtypes(after, state)
    # Nadam adds the gradient itself, which optax divides in its own coarse dtype.
    rtol = 1e-2 if name == "nadam" else 1e-5
    assert_close(updates, twin.update(low, twin.init(params), params)[0], rtol)


@pytest.mark.parametrize("kind", ["float32 momentum of bfloat16 parameters", "complex"])
def test_mixed_and_complex_leaves_give_optax_s_numbers(kind):
    params, gradient = first("bfloat16" if "bfloat16" in kind else "float32")
    names = ["adam", "adamw", "lion", "amsgrad", "novograd"]
    if kind == "complex":
        names = ["sgd", "adam", "adagrad", "rmsprop", "adabelief", "radam", "yogi", "adamax", "lamb", "lars"]
        params, gradient = (jax.tree.map(lambda x: x + 1j * x[::-1], t) for t in (params, gradient))
    for name in names:
        more = (
            {"mu_dtype": jnp.float32}
            if name in ("adam", "adamw", "lion", "amsgrad") and kind != "complex"
            else {}
        )
        optimizer, twin = (getattr(lib, name)(0.1, **more) for lib in (optim, optax))
        a, b = (walked(o, params, gradient) for o in (optimizer, twin))
        chex.assert_trees_all_equal_dtypes(a, b)
        assert_close(a, b, 2e-2 if kind != "complex" else 5e-5)


@pytest.mark.parametrize("name", ["rprop", "scale_by_sm3", "clip", "keep_params_nonnegative"])
def test_a_rule_without_meaning_for_complex_numbers_says_so_with_the_path(name):
    params, gradient = (jax.tree.map(lambda x: x + 0j, tree) for tree in first())
    optimizer = getattr(optim, name)(**EVERY[name].usual()) if name in EVERY else getattr(optim, name)()
    with pytest.raises(ValueError, match=r"'dense/bias' is complex64\[4\], and the rule has no meaning"):
        optimizer.update(gradient, optimizer.init(params), params)


def test_a_second_update_is_not_traced_again_and_eager_scanned_vmapped_and_conditional_agree():
    params = params_of("float32", MATRICES)
    gradients = gradients_of("float32", steps=3, shapes=MATRICES)
    optimizers, traces = every_optimizer(), []

    def update(g, states, p):
        traces.append(1)
        out = {n: o.update(g, states[n], p, value=LOSS) for n, o in optimizers.items()}
        return {n: u for n, (u, _) in out.items()}, {n: s for n, (_, s) in out.items()}

    def init(p):
        return {n: o.init(p) for n, o in optimizers.items()}

    def at(step):
        return jax.tree.map(lambda g: g[step], gradients)

    stepped = quick_jit(update)
    states, apart = init(params), []
    for step in range(3):
        updates, states = stepped(at(step), states, params)
        apart.append(updates)
    assert len(traces) == 1

    @quick_jit
    def scanned(p):
        return jax.lax.scan(lambda s, g: update(g, s, p)[::-1], init(p), gradients)

    @quick_jit
    def side_by_side(ps, gs):
        return jax.vmap(lambda p, g: update(g, init(p), p)[0])(ps, gs)

    @quick_jit
    def maybe(due, s):
        return jax.lax.cond(due, lambda: update(at(0), s, params)[1], lambda: s)

    final, together = scanned(params)
    assert_close(final, states)
    stacked = jax.tree.map(lambda *u: jnp.stack(u), *apart)
    assert_close(together, stacked)
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), (params, at(0)))
    side = side_by_side(*twice)
    for one in range(2):
        assert_close(jax.tree.map(lambda u, one=one: u[one], side), apart[0])
    start = init(params)
    assert_equal(maybe(False, start), start)
    for name in ("adam", "sgd", "clip_by_global_norm", "rprop", "novograd", "scale_by_factored_rms", "sm3"):
        eager, _ = optimizers[name].update(at(0), optimizers[name].init(params), params, value=LOSS)
        assert_close(eager, apart[0][name])


def test_states_are_sharded_like_the_parameters_and_updates_are_the_same_on_eight_devices():
    shapes = {"kernel": (8, 4), "bias": (8,)}
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    params, gradient = first(shapes=shapes)
    far_params, far_gradient = jax.device_put((params, gradient), split)
    optimizers = every_optimizer()

    @quick_jit
    def run(p, g):
        states = {n: o.init(p) for n, o in optimizers.items()}
        return {n: o.update(g, states[n], p, value=LOSS) for n, o in optimizers.items()}

    assert_close(run(far_params, far_gradient), run(params, gradient))
    for name, optimizer in optimizers.items():
        for leaf in jax.tree.leaves(optimizer.init(far_params)):
            # A state by rows and columns is small and on one device.
            of_a_parameter = leaf.shape in shapes.values() and jnp.issubdtype(leaf.dtype, jnp.floating)
            if of_a_parameter and name not in ("adafactor", "scale_by_factored_rms", "scale_by_sm3", "sm3"):
                assert leaf.sharding.is_equivalent_to(split, leaf.ndim), name


def test_shardings_that_are_part_of_the_type_are_kept_by_updates_and_states():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    params, gradient = jax.device_put(first(shapes={"kernel": (8, 4), "bias": (8,)}), split)

    def types(tree):
        def split_axes(x):
            return [] if x.sharding is None else [i for i, name in enumerate(x.sharding.spec) if name]

        return jax.tree.map(lambda x: (x.shape, x.dtype, split_axes(x)), tree)

    with jax.set_mesh(mesh):
        for name, optimizer in every_optimizer().items():
            state = jax.eval_shape(optimizer.init, params)
            updates, after = jax.eval_shape(partial(optimizer.update, value=LOSS), gradient, state, params)
            assert types(after) == types(state), name
            assert all(u.sharding.spec[0] == "data" for u in updates.values()), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ours_in_optax_s_chain_and_theirs_in_ours_equal_both_alone(dtype, x64):
    params, gradients = params_of(dtype, MATRICES), gradients_of(dtype, steps=5, shapes=MATRICES)
    parts = [
        ("clip_by_global_norm", (1.0,)),
        ("scale_by_adam", ()),
        ("add_decayed_weights", (0.1,)),
        ("trace", (0.9,)),
    ]

    def made(outer, libraries):
        return outer.chain(
            *(getattr(lib, name)(*args) for lib, (name, args) in zip(libraries, parts, strict=True))
        )

    def run(optimizer):
        def step(state, g):
            return optimizer.update(g, state, params)[::-1]

        return jax.lax.scan(step, optimizer.init(params), gradients)

    reference = run(made(optax, [optax] * 4))
    for outer, libraries in [
        (optax, [optim] * 4),
        (optim, [optax] * 4),
        (optax, [optim, optax, optim, optax]),
        (optim, [optax, optim, optax, optim]),
        (optim, [optim] * 4),
    ]:
        mixed = run(made(outer, libraries))
        assert_close(mixed, reference, *((1e-12, 1e-14) if dtype == "float64" else (5e-5, 1e-6)))


def test_a_state_of_optax_goes_on_in_ours():
    params, gradient = first()
    for name in ALIASES:
        ours, theirs = (getattr(lib, name)(**ALIASES[name].usual()) for lib in (optim, optax))
        ours, theirs = (optax.with_extra_args_support(o) for o in (ours, theirs))
        _, state = theirs.update(gradient, theirs.init(params), params, value=LOSS)
        _, after = jax.eval_shape(partial(ours.update, value=LOSS), gradient, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


def test_no_state_holds_one_buffer_twice_so_that_it_can_be_donated():
    params, _ = first()
    for name, optimizer in every_optimizer().items():
        state = optimizer.init(params)
        buffers = [
            x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.dtype != jax.random.key(0).dtype
        ]
        assert len(set(buffers)) == len(buffers), name


def test_a_parameter_without_gradient_gets_no_update_and_its_state_stays():
    params, gradient = first()
    gradient["dense"]["bias"] = None
    optimizer = optim.adamw(0.1)
    state = optimizer.init(params)
    updates, after = optimizer.update(gradient, state, params)
    assert updates["dense"]["bias"] is None
    chex.assert_trees_all_equal(after[0].mu["dense"]["bias"], state[0].mu["dense"]["bias"])
    alone = optim.adamw(0.1)
    kernel = {"dense": {"kernel": params["dense"]["kernel"]}}
    expected, _ = alone.update({"dense": {"kernel": gradient["dense"]["kernel"]}}, alone.init(kernel), kernel)
    chex.assert_trees_all_equal(updates["dense"]["kernel"], expected["dense"]["kernel"])
    moved = optim.apply_updates(params, updates)
    chex.assert_trees_all_equal(moved["dense"]["bias"], params["dense"]["bias"])


def test_an_empty_tree_and_python_numbers_are_parameters_too():
    for name, optimizer in every_optimizer().items():
        if "polyak" not in name:
            assert optimizer.update({}, optimizer.init({}), {}, value=LOSS)[0] == {}, name
    optimizer = optim.adam(0.1)
    updates, state = optimizer.update({"a": 2, "b": -0.5}, optimizer.init({"a": 1, "b": 0.0}))
    np.testing.assert_allclose([updates["a"], updates["b"]], [-0.1, 0.1], rtol=1e-5)
    assert state[0].mu["a"].dtype == jnp.float32


def test_other_containers_pass_through():
    params = [jnp.ones(2), (jnp.ones(()), optax.EmptyState()), {"a": optax.MaskedNode()}]
    for name, optimizer in every_optimizer().items():
        update = partial(optimizer.update, value=LOSS)
        updates, _ = jax.eval_shape(update, params, jax.eval_shape(optimizer.init, params), params)
        assert jax.tree.structure(updates) == jax.tree.structure(params), name
