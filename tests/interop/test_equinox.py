"""Equinox modules as layers, beside the same module mapped over a batch; where Equinox is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.interop import from_equinox
from tests.layers.peers import normal

eqx = pytest.importorskip("equinox")

X = normal(6, 3)


class Net(eqx.Module):
    """A linear layer, running statistics, dropout, and integers that are no parameters."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    order: jax.Array

    def __init__(self, key):
        self.linear = eqx.nn.Linear(3, 4, key=key)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="ema")
        self.drop = eqx.nn.Dropout(0.5)
        self.order = jnp.array([3, 2, 1, 0])

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.linear(x)[self.order], state)
        return self.drop(x, key=key), state


MAKE = eqx.nn.make_with_state(Net)


def test_floating_arrays_are_params_and_others_are_state():
    params, state = from_equinox(MAKE).init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == {
        "linear": {"weight": (4, 3), "bias": (4,)},
        "norm": {"weight": (4,), "bias": (4,)},
    }
    assert set(state) == {"order", "state"}


def test_a_module_without_state_is_mapped_over_the_batch():
    make = lambda key: eqx.nn.MLP(3, 4, 5, 2, key=key)
    model = from_equinox(make)
    params, state = jax.jit(model.init)(jax.random.key(0))
    out, after = model.apply(params, state, X)
    np.testing.assert_allclose(out, jax.vmap(make(jax.random.key(0)))(X), rtol=1e-5, atol=1e-6)
    assert after == state == {}


def test_its_gradients_are_those_of_equinox():
    make = lambda key: eqx.nn.Linear(3, 4, key=key)
    model = from_equinox(make)
    params, state = model.init(jax.random.key(0))
    found = jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, state, X)[0])))(params)
    wanted = eqx.filter_grad(lambda m: jnp.sum(jnp.sin(jax.vmap(m)(X))))(make(jax.random.key(0)))
    np.testing.assert_allclose(found["weight"], wanted.weight, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], wanted.bias, rtol=1e-5)


def test_statistics_move_in_training_as_in_equinox_and_are_used_in_evaluation():
    model = from_equinox(MAKE)
    params, state = model.init(jax.random.key(0))
    module, memory = MAKE(jax.random.key(0))
    step = jax.jit(lambda *a: model.apply(*a, key=jax.random.key(1), train=True))
    over = lambda m: jax.vmap(m, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
    for _ in range(2):
        out, state = step(params, state, X)
        run = jax.vmap(
            lambda x, k, s: module(x, s, key=k), (0, 0, None), out_axes=(0, None), axis_name="batch"
        )
        wanted, memory = run(X, jax.random.split(jax.random.key(1), 6), memory)
        np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-6)
    still, after = model.apply(params, state, X)
    np.testing.assert_allclose(still, over(eqx.nn.inference_mode(module))(X, memory)[0], rtol=1e-5, atol=1e-6)
    assert after is state


def test_each_example_has_a_mask_of_its_own():
    model = from_equinox(eqx.nn.Dropout(0.5))
    out, _ = model.apply({}, {}, jnp.ones((4, 32)), key=jax.random.key(0), train=True)
    assert len(np.unique(np.asarray(out), axis=0)) == 4
    np.testing.assert_array_equal(model.apply({}, {}, jnp.ones((4, 32)))[0], np.ones((4, 32)))


def test_a_module_as_it_is_gives_its_own_values():
    theirs = eqx.nn.Linear(3, 4, key=jax.random.key(7))
    params, _ = from_equinox(theirs).init(jax.random.key(0))
    np.testing.assert_array_equal(params["weight"], theirs.weight)


def test_a_module_that_takes_batches_itself_is_not_mapped():
    model = from_equinox(eqx.nn.Lambda(lambda x: x - x.mean(0)), batch=None)
    np.testing.assert_allclose(model.apply({}, {}, X)[0].mean(0), np.zeros(3), atol=1e-6)


def test_it_is_a_part_among_layers():
    model = pn.serial(theirs=from_equinox(MAKE), head=pn.dense(4, 2))
    params, state = model.init(jax.random.key(0))
    out, after = model.apply(params, state, X, key=jax.random.key(1), train=True)
    assert out.shape == (6, 2)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_training_without_a_key_says_what_to_write():
    model = from_equinox(MAKE)
    with pytest.raises(ValueError, match=r"^equinox Net is random in training and got no key: write apply\("):
        model.apply(*model.init(jax.random.key(0)), X, train=True)


@pytest.mark.parametrize(
    ("given", "name"), [(3, "3"), (eqx.nn.Linear, "Linear")], ids=["a number", "a class"]
)
def test_what_is_neither_a_module_nor_a_function_is_refused(given, name):
    with pytest.raises(TypeError, match=f"needs a module or a function of a key, .* got {name}"):
        from_equinox(given)


def test_a_function_that_makes_something_else_is_refused():
    with pytest.raises(TypeError, match=r"from_equinox needs an Equinox module, got float32\[2\]"):
        from_equinox(lambda key: jnp.ones(2))
