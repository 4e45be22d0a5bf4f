"""Attention maps and landscapes are drawn as they are, with axes that say what they show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.inspect import attention_maps, landscape, plot_attention, plot_landscape


def panels(figure):
    return [panel for panel in figure.axes if panel.images]


def test_a_panel_for_each_layer_member_and_head_has_the_weights_of_the_example():
    rng = np.random.default_rng(0)
    maps = {"in": rng.random((2, 3, 4, 4)), "blocks/self": rng.random((2, 2, 3, 4, 4))}
    figure = plot_attention(maps, example=1, queries="abcd")
    expected = [*maps["in"][1], *maps["blocks/self"][0, 1], *maps["blocks/self"][1, 1]]
    assert len(panels(figure)) == 9
    for panel, weights in zip(panels(figure), expected, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), weights)
        assert panel.images[0].get_clim() == (0, 1)
        assert [tick.get_text() for tick in panel.get_xticklabels()] == list("abcd")
    rows = [panel.get_ylabel() for panel in panels(figure)][::3]
    assert rows == ["in\nquery", "blocks/self[0]\nquery", "blocks/self[1]\nquery"]


def test_the_maps_of_a_model_are_drawn_and_layers_may_differ_in_heads_and_lengths():
    model = pn.attention(4, 2, causal=True)
    params, state = model.init(jax.random.key(0))
    maps = attention_maps(model, params, state, jnp.zeros((1, 2, 4)))
    figure = plot_attention({**maps, "cross": jnp.full((1, 1, 2, 5), 0.2)}, keys=None)
    assert [panel.get_title() for panel in panels(figure)] == ["head 0", "head 1", "head 0"]
    assert panels(figure)[0].images[0].get_array().tolist() == [[1, 0], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("maps", "options", "error", "message"),
    [
        ({}, {}, ValueError, "no attention maps"),
        (
            {"a": np.ones((2, 3, 3))},
            {},
            ValueError,
            r"\[batch, heads, time, source\], a is float64\[2, 3, 3\]",
        ),
        ({"a": np.ones((2, 1, 3, 3))}, {"example": 2}, IndexError, "a has 2 examples, there is no 2"),
        ({"a": np.ones((1, 1, 3, 3))}, {"queries": "ab"}, ValueError, "3 query positions and 2 names"),
        ({"a": np.ones((1, 1, 3, 2))}, {"keys": "abc"}, ValueError, "2 key positions and 3 names"),
        ({"a": np.ones((40, 1, 6, 1, 1))}, {}, ValueError, "40 layers of 6 heads are more than one figure"),
    ],
    ids=["none", "axes", "example", "queries", "keys", "many"],
)
def test_maps_that_cannot_be_drawn_say_why(maps, options, error, message):
    with pytest.raises(error, match=message):
        plot_attention(maps, **options)


def test_a_line_is_a_curve_and_a_plane_has_its_first_direction_along_the_bottom():
    at = np.linspace(-1, 1, 5)
    one, other = {"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 1.0])}
    loss = lambda p: p["w"][0] ** 2 + 10 * p["w"][1] ** 2 + 1
    line = plot_landscape(landscape(loss, {"w": jnp.zeros(2)}, [one], at), at, log=True, label="loss [nats]")
    np.testing.assert_allclose(line.axes[0].lines[0].get_xydata(), np.stack([at, at**2 + 1], 1))
    assert (line.axes[0].get_ylabel(), line.axes[0].get_yscale()) == ("loss [nats]", "log")
    plane = plot_landscape(landscape(loss, {"w": jnp.zeros(2)}, [one, other], at), at)
    # A valley along the first direction: its lines of equal loss are wider than high.
    corners = np.concatenate([path.vertices for path in plane.axes[0].collections[1].get_paths()[1:3]])
    assert np.ptp(corners[:, 0]) > 1.5 * np.ptp(corners[:, 1])
    assert [axis.get_ylabel() for axis in plane.axes] == ["step along the second direction", "loss"]


def test_landscapes_that_do_not_fit_say_why():
    with pytest.raises(ValueError, match=r"got float64\[3, 2\] over float64\[3\]"):
        plot_landscape(np.ones((3, 2)), np.arange(3.0))
    with pytest.raises(ValueError, match="the least is 0"):
        plot_landscape(np.zeros(3), np.arange(3.0), log=True)
