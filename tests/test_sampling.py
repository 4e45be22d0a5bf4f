"""Choosing the next token: the likeliest, or drawn by temperature, top-k and top-p."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.sampling import choose, keep_top_k, keep_top_p

SHARES = np.array([[0.1, 0.4, 0.2, 0.3], [0.05, 0.05, 0.8, 0.1]])
LOGITS = jnp.log(jnp.asarray(SHARES, jnp.float32)) + 3.0
DRAWS = 20_000


def frequencies(**how):
    keys = jax.random.split(jax.random.key(0), DRAWS)
    drawn = jax.jit(jax.vmap(lambda key: choose(LOGITS, key, **how)))(keys)
    return np.stack([np.bincount(row, minlength=4) for row in drawn.T]) / DRAWS


def assert_frequencies(found, shares):
    shares = shares / shares.sum(-1, keepdims=True)
    # Five deviations of a share of DRAWS draws; what has share 0 never comes.
    assert (np.abs(found - shares) <= 5 * np.sqrt(shares * (1 - shares) / DRAWS)).all()


def test_without_a_key_the_likeliest_is_chosen():
    np.testing.assert_array_equal(choose(LOGITS), [1, 2])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_draws_have_the_shares_of_the_tempered_softmax(temperature):
    assert_frequencies(frequencies(temperature=temperature), SHARES ** (1 / temperature))


def test_top_k_leaves_the_k_likeliest():
    assert_frequencies(frequencies(top_k=2), SHARES * [[0, 1, 0, 1], [0, 0, 1, 1]])
    np.testing.assert_array_equal(keep_top_k(LOGITS, 4), LOGITS)


def test_top_p_leaves_the_fewest_that_have_the_share():
    assert_frequencies(frequencies(top_p=0.6), SHARES * [[0, 1, 0, 1], [0, 0, 1, 0]])


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.01, [1]), (0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_counts_from_the_likeliest_and_keeps_one_at_least(p, kept):
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(keep_top_p(LOGITS[0], p))), kept)


def test_top_k_and_top_p_together_take_the_share_of_what_is_left():
    # Of 0.4 and 0.3 the first alone has 0.57.
    assert_frequencies(frequencies(top_k=2, top_p=0.55), SHARES * [[0, 1, 0, 0], [0, 0, 1, 0]])


def test_the_same_key_draws_the_same():
    draw = lambda seed: choose(jnp.tile(LOGITS, (50, 1)), jax.random.key(seed))
    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@pytest.mark.parametrize("draws", [False, True], ids=["greedy", "drawn"])
def test_a_row_with_a_nan_gives_no_token_and_the_others_do(draws):
    logits = LOGITS.at[0, 2].set(jnp.nan)
    tokens = choose(logits, jax.random.key(0) if draws else None, **({"top_k": 1} if draws else {}))
    np.testing.assert_array_equal(tokens, [-1, 2])


def test_more_of_the_likeliest_than_there_are_is_refused():
    with pytest.raises(ValueError, match="keep_top_k has 4 logits, got a k of 5"):
        keep_top_k(LOGITS, 5)
