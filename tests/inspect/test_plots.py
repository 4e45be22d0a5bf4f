"""Figures have the numbers they were given, axes that say what they show, and matplotlib only when they are made."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.inspect import (
    GradientSizes,
    activity,
    plot_activity,
    plot_gradients,
    plot_history,
    plot_sweep,
    weight_pictures,
)

HISTORY = {
    "loss": np.array([3.0, 2.0, 1.0]),
    "validation/loss": np.array([3.5, 2.5, 2.0]),
    "update_ratio/**": np.array([1e-3, 2e-3, 1e-3]),
}


def lines(panel):
    return {line.get_label(): line.get_xydata().tolist() for line in panel.lines}


def labels(figure):
    return [(panel.get_xlabel(), panel.get_ylabel()) for panel in figure.axes]


def test_a_history_has_a_panel_for_each_metric_with_training_and_validation_in_one():
    figure = plot_history(HISTORY, units={"loss": "nats"})
    assert labels(figure) == [("epoch", "loss [nats]"), ("epoch", "update_ratio/**")]
    assert lines(figure.axes[0]) == {
        "training": [[1, 3], [2, 2], [3, 1]],
        "validation": [[1, 3.5], [2, 2.5], [3, 2]],
    }
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["training", "validation"]
    assert figure.axes[1].get_legend() is None


def test_metrics_of_every_step_are_drawn_over_steps_and_can_be_chosen():
    figure = plot_history(
        {"loss": np.arange(6.0).reshape(2, 3), "accuracy": np.zeros((2, 3))}, "loss", log="xy"
    )
    assert labels(figure) == [("step", "loss")]
    assert lines(figure.axes[0])["training"] == [[i + 1, i] for i in range(6)]
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "log")


def test_four_metrics_stand_in_two_rows():
    figure = plot_history({name: np.ones(2) for name in "abcd"})
    assert [panel.get_ylabel() for panel in figure.axes] == list("abcd")


def test_a_history_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="pattern 'los' matches no metric; there are: loss, validation/loss"):
        plot_history(HISTORY, "los")
    with pytest.raises(
        ValueError, match=r"metrics \[epochs\] or \[epochs, steps\], loss is float64\[2, 2, 2\]"
    ):
        plot_history({"loss": np.ones((2, 2, 2))})
    with pytest.raises(ValueError, match="the history is empty"):
        plot_history({})


def swept(over, seeds=2, **settings):
    def run(key, **given):
        return sum(given.values()) + 0.5 * jax.random.bernoulli(key, 0.5)

    return pn.sweep(run, over, seeds=seeds, **settings)


def test_a_sweep_over_one_setting_is_a_curve_of_means_with_every_run():
    found = swept({"rate": [1.0, 0.01, 0.1]}, seeds=3)
    figure = found.figure(lambda value: value, label="loss [nats]")
    (panel,) = figure.axes
    assert labels(figure) == [("rate", "loss [nats]")]
    assert panel.get_xscale() == "log"
    rows = {row["rate"]: row["mean"] for row in found.rows(lambda value: value)}
    np.testing.assert_allclose(panel.lines[0].get_xydata(), sorted(rows.items()))
    points = panel.collections[1].get_offsets()
    np.testing.assert_allclose(points[:, 1], np.asarray(found.results), rtol=1e-6)
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
        "mean of 3",
        "range of the seeds",
        "one run",
    ]


def test_a_sweep_over_two_settings_is_a_map():
    found = swept({"rate": [0.1, 0.2, 0.4], "decay": [0.0, 1.0], "fixed": [5.0]}, seeds=1)
    figure = plot_sweep(found, lambda value: value, label="loss")
    panel, bar = figure.axes
    assert (panel.get_xlabel(), panel.get_ylabel(), bar.get_ylabel()) == (
        "rate",
        "decay",
        "loss, mean over seeds",
    )
    assert (panel.get_xscale(), panel.get_yscale()) == ("linear", "linear")
    grid = panel.collections[0].get_array()
    wanted = {(row["rate"], row["decay"]): row["mean"] for row in found.rows(lambda value: value)}
    np.testing.assert_allclose(grid, [[wanted[x, y] for x in (0.1, 0.2, 0.4)] for y in (0.0, 1.0)])


def test_a_map_over_a_logarithmic_scale_has_its_borders_between_the_values():
    figure = plot_sweep(swept({"rate": [0.01, 1.0], "decay": [0.0, 1.0]}), lambda value: value)
    panel = figure.axes[0]
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "linear")
    corners = panel.collections[0].get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [0.001, 0.1, 10], rtol=1e-6)
    np.testing.assert_allclose(corners[:, 0, 1], [-0.5, 0.5, 1.5])


def test_settings_that_were_drawn_in_pairs_are_points():
    found = swept({"rate": [0.1, 0.2, 0.4], "decay": [0.3, 0.1, 0.2]}, paired=True)
    panel = plot_sweep(found, lambda value: value).axes[0]
    np.testing.assert_allclose(
        panel.collections[0].get_offsets(), [[0.1, 0.3], [0.2, 0.1], [0.4, 0.2]], rtol=1e-6
    )


def test_a_sweep_over_more_settings_or_none_is_refused():
    with pytest.raises(ValueError, match="over one or two settings that differ, there are 3: a, b, c; print"):
        plot_sweep(swept({name: [1.0, 2.0] for name in "abc"}, seeds=1), lambda value: value)
    with pytest.raises(ValueError, match="there are 0: none"):
        plot_sweep(swept({"a": [1.0]}), lambda value: value)


def test_activity_of_layers_is_drawn_as_it_was_measured():
    model = pn.serial(relu=jax.nn.relu)
    found = activity(model, {}, {}, jnp.array([[-1.0, 2.0], [-3.0, 4.0]]))
    figure = plot_activity(found)
    left, right = figure.axes
    assert labels(figure) == [("deviation of the output", "layer"), ("share [%]", "")]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["relu", "(the model)"]
    np.testing.assert_allclose(left.lines[0].get_xdata(), [np.std([0, 2, 0, 4])] * 2, rtol=1e-6)
    assert lines(right)["entries that are zero"] == [[50, 0], [50, 1]]
    assert lines(right)["units that are dead"] == [[50, 0], [50, 1]]


def test_gradients_are_drawn_member_after_member_in_the_order_given():
    gradients = {
        "stem/bias": 3.0,
        "stem/kernel": 4.0,
        "blocks/up/kernel": np.array([1.0, 2.0]),
        "blocks/down/kernel": np.array([0.5, 0.25]),
        "head/kernel": 0.0,
    }
    sizes = GradientSizes(gradients, {path: 2 * np.ones_like(norm) for path, norm in gradients.items()})
    figure = plot_gradients(sizes, ["stem", "relu", "blocks", "blocks/up", "blocks/down", "head"])
    left, right = figure.axes
    assert labels(figure) == [
        ("norm of the gradient", "layer"),
        ("norm of the gradient / norm of the params", ""),
    ]
    inside = [f"blocks/{part}[{i}]" for i in range(2) for part in ("up", "down")]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["stem", *inside, "head"]
    np.testing.assert_allclose(left.lines[0].get_xdata(), [5, 1, 0.5, 2, 0.25, 0])
    np.testing.assert_allclose(right.lines[0].get_xdata(), [5 / np.sqrt(8), 0.5, 0.25, 1, 0.125, 0])
    assert left.get_xscale() == right.get_xscale() == "log"
    assert [tick.get_text() for tick in plot_gradients(sizes).axes[0].get_yticklabels()][-1] == "stem"
    with pytest.raises(ValueError, match="order must name each layer once"):
        plot_gradients(sizes, ["stem"])
    with pytest.raises(ValueError, match="there are no layers to draw"):
        plot_gradients(GradientSizes({}, {}))


def images(figure):
    return [np.asarray(panel.images[0].get_array()) for panel in figure.axes if panel.images]


def test_units_of_a_dense_layer_are_pictures_of_their_inputs_on_one_scale():
    kernel = np.arange(-6.0, 6.0).reshape(4, 3)
    figure = weight_pictures({"first": {"kernel": kernel}}, "first/*")
    found = images(figure)
    assert len(found) == 3
    for unit in range(3):
        np.testing.assert_array_equal(found[unit], kernel[:, unit].reshape(2, 2))
    assert {panel.images[0].get_clim() for panel in figure.axes if panel.images} == {(-6, 6)}
    assert figure.axes[-1].get_ylabel() == "weight"


def test_filters_of_three_channels_are_in_colour_and_others_channel_by_channel():
    kernel = np.random.default_rng(0).normal(size=(2, 3, 3, 5))
    found = images(weight_pictures({"kernel": kernel}, "kernel"))
    assert [picture.shape for picture in found] == [(2, 3, 3)] * 5
    one = kernel[..., 4]
    np.testing.assert_allclose(found[4], (one - one.min()) / (one.max() - one.min()))
    grey = np.random.default_rng(0).normal(size=(2, 3, 2, 2))
    found = images(weight_pictures({"kernel": grey}, "kernel"))
    np.testing.assert_array_equal(found[1], grey[:, :, 1, 0])
    assert len(images(weight_pictures({"kernel": kernel}, "kernel", count=2))) == 2


def test_weights_that_are_no_pictures_are_refused():
    params = {"a": {"kernel": np.ones((6, 2)), "bias": np.ones(2)}}
    assert images(weight_pictures(params, "a/kernel", shape=(2, 3)))[0].shape == (2, 3)
    with pytest.raises(ValueError, match="a/kernel has 6 inputs, which are no square: give shape="):
        weight_pictures(params, "a/kernel")
    with pytest.raises(ValueError, match=r"a/kernel has 6 inputs, which are not \(2, 2\)"):
        weight_pictures(params, "a/kernel", shape=(2, 2))
    with pytest.raises(ValueError, match="draws one leaf, 'a/\\*' matches a/kernel, a/bias"):
        weight_pictures(params, "a/*")
    with pytest.raises(ValueError, match=r"needs a kernel \[in, out\] or .*, a/bias is float64\[2\]"):
        weight_pictures(params, "a/bias")


def test_a_figure_shows_itself_in_a_notebook_without_pyplot():
    assert plot_history(HISTORY)._repr_png_().startswith(b"\x89PNG")


def test_matplotlib_is_imported_only_for_a_figure_and_is_named_where_it_is_missing():
    script = """
import sys, purenets.inspect
print("matplotlib" in sys.modules, "treescope" in sys.modules)
sys.modules["matplotlib"] = None
try:
    purenets.inspect.plot_history({"loss": [1.0]})
except ImportError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.startswith("False False\n")
    assert "pip install 'purenets[experiments]'" in out
