"""What attention refuses, and what its errors say."""

import re

import jax
import jax.numpy as jnp
import pytest

from purenets.layers.attention import attention, cross_attention
from purenets.layers.positions import rotary
from tests.layers.peers import normal

X = normal(2, 5, 8)
MEMORY = normal(2, 3, 8, seed=3)


@pytest.mark.parametrize("make", [attention, cross_attention])
def test_heads_that_do_not_divide_are_refused(make):
    name = make.__name__
    with pytest.raises(
        ValueError, match=rf"{name}\(8, 3\) needs a number of heads that divides 8, or a head_dim"
    ):
        make(8, 3)
    with pytest.raises(ValueError, match=rf"{name}\(8, 4\) needs a number of kv_heads that divides 4, got 3"):
        make(8, 4, kv_heads=3)
    with pytest.raises(ValueError, match="needs a window of at least 1, got 0"):
        attention(8, 2, window=0)


@pytest.mark.parametrize(
    ("mask", "hint"),
    [
        (jnp.ones((2, 5), bool), r"mask\[:, None, None, :\], or lengths"),
        (jnp.ones((5, 5), bool), r"write an axis of 1 .* mask\[..., None, :, :\]"),
        (jnp.ones((2, 1, 5, 5)), r"mask.astype\(bool\)"),
        (jnp.ones((2, 3, 5, 5), bool), None),
        (jnp.ones((1, 1, 5, 4), bool), None),
    ],
    ids=["padding", "no heads", "numbers", "other heads", "other source"],
)
def test_a_mask_of_the_wrong_shape_is_refused(mask, hint):
    model = attention(8, 2)
    params, state = model.init(jax.random.key(0))
    text = r"needs a boolean mask that broadcasts to \[batch, heads, time, source\] = \[2, 2, 5, 5\], got"
    with pytest.raises(ValueError, match=text) as caught:
        model.apply(params, state, X, mask=mask)
    if hint:
        assert any(re.search(hint, note) for note in caught.value.__notes__)


def test_wrong_inputs_are_refused():
    model = attention(8, 2)
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"attention\(8, 2\) needs \[batch, time, 8\], got float32\[5, 8\]"):
        model.apply(params, state, X[0])
    with pytest.raises(ValueError, match=r"attention\(8, 2\) has 5 steps, got lengths from 2 to 6"):
        model.apply(params, state, X, lengths=jnp.array([2, 6]))
    with pytest.raises(ValueError, match=r"needs integer segments \[2, 5\], got int32\[5\]"):
        model.apply(params, state, X, segments=jnp.arange(5))
    cross = cross_attention(8, 2)
    with pytest.raises(ValueError, match=r"needs the side input memory \[batch, source, 8\]"):
        cross.apply(params, state, X)
    with pytest.raises(ValueError, match=r"the memory of cross_attention\(8, 2\) has 3 steps, got lengths"):
        cross.apply(params, state, X, memory=MEMORY, memory_lengths=jnp.array([2, 4]))
    odd = attention(8, 2, head_dim=3, relative=rotary())
    with pytest.raises(ValueError, match=r"rotary needs an even head_dim, got float32\[2, 5, 2, 3\]"):
        odd.apply(*odd.init(jax.random.key(0)), X)
