"""The weights of attention layers, against softmax in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.inspect import attention_maps
from purenets.layers import attention_scores

X = np.random.default_rng(0).normal(size=(2, 5, 8))


def softmax_of_products(params, x, memory=None, seen=None):
    """softmax(q k / sqrt d) of ``[batch, time, dim]``, in float64."""
    q, k = (
        np.einsum("btd,dnh->bnth", rows, np.float64(params[name]["kernel"]))
        + np.float64(params[name]["bias"])[:, None]
        for name, rows in (("query", x), ("key", x if memory is None else memory))
    )
    logits = np.einsum("bnth,bnsh->bnts", q, k) / np.sqrt(q.shape[-1])
    if seen is not None:
        logits = np.where(seen, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def wide(tree):
    """In float64, with biases that are not zero."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) + 0.1, tree)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_the_map_of_an_attention_layer_is_the_softmax_of_its_scaled_products(x64, causal):
    model = pn.attention(8, 2, causal=causal)
    params, state = model.init(jax.random.key(0))
    params = wide(params)
    found = jax.jit(lambda p, x: attention_maps(model, p, state, x))(params, X)
    expected = softmax_of_products(params, X, seen=np.tri(5, dtype=bool) if causal else None)
    assert list(found) == [""]
    np.testing.assert_allclose(found[""], expected, rtol=1e-10, atol=1e-14)


def test_maps_of_a_model_are_by_path_of_the_layer_and_each_is_of_what_the_layer_was_given(x64):
    model = pn.serial(
        first=pn.attention(8, 2),
        block=pn.residual(pn.serial(norm=pn.layer_norm(8), attention=pn.attention(8, 4))),
    )
    params, state = model.init(jax.random.key(0))
    params = wide(params)
    found = attention_maps(model, params, state, jnp.asarray(X))
    outputs = pn.taps(pn.edit(model, "**/{first,norm}", pn.tap).apply(params, state, jnp.asarray(X))[1])
    path = next(path for path in found if path.startswith("block"))
    norm = next(out for name, out in outputs.items() if name.endswith("norm"))
    inner = functools.reduce(lambda tree, name: tree[name], path.split("/"), params)
    assert path.endswith("attention")
    assert set(found) == {"first", path}
    np.testing.assert_allclose(found["first"], softmax_of_products(params["first"], X), rtol=1e-10)
    np.testing.assert_allclose(found[path], softmax_of_products(inner, np.asarray(norm)), rtol=1e-10)


def test_repeated_layers_have_their_members_in_front(x64):
    model = pn.repeat(pn.attention(8, 2), 3)
    params, state = model.init(jax.random.key(0))
    params = wide(params)
    found = attention_maps(model, params, state, jnp.asarray(X))[""]
    assert found.shape == (3, 2, 2, 5, 5)
    x = jnp.asarray(X)
    for i in range(3):
        own = jax.tree.map(lambda leaf: leaf[i], params)
        np.testing.assert_allclose(found[i], softmax_of_products(own, np.asarray(x)), rtol=1e-9)
        x = pn.attention(8, 2).apply(own, {}, x)[0]


def test_side_inputs_hide_keys_and_a_query_that_sees_none_has_weights_of_zero(x64):
    model = pn.attention(8, 2)
    params, state = model.init(jax.random.key(0))
    params = wide(params)
    found = attention_maps(model, params, state, jnp.asarray(X), lengths=jnp.array([3, 0]))[""]
    expected = softmax_of_products(params, X, seen=np.arange(5) < 3)[0]
    np.testing.assert_allclose(found[0], expected, rtol=1e-10)
    assert not np.asarray(found[1]).any()


def test_cross_attention_has_a_map_over_its_memory(x64):
    model = pn.cross_attention(8, 2)
    params, state = model.init(jax.random.key(0))
    params = wide(params)
    memory = np.random.default_rng(1).normal(size=(2, 7, 8))
    found = attention_maps(model, params, state, jnp.asarray(X), memory=jnp.asarray(memory))[""]
    np.testing.assert_allclose(found, softmax_of_products(params, X, memory), rtol=1e-10)


def test_a_model_without_attention_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"serial has no attention layer, .* there are \['tanh_1'\]"):
        attention_maps(pn.serial(jnp.tanh), {}, {}, X)


def test_fused_scores_hold_no_weights_and_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(attention_scores, "_fuses", lambda query: True)
    model = pn.attention(8, 2)
    params, state = model.init(jax.random.key(0))
    assert not state
    x = jnp.asarray(X, jnp.float32)
    with pytest.raises(
        ValueError, match=r"attention at \['scores/weights'\] holds no weights: .* fused=False"
    ):
        attention_maps(model, params, {"scores": {"weights": {"tap": jnp.ones((2, 2, 5, 5))}}}, x)
    plain = functools.partial(attention_scores.scaled_dot_product, fused=False)
    found = attention_maps(pn.attention(8, 2, scores=plain), params, state, x)[""]
    np.testing.assert_allclose(found, softmax_of_products(params, X), rtol=1e-4)
