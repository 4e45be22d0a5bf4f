"""Transformer blocks and models, against Flax linen, torch and each other."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.layers.attention import attention, cross_attention
from purenets.models.transformer import encoder, encoder_decoder
from purenets.models.transformer_block import feed_forward, in_depth, swiglu, transformer_block
from tests.layers.peers import assert_agrees_with_flax, normal, randomised

X, MEMORY = normal(2, 5, 8), normal(2, 3, 8, seed=3)
LENGTHS = jnp.array([5, 2])
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def drawn(model, scale=0.5):
    return jax.tree.map(lambda leaf: scale * leaf, randomised(model.init(jax.random.key(0))[0]))


class LinenBlock(nn.Module):
    """A block as one writes it in linen, its parts called as ours are."""

    pre_norm: bool

    @nn.compact
    def __call__(self, x, mask=None):
        attend = nn.MultiHeadDotProductAttention(2, name="attention")
        norm, second = nn.LayerNorm(name="attention_norm"), nn.LayerNorm(name="feed_forward_norm")
        feed = LinenFeedForward(name="feed_forward")
        if self.pre_norm:
            x = x + attend(norm(x), mask=mask)
            return x + feed(second(x))
        x = norm(x + attend(x, mask=mask))
        return second(x + feed(x))


class LinenFeedForward(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(8, name="down")(nn.gelu(nn.Dense(16, name="up")(x)))


@pytest.mark.covers("M66")
@pytest.mark.parametrize("pre_norm", [True, False], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "lengths"])
def test_a_block_agrees_with_one_built_in_linen_in_values_and_gradients(pre_norm, causal):
    ours = transformer_block(8, attention(8, 2, causal=causal), feed_forward(8, 16), pre_norm=pre_norm)
    mask = nn.make_attention_mask(jnp.ones((2, 5)), jnp.arange(5) < LENGTHS[:, None])
    mask = nn.make_causal_mask(X[..., 0]) if causal else mask
    side = {} if causal else {"lengths": LENGTHS}
    assert_agrees_with_flax(ours, LinenBlock(pre_norm), X, ours_kw=side, theirs_kw={"mask": mask})


def load_torch(torch, layer, params):
    """Our params into a torch encoder or decoder layer of 8 features."""

    def put(target, array):
        with torch.no_grad():
            target.copy_(torch.tensor(np.array(array)))

    def attend(target, p):
        flat = [np.array(p[name]["kernel"]).reshape(8, 8).T for name in ("query", "key", "value")]
        put(target.in_proj_weight, np.concatenate(flat))
        put(
            target.in_proj_bias,
            np.concatenate([np.array(p[n]["bias"]).ravel() for n in ("query", "key", "value")]),
        )
        put(target.out_proj.weight, np.array(p["out"]["kernel"]).reshape(8, 8).T)
        put(target.out_proj.bias, p["out"]["bias"])

    attend(layer.self_attn, params["attention"])
    norms = ["attention_norm", "feed_forward_norm"]
    if "cross" in params:
        attend(layer.multihead_attn, params["cross"])
        norms.insert(1, "cross_norm")
    for number, name in enumerate(norms):
        norm = getattr(layer, f"norm{number + 1}")
        put(norm.weight, params[name]["scale"])
        put(norm.bias, params[name]["bias"])
    for target, name in ((layer.linear1, "up"), (layer.linear2, "down")):
        put(target.weight, params["feed_forward"][name]["kernel"].T)
        put(target.bias, params["feed_forward"][name]["bias"])


@pytest.mark.covers("M66", "M67")
@pytest.mark.parametrize("pre_norm", [True, False], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder"])
def test_a_block_agrees_with_torch_in_values_and_gradients(decoder, pre_norm):
    torch = pytest.importorskip("torch")
    norm = functools.partial(pn.layer_norm, eps=1e-5)
    cross = cross_attention(8, 2) if decoder else None
    feed = feed_forward(8, 16, activation=jax.nn.relu)
    ours = transformer_block(
        8, attention(8, 2, causal=decoder), feed, cross=cross, norm=norm, pre_norm=pre_norm
    )
    params = drawn(ours)
    kind = torch.nn.TransformerDecoderLayer if decoder else torch.nn.TransformerEncoderLayer
    theirs = kind(8, 2, 16, dropout=0.0, norm_first=pre_norm, batch_first=True)
    load_torch(torch, theirs, params)
    x, memory = (torch.tensor(np.array(a), requires_grad=True) for a in (X, MEMORY))
    if decoder:
        lengths = jnp.array([3, 1])
        padding = torch.tensor(np.arange(3) >= np.array(lengths)[:, None])
        later = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
        y = theirs(x, memory, tgt_mask=later, memory_key_padding_mask=padding)
        side = {"memory": MEMORY, "memory_lengths": lengths}
    else:
        y = theirs(x, src_key_padding_mask=torch.tensor(np.arange(5) >= np.array(LENGTHS)[:, None]))
        side = {"lengths": LENGTHS}
    # In training mode torch computes padded positions too, as we do.
    (y**2).sum().backward()

    def total(params, x):
        out = ours.apply(params, {}, x, **side)[0]
        return jnp.sum(out**2), out

    (_, found), slopes = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(params, X)
    close(found, y.detach())
    close(slopes[1], x.grad, atol=1e-3)
    close(slopes[0]["feed_forward"]["up"]["kernel"].T, theirs.linear1.weight.grad, atol=1e-3)
    close(
        slopes[0]["attention"]["out"]["kernel"].reshape(8, 8).T,
        theirs.self_attn.out_proj.weight.grad,
        atol=1e-3,
    )


def test_swiglu_is_the_printed_formula():
    # Shazeer 2020, equation 6: (Swish(x W) * x V) W_2, in float64.
    model = swiglu(4, 6)
    params = drawn(model)
    x, w = np.asarray(X[..., :4], float), {n: np.asarray(p["kernel"], float) for n, p in params.items()}
    gate = x @ w["gate"]
    expected = (gate / (1 + np.exp(-gate)) * (x @ w["up"])) @ w["down"]
    np.testing.assert_allclose(model.apply(params, {}, X[..., :4])[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.covers("M66", "M63")
def test_an_encoder_without_positions_is_permutation_equivariant():
    ids, order = jnp.array([[3, 1, 4, 2, 5]]), jnp.array([3, 0, 4, 1, 2])
    plain = encoder(7, 8, 2, depth=2, positions=pn.identity)
    params = drawn(plain)
    run = jax.jit(lambda ids: plain.apply(params, {}, ids)[0])
    close(run(ids[:, order]), run(ids)[:, order], atol=1e-5)
    placed = encoder(7, 8, 2, depth=2)
    run = jax.jit(lambda ids: placed.apply(params, {}, ids)[0])
    assert np.abs(run(ids[:, order]) - run(ids)[:, order]).max() > 0.01


@pytest.mark.covers("M67", "M68")
def test_the_decoder_sees_all_of_the_source_and_of_the_target_what_is_before():
    model = encoder_decoder(7, 9, 8, 2, depth=2)
    params = drawn(model)
    source, target = jnp.array([[1, 2, 3, 4]]), jnp.array([[5, 6, 7, 8, 0]])
    run = jax.jit(lambda *ids: model.apply(params, {}, *ids)[0])
    logits = run(source, target)
    assert logits.shape == (1, 5, 9)
    changed = run(source, target.at[0, 3].set(1))
    np.testing.assert_array_equal(changed[:, :3], logits[:, :3])
    assert np.abs(changed[:, 3:] - logits[:, 3:]).min((0, 2)).max() > 0
    for t in range(4):
        assert np.abs(run(source.at[0, t].set(0), target) - logits).max((0, 2)).min() > 1e-4


@pytest.mark.covers("M68")
def test_source_lengths_give_what_the_source_alone_gives():
    model = encoder_decoder(7, 9, 8, 2, depth=1, pre_norm=False)
    params = drawn(model)
    source, target = jnp.array([[1, 2, 3, 4], [4, 3, 0, 0]]), jnp.array([[5, 6], [7, 8]])
    run = jax.jit(lambda *ids, **side: model.apply(params, {}, *ids, **side)[0])
    together = run(source, target, source_lengths=jnp.array([4, 2]))
    alone = run(source[1:, :2], target[1:])
    close(together[1], alone[0])


def test_what_is_kept_for_the_backward_pass_changes_no_gradient():
    block = transformer_block(8, attention(8, 2, rate=0.3), feed_forward(8, 16, rate=0.3), rate=0.3)
    plain = pn.repeat(block, 2)
    params = drawn(plain)

    def loss(model, params):
        return jnp.sum(model.apply(params, {}, X, key=jax.random.key(5), train=True)[0] ** 2)

    kept, some, none = plain, in_depth(block, 2), in_depth(block, 2, remat=True)
    slopes = jax.jit(lambda p: [jax.grad(functools.partial(loss, model))(p) for model in (kept, some, none)])
    first, *others = slopes(params)
    for other in others:
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), other, first)


def test_a_memory_for_a_model_that_has_none_is_refused():
    model = encoder(7, 8, 2, depth=1)
    params, state = model.init(jax.random.key(0))
    with pytest.raises(TypeError, match="memory"):
        model.apply(params, state, jnp.zeros((1, 2), int), memory=MEMORY)
