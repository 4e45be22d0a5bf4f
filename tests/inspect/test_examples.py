"""Gradients example by example, and the tangent kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.inspect import neural_tangent_kernel, per_example_gradients, per_example_norms


def network(dtype=jnp.float64):
    model = pn.serial(hidden=pn.dense(3, 4), tanh=jnp.tanh, head=pn.dense(4, 2))
    params, state = model.init(jax.random.key(1))
    return model, jax.tree.map(lambda leaf: leaf.astype(dtype), params), state


def inputs(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3))


def jacobian(params, x):
    """Of the network, in NumPy and by hand: ``[batch, output, parameters]``."""
    w, u = (np.asarray(params[name]["kernel"]) for name in ("hidden", "head"))
    h = np.tanh(x @ w + np.asarray(params["hidden"]["bias"]))
    before = (1 - h**2)[:, None, :] * u.T[None]  # [batch, output, hidden]
    outputs = np.broadcast_to(np.eye(2), (len(x), 2, 2))
    parts = [
        np.einsum("bi,boh->boih", x, before),
        before,
        np.einsum("bh,bok->bohk", h, outputs),
        outputs,
    ]
    return np.concatenate([part.reshape(len(x), 2, -1) for part in parts], -1)


def test_gradients_of_a_linear_model_are_those_of_the_formula(x64):
    x, w, y = inputs(5), np.array([1.0, -2.0, 0.5]), np.arange(5.0)
    loss = lambda p, batch: jnp.mean((batch["x"] @ p["w"] - batch["y"]) ** 2)
    found = jax.jit(lambda p, batch: per_example_gradients(loss, p, batch))({"w": w}, {"x": x, "y": y})
    expected = 2 * (x @ w - y)[:, None] * x
    np.testing.assert_allclose(found["w"], expected, rtol=1e-12)
    np.testing.assert_allclose(per_example_norms(found), np.linalg.norm(expected, axis=1), rtol=1e-12)


def test_they_are_the_gradients_one_by_one_and_their_mean_is_that_of_the_batch(x64):
    model, params, state = network()
    objective = pn.supervised(model, lambda out, y: jnp.sum((out - y) ** 2, -1))
    loss = lambda p, batch: objective(p, state, batch, None, True)[0]
    batch = (jnp.asarray(inputs(4)), jnp.asarray(inputs(4, 1)[:, :2]))
    found = per_example_gradients(loss, params, batch)
    for i in range(4):
        alone = jax.grad(loss)(params, (batch[0][i : i + 1], batch[1][i : i + 1]))
        jax.tree.map(lambda many, one: np.testing.assert_allclose(many[i], one, rtol=1e-10), found, alone)
    whole = jax.grad(loss)(params, batch)
    jax.tree.map(lambda m, g: np.testing.assert_allclose(m.mean(0), g, rtol=1e-9, atol=1e-12), found, whole)


def test_norms_are_over_all_leaves_and_half_precision_does_not_overflow():
    found = per_example_norms({"a": jnp.full((2, 3, 4), 1000, jnp.float16), "b": jnp.zeros(2, jnp.float16)})
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.full(2, 1000 * np.sqrt(12)), rtol=1e-6)


@pytest.mark.parametrize(
    "batch",
    [{"x": np.ones((3, 2)), "y": np.ones(2)}, {"x": np.ones(3), "y": np.float32(1)}, {}],
    ids=["two sizes", "a scalar", "nothing"],
)
def test_a_batch_without_a_first_axis_in_common_is_refused(batch):
    with pytest.raises(
        ValueError, match=r"per_example_gradients needs leaves .* with one first axis in common"
    ):
        per_example_gradients(lambda p, b: p["w"], {"w": jnp.ones(())}, batch)


@pytest.mark.parametrize(
    "gradients",
    [{"a": jnp.ones((3, 2)), "b": jnp.ones(2)}, {"a": jnp.ones(3), "b": jnp.ones(())}, {}],
    ids=["two sizes", "a scalar", "nothing"],
)
def test_norms_of_what_is_not_per_example_are_refused(gradients):
    with pytest.raises(ValueError, match=r"per_example_norms needs leaves .* with one first axis in common"):
        per_example_norms(gradients)


def test_the_kernel_of_a_network_is_the_product_of_its_jacobians(x64):
    model, params, state = network()
    x1, x2 = inputs(5), inputs(3, 1)
    found = jax.jit(lambda p, a, b: neural_tangent_kernel(model, p, state, a, b))(params, x1, x2)
    expected = np.einsum("ikp,jlp->ijkl", jacobian(params, x1), jacobian(params, x2))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


def test_the_kernel_of_a_linear_model_is_that_of_its_inputs_plus_1_for_the_bias(x64):
    x1, x2 = inputs(4), inputs(6, 1)
    for bias in (False, True):
        model = pn.dense(3, 2, bias=bias)
        params, state = model.init(jax.random.key(0))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        found = neural_tangent_kernel(model, params, state, jnp.asarray(x1), jnp.asarray(x2))
        expected = np.einsum("ij,kl->ijkl", x1 @ x2.T + bias, np.eye(2))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_kernel_of_inputs_with_themselves_is_symmetric_with_no_negative_eigenvalue(x64):
    model, params, state = network()
    found = neural_tangent_kernel(model, params, state, jnp.asarray(inputs(5)))
    matrix = np.transpose(found, (0, 2, 1, 3)).reshape(10, 10)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-10)
    assert np.linalg.eigvalsh(matrix).min() > -1e-10


def test_a_small_step_on_one_example_moves_the_outputs_by_the_kernel(x64):
    model, params, state = network()
    x, rate = jnp.asarray(inputs(4)), 1e-6
    slope = jax.grad(lambda p: model.apply(p, state, x[:1])[0][0, 1])(params)
    after = jax.tree.map(lambda p, g: p + rate * g, params, slope)
    moved = (model.apply(after, state, x)[0] - model.apply(params, state, x)[0]) / rate
    kernel = neural_tangent_kernel(model, params, state, x, x[:1])
    np.testing.assert_allclose(kernel[:, 0, :, 1], moved, rtol=1e-4, atol=1e-6)


def test_an_output_of_several_axes_has_them_all_twice_and_one_of_none_has_none(x64):
    scale = pn.layer(lambda key: {"w": jnp.ones((2, 3), jnp.float64)}, lambda p, x: x[:, None, :] * p["w"])
    params, state = scale.init(jax.random.key(0))
    x = jnp.asarray(inputs(2))
    found = neural_tangent_kernel(scale, params, state, x)
    expected = np.einsum("in,jn,mk,nl->ijmnkl", x, x, np.eye(2), np.eye(3))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    total = pn.serial(scale, lambda y: y.sum((1, 2)))
    params, state = total.init(jax.random.key(0))
    np.testing.assert_allclose(neural_tangent_kernel(total, params, state, x), 2 * x @ x.T, rtol=1e-12)


@pytest.mark.parametrize(
    "last",
    [lambda y: (y, y), lambda y: y.sum(), lambda y: y.argmax(-1)],
    ids=["two outputs", "one number", "integers"],
)
def test_a_model_without_one_real_output_for_each_input_is_refused(last):
    model = pn.serial(pn.dense(3, 2), last)
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"needs a model with one real output \[batch, ...\]: serial"):
        neural_tangent_kernel(model, params, state, jnp.ones((2, 3)))
