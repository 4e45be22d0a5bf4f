"""Experiments on images reach what they claim, run as a user runs them."""

import json
import os

import numpy as np
import pytest

from experiments import (
    augmentation,
    batch_norm,
    dropout,
    init_depth,
    loss_landscape,
    mlp_vs_cnn,
    plain_vs_residual,
    resnet_shortcuts,
    scaled_shortcuts,
    what_layers_see,
)
from tests.experiments.test_first import run

needs_data = pytest.mark.skipif("PURENETS_DATA" not in os.environ, reason="PURENETS_DATA is not set")


@needs_data
@pytest.mark.covers("M39", "M40")
def test_a_convolutional_network_reads_98_percent_of_held_out_digits(tmp_path, compile_fully):
    report = run("mnist_cnn", tmp_path, "--epochs", "6")
    assert report["numbers"]["training digits"] == 8000
    assert report["numbers"]["held-out digits"] == 2000
    assert report["numbers"]["test accuracy"] >= 0.98
    assert report["verdict"] == "holds"


@needs_data
def test_fewer_digits_than_claimed_decide_nothing(tmp_path):
    report = run("mnist_cnn", tmp_path, "--epochs", "1", "--examples", "256", "--width", "2")
    assert report["verdict"] == "inconclusive"


@needs_data
@pytest.mark.covers("M48")
@pytest.mark.parametrize(
    "flags", [["--width", "4"], ["--scale", "full", "--width", "4"]], ids=["small", "full"]
)
def test_both_scales_on_pictures_run_and_a_part_of_them_decides_nothing(tmp_path, flags):
    sizes = ["--epochs", "2", "--examples", "512", "--test-examples", "256", "--batch-size", "64"]
    report = run("cifar_resnet", tmp_path, *flags, *sizes)
    assert report["numbers"]["training pictures"] == 512
    assert report["verdict"] == "inconclusive"
    losses = [json.loads(line)["loss"] for line in (tmp_path / "cifar_resnet" / "metrics.jsonl").open()]
    assert losses[1] < losses[0]


@pytest.mark.covers("X02", "X03")
def test_small_weights_shrink_a_signal_as_linear_layers_would_and_xavier_keeps_it(tmp_path):
    flags = ["--depths", "6", "--epochs", "1", "--width", "2", "--seeds", "2", "--units", "400"]
    report = run("init_depth", tmp_path, *flags)
    # Each layer of so small signals is linear: 0.01 times the root of its inputs.
    assert report["numbers"]["signal kept, 0.01"] == pytest.approx((0.01 * 400**0.5) ** 9, rel=0.05)
    assert report["numbers"]["gradient kept, 0.01"] == pytest.approx((0.01 * 400**0.5) ** 9, rel=0.05)
    assert 0.1 < report["numbers"]["signal kept, Xavier"] < 1
    assert report["verdict"] == "inconclusive"


@needs_data
@pytest.mark.covers("X69", "M46")
def test_the_first_gradient_fades_in_plain_stacks_and_grows_in_residual_ones(tmp_path):
    sizes = [
        "--depths",
        "8",
        "--width",
        "2",
        "--examples",
        "128",
        "--epochs",
        "1",
        "--size",
        "8",
        "--seeds",
        "1",
    ]
    report = run("plain_vs_residual", tmp_path, *sizes, "--stack-depths", "1", "20")
    plain = report["numbers"]["gradient, plain, by depth [1, 20]"]
    residual = report["numbers"]["gradient, residual, by depth [1, 20]"]
    # Weights of variance 1/n halve the mean square in each ReLU layer: 19 halvings between the two.
    assert np.log2(plain[1] / plain[0]) == pytest.approx(-19 / 2, abs=2)
    assert residual[1] > residual[0]


@pytest.mark.covers("X13")
def test_shortcuts_train_and_few_digits_decide_nothing(tmp_path):
    sizes = ["--depth", "8", "--width", "2", "--examples", "128", "--epochs", "1", "--seeds", "2"]
    names = ["identity", "gated shortcut", "dropout"]
    report = run("resnet_shortcuts", tmp_path, *sizes, "--shortcuts", *names)
    losses = [report["numbers"][f"training loss, {name}: mean, deviation"][0] for name in names]
    assert all(1 < loss < 4 for loss in losses)
    assert report["verdict"] == "inconclusive"


@pytest.mark.covers("X09", "X10", "X11", "N14")
def test_under_batch_norm_no_step_of_the_weights_is_too_large(tmp_path):
    small = ["--epochs", "2", "--rates", "0.3", "--seeds", "2", "--steps", "300", "--features", "5", "50"]
    report = run("batch_norm", tmp_path, *small)
    assert report["numbers"]["least squares, worst remaining with batch norm"] < 1
    # Descent on a bowl of largest curvature 1 converges up to a step of 2; the grid has 1 and 3.2.
    assert report["numbers"]["least squares, largest rate that converges without"] == pytest.approx(1)
    assert report["numbers"]["first gradient over last without"] < 0.1


@needs_data
@pytest.mark.covers("X15", "X16", "N10", "N11", "N13")
def test_dropout_silences_hidden_units(tmp_path, compile_fully):
    small = ["--examples", "200", "--units", "32", "--epochs", "3", "--seeds", "2", "--encoder-epochs", "25"]
    report = run("dropout", tmp_path, *small, "--draws", "2")
    numbers = report["numbers"]
    silent = [numbers[f"silent share of hidden units, {name} dropout"] for name in ("with", "without")]
    assert silent[0] > silent[1]
    errors = numbers["error of the mean of [1, 2, 5, 10, 20, 50, 100] masks"]
    assert errors[-1] < errors[0]


@needs_data
@pytest.mark.covers("X29", "T08", "T09")
def test_changed_copies_narrow_the_gap(tmp_path, compile_fully):
    report = run(
        "augmentation", tmp_path, "--examples", "200", "--epochs", "40", "--units", "64", "--seeds", "2"
    )
    numbers = report["numbers"]
    gap = {
        name: numbers[f"training digits right, {name}"]
        - numbers[f"test digits right, {name}: mean, deviation"][0]
        for name in ("neither", "augmentation")
    }
    assert gap["augmentation"] < gap["neither"]


@needs_data
@pytest.mark.covers("X52", "M42")
def test_a_convolutional_network_has_fewer_parameters_and_bears_a_shift(tmp_path, compile_fully):
    report = run("mlp_vs_cnn", tmp_path, "--examples", "1000", "--epochs", "3", "--seeds", "1")
    numbers = report["numbers"]
    assert numbers["parameters, dense, 16 and 16"] == 13_002
    assert numbers["parameters, convolutional"] < 13_002
    places = "right when moved by [0, 1, 2, 3, 4, 6, 8]"
    kept = {
        name: numbers[f"{places}, {name}"][4] / numbers[f"{places}, {name}"][0]
        for name in mlp_vs_cnn.networks()
    }
    assert kept["convolutional"] > 2 * kept["dense, 256 and 256"]


def test_moved_digits_leave_empty_paper_behind():
    x = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    down, up, right, left = np.asarray(mlp_vs_cnn.moved(x, 1))[..., 0]
    assert down.tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert up.tolist() == [[4, 5, 6], [7, 8, 9], [0, 0, 0]]
    assert right.tolist() == [[0, 1, 2], [0, 4, 5], [0, 7, 8]]
    assert left.tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]


@pytest.mark.covers("X53")
def test_an_edge_is_explained_by_the_bank_and_noise_is_not():
    filters = what_layers_see.bank()
    np.testing.assert_allclose(np.square(filters).sum(1), 1)
    ys, xs = np.mgrid[:28, :28]
    # The slope of a rounded spot: dark on one side and light on the other.
    edge = (xs - 13) * np.exp(-((xs - 13) ** 2 + (ys - 13) ** 2 / 4) / 12.5)
    noise = np.random.default_rng(0).normal(size=(20, 28, 28))
    assert what_layers_see.explained(edge[None], filters)[0] > 0.75
    assert what_layers_see.explained(noise, filters).max() < 0.1


@needs_data
@pytest.mark.covers("X53")
def test_trained_weights_are_more_like_edges_than_untrained_ones(tmp_path):
    report = run("what_layers_see", tmp_path, "--examples", "1000", "--epochs", "10", "--seeds", "1")
    of = report["numbers"]
    name = "explained by the best edge, first layer, {}: median"
    assert of[name.format("trained")] > 2 * of[name.format("untrained")]


@pytest.mark.covers("X17", "X18")
def test_planes_through_trained_twins_are_drawn_and_judged(tmp_path):
    small = ["--depths", "8", "--width", "2", "--epochs", "1", "--seeds", "1", "--points", "5"]
    report = run("loss_landscape", tmp_path, *small)
    rough = [report["numbers"][f"roughness, {name}, by depth [8]"] for name in loss_landscape.JOINS]
    assert all(r > 0 for line in rough for r in line)
    assert report["verdict"] == "inconclusive"


@pytest.mark.covers("X14", "M49")
def test_a_scaled_shortcut_makes_the_gradient_decay_by_its_logarithm(tmp_path):
    report = run("scaled_shortcuts", tmp_path, "--depths", "2", "12", "--seeds", "4")
    assert report["numbers"]["slope for lambda 0.5"] == pytest.approx(np.log(0.5), abs=0.05)
    assert report["numbers"]["slope for lambda 1.0"] == pytest.approx(0, abs=0.05)
    assert report["numbers"]["shortcuts alone, 54 halvings"] == pytest.approx(5.6e-17, rel=0.01)
    assert report["verdict"] == "holds"


KEPT = {"Xavier": 0.3, "0.01": 1e-6}
GRADIENTS = {"plain": [1.0, 1e-6], "residual": [1.0, 10.0]}
SHORTCUTS = {"identity": (0.1, 0.01), "both halved": (0.3, 0.02)}
SIZES = {"dense, 16 and 16": 13_002, "dense, 256 and 256": 269_322, "convolutional": 11_902}
SHIFTED = {
    "dense, 16 and 16": [0.9] + [0.2] * 6,
    "dense, 256 and 256": [0.95] + [0.3] * 6,
    "convolutional": [0.96] + [0.9] * 6,
}
STEPS, RATIO = {"with": 30.0, "without": 500.0}, {"with": 1.1, "without": 0.01}
LEFT = {"with": np.array([0.1, 0.4]), "without": np.array([0.1, np.inf])}
RIGHT = {"with": (1.0, 0.93), "without": (1.0, 0.91)}
SILENT = {"with": 0.9, "without": 0.6}
TRAIN = dict.fromkeys(("neither", "decay", "augmentation"), 1.0)
TEST = {"neither": (0.88, 0.005), "decay": (0.90, 0.005), "augmentation": (0.93, 0.005)}


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        (init_depth.decide(KEPT, {"Xavier": [0.9, 0.1], "He": [1.0, 0.9]}), "holds"),
        (init_depth.decide(KEPT, {"Xavier": [0.9, 0.8], "He": [1.0, 0.9]}), "fails"),
        (init_depth.decide(KEPT, {"Xavier": [0.1, 0.1], "He": [1.0, 0.9]}), "fails"),
        (
            init_depth.decide({"Xavier": 0.01, "0.01": 1e-6}, {"Xavier": [0.9, 0.1], "He": [1.0, 0.9]}),
            "fails",
        ),
        (plain_vs_residual.decide({"plain": [1.0, 2.0], "residual": [1.0, 0.9]}, GRADIENTS), "holds"),
        (plain_vs_residual.decide({"plain": [1.0, 2.0], "residual": [1.0, 1.5]}, GRADIENTS), "fails"),
        (plain_vs_residual.decide({"plain": [1.0, 0.5], "residual": [1.0, 0.9]}, GRADIENTS), "fails"),
        (resnet_shortcuts.decide(SHORTCUTS, 2), "holds"),
        (resnet_shortcuts.decide(SHORTCUTS | {"dropout": (0.05, 0.01)}, 2), "fails"),
        (resnet_shortcuts.decide(SHORTCUTS | {"dropout": (0.09, 0.01)}, 2), "holds"),
        (resnet_shortcuts.decide(SHORTCUTS, 1), "inconclusive"),
        (mlp_vs_cnn.decide(SIZES, SHIFTED), "holds"),
        (mlp_vs_cnn.decide(SIZES | {"convolutional": 14_000}, SHIFTED), "fails"),
        (mlp_vs_cnn.decide(SIZES, SHIFTED | {"convolutional": [0.96] + [0.5] * 6}), "fails"),
        (batch_norm.decide(STEPS, RATIO, LEFT, [1.0, 10.0]), "holds"),
        (batch_norm.decide(STEPS, RATIO, LEFT, [10.0, 1.0]), "fails"),
        (batch_norm.decide(STEPS, RATIO, LEFT | {"with": np.array([0.1, np.nan])}, [1.0, 10.0]), "fails"),
        (batch_norm.decide({"with": 500.0, "without": 30.0}, RATIO, LEFT, [1.0, 10.0]), "fails"),
        (dropout.decide(RIGHT, SILENT, 0.08, [0.12, 0.084]), "holds"),
        (dropout.decide(RIGHT, SILENT, 0.08, [0.12, 0.1]), "fails"),
        (dropout.decide(RIGHT, {"with": 0.5, "without": 0.6}, 0.08, [0.12, 0.084]), "fails"),
        (augmentation.decide(TRAIN, TEST, 3), "holds"),
        (augmentation.decide(TRAIN, TEST | {"decay": (0.88, 0.005)}, 3), "fails"),
        (augmentation.decide(TRAIN, TEST, 1), "inconclusive"),
        (what_layers_see.decide(0.6, 0.7), "holds"),
        (what_layers_see.decide(0.2, 0.7), "fails"),
        (what_layers_see.decide(0.2, 0.4), "inconclusive"),
        (scaled_shortcuts.decide({0.5: -0.69, 1.0: 0.01}), "holds"),
        (scaled_shortcuts.decide({0.5: -0.5, 1.0: 0.01}), "fails"),
        (loss_landscape.decide({"plain": [1.0, 2.0], "residual": [1.0, 1.0]}), "holds"),
        (loss_landscape.decide({"plain": [1.0, 1.02], "residual": [1.0, 1.0]}), "inconclusive"),
        (loss_landscape.decide({"plain": [2.0, 1.5], "residual": [1.0, 1.0]}), "fails"),
    ],
)
def test_the_verdict_follows_from_the_numbers(decided, expected):
    assert decided == expected


def test_the_steps_to_a_loss_are_counted_from_a_mean_over_twenty():
    loss = np.stack([np.r_[np.full(30, 2.0), np.full(50, 0.5)], np.full(80, 2.0)])
    # The mean over steps 24 to 43 is the first that is at most 1: 7 times 2 and 13 times 0.5 are 20.5, one later 19.
    assert batch_norm.steps_until(loss).tolist() == [44, 81]
