"""What layers give out, and units that give nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.inspect import activity, dead_units


def network(dead=(1, 3)):
    """A hidden ReLU layer of five units, of which some have a bias that keeps them below zero."""
    model = pn.serial(hidden=pn.dense(3, 5), relu=jax.nn.relu, head=pn.dense(5, 2))
    params, state = model.init(jax.random.key(0))
    params["hidden"]["bias"] = params["hidden"]["bias"].at[jnp.array(dead)].set(-100)
    return model, params, state


X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def test_statistics_are_those_of_each_layers_output_in_numpy():
    model, params, state = network()
    z = X.astype(np.float64) @ np.float64(params["hidden"]["kernel"]) + np.float64(params["hidden"]["bias"])
    h = np.maximum(z, 0)
    out = h @ np.float64(params["head"]["kernel"])
    found = jax.jit(lambda p, x: activity(model, p, state, x))(params, X).layers
    assert set(found) == {"hidden", "relu", "head", ""}
    for path, y in {"hidden": z, "relu": h, "head": out, "": out}.items():
        expected = (y.mean(), y.std(), (y == 0).mean(), (y == 0).all(0).mean())
        np.testing.assert_allclose(found[path], expected, rtol=1e-4, atol=1e-6, err_msg=path)
    assert found["relu"].dead == pytest.approx(2 / 5)


@pytest.mark.covers("X08", "A13")
def test_a_relu_unit_that_is_below_zero_for_all_examples_is_dead_and_its_gradient_is_zero():
    model, params, state = network(dead=(1, 3))
    found = jax.jit(lambda p, x: dead_units(model, p, state, x))(params, X)
    assert {path: np.flatnonzero(units).tolist() for path, units in found.items()} == {"relu": [1, 3]}
    slope = jax.grad(lambda p: model.apply(p, state, X)[0].sum())(params)["hidden"]["kernel"]
    np.testing.assert_array_equal(~np.asarray(slope).any(0), found["relu"])


def test_a_leaky_unit_is_not_dead():
    model, params, state = network()
    leaky = pn.edit(model, "relu", lambda old: jax.nn.leaky_relu)
    assert not dead_units(leaky, params, state, X, where="relu")["relu"].any()


def test_units_of_a_picture_are_its_channels():
    model = pn.serial(relu=jax.nn.relu)
    x = -np.ones((2, 4, 4, 3), np.float32)
    x[1, 2, 3, 1] = 1
    assert dead_units(model, {}, {}, x)["relu"].tolist() == [True, False, True]


@pytest.mark.parametrize("lift", ["repeat", "ensemble"])
def test_members_are_measured_each_by_itself(lift):
    block = pn.serial(dense=pn.dense(3, 3), relu=jax.nn.relu)
    model = getattr(pn, lift)(block, 2)
    params, state = model.init(jax.random.key(0))
    params["dense"]["kernel"] = jnp.stack([jnp.eye(3), jnp.eye(3)])
    params["dense"]["bias"] = jnp.array([[0.0, -100, 0], [0, 0, -100]])
    x = np.abs(X)
    found = dead_units(model, params, state, x)["relu"]
    second = [False, True, True] if lift == "repeat" else [False, False, True]
    assert found.tolist() == [[False, True, False], second]
    np.testing.assert_allclose(
        activity(model, params, state, x).layers["relu"].dead, [1 / 3, np.mean(second)], rtol=1e-6
    )


def test_modes_keys_and_side_inputs_reach_the_model():
    model = pn.serial(drop=pn.dropout(0.5), attention=pn.attention(4, 2))
    params, state = model.init(jax.random.key(0))
    x, mask = jnp.ones((8, 3, 4)), jnp.eye(3, dtype=bool)[None, None]
    found = activity(model, params, state, x, key=jax.random.key(1), train=True, mask=mask).layers
    assert 0.2 < found["drop"].zeros < 0.8
    assert found["attention/scores/weights"].zeros == pytest.approx(2 / 3)


def test_what_taps_left_in_the_state_is_not_taken_for_a_measure():
    model = pn.serial(norm=pn.batch_norm(3), two=lambda x: (x, x), sum=lambda pair: pair[0] + pair[1])
    params, state = model.init(jax.random.key(0))
    tapped = pn.edit(model, "{norm,two}", pn.tap)
    _, after = tapped.apply(params, state, X)
    expected = activity(model, params, state, X, train=True).layers
    assert set(expected) == {"norm", "sum", ""}
    for one in (model, tapped):
        jax.tree.map(
            np.testing.assert_array_equal, activity(one, params, after, X, train=True).layers, expected
        )


def test_layers_that_give_several_outputs_or_truths_are_left_out():
    model = pn.serial(
        two=lambda x: (x, x), truth=lambda pair: pair[0] > pair[1], back=lambda x: x.astype(jnp.float32)
    )
    assert set(activity(model, {}, {}, jnp.ones((2, 3))).layers) == {"back", ""}
    with pytest.raises(
        ValueError, match=r"layers whose output is one array of numbers, \['two', 'truth'\] give"
    ):
        dead_units(model, {}, {}, jnp.ones((2, 3)), where="t*")


def test_half_precision_is_measured_in_float32():
    model = pn.serial(same=lambda x: x)
    found = activity(model, {}, {}, jnp.full((100, 100), 60000, jnp.float16)).layers["same"]
    assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}
    assert found.mean == pytest.approx(60000, rel=1e-3)


def test_an_output_of_one_axis_is_of_one_unit():
    found = activity(pn.serial(first=lambda x: x[:, 0]), {}, {}, jnp.array([[0.0], [1.0], [0.0]])).layers[
        "first"
    ]
    assert (found.zeros, found.dead) == (pytest.approx(2 / 3), 0)


def test_the_table_has_a_row_for_each_layer_and_each_member_of_it():
    model = pn.serial(blocks=pn.repeat(pn.serial(relu=jax.nn.relu), 2))
    lines = [
        " ".join(line.split()) for line in str(activity(model, {}, {}, jnp.array([[-1.0, 3.0]]))).splitlines()
    ]
    assert lines[0] == "layer mean deviation zeros dead units"
    assert lines[2:] == [
        f"{name} 1.5 1.5 50.0% 50.0%"
        for name in ("blocks", "blocks/relu[0]", "blocks/relu[1]", "(the model)")
    ]


def test_a_model_without_relu_layers_is_refused_with_what_there_is():
    with pytest.raises(
        ValueError, match=r"no layer that is jax.nn.relu: name layers by where=, .*\['tanh_1'\]"
    ):
        dead_units(pn.serial(jnp.tanh), {}, {}, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="no layer"):
        dead_units(pn.serial(jnp.tanh), {}, {}, jnp.ones((2, 3)), where="tnah*")
