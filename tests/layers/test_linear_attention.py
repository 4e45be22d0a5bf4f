"""Linear attention: three forms of the same sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.layers.linear_attention import chunked, elu_features, linear_attention, parallel, recurrent
from tests.layers.peers import normal, randomised

Q, K = (elu_features(normal(2, 7, 3, 4, seed=seed)) for seed in (0, 1))
V = normal(2, 7, 3, 4, seed=2)
NONE = jnp.zeros((2, 3, 4, 4)), jnp.zeros((2, 3, 4))


def oracle(q, k, v, seen):
    """Katharopoulos et al. 2020, equation 4, token by token in float64."""
    q, k, v = (np.asarray(x, float) for x in (q, k, v))
    y = np.zeros_like(q)
    for b, t, n in np.ndindex(q.shape[:3]):
        weights = [q[b, t, n] @ k[b, s, n] for s in range(k.shape[1]) if seen(b, t, s)]
        values = [v[b, s, n] for s in range(k.shape[1]) if seen(b, t, s)]
        y[b, t, n] = np.average(values, 0, weights)
    return y


@pytest.mark.covers("M64")
def test_the_feature_map_is_elu_plus_one():
    np.testing.assert_allclose(elu_features(jnp.array([-2.0, 0.0, 3.0])), [np.exp(-2), 1, 4], rtol=1e-6)


@pytest.mark.covers("M64")
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_parallel_recurrent_and_chunked_forms_are_equal(chunk):
    expected = oracle(Q, K, V, lambda b, t, s: s <= t)
    np.testing.assert_allclose(parallel(Q, K, V), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(recurrent(Q, K, V, NONE)[0], expected, rtol=1e-5, atol=1e-5)
    y, (matrix, vector) = chunked(Q, K, V, NONE, chunk)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(matrix, np.einsum("bsnh,bsnv->bnhv", K, V), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(vector, np.sum(K, 1), rtol=1e-5)


@pytest.mark.covers("M64")
def test_the_forms_have_equal_gradients():
    def slopes(form):
        return jax.jit(jax.grad(lambda q, k, v: jnp.sum(form(q, k, v) ** 2), (0, 1, 2)))(Q, K, V)

    by_matrix = slopes(parallel)
    for form in (lambda *a: recurrent(*a, NONE)[0], lambda *a: chunked(*a, NONE, 3)[0]):
        for found, expected in zip(slopes(form), by_matrix, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_the_layer_projects_and_attends(causal):
    model = linear_attention(6, 2, causal=causal, chunk=2)
    params = randomised(model.init(jax.random.key(0))[0])
    x, lengths = normal(2, 5, 6), jnp.array([5, 3])
    project = lambda name: jnp.einsum("btd,dnh->btnh", x, params[name]["kernel"]) + params[name]["bias"]
    q, k, v = elu_features(project("query")), elu_features(project("key")), project("value")
    heads = oracle(q, k, v, lambda b, t, s: s < lengths[b] and (s <= t or not causal))
    expected = np.einsum("btnh,nhd->btd", heads, params["out"]["kernel"]) + params["out"]["bias"]
    found = model.apply(params, {}, x, lengths=lengths)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_sequence_of_nothing_is_zero_and_has_finite_gradients():
    model = linear_attention(6, 2, bias=False)
    params, _ = model.init(jax.random.key(0))
    total = lambda x: jnp.sum(model.apply(params, {}, x, lengths=jnp.array([0, 2]))[0][0])
    y, slope = jax.value_and_grad(total)(normal(2, 3, 6))
    assert y == 0
    assert not np.any(slope)
