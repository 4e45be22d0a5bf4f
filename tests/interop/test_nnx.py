"""Modules of nnx as layers, beside the same module called by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import purenets as pn
from purenets.interop import from_nnx
from tests.layers.peers import normal

X = normal(6, 3)


class Net(nnx.Module):
    """A list of layers, a tied one, running statistics and dropout."""

    def __init__(self, rngs, rate=0.5):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)])
        self.again = self.layers[0]
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x, shift=0.0):
        for part in self.layers:
            x = part(x)
        return self.drop(x + shift + jnp.sum(self.again.kernel[...]))


def test_params_and_statistics_are_apart_and_a_tied_one_is_there_once():
    params, state = from_nnx(lambda rngs: Net(rngs)).init(jax.random.key(0))
    shapes = jax.tree.map(jnp.shape, (params, state))
    norm = {"bias": (4,), "scale": (4,)}
    tied = {"kernel": (3, 4), "bias": (4,)}
    assert shapes == ({"again": tied, "layers": {"1": norm}}, {"layers": {"1": {"mean": (4,), "var": (4,)}}})


def test_it_evaluates_as_the_module_does():
    model = from_nnx(lambda rngs: Net(rngs))
    params, state = jax.jit(model.init)(jax.random.key(0))
    out, after = model.apply(params, state, X, key=jax.random.key(1))
    theirs = Net(nnx.Rngs(jax.random.key(0)))
    theirs.eval()
    np.testing.assert_allclose(out, theirs(X), rtol=1e-5, atol=1e-6)
    assert after is state


def test_in_training_statistics_move_as_in_the_module():
    model = from_nnx(lambda rngs: Net(rngs, rate=0.0))
    params, state = model.init(jax.random.key(0))
    step = jax.jit(lambda *a: model.apply(*a, key=jax.random.key(1), train=True))
    theirs = Net(nnx.Rngs(jax.random.key(0)), rate=0.0)
    theirs.train()
    for _ in range(3):
        out, state = step(params, state, X)
        np.testing.assert_allclose(out, theirs(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state["layers"]["1"]["mean"], theirs.layers[1].mean[...], rtol=1e-5, atol=1e-7)


def test_masks_are_those_of_the_key_of_the_call():
    model = from_nnx(lambda rngs: nnx.Dropout(0.5, rngs=rngs))
    params, state = model.init(jax.random.key(0))
    run = lambda key: model.apply(params, state, jnp.ones((8, 8)), key=key, train=True)[0]
    one, same, other = run(jax.random.key(1)), run(jax.random.key(1)), run(jax.random.key(2))
    assert set(np.unique(one)) == {0.0, 2.0}
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_its_gradients_are_those_of_nnx():
    model = from_nnx(lambda rngs: nnx.Linear(3, 4, rngs=rngs))
    params, state = model.init(jax.random.key(0))
    found = jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, state, X)[0])))(params)
    theirs = nnx.Linear(3, 4, rngs=nnx.Rngs(jax.random.key(0)))
    wanted = nnx.to_pure_dict(nnx.grad(lambda m: jnp.sum(jnp.sin(m(X))))(theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)


def test_a_module_as_it_is_gives_its_own_values():
    theirs = Net(nnx.Rngs(7))
    model = from_nnx(theirs)
    params, state = model.init(jax.random.key(0))
    np.testing.assert_array_equal(params["again"]["kernel"], theirs.layers[0].kernel[...])
    model.apply(params, state, X, key=jax.random.key(1), train=True)
    np.testing.assert_array_equal(theirs.layers[1].mean[...], np.zeros(4))


def test_it_is_a_part_among_layers():
    model = pn.serial(theirs=from_nnx(lambda rngs: Net(rngs)), head=pn.dense(4, 2))
    params, state = model.init(jax.random.key(0))
    out, after = model.apply(params, state, X, key=jax.random.key(1), train=True)
    assert out.shape == (6, 2)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_arguments_with_a_default_are_side_inputs():
    model = from_nnx(lambda rngs: Net(rngs))
    params, state = model.init(jax.random.key(0))
    moved = model.apply(params, state, X, shift=2.0)[0] - model.apply(params, state, X)[0]
    np.testing.assert_allclose(moved, np.full((6, 4), 2.0), rtol=1e-5)


def test_an_argument_that_a_module_would_ignore_is_refused():
    model = from_nnx(lambda rngs: nnx.Sequential(nnx.Linear(3, 4, rngs=rngs)))
    params, state = model.init(jax.random.key(0))
    with pytest.raises(TypeError, match="nnx Sequential got an unexpected keyword argument 'maks'"):
        model.apply(params, state, X, maks=None)


def test_random_streams_need_a_key_in_training():
    model = from_nnx(lambda rngs: Net(rngs))
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match="nnx Net is random in training and got no key"):
        model.apply(params, state, X, train=True)


@pytest.mark.parametrize(("given", "name"), [(3, "3"), (nnx.Linear, "Linear")], ids=["a number", "a class"])
def test_what_is_neither_a_module_nor_a_function_is_refused(given, name):
    with pytest.raises(TypeError, match=f"needs an nnx module or a function of rngs, .* got {name}"):
        from_nnx(given)


def test_a_function_that_makes_something_else_is_refused():
    with pytest.raises(TypeError, match=r"makes an nnx module, got one of float32\[2\]"):
        from_nnx(lambda rngs: jnp.ones(2))


def test_missing_params_are_told():
    model = from_nnx(lambda rngs: nnx.Linear(3, 4, rngs=rngs))
    with pytest.raises(KeyError) as caught:
        model.apply({}, {}, X)
    assert "nnx Linear has params {bias: float32[4], kernel: float32[3, 4]}, but was given {}" in (
        caught.value.__notes__
    )
