"""Transformed Haiku functions as layers, beside the same called by itself; where Haiku is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.interop import from_haiku
from tests.layers.peers import normal

hk = pytest.importorskip("haiku")

X = normal(6, 3)


def net(x, is_training):
    """An MLP with running statistics and dropout."""
    x = hk.BatchNorm(True, True, 0.9)(hk.nets.MLP([5, 4])(x), is_training)
    return hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x


NET = hk.transform_with_state(net)
MODEL = from_haiku(NET, X, train="is_training")


def test_names_of_modules_are_paths():
    params, state = MODEL.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, params["mlp"]["~"]["linear_0"]) == {"b": (5,), "w": (3, 5)}
    assert set(state["batch_norm"]["~"]) == {"mean_ema", "var_ema"}


def test_it_evaluates_as_in_haiku_and_leaves_its_state():
    params, state = jax.jit(MODEL.init)(jax.random.key(0))
    theirs = NET.init(jax.random.key(0), X, True)
    out, after = MODEL.apply(params, state, X)
    np.testing.assert_allclose(out, NET.apply(*theirs, None, X, False)[0], rtol=1e-5, atol=1e-6)
    assert after is state


def test_in_training_output_and_state_are_those_of_haiku():
    params, state = MODEL.init(jax.random.key(0))
    theirs = NET.init(jax.random.key(0), X, True)
    out, after = MODEL.apply(params, state, X, key=jax.random.key(1), train=True)
    wanted, moved = NET.apply(*theirs, jax.random.key(1), X, True)
    np.testing.assert_array_equal(out, wanted)
    ema = "batch_norm/~/mean_ema"
    np.testing.assert_array_equal(
        after["batch_norm"]["~"]["mean_ema"]["average"], moved[ema]["average"], strict=True
    )
    assert after["batch_norm"]["~"]["mean_ema"]["counter"] == 1


def test_it_is_a_part_among_layers():
    model = pn.serial(theirs=MODEL, head=pn.dense(4, 2))
    params, state = model.init(jax.random.key(0))
    out, _ = model.apply(params, state, X, key=jax.random.key(1), train=True)
    assert out.shape == (6, 2)


def test_training_without_a_key_says_what_to_write():
    with pytest.raises(
        ValueError, match=r"^haiku function is random in training and got no key: write apply\("
    ):
        MODEL.apply(*MODEL.init(jax.random.key(0)), X, train=True)


def test_a_function_without_state_is_refused_with_what_to_write():
    with pytest.raises(TypeError, match="from_haiku needs a function with state, got") as caught:
        from_haiku(lambda x: x, (1, 2))
    assert caught.value.__notes__ == ["transform it by hk.transform_with_state(function)"]
    with pytest.raises(TypeError, match="from_haiku needs a function with state, got"):
        from_haiku(hk.transform(lambda x: x), (1, 2))


def test_initial_state_depends_on_an_example_only_where_one_is_given():
    average = lambda model: model.init(jax.random.key(0))[1]["batch_norm"]["~"]["var_ema"]["average"]
    zeros = from_haiku(NET, X.shape, train="is_training")
    np.testing.assert_array_equal(average(zeros), np.zeros((1, 4)))
    assert np.all(np.asarray(average(MODEL)) > 0)
