"""Positions: sinusoidal, learned, rotary, ALiBi."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.layers.positions import (
    alibi_slopes,
    learned_positions,
    rotary,
    sinusoid,
    sinusoidal_positions,
)
from tests.layers.attention_oracle import rotated
from tests.layers.peers import normal


@pytest.mark.covers("M63")
def test_the_sinusoid_is_the_printed_formula_and_every_position_has_its_own():
    # Vaswani et al. 2017, section 3.5, in float64.
    position, i = np.arange(500.0)[:, None], np.arange(4)
    expected = np.zeros((500, 8))
    expected[:, 2 * i] = np.sin(position / 10000 ** (2 * i / 8))
    expected[:, 2 * i + 1] = np.cos(position / 10000 ** (2 * i / 8))
    found = np.asarray(sinusoid(jnp.arange(500), 8))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(np.unique(found, axis=0)) == 500


@pytest.mark.covers("M63")
def test_sinusoidal_positions_are_added():
    x = normal(2, 3, 4)
    y, _ = sinusoidal_positions(4).apply({}, {}, x)
    np.testing.assert_allclose(y, x + sinusoid(jnp.arange(3), 4), rtol=1e-6)
    positions = jnp.array([[5, 0, 1]])
    y, _ = sinusoidal_positions(4).apply({}, {}, x, positions=positions)
    np.testing.assert_allclose(y, x + sinusoid(positions, 4), rtol=1e-6)


@pytest.mark.covers("M63")
def test_learned_positions_are_rows_of_a_table():
    model = learned_positions(4, 2)
    table = {"embedding": jnp.arange(8.0).reshape(4, 2)}
    y, _ = model.apply(table, {}, jnp.zeros((1, 3, 2)))
    np.testing.assert_array_equal(y[0], [[0, 1], [2, 3], [4, 5]])
    y, _ = model.apply(table, {}, jnp.zeros((1, 3, 2)), positions=jnp.array([[3, -1, 4]]))
    np.testing.assert_array_equal(y[0], [[6, 7], [np.nan] * 2, [np.nan] * 2])
    assert model.init(jax.random.key(0))[0]["embedding"].shape == (4, 2)


def test_rotary_keeps_products_at_equal_distance():
    rotate = rotary().rotate
    q, k = normal(1, 1, 1, 8), normal(1, 1, 1, 8, seed=1)
    at = lambda x, p: rotate(x, jnp.array([[p]]))[0, 0, 0]
    np.testing.assert_allclose(at(q, 7) @ at(k, 4), at(q, 103) @ at(k, 100), rtol=1e-4)
    np.testing.assert_allclose(at(q, 0), q[0, 0, 0])
    for position in (3, 1000):
        np.testing.assert_allclose(
            at(q, position), rotated(np.asarray(q[0, 0, 0], float), position), atol=1e-4
        )


def test_rotary_angles_are_exact_in_half_precision():
    x = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    # Angles that bfloat16 would round to 256.
    turned = rotary().rotate(x, jnp.array([[257]]))
    assert turned.dtype == jnp.bfloat16
    np.testing.assert_allclose(turned[0, 0, 0].astype(float), rotated(np.ones(2), 257), atol=0.01)


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (8, [2.0**-i for i in range(1, 9)]),
        # Press et al.: four heads, and of eight every second.
        (6, [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]),
        (1, [2.0**-8]),
    ],
    ids=str,
)
def test_alibi_slopes_are_those_of_the_paper(heads, slopes):
    np.testing.assert_allclose(alibi_slopes(heads), slopes)


def test_wrong_positions_are_refused():
    with pytest.raises(ValueError, match=r"sinusoidal_positions\(3\) needs an even width"):
        sinusoidal_positions(3)
    model = learned_positions(4, 2)
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"learned_positions\(4, 2\) has 4 positions, got a sequence of 5"):
        model.apply(params, state, jnp.zeros((1, 5, 2)))
    with pytest.raises(ValueError, match=r"needs positions \[2, 3\], got int32\[3\]"):
        model.apply(params, state, jnp.zeros((2, 3, 2)), positions=jnp.arange(3))
    with pytest.raises(ValueError, match=r"needs \[batch, time, 2\], got float32\[3, 2\]"):
        model.apply(params, state, jnp.zeros((3, 2)))
