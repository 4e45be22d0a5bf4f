"""Attention of a sequence to itself and to a memory, against Flax, torch and a token-by-token oracle."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.layers.attention import attention, cross_attention
from purenets.layers.attention_scores import additive, dot_product, scaled_dot_product
from purenets.layers.positions import alibi, alibi_slopes, rotary
from tests.layers.attention_oracle import attend, rotated
from tests.layers.peers import assert_agrees_with_flax, normal, randomised

X = normal(2, 5, 8)
MEMORY = normal(2, 3, 8, seed=3)
LENGTHS = jnp.array([5, 2])
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def drawn(model, scale=0.7):
    params, state = model.init(jax.random.key(0))
    return jax.tree.map(lambda leaf: scale * leaf, randomised(params)), state


def run(model, params, x=X, **side):
    return jax.jit(lambda params, x, side: model.apply(params, {}, x, **side)[0])(params, x, side)


def oracle_params(params):
    """Additive scores keep their vector as the value of a part."""
    params = dict(params)
    if "scores" in params:
        params["scores"] = {"vector": params["scores"]["vector"]["value"]}
    return params


# Against peers.


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (attention(8, 4), nn.MultiHeadDotProductAttention(4)),
        (attention(8, 2, head_dim=3), nn.MultiHeadDotProductAttention(2, qkv_features=6)),
        (attention(8, 1, bias=False), nn.MultiHeadDotProductAttention(1, use_bias=False)),
    ],
    ids=["4 heads", "narrow heads", "no bias"],
)
def test_self_attention_agrees_with_flax_in_values_and_gradients(ours, theirs):
    assert_agrees_with_flax(ours, theirs, X)


@pytest.mark.parametrize("kind", ["causal", "lengths", "any"])
def test_masked_attention_agrees_with_flax(kind):
    model, side = attention(8, 2), {}
    if kind == "causal":
        model, mask = attention(8, 2, causal=True), nn.make_causal_mask(X[..., 0])
    elif kind == "lengths":
        mask = nn.make_attention_mask(jnp.ones((2, 5)), jnp.arange(5) < LENGTHS[:, None])
        side = {"lengths": LENGTHS}
    else:
        mask = jnp.asarray(np.random.default_rng(5).random((2, 2, 5, 5)) < 0.5).at[..., 0].set(True)
        side = {"mask": mask}
    theirs = nn.MultiHeadDotProductAttention(2)
    assert_agrees_with_flax(model, theirs, X, ours_kw=side, theirs_kw={"mask": mask})


def test_cross_attention_agrees_with_flax():
    class Theirs(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.MultiHeadDotProductAttention(2, name="attention")(x, memory)

    memory = normal(2, 3, 6, seed=3)
    ours = pn.compose(attention=cross_attention(8, 2, n_memory=6))(lambda m, x: m.attention(x, memory=memory))
    assert_agrees_with_flax(ours, Theirs(), X)


@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
def test_attention_agrees_with_torch_in_values_and_gradients(cross):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    model = cross_attention(8, 2) if cross else attention(8, 2)
    params, _ = drawn(model)
    memory, lengths = (MEMORY, jnp.array([3, 1])) if cross else (X, LENGTHS)
    side = {"memory": MEMORY, "memory_lengths": lengths} if cross else {"lengths": lengths}
    flat = {name: np.array(p["kernel"]).reshape(8, 8) for name, p in params.items()}
    three = ("query", "key", "value")
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.tensor(np.concatenate([flat[name].T for name in three])))
        theirs.in_proj_bias.copy_(
            torch.tensor(np.concatenate([np.array(params[n]["bias"]).ravel() for n in three]))
        )
        theirs.out_proj.weight.copy_(torch.tensor(flat["out"].T))
        theirs.out_proj.bias.copy_(torch.tensor(np.array(params["out"]["bias"])))
    x, source = (torch.tensor(np.array(a), requires_grad=True) for a in (X, memory))
    padding = torch.tensor(np.arange(memory.shape[1]) >= np.array(lengths)[:, None])
    y, _ = theirs(x, source if cross else x, source if cross else x, key_padding_mask=padding)
    (y**2).sum().backward()
    close(run(model, params, **side), y.detach())
    slopes = jax.jit(jax.grad(lambda p, x: jnp.sum(model.apply(p, {}, x, **side)[0] ** 2), (0, 1)))(params, X)
    close(slopes[1], x.grad, atol=1e-4)
    found = np.concatenate([np.array(slopes[0][n]["kernel"]).reshape(8, 8).T for n in three])
    close(found, theirs.in_proj_weight.grad, atol=1e-4)


# Against the formulas.


@pytest.mark.covers("M59", "M60", "M61", "M62")
@pytest.mark.parametrize("kv_heads", [4, 2, 1], ids=["multi-head", "grouped-query", "multi-query"])
@pytest.mark.parametrize(
    ("name", "scores"),
    [("scaled", scaled_dot_product), ("dot", dot_product), ("additive", additive)],
    ids=["scaled", "dot", "additive"],
)
def test_the_matrix_form_is_the_per_token_form(name, scores, kv_heads):
    model = attention(8, 4, kv_heads=kv_heads, scores=scores, causal=True)
    params, _ = drawn(model)
    close(run(model, params), attend(oracle_params(params), X, score=name, seen=lambda b, t, s: s <= t))


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_a_window_sees_what_is_nearer_than_it(causal):
    model = attention(8, 2, causal=causal, window=2)
    params, _ = drawn(model)
    near = lambda b, t, s: abs(t - s) < 2 and (s <= t or not causal)
    close(run(model, params), attend(params, X, seen=near))


def test_rotary_positions_turn_pairs_as_complex_numbers():
    model = attention(8, 2, relative=rotary())
    params, _ = drawn(model)
    close(run(model, params), attend(params, X, rotate=rotated))


def test_alibi_adds_the_distance_times_the_slope_of_the_head():
    model = attention(8, 2, causal=True, relative=alibi(2))
    params, _ = drawn(model)
    slopes = [2.0**-4, 2.0**-8]
    np.testing.assert_array_equal(alibi_slopes(2), slopes)
    bias = lambda head, t, s: -slopes[head] * (t - s)
    close(run(model, params), attend(params, X, seen=lambda b, t, s: s <= t, bias=bias))


def test_cross_attention_is_the_per_token_form():
    model = cross_attention(8, 4, kv_heads=2)
    params, _ = drawn(model)
    lengths = jnp.array([1, 3])
    found = run(model, params, memory=MEMORY, memory_lengths=lengths)
    close(found, attend(params, X, MEMORY, seen=lambda b, t, s: s < lengths[b]))


@pytest.mark.covers("M62", "M59", "W29")
def test_one_head_with_identity_output_is_plain_dot_product_self_attention(x64):
    # Column convention of the slide: Q = W^q I, alpha = K^T q, one column of softmaxed weights per query.
    rng = np.random.default_rng(0)
    columns, wq, wk, wv = (rng.normal(size=shape) for shape in ((8, 4), (8, 8), (8, 8), (8, 8)))
    weights = np.exp((wk @ columns).T @ (wq @ columns))
    expected = (wv @ columns) @ (weights / weights.sum(0))
    params = {
        name: {"kernel": jnp.asarray(w.T[:, None])} for name, w in (("query", wq), ("key", wk), ("value", wv))
    }
    params["out"] = {"kernel": jnp.eye(8)[None]}
    model = attention(8, 1, scores=dot_product, bias=False)
    found = model.apply(params, {}, jnp.asarray(columns.T)[None])[0]
    np.testing.assert_allclose(found[0].T, expected, rtol=1e-12)
    alpha = [wk[:, :] @ columns[:, s] @ (wq @ columns[:, 0]) for s in range(4)]
    np.testing.assert_allclose(weights[:, 0], np.exp(alpha), rtol=1e-12)


def test_fused_scores_are_the_plain_ones(monkeypatch):
    """On another backend than CPU one call of jax.nn does it: the same numbers, whatever is seen."""
    model = attention(8, 4, kv_heads=2, causal=True, window=3, relative=alibi(4))
    both_ways = attention(8, 2, window=2)
    mask = jnp.asarray(np.random.default_rng(5).random((2, 1, 5, 5)) < 0.5).at[1, 0, 3].set(False)
    calls = [
        (model, {}),
        (model, {"lengths": jnp.array([0, 3])}),
        (both_ways, {"mask": mask}),
        (both_ways, {"mask": mask, "lengths": LENGTHS}),
    ]
    params = [drawn(model)[0] for model, _ in calls]
    plain = [model.apply(p, {}, X, **side)[0] for (model, side), p in zip(calls, params, strict=True)]
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    fused = [model.apply(p, {}, X, **side)[0] for (model, side), p in zip(calls, params, strict=True)]
    jax.tree.map(close, fused, plain)


@pytest.mark.parametrize(
    ("capability", "model", "side", "dtype", "expected"),
    [
        ("9.0", {"causal": True}, {}, jnp.bfloat16, "cudnn"),
        ("8.0", {"causal": True, "window": 3}, {"lengths": LENGTHS}, jnp.float16, "cudnn"),
        ("7.5", {"causal": True}, {}, jnp.float16, "xla"),
        ("gfx942", {"causal": True}, {}, jnp.bfloat16, "xla"),
        ("9.0", {"causal": True}, {}, jnp.float32, "xla"),
        ("9.0", {"window": 3}, {}, jnp.bfloat16, "xla"),
        ("9.0", {"relative": alibi(1)}, {}, jnp.bfloat16, "xla"),
        ("9.0", {}, {"mask": jnp.ones((1, 1, 5, 5), bool)}, jnp.bfloat16, "xla"),
        ("9.0", {"head_dim": 12}, {}, jnp.bfloat16, "xla"),
    ],
    ids=["plain", "window", "Turing", "AMD", "float32", "both ways", "alibi", "mask", "odd width"],
)
def test_flash_attention_is_asked_for_where_cudnn_has_it(
    monkeypatch, capability, model, side, dtype, expected
):
    asked = []

    def spy(query, *args, implementation, **kw):
        asked.append(implementation)
        return query

    device = type("Device", (), {"compute_capability": capability})
    monkeypatch.setattr(jax.nn, "dot_product_attention", spy)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [device])
    layer = pn.cast(attention(8, 1, **model), pn.Policy(compute=dtype))
    jax.eval_shape(lambda key: layer.apply(layer.init(key)[0], {}, X, **side), jax.random.key(0))
    assert asked == [expected]


# What is seen.


@pytest.mark.covers("M63")
def test_without_positions_self_attention_is_permutation_equivariant():
    model = attention(8, 2)
    params, _ = drawn(model)
    order = jnp.array([3, 0, 4, 1, 2])
    close(run(model, params, X[:, order]), run(model, params)[:, order])
    turned = attention(8, 2, relative=rotary())
    assert np.abs(run(turned, params, X[:, order]) - run(turned, params)[:, order]).max() > 0.01


@pytest.mark.covers("M65")
@pytest.mark.parametrize(
    "model",
    [attention(8, 2, causal=True), attention(8, 2, causal=True, scores=additive, relative=rotary())],
    ids=["scaled", "additive"],
)
def test_a_causal_output_has_exactly_no_gradient_to_later_inputs(model):
    params, _ = drawn(model)
    slope = jax.jit(jax.jacobian(lambda x: model.apply(params, {}, x)[0].sum((0, 2))))(X)
    for t in range(5):
        assert not np.any(slope[t][:, t + 1 :])
        assert np.abs(slope[t][:, : t + 1]).max((0, 2)).min() > 1e-4


def test_lengths_give_each_sequence_what_it_gets_alone():
    model = attention(8, 2)
    params, _ = drawn(model)
    close(run(model, params, lengths=LENGTHS)[1, :2], run(model, params, X[1:, :2])[0])


def test_segments_give_each_packed_sequence_what_it_gets_alone():
    model = attention(8, 2, causal=True)
    params, _ = drawn(model)
    y = run(model, params, segments=jnp.array([[7, 7, 3, 3, 3], [1, 1, 1, 1, 2]]))
    close(y[0, 2:], run(model, params, X[:1, 2:])[0])
    close(y[1, 4:], run(model, params, X[1:, 4:])[0])


def test_what_sees_nothing_is_zero_and_has_no_gradient():
    model = attention(8, 2, bias=False)
    params, _ = drawn(model)
    seen = jnp.ones((2, 1, 5, 5), bool).at[0, 0, 1].set(False)
    y, slopes = jax.value_and_grad(lambda x: jnp.sum(model.apply(params, {}, x, mask=seen)[0][0, 1]))(X)
    assert y == 0
    assert not np.any(slopes)


# Dropout and maps.


def test_the_maps_are_captured_by_a_tap_and_sum_to_one():
    model = pn.edit(attention(8, 2, causal=True), "scores/weights", pn.tap)
    params, _ = drawn(model)
    _, state = model.apply(params, {}, X)
    weights = pn.taps(state)["scores/weights"]
    assert weights.shape == (2, 2, 5, 5)
    close(weights.sum(-1), np.ones((2, 2, 5)))
    assert not np.any(np.triu(weights, 1))


def test_dropout_drops_weights_and_keeps_their_mean():
    model = attention(8, 2, rate=0.5, bias=False)
    params, _ = drawn(model)
    keys = jax.random.split(jax.random.key(1), 4000)
    y = jax.jit(jax.vmap(lambda key: model.apply(params, {}, X, train=True, key=key)[0]))(keys)
    plain = run(model, params)
    deviation = y.std(0) / math.sqrt(4000)
    assert np.abs((y.mean(0) - plain) / deviation).max() < 5
    assert y.std(0).min() > 0.01
