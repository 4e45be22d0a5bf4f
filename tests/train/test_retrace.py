"""The guard against compiling again and again: it names what changed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets import models
from purenets.train.retrace import RetraceError, limit_traces


def scaled(tree, factor=1.0, *, mode="mean"):
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree)) * factor
    return total / 2 if mode == "mean" else total


def jitted(most=1):
    return jax.jit(limit_traces(scaled, most), static_argnames="mode")


BASE = ({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, 2.0)


@pytest.mark.parametrize(
    ("args", "keywords", "change"),
    [
        (({"w": jnp.ones((4, 3)), "b": jnp.ones(3)}, 2.0), {}, "tree/w was float32[2, 3], is float32[4, 3]"),
        (({"w": jnp.ones((2, 3)), "b": jnp.ones(3, int)}, 2.0), {}, "tree/b was float32[3], is int32[3]"),
        ((BASE[0], np.float32(2)), {}, "factor was float32[] (weak), is float32[]"),
        ((BASE[0], 2.0), {"mode": "sum"}, "mode was 'mean', is 'sum'"),
        (({"w": jnp.ones((2, 3))}, 2.0), {}, "tree/b was float32[3], is not there"),
        ((BASE[0],), {}, "factor was float32[] (weak), is 1.0"),
    ],
    ids=["shape", "dtype", "weak type", "static value", "leaf gone", "default"],
)
def test_a_second_trace_is_refused_and_names_the_change(args, keywords, change):
    fn = jitted()
    fn(*BASE)
    with pytest.raises(RetraceError) as caught:
        fn(*args, **keywords)
    assert str(caught.value) == f"scaled was to be traced at most 1 time, and is traced again:\n{change}"


def test_calls_that_need_no_trace_go_on_and_give_what_the_function_gives():
    fn = jitted()
    for factor in (2.0, 3.0, 4.0):
        np.testing.assert_allclose(fn(BASE[0], factor), 9 * factor / 2)


def test_the_most_similar_trace_is_what_it_is_held_against():
    fn = jitted(most=2)
    fn({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, 1.0)
    fn({"w": jnp.ones((9, 9), int), "b": jnp.ones(9, int)}, 1.0)
    with pytest.raises(
        RetraceError, match=r"at most 2 times, and is traced again:\ntree/b was int32\[9\], is int32\[8\]\n"
    ):
        fn({"w": jnp.ones((9, 9), int), "b": jnp.ones(8, int)}, 1.0)


def test_a_jit_made_anew_is_told():
    limited = limit_traces(lambda x: x + 1)
    for _ in range(2):
        jax.jit(limited)(jnp.ones(2))
    with pytest.raises(RetraceError, match="all arguments are as before: it is under another transformation"):
        jax.vmap(limited)(jnp.ones((5, 2)))


def test_a_step_that_changes_the_dtype_of_its_state_is_caught():
    model = models.mlp((3, 2))
    drifting = optax.GradientTransformation(lambda p: jnp.int32(0), lambda g, s, p=None: (g, s + 0.5))
    step = pn.make_step(pn.supervised(model, lambda out, y: jnp.sum((out - y) ** 2, -1)), drifting)
    careful = jax.jit(limit_traces(step))
    batch = (jnp.ones((4, 3)), jnp.zeros((4, 2)))
    ts, _ = careful(pn.start(model, step.optimizer, jax.random.key(0)), batch)
    with pytest.raises(
        RetraceError, match=r"^Step was .* again:\nts/opt_state was int32\[\], is float32\[\]"
    ):
        careful(ts, batch)


def test_a_step_that_is_limited_fits_with_one_trace():
    model = models.mlp((3, 2))
    step = pn.make_step(pn.supervised(model, lambda out, y: jnp.sum((out - y) ** 2, -1)), optax.sgd(0.1))
    ts = pn.start(model, step.optimizer, jax.random.key(0))
    data = (jnp.ones((8, 3)), jnp.zeros((8, 2)))
    limited = limit_traces(step)
    end, _ = pn.fit(limited, ts, data, epochs=3, batch_size=4, progress=False)
    assert int(end.step) == 6


def test_no_trace_at_all_makes_no_sense():
    with pytest.raises(ValueError, match="needs at least 1 trace, got 0"):
        limit_traces(scaled, 0)
