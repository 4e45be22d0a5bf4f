"""Eigenvalues and trace of a loss's Hessian, by products alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.inspect import hessian_eigenvalues, hessian_trace

SPECTRUM = np.array([9.0, 4.0, 4.0, 1.0, 0.5, 0.0, -3.0])


def quadratic(spectrum, seed=0):
    """``w·A w / 2`` over two leaves, and A: symmetric, of this spectrum, in a random basis."""
    n = len(spectrum)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    matrix = basis @ np.diag(spectrum) @ basis.T

    def loss(params):
        w = jnp.concatenate([params["a"], params["b"].ravel()])
        return w @ jnp.asarray(matrix) @ w / 2 + 3 * w[0]

    return loss, {"a": jnp.ones(n - 4), "b": jnp.zeros((2, 2))}, matrix


def network():
    """A loss of a small network, with a Hessian of both signs, and its dense Hessian in NumPy."""
    model = pn.serial(hidden=pn.dense(3, 4), tanh=jnp.tanh, head=pn.dense(4, 2))
    params, state = model.init(jax.random.key(1))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    x, y = jax.random.normal(jax.random.key(2), (2, 8, 5), jnp.float64)
    loss = lambda p: jnp.mean((model.apply(p, state, x[:, :3])[0] - y[:, :2]) ** 2)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return loss, params, np.asarray(jax.hessian(lambda v: loss(unravel(v)))(flat))


@pytest.mark.covers("O31")
def test_the_largest_eigenvalues_of_a_network_are_those_of_its_dense_hessian(x64):
    loss, params, dense = network()
    expected = np.linalg.eigvalsh(dense)[::-1]
    assert expected[-1] < -1e-3
    found = jax.jit(lambda p, key: hessian_eigenvalues(loss, p, key, 3, 20))(params, jax.random.key(0))
    np.testing.assert_allclose(found.values, expected[:3], rtol=1e-8)
    lowest = hessian_eigenvalues(lambda p: -loss(p), params, jax.random.key(0), 1, 26)
    np.testing.assert_allclose(-lowest.values, expected[-1:], rtol=1e-8)


def test_with_a_step_for_each_parameter_the_whole_spectrum_comes_repeated_values_as_often_as_they_are(x64):
    loss, params, _ = quadratic(SPECTRUM)
    found = hessian_eigenvalues(loss, params, jax.random.key(0), count=7, steps=1000)
    np.testing.assert_allclose(found.values, SPECTRUM, atol=1e-10)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-10)


def test_vectors_are_eigenvectors_of_length_one_in_the_form_of_the_params(x64):
    loss, params, matrix = quadratic(SPECTRUM)
    found = hessian_eigenvalues(loss, params, jax.random.key(0), count=3)
    assert jax.tree.map(jnp.shape, found.vectors) == {"a": (3, 3), "b": (3, 2, 2)}
    v = np.concatenate([found.vectors["a"], np.reshape(found.vectors["b"], (3, 4))], 1)
    np.testing.assert_allclose(v @ v.T, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(v @ matrix, np.asarray(found.values)[:, None] * v, atol=1e-10)


@pytest.mark.parametrize("steps", [2, 4, 8])
def test_an_eigenvalue_is_no_farther_than_the_residual_even_after_few_steps(x64, steps):
    loss, params, matrix = quadratic(np.linspace(-1, 1, 40))
    found = hessian_eigenvalues(loss, params, jax.random.key(3), 2, steps)
    gaps = np.abs(np.linalg.eigvalsh(matrix)[:, None] - np.asarray(found.values)).min(0)
    assert (gaps <= np.asarray(found.residuals)).all()
    v = np.concatenate([found.vectors["a"], np.reshape(found.vectors["b"], (2, 4))], 1)
    norms = np.linalg.norm(v @ matrix - np.asarray(found.values)[:, None] * v, axis=1)
    np.testing.assert_allclose(found.residuals, norms, rtol=1e-6)


def test_float32_keeps_its_basis_orthogonal_and_finds_no_eigenvalue_twice():
    spectrum = np.concatenate([[100.0, 50.0], np.linspace(0, 1, 38)])
    loss, params, _ = quadratic(spectrum)
    found = hessian_eigenvalues(loss, params, jax.random.key(0), count=3, steps=40)
    np.testing.assert_allclose(found.values, [100, 50, 1], rtol=1e-4)


def test_params_of_half_precision_have_eigenvalues_of_float32():
    loss = lambda p: jnp.sum(jnp.array([4.0, 2.0], jnp.bfloat16) * p["w"] ** 2) + p["b"] ** 2
    params = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.float32(1)}
    found = hessian_eigenvalues(loss, params, jax.random.key(0), count=3)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    # Vectors are rounded to the eight bits of the params at each product.
    np.testing.assert_allclose(found.values, [8, 4, 2], rtol=0.03)


def test_a_loss_without_curvature_has_eigenvalues_of_zero():
    found = hessian_eigenvalues(lambda p: jnp.sum(p["w"]), {"w": jnp.ones(4)}, jax.random.key(0), count=4)
    np.testing.assert_array_equal(found.values, np.zeros(4))


def test_the_trace_is_within_its_standard_errors_of_the_exact_one(x64):
    loss, params, dense = network()
    found = jax.jit(lambda p, key: hessian_trace(loss, p, key, 400))(params, jax.random.key(5))
    assert abs(found.mean - np.trace(dense)) < 4 * found.error
    assert found.error < 0.2 * np.trace(dense)


def test_the_error_of_the_trace_is_what_the_entries_off_the_diagonal_make_it(x64):
    loss, params, matrix = quadratic(SPECTRUM)
    found = hessian_trace(loss, params, jax.random.key(6), samples=4000)
    off = matrix - np.diag(np.diag(matrix))
    assert found.error == pytest.approx(np.sqrt(2 * np.sum(off**2) / 4000), rel=0.1)


def test_the_error_of_two_samples_is_half_their_distance():
    # v·Hv is 4 + 2 c v1 v2 with c = 3: -2 or 10.
    loss = lambda p: p["w"][0] ** 2 + p["w"][1] ** 2 + 3 * p["w"][0] * p["w"][1]
    trace = jax.jit(lambda key: hessian_trace(loss, {"w": jnp.ones(2)}, key, samples=2))
    found = {tuple(np.round(trace(jax.random.key(seed)), 4).tolist()) for seed in range(20)}
    assert found == {(-2, 0), (4, 6), (10, 0)}


def test_the_trace_of_a_diagonal_hessian_is_exact():
    found = hessian_trace(
        lambda p: jnp.sum(p["w"] ** 4), {"w": jnp.arange(4.0)}, jax.random.key(0), samples=2
    )
    assert (float(found.mean), float(found.error)) == (12 * (1 + 4 + 9), 0)


@pytest.mark.parametrize("count", [0, 3])
def test_a_count_that_the_steps_cannot_give_is_refused(count):
    with pytest.raises(ValueError, match=r"a count from 1 to its 2 steps \(there are 4 parameters\), got"):
        hessian_eigenvalues(lambda p: jnp.sum(p["w"] ** 2), {"w": jnp.ones(4)}, jax.random.key(0), count, 2)


@pytest.mark.parametrize("fn", [hessian_eigenvalues, hessian_trace], ids=lambda fn: fn.__name__)
def test_params_without_hessian_are_refused(fn):
    with pytest.raises(
        ValueError, match=rf"{fn.__name__} needs real floating point params, got int32 at 'a/ids'"
    ):
        fn(lambda p: 0.0, {"a": {"ids": jnp.arange(3)}}, jax.random.key(0))
    with pytest.raises(ValueError, match="needs params, got none"):
        fn(lambda p: 0.0, {}, jax.random.key(0))


def test_one_sample_has_no_standard_error():
    with pytest.raises(ValueError, match="two samples for its standard error, got 1"):
        hessian_trace(lambda p: jnp.sum(p["w"]), {"w": jnp.ones(2)}, jax.random.key(0), samples=1)
