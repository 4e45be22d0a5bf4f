"""Linen modules as layers and layers as linen modules, beside the same thing done in Flax alone."""

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.interop import from_linen, to_linen
from purenets.layer import fold_name
from tests.layers.peers import normal

X = normal(6, 3)


class Net(nn.Module):
    """A dense layer, running statistics and dropout."""

    stream: str = "dropout"

    @nn.compact
    def __call__(self, x, train=False, shift=0.0):
        x = nn.Dense(4)(x) + shift
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dropout(0.5, deterministic=not train, rng_collection=self.stream)(x)


def ours(**fields):
    """The twin of Net."""
    return pn.serial(dense=pn.dense(3, 4), norm=pn.batch_norm(4), drop=pn.dropout(0.5))


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), a, b)


def test_a_linen_module_evaluates_as_it_does_in_flax_and_leaves_its_state():
    model = from_linen(Net(), X.shape)
    params, state = model.init(jax.random.key(0))
    assert set(state) == {"batch_stats"}
    out, after = model.apply(params, state, X, key=jax.random.key(1))
    np.testing.assert_array_equal(out, Net().apply({"params": params, **state}, X))
    assert after is state


def test_in_training_it_moves_the_state_and_drops_as_flax_does_with_the_same_key():
    model = from_linen(Net(), X.shape)
    params, state = model.init(jax.random.key(0))
    out, after = jax.jit(lambda *a: model.apply(*a, key=jax.random.key(1), train=True))(params, state, X)
    rngs = {"dropout": fold_name(jax.random.key(1), "dropout")}
    wanted = Net().apply({"params": params, **state}, X, train=True, mutable=["batch_stats"], rngs=rngs)
    close((out, after), wanted)
    assert not np.array_equal(after["batch_stats"]["BatchNorm_0"]["mean"], np.zeros(4))
    assert 0 < np.mean(np.asarray(out) == 0) < 1


def test_its_gradients_are_those_of_flax():
    model = from_linen(nn.Dense(4), X.shape)
    params, _ = model.init(jax.random.key(0))
    loss = lambda out: jnp.sum(jnp.sin(out))
    found = jax.grad(lambda p: loss(model.apply(p, {}, X)[0]))(params)
    wanted = jax.grad(lambda p: loss(nn.Dense(4).apply({"params": p}, X)))(params)
    close(found, wanted)


def test_it_is_a_part_among_layers():
    model = pn.serial(theirs=from_linen(Net(), X.shape), head=pn.dense(4, 2))
    params, state = model.init(jax.random.key(0))
    out, after = model.apply(params, state, X, key=jax.random.key(1), train=True)
    assert out.shape == (6, 2)
    assert set(params["theirs"]) == {"Dense_0", "BatchNorm_0"}
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_it_can_be_repeated_and_put_side_by_side():
    model = pn.ensemble(from_linen(nn.Dense(4), X.shape), 3)
    params, state = model.init(jax.random.key(0))
    out, _ = model.apply(params, state, X)
    for i in range(3):
        one = jax.tree.map(lambda leaf: leaf[i], params)
        np.testing.assert_allclose(out[i], nn.Dense(4).apply({"params": one}, X), rtol=1e-6)


def test_arguments_with_a_default_are_side_inputs():
    model = from_linen(Net(), X.shape)
    params, state = model.init(jax.random.key(0))
    out, _ = model.apply(params, state, X, shift=2.0)
    np.testing.assert_array_equal(out, Net().apply({"params": params, **state}, X, shift=2.0))
    with pytest.raises(TypeError, match="unexpected keyword argument 'shfit'"):
        model.apply(params, state, X, shfit=2.0)


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        (nn.BatchNorm(), True),
        (nn.BatchNorm(use_running_average=True), False),
        (nn.Dropout(0.5), True),
        (nn.Dropout(0.5, deterministic=True), False),
    ],
    ids=["statistics", "fixed statistics", "dropout", "no dropout"],
)
def test_a_mode_that_is_set_as_a_field_is_left_as_it_is(module, changes):
    model = from_linen(module, X.shape)
    params, state = model.init(jax.random.key(0))
    train, _ = model.apply(params, state, X, key=jax.random.key(1), train=True)
    still, _ = model.apply(params, state, X)
    assert (not np.allclose(train, still)) == changes


def test_integers_are_given_by_their_dtype():
    ids = jnp.array([[0, 2, 1]])
    model = from_linen(nn.Embed(3, 4), ids)
    params, _ = model.init(jax.random.key(0))
    np.testing.assert_array_equal(model.apply(params, {}, ids)[0], params["embedding"][ids])


def test_boxes_of_partitioned_params_are_taken_off():
    kernel_init = nn.with_partitioning(nn.initializers.ones, (None, "model"))
    params, _ = from_linen(nn.Dense(4, kernel_init=kernel_init), X.shape).init(jax.random.key(0))
    np.testing.assert_array_equal(params["kernel"], np.ones((3, 4)))


def test_a_stream_of_another_name_is_named():
    model = from_linen(Net(stream="noise"), X.shape)
    params, state = model.init(jax.random.key(0))
    with pytest.raises(flax.errors.InvalidRngError, match='needs PRNG for "noise"') as caught:
        model.apply(params, state, X, key=jax.random.key(1), train=True)
    assert (
        "linen Net was given the streams ('dropout',): name others with rngs=(...)"
    ) in caught.value.__notes__
    model = from_linen(Net(stream="noise"), X.shape, rngs=("noise",))
    out, _ = model.apply(params, state, X, key=jax.random.key(1), train=True)
    assert np.any(np.asarray(out) == 0)


def test_training_without_a_key_says_what_to_write():
    model = from_linen(Net(), X.shape)
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"^linen Net is random in training and got no key: write apply\("):
        model.apply(params, state, X, train=True)


def test_params_of_another_model_are_told_by_shapes():
    model = from_linen(nn.Dense(4), X.shape)
    wrong, _ = from_linen(nn.Dense(5), X.shape).init(jax.random.key(0))
    with pytest.raises(flax.errors.ScopeParamShapeError, match="shape") as caught:
        model.apply(wrong, {}, X)
    assert (
        "linen Dense has params {bias: float32[4], kernel: float32[3, 4]}, "
        "but was given {bias: float32[5], kernel: float32[3, 5]}"
    ) in caught.value.__notes__


@pytest.mark.parametrize("given", [jnp.sin, pn.dense(2, 3)], ids=["a function", "a layer"])
def test_what_is_no_linen_module_is_refused(given):
    with pytest.raises(TypeError, match="from_linen needs a linen module, got"):
        from_linen(given, (1, 2))


def test_a_class_is_refused_with_what_to_write():
    with pytest.raises(TypeError, match="from_linen needs a linen module") as caught:
        from_linen(nn.Dense, (1, 2))
    assert caught.value.__notes__ == ["it is a class: call it, Dense(...)"]


def test_a_shape_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"an input is given as its shape, \(32, 784\).* got 3"):
        from_linen(nn.Dense(4), 3)


def test_a_layer_as_a_linen_module_has_its_params_and_its_state():
    layer = ours()
    variables = to_linen(layer).init(jax.random.key(0), X)
    shapes = jax.tree.map(jnp.shape, {"params": layer.init(jax.random.key(0))[0], "state": {}})
    assert jax.tree.map(jnp.shape, variables["params"]) == shapes["params"]
    out = to_linen(layer).apply(variables, X)
    np.testing.assert_array_equal(out, layer.apply(variables["params"], variables["state"], X)[0])


def test_it_trains_inside_a_linen_module():
    layer = ours()

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(2)(to_linen(layer, name="inner")(x, train=train))

    variables = Outer().init(jax.random.key(0), X)
    assert set(variables["params"]) == {"inner", "Dense_0"}
    start = variables["state"]["inner"]
    out, changed = jax.jit(
        lambda v: Outer().apply(v, X, train=True, mutable=["state"], rngs={"dropout": jax.random.key(1)})
    )(variables)
    _, wanted = layer.apply(variables["params"]["inner"], start, X, key=jax.random.key(2), train=True)
    close(changed["state"]["inner"], wanted)
    assert out.shape == (6, 2)


def test_initialising_in_training_leaves_the_statistics():
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = to_linen(ours()).init(rngs, X, train=True)
    np.testing.assert_array_equal(variables["state"]["norm"]["mean"], np.zeros(4))


def test_a_layer_there_and_back_is_the_same_layer():
    layer = pn.serial(dense=pn.dense(3, 4), norm=pn.batch_norm(4))
    back = from_linen(to_linen(layer), X.shape)
    params, state = back.init(jax.random.key(0))
    out, after = back.apply(params, state, X, train=True)
    wanted, moved = layer.apply(params, state["state"], X, train=True)
    close((out, after["state"]), (wanted, moved))


def test_parts_may_have_names_that_linen_modules_have():
    layer = pn.serial(name=pn.dense(3, 4), layer=pn.dense(4, 4), scope=pn.batch_norm(4))
    variables = to_linen(layer).init(jax.random.key(0), X)
    assert set(variables["params"]) == {"name", "layer", "scope"}


def test_old_keys_are_taken_too():
    variables = to_linen(ours()).init(jax.random.PRNGKey(0), X)
    rngs = {"dropout": jax.random.PRNGKey(1)}
    out, _ = to_linen(ours()).apply(variables, X, train=True, mutable=["state"], rngs=rngs)
    assert np.any(np.asarray(out) == 0)


def test_a_module_without_its_stream_says_how_linen_gives_keys():
    variables = to_linen(ours()).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="random in training and got no key") as caught:
        to_linen(ours()).apply(variables, X, train=True, mutable=["state"])
    assert "in linen, a key is given as apply(..., rngs={'dropout': key})" in caught.value.__notes__


def test_statistics_that_may_not_move_are_flax_own_error():
    layer = pn.batch_norm(3)
    variables = to_linen(layer).init(jax.random.key(0), X)
    with pytest.raises(
        flax.errors.ModifyScopeVariableError, match=r'Cannot update variable "mean" .* is immutable'
    ):
        to_linen(layer).apply(variables, X, train=True)


def test_only_a_layer_becomes_a_module():
    with pytest.raises(TypeError, match="to_linen needs a layer, got function"):
        to_linen(lambda x: x)
