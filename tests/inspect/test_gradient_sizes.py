"""Norms of gradients and params, leaf by leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.inspect import gradient_sizes


def squares(out, y):
    return jnp.sum((out - y) ** 2, -1)


def test_norms_are_those_of_the_formula_of_a_linear_model(x64):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(6, 3)), rng.normal(size=(6, 2)), rng.normal(size=(3, 2))
    params = {"kernel": jnp.asarray(w), "bias": jnp.zeros(2, jnp.float64)}
    objective = pn.supervised(pn.dense(3, 2), squares)
    found = jax.jit(lambda p, batch: gradient_sizes(objective, p, {}, batch))(params, (x, y))
    error = 2 * (x @ w - y) / 6
    assert found.gradients["kernel"] == pytest.approx(np.linalg.norm(x.T @ error), rel=1e-10)
    assert found.gradients["bias"] == pytest.approx(np.linalg.norm(error.sum(0)), rel=1e-10)
    assert found.params == {"kernel": pytest.approx(np.linalg.norm(w), rel=1e-12), "bias": 0}


def test_layers_have_the_norm_over_their_leaves_and_a_power_on_the_way_back_is_vanishing():
    def objective(params, state, batch, key, train):
        loss = sum(10.0 ** (i - 4) * (3 * p["kernel"] + 4 * p["bias"]) for i, p in enumerate(params.values()))
        return loss, (state, {})

    params = {f"dense_{i}": {"kernel": jnp.float32(1), "bias": jnp.float32(2)} for i in range(5)}
    found = gradient_sizes(objective, params, {}, None)
    np.testing.assert_allclose(list(found.layers().values()), 5 * 10.0 ** np.arange(-4, 1), rtol=1e-5)
    assert found.flow().verdict == "vanishing"
    assert found.flow().per_layer == pytest.approx(0.1, rel=1e-4)
    assert found.flow(list(params)[::-1]).verdict == "exploding"


def test_members_of_stacked_leaves_are_measured_each_by_itself():
    objective = lambda p, state, batch, key, train: (
        jnp.sum(jnp.array([[3.0, 4], [6, 8]]) * p["blocks"]["w"]),
        (state, {}),
    )
    params = {"blocks": {"w": jnp.array([[1.0, 0], [0, 2]])}}
    found = gradient_sizes(objective, params, {}, None, stacked="blocks/**")
    assert found.gradients["blocks/w"].tolist() == [5, 10]
    assert found.params["blocks/w"].tolist() == [1, 2]
    assert found.layers()["blocks"] == pytest.approx(np.sqrt(125))
    rows = [" ".join(line.split()) for line in str(found).splitlines()]
    assert rows[2:] == ["blocks/w[0] 5 1 5", "blocks/w[1] 10 2 5"]


def test_the_table_has_the_share_of_the_gradient_and_none_where_a_param_is_zero():
    objective = lambda p, state, batch, key, train: (3 * p["a"] + 4 * p["b"], (state, {}))
    found = gradient_sizes(objective, {"a": jnp.float32(2), "b": jnp.float32(0)}, {}, None)
    rows = [" ".join(line.split()) for line in str(found).splitlines()]
    assert (rows[0], *rows[2:]) == ("leaf gradient param gradient / param", "a 3 2 1.5", "b 4 0 -")


def test_state_mode_and_key_reach_the_objective():
    model = pn.serial(norm=pn.batch_norm(3), drop=pn.dropout(0.5), head=pn.dense(3, 1))
    params, state = model.init(jax.random.key(0))
    objective = pn.supervised(model, squares)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    batch = (x, x[:, :1])
    found = gradient_sizes(objective, params, state, batch, key=jax.random.key(1))
    slope = jax.grad(lambda p: objective(p, state, batch, jax.random.key(1), True)[0])(params)
    assert found.gradients["norm/scale"] == pytest.approx(np.linalg.norm(slope["norm"]["scale"]), rel=1e-5)
    still = gradient_sizes(objective, params, state, batch, train=False)
    slope = jax.grad(lambda p: objective(p, state, batch, None, False)[0])(params)
    assert still.gradients["norm/scale"] == pytest.approx(np.linalg.norm(slope["norm"]["scale"]), rel=1e-5)


def test_half_precision_does_not_overflow():
    objective = lambda p, state, batch, key, train: (jnp.sum(300 * p["w"]), (state, {}))
    found = gradient_sizes(objective, {"w": jnp.full(4, 300, jnp.float16)}, {}, None)
    assert (found.gradients["w"], found.params["w"]) == (600, 600)


def test_stacked_leaves_that_are_not_there_or_have_no_axis_are_refused():
    objective = lambda p, state, batch, key, train: (p["a"]["w"], (state, {}))
    params = {"a": {"w": jnp.float32(1)}}
    with pytest.raises(ValueError, match="no leaf"):
        gradient_sizes(objective, params, {}, None, stacked="b/*")
    with pytest.raises(ValueError, match=r"have a first axis of members, these have no axis: \['a/w'\]"):
        gradient_sizes(objective, params, {}, None, stacked="a/*")
