"""Attention in a stream: in any cut what it gives whole, and NaN past the context."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.layers.attention import attention, cross_attention
from purenets.layers.attention_scores import additive, dot_product
from purenets.layers.linear_attention import linear_attention
from purenets.layers.positions import alibi, learned_positions, rotary, sinusoidal_positions
from tests.layers.peers import normal, randomised

TIME = 7
X = normal(2, TIME, 8)
MEMORY = normal(2, 4, 8, seed=3)
causal = partial(attention, 8, 4, causal=True)
KINDS = {
    "scaled": causal(),
    "dot": causal(scores=dot_product),
    "additive": causal(scores=additive),
    "grouped-query": causal(kv_heads=2),
    "multi-query": causal(kv_heads=1),
    "window": causal(window=3),
    "rotary": causal(relative=rotary()),
    "alibi": causal(relative=alibi(4)),
    "linear": linear_attention(8, 4, causal=True, chunk=3),
    "cross": cross_attention(8, 4),
    "sinusoidal positions": sinusoidal_positions(8),
    "learned positions": learned_positions(TIME, 8),
    "repeat": pn.repeat(pn.residual(causal()), 2),
}
every = pytest.mark.parametrize("kind", KINDS)


class Streamed:
    """A model, and its stream as one compiled step for each length of a stretch."""

    def __init__(self, kind):
        self.model = KINDS[kind]
        self.params = jax.tree.map(lambda x: 0.7 * x, randomised(self.model.init(jax.random.key(0))[0]))
        self.side = {"memory": MEMORY} if kind == "cross" else {}
        self.step = jax.jit(partial(self.model.apply, stream=True))

    def whole(self, x=X):
        return self.model.apply(self.params, {}, x, **self.side)[0]

    def open(self, batch=2, length=TIME):
        return pn.open_stream(self.model, {}, batch=batch, length=length)

    def cut(self, state, sizes, x=X, **side):
        out, start = [], 0
        for size in sizes:
            y, state = self.step(self.params, state, x[:, start : start + size], **self.side, **side)
            out.append(y)
            start += size
        return jnp.concatenate(out, 1), state


@pytest.mark.covers("M64", "M65")
@every
@pytest.mark.parametrize(
    "sizes", [(1,) * TIME, (3, 1, 3), (TIME,)], ids=["one by one", "3 + 1 + 3", "at once"]
)
def test_a_stream_in_any_cut_is_the_whole(kind, sizes):
    s = Streamed(kind)
    found, state = s.cut(s.open(), sizes)
    np.testing.assert_allclose(found, s.whole(), rtol=1e-5, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), state, s.open()
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cross"])
def test_sequences_of_different_lengths_go_on_each_from_its_own_end(kind):
    s = Streamed(kind)
    lengths = jnp.array([4, 1])
    first, state = s.cut(s.open(), (4,), lengths=lengths)
    rest = jnp.stack([X[0, 4:6], X[1, 1:3]])
    second, _ = s.cut(state, (1, 1), rest)
    whole = s.whole()
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(first[0], whole[0, :4])
    close(first[1, :1], whole[1, :1])
    close(second[0], whole[0, 4:6])
    close(second[1], whole[1, 1:3])


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("cross", "linear", "sinusoidal positions")]
)
def test_past_the_context_is_nan_for_the_sequence_that_is_past_it_alone(kind):
    s = Streamed(kind)
    state = s.open(length=TIME if kind == "learned positions" else 5)
    context = TIME if kind == "learned positions" else 5
    _, state = s.cut(state, (context,), jnp.zeros((2, context, 8)), lengths=jnp.array([context - 1, 1]))
    y, _ = s.cut(state, (1, 1, 1))
    assert np.isfinite(y[0, :1]).all()
    assert np.isnan(y[0, 1:]).all()
    assert np.isfinite(y[1]).all()


def test_a_stretch_across_the_end_of_the_context_is_right_before_it():
    s = Streamed("rotary")
    y, _ = s.cut(s.open(length=5), (4, 3))
    np.testing.assert_allclose(y[:, :5], s.whole()[:, :5], rtol=1e-5, atol=1e-5)
    assert np.isnan(y[:, 5:]).all()


def test_linear_attention_has_no_end():
    s = Streamed("linear")
    y, _ = s.cut(s.open(length=1), (1,) * TIME)
    np.testing.assert_allclose(y, s.whole(), rtol=1e-5, atol=1e-5)


def test_a_memory_is_remembered_and_one_that_never_came_is_nan():
    s = Streamed("cross")
    first, state = s.cut(s.open(), (1,), memory_lengths=jnp.array([4, 2]))
    later, _ = s.step(s.params, state, X[:, 1:])
    whole = s.model.apply(s.params, {}, X, memory=MEMORY, memory_lengths=jnp.array([4, 2]))[0]
    np.testing.assert_allclose(jnp.concatenate([first, later], 1), whole, rtol=1e-5, atol=1e-5)
    assert np.isnan(s.step(s.params, s.open(), X)[0]).all()


def test_a_cache_may_be_kept_in_half_precision():
    s = Streamed("scaled")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, s.open())
    y, state = s.cut(half, (3, 1, 3))
    assert y.dtype == jnp.float32
    assert state["cache"]["key"].dtype == jnp.bfloat16
    # 8 bits of keys and values, of about 2: far from exact, near all the same.
    np.testing.assert_allclose(y, s.whole(), atol=0.2)
    assert np.abs(y - s.whole()).max() > 1e-4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "repeat"])
def test_a_stream_that_was_not_opened_is_refused(kind):
    s = Streamed(kind)
    with pytest.raises(
        ValueError, match=r"has no stream: state = open_stream\(model, state, batch=, length=\)"
    ):
        s.step(s.params, {}, X, **s.side)


def test_a_stream_of_other_sequences_is_refused():
    s = Streamed("scaled")
    with pytest.raises(ValueError, match=r"clock has a stream of 3 sequences, got float32\[2, 7, 8\]"):
        s.step(s.params, s.open(batch=3), X)
    s = Streamed("cross")
    with pytest.raises(
        ValueError, match=r"a stream of 2 sequences with 3 slots, got keys float32\[2, 4, 4, 2\]"
    ):
        s.step(s.params, s.open(length=3), X, **s.side)


@pytest.mark.parametrize("model", [attention(8, 4), linear_attention(8, 4)], ids=["softmax", "linear"])
def test_attention_that_is_not_causal_cannot_stream(model):
    params, state = model.init(jax.random.key(0))
    assert pn.open_stream(model, state, batch=2, length=3) == {}
    with pytest.raises(
        ValueError, match="is not causal and cannot stream: what comes later is needed at once"
    ):
        model.apply(params, state, X, stream=True)


def test_packed_sequences_cannot_stream():
    s = Streamed("scaled")
    with pytest.raises(ValueError, match="cannot stream packed sequences: give each a row of its own"):
        s.step(s.params, s.open(), X, segments=jnp.zeros((2, TIME), int))


def test_a_stream_beyond_the_learned_positions_is_refused():
    with pytest.raises(ValueError, match=r"learned_positions\(7, 8\) has 7 positions, got a sequence of 8"):
        Streamed("learned positions").open(length=8)
