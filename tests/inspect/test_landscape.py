"""The loss around a point, along directions of the size of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.inspect import filter_normalized_direction, landscape, roughness


@pytest.mark.covers("X17")
def test_every_filter_of_a_direction_has_the_norm_of_that_filter():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "conv": {"kernel": 3 * jax.random.normal(keys[0], (3, 3, 4, 5)), "bias": jnp.ones(5)},
        "blocks": {"kernel": jax.random.normal(keys[1], (2, 6, 7))},
    }
    d = filter_normalized_direction(keys[2], params, stacked="blocks/*")
    np.testing.assert_allclose(
        np.linalg.norm(np.asarray(d["conv"]["kernel"]).reshape(-1, 5), axis=0),
        np.linalg.norm(np.asarray(params["conv"]["kernel"]).reshape(-1, 5), axis=0),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        np.linalg.norm(d["blocks"]["kernel"], axis=1),
        np.linalg.norm(params["blocks"]["kernel"], axis=1),
        rtol=1e-5,
    )
    assert not np.asarray(d["conv"]["bias"]).any()


def test_without_their_pattern_stacked_filters_count_as_one():
    params = {"kernel": jnp.arange(12.0).reshape(2, 3, 2)}
    d = filter_normalized_direction(jax.random.key(0), params)
    np.testing.assert_allclose(
        np.linalg.norm(np.asarray(d["kernel"]).reshape(-1, 2), axis=0),
        np.linalg.norm(np.arange(12.0).reshape(-1, 2), axis=0),
        rtol=1e-5,
    )


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match="no leaf"):
        filter_normalized_direction(jax.random.key(0), {"kernel": jnp.ones((2, 2))}, stacked="block/*")


@pytest.mark.parametrize("together", [1, 4])
def test_a_surface_is_the_loss_at_every_combination_of_steps(together):
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    one = {"a": jnp.array([1.0, 0.0]), "b": jnp.array(0.0)}
    two = {"a": jnp.array([0.0, 0.5]), "b": jnp.array(-1.0)}
    at = np.linspace(-1, 1, 5)
    surface = landscape(lambda p: jnp.sum(p["a"] ** 2) + p["b"], params, [one, two], at, together=together)
    u, v = np.meshgrid(at, at, indexing="ij")
    np.testing.assert_allclose(surface, (1 + u) ** 2 + (2 + v / 2) ** 2 + 3 - v, rtol=1e-6)


def test_one_valley_is_1_and_three_valleys_of_equal_depth_are_3():
    x = np.linspace(-1.5, 1.5, 601)
    assert roughness(x**2) == pytest.approx(1)
    assert roughness(np.add.outer(x**2, np.abs(x))) == pytest.approx(1)
    # From 1 down to -1 and up again three times, where one valley would do it once.
    assert roughness(-np.cos(2 * np.pi * x)) == pytest.approx(3, rel=1e-3)


def test_a_hill_is_2_since_it_rises_and_falls_where_a_valley_is_not_needed():
    assert roughness(-(np.linspace(-1, 1, 21) ** 2)) == pytest.approx(2)
    assert roughness(np.arange(5.0)) == pytest.approx(1)


@pytest.mark.parametrize(
    "surface", [np.array([0.0, np.nan, 1.0]), np.zeros((2, 5))], ids=["NaN", "two points"]
)
def test_what_roughness_cannot_judge_it_refuses(surface):
    with pytest.raises(ValueError, match="finite values and lines of three points"):
        roughness(surface)


def test_a_landscape_without_direction_is_refused():
    with pytest.raises(ValueError, match="landscape needs a direction"):
        landscape(lambda p: p, {}, [], [0.0])
