"""Chains and the smallest transforms: optax's twins, extra arguments, dtypes, traced rates, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from purenets import optim
from tests.optim.trajectory import assert_same, assert_twins, gradients_of, params_of, walk

DECAY = optax.exponential_decay(0.3, 20, 0.7)
TWINS = {
    "identity": lambda lib: lib.identity(),
    "set_to_zero": lambda lib: lib.set_to_zero(),
    "scale": lambda lib: lib.scale(-0.37),
    "scale_by_schedule": lambda lib: lib.scale_by_schedule(DECAY),
    "rate": lambda lib: lib.scale_by_learning_rate(0.01),
    "rate, sign kept": lambda lib: lib.scale_by_learning_rate(0.01, flip_sign=False),
    "rate by schedule": lambda lib: lib.scale_by_learning_rate(DECAY),
    "rate by schedule, sign kept": lambda lib: lib.scale_by_learning_rate(DECAY, flip_sign=False),
    "no rate": lambda lib: lib.scale_by_learning_rate(None),
    "stateless": lambda lib: lib.stateless(
        lambda u, p: jax.tree.map(lambda a, b: a * jnp.cos(b) - 0.5 * b, u, p)
    ),
    "stateless by leaf": lambda lib: lib.stateless_with_tree_map(lambda u, p: u + 0.1 * p),
    "chain": lambda lib: lib.chain(lib.scale(2.0), lib.chain(lib.scale_by_schedule(DECAY)), lib.scale(-0.1)),
    "named_chain": lambda lib: lib.named_chain(("z", lib.scale(2.0)), ("a", lib.scale_by_schedule(DECAY))),
}


@pytest.mark.parametrize("case", TWINS)
def test_a_transform_equals_its_optax_twin(case, x64):
    assert_twins(TWINS[case](optim), TWINS[case](optax))


def adam_parts(lib):
    return lib.clip_by_global_norm(1.0), lib.scale_by_adam(), lib.scale_by_learning_rate(DECAY)


@pytest.mark.parametrize("outer", [optim, optax], ids=["ours outside", "theirs outside"])
@pytest.mark.parametrize("ours", [(0,), (1,), (2,), (0, 1, 2), ()], ids=lambda at: f"ours at {at}")
def test_ours_in_theirs_is_theirs_in_ours_is_alone(outer, ours, x64):
    mine, theirs = adam_parts(optim), adam_parts(optax)
    parts = [mine[i] if i in ours else theirs[i] for i in range(3)]
    assert_twins(outer.chain(*parts), optax.chain(*theirs))


def test_a_named_chain_keeps_the_order_and_the_names():
    optimizer = optim.named_chain(("second", optim.scale(1.0)), ("first", optim.scale_by_schedule(DECAY)))
    state = optimizer.init(jnp.zeros(2))
    assert list(state) == ["second", "first"]
    assert list(optimizer.update(jnp.ones(2), state)[1]) == ["second", "first"]


def spy(seen):
    def update(updates, state, params=None, *, value, **extra):
        seen.append((value, extra))
        return updates, state

    return optim.GradientTransformationExtraArgs(lambda params: (), update)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optim.chain(optax.scale(1.0), tx, optim.scale(2.0)),
        lambda tx: optim.named_chain(("a", optax.scale(1.0)), ("b", tx)),
        lambda tx: optax.chain(optim.scale(1.0), optim.chain(tx)),
        optim.with_extra_args_support,
    ],
    ids=["chain", "named_chain", "theirs around ours", "with_extra_args_support"],
)
def test_extra_arguments_reach_those_who_know_them_and_nobody_minds_the_others(wrap):
    seen = []
    optimizer = wrap(spy(seen))
    optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2), value=3.0, other="x")
    assert seen == [(3.0, {"other": "x"})]


def test_a_transform_that_knows_no_extra_arguments_is_given_none():
    plain = optax.GradientTransformation(
        lambda params: (), lambda updates, state, params=None: (updates, state)
    )
    wrapped = optim.with_extra_args_support(plain)
    assert isinstance(wrapped, optax.GradientTransformationExtraArgs)
    assert optim.with_extra_args_support(wrapped) is wrapped
    wrapped.update(jnp.ones(2), (), value=1.0)


@pytest.mark.parametrize(
    "case", [case for case in TWINS if case != "stateless by leaf" and case != "stateless"]
)
def test_every_transform_ignores_arguments_it_does_not_know_and_needs_no_parameters(case):
    optimizer = TWINS[case](optim)
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
    optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), value=1.0, nonsense=None)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64])
@pytest.mark.parametrize("rate", [0.1, np.float64(0.1), jnp.float32(0.1)], ids=["python", "numpy", "jax"])
def test_a_rate_never_changes_the_dtype_of_the_update(dtype, rate):
    for optimizer in (
        optim.scale(rate),
        optim.scale_by_learning_rate(rate),
        optim.scale_by_schedule(lambda t: rate),
    ):
        updates, _ = optimizer.update(jnp.ones(3, dtype), optimizer.init(jnp.ones(3, dtype)))
        assert updates.dtype == dtype
        np.testing.assert_allclose(np.abs(updates.astype(jnp.complex64)), 0.1, rtol=1e-2)


def test_one_number_for_each_column_is_taken_as_by_optax():
    step_size, updates = jnp.array([1.0, -2.0, 3.0]), {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
    mine, theirs = (
        lib.scale(step_size).update(updates, lib.scale(step_size).init(updates)) for lib in (optim, optax)
    )
    assert_same(mine[0], theirs[0], 0.0)


def test_a_traced_rate_gives_the_runs_of_every_rate_at_once(x64):
    params, gradients = params_of("float64"), gradients_of("float64", 20)

    def run(rate):
        return walk(
            optim.chain(optim.scale_by_adam(), optim.scale_by_learning_rate(rate)), params, gradients
        )[0]

    rates = jnp.asarray([0.1, 0.01, 0.0])
    together = jax.jit(jax.vmap(run))(rates)
    for i, rate in enumerate([0.1, 0.01, 0.0]):
        alone = walk(optax.adam(rate), params, gradients)[0]
        assert_same(jax.tree.map(lambda x, i=i: x[i], together), alone, 1e-12)


def test_the_second_update_is_not_traced_again():
    optimizer = optim.chain(optim.scale(2.0), optim.scale_by_learning_rate(DECAY))
    traces = []

    @jax.jit
    def update(g, state):
        traces.append(1)
        return optimizer.update(g, state)

    params = params_of("float32")
    state = optimizer.init(params)
    for _ in range(3):
        _, state = update(params, state)
    assert len(traces) == 1


def test_init_needs_only_shapes():
    optimizer = optim.chain(optim.scale_by_adam(), optim.scale_by_learning_rate(DECAY))
    params = params_of("float32")
    abstract = optimizer.init(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params))
    assert_same(abstract, optimizer.init(params), 0)


def test_sharded_gradients_give_sharded_updates():
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("model"))
    optimizer = optim.chain(optim.scale(2.0), optim.scale_by_learning_rate(DECAY))
    g = jax.device_put(jnp.arange(16.0), sharding)
    updates, _ = jax.jit(optimizer.update)(g, optimizer.init(g))
    assert updates.sharding.is_equivalent_to(sharding, 1)
    np.testing.assert_allclose(updates, -0.6 * np.arange(16.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: optim.chain(optim.scale(1.0), optim.scale(2.0)).update(jnp.ones(1), ((),)),
            "chain of 2 transforms was given a state of 1 parts",
        ),
        (
            lambda: optim.named_chain(("a", optim.scale(1.0)), ("a", optim.scale(2.0))),
            r"needs a different name for every transform, got \['a', 'a'\]",
        ),
        (
            lambda: optim.named_chain(("a", optim.scale(1.0))).update(jnp.ones(1), {"b": ()}),
            r"named_chain of \['a'\] was given a state of \['b'\]",
        ),
        (lambda: optim.scale_by_learning_rate(-0.1), "must be finite and not negative, got -0.1"),
        (lambda: optim.scale_by_learning_rate(float("nan")), "must be finite and not negative, got nan"),
        (lambda: optim.scale_by_learning_rate("0.1"), "must be a number or a schedule, got '0.1'"),
        (
            lambda: optim.scale_by_learning_rate(jnp.ones(3)),
            r"learning_rate must be a scalar, got float32\[3\].*vmap",
        ),
        (
            lambda: optim.sgd(0.1).update({"step": {"count": jnp.ones(2, int)}}, ((), ())),
            r"scale_by_learning_rate: 'step/count' is int32\[2\], and only floating point leaves can be optimized",
        ),
    ],
    ids=["chain state", "names", "named state", "negative", "nan", "text", "vector", "integer leaf"],
)  # fmt: skip
def test_a_mistake_is_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
