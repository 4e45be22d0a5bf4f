"""Experiments on training hold at small sizes where they hold at all, and their verdicts follow from the numbers."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    convexity,
    curriculum,
    dead_relu,
    early_stopping,
    equivalent_minima,
    exploding_gradients,
    fat_vs_thin,
    feature_scaling,
    gradient_components,
    gradient_noise,
    learning_rates,
    memorise,
    over_and_underfit,
    restarts,
    sgd_vs_gd,
    shared_parts,
    sigmoid_depth,
    sign_units,
    symmetry,
)
from purenets import models
from tests.experiments.test_first import run


@pytest.mark.covers("X19", "X20", "W05")
def test_rates_have_the_regimes_of_the_table_and_decay_ends_below_the_floor(tmp_path):
    report = run(
        "learning_rates", tmp_path, "--rates", "7", "--seeds", "2", "--steps", "1000", "--epochs", "3"
    )
    of = report["numbers"]
    assert [of[f"regime at rate {rate}"] for rate in (0.1, 1.0, 1.5, 2.0, 2.5)] == [
        "monotone",
        "one step",
        "in turns",
        "period two",
        "away",
    ]
    assert of["largest rate that converges, least squares"] == pytest.approx(
        of["2 over the largest curvature"], rel=0.07
    )
    # Stochastic descent at a constant rate hovers at an excess proportional to it, nearly.
    ratio = of["floor, constant: mean, deviation"][0] / of["floor, constant, a tenth: mean, deviation"][0]
    assert 7 < ratio < 25


@pytest.mark.covers("W05")
def test_descent_on_a_bowl_gives_the_printed_iterates():
    printed = {0.5: [1, 0.5, 0.25], 1.5: [1, -0.5, 0.25], 2.5: [1, -1.5, 2.25, -3.375]}
    for rate, values in printed.items():
        assert learning_rates.descent(rate)[: len(values)].tolist() == values


@pytest.mark.covers("X21", "X22", "X23")
def test_small_batches_make_more_updates_and_leave_a_shallow_well(tmp_path):
    small = ["--epochs", "3", "--seeds", "2", "--runs", "64", "--looks", "30", "--batches", "8", "64"]
    report = run("sgd_vs_gd", tmp_path, *small, "--steps", "1000", "--wells", "1", "8", "64")
    assert report["numbers"]["updates over updates"] == 20
    assert report["numbers"]["epochs to the former with 20 updates"] < 3
    assert report["numbers"]["share that escapes without noise"] == 0
    often, _, seldom = report["numbers"]["share that escapes by batch size"]
    assert often > 0.9
    assert seldom < 0.1


@pytest.mark.covers("X23")
def test_power_iteration_finds_the_largest_eigenvalue_of_the_hessian():
    model = models.mlp((3, 4, 2), activation=jnp.tanh)
    params, _ = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (20, 3))
    loss = lambda p: jnp.mean(jnp.square(model.apply(p, {}, x)[0] - 1))
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    values = np.linalg.eigvalsh(np.asarray(jax.hessian(lambda v: loss(unflatten(v)))(flat), np.float64))
    found = sgd_vs_gd.top_curvature(loss, params, jax.random.key(2), iterations=200)
    assert found == pytest.approx(values[np.abs(values).argmax()], rel=1e-3)


@pytest.mark.covers("X41", "X42", "X65")
def test_a_deep_network_winds_with_a_spiral_and_a_flat_one_of_its_size_does_not(tmp_path):
    small = [
        "--seeds",
        "2",
        "--budgets",
        "1000",
        "--layers",
        "1",
        "2",
        "--digit-epochs",
        "3",
        "--depths",
        "1",
        "3",
    ]
    report = run("fat_vs_thin", tmp_path, *small, "--spiral-epochs", "80")
    assert report["verdict"] == "inconclusive"
    of = report["numbers"]
    assert of["surrogate, parameters"] == [2 * 12 + 12 + 12 * 3 + 3, 3 * 12 + 2 * 13 * 12 + 13 * 3]
    assert of["surrogate, error, thin"][1] < of["surrogate, error, one layer with as many parameters"][1]


@pytest.mark.covers("X42")
def test_the_printed_speech_table_prefers_thin_networks():
    assert fat_vs_thin.PRINTED["5 x 2k"] == 17.2
    assert all(fat_vs_thin.PRINTED[thin] < error for thin, (_, error) in fat_vs_thin.PRINTED_FAT.items())
    assert min(fat_vs_thin.PRINTED.values()) < fat_vs_thin.PRINTED_WIDEST[1]


@pytest.mark.covers("X01")
def test_units_that_begin_alike_stay_alike(tmp_path):
    report = run("symmetry", tmp_path, "--epochs", "4", "--seeds", "2", "--units", "8")
    assert report["numbers"]["rank of the hidden weights, constant"] == [1, 1]
    assert report["numbers"]["units apart at most, constant"] < 1e-5
    assert report["numbers"]["rank of the hidden weights, random"] == [8, 8]
    assert report["verdict"] == "holds"


def test_similarity_is_the_mean_cosine_of_columns():
    kernel = jnp.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    # Columns 1 and 3 are parallel, the other two pairs at right angles.
    assert symmetry.similarity(kernel) == pytest.approx(1 / 3)
    assert symmetry.rank(np.asarray(kernel)) == 2


@pytest.mark.covers("X07", "X08")
def test_a_large_rate_kills_relu_units_and_no_leaky_ones(tmp_path):
    small = [
        "--hidden",
        "32",
        "32",
        "--rates",
        "3",
        "--seeds",
        "2",
        "--epochs",
        "4",
        "--phase",
        "2",
        "--large",
        "3",
    ]
    report = run("dead_relu", tmp_path, *small)
    assert report["numbers"]["dead at the end, ReLU"] > 0.2
    assert report["numbers"]["dead at the end, leaky"] == 0
    assert report["numbers"]["steps to the error, ReLU: mean, deviation"][0] < 88


def test_steps_are_counted_from_a_mean_over_a_window():
    error = np.array([[0.9, 0.3, 0.2, 0.4], [0.9, 0.9, 0.9, 0.9]])
    assert dead_relu.steps_to(error, 0.25, 10).tolist() == [12, np.inf]


@pytest.mark.covers("X63")
def test_a_wide_network_knows_random_labels_by_heart_and_a_narrow_one_does_not(tmp_path):
    small = ["--widths", "2", "128", "--examples", "64", "--epochs", "150", "--seeds", "2"]
    report = run("memorise", tmp_path, *small)
    narrow, wide = report["numbers"]["training labels right by width, random labels"]
    assert wide > 0.99
    assert narrow < 0.6
    assert report["numbers"]["test digits right by width, random labels"][1] < 0.3


@pytest.mark.covers("X05")
def test_updates_fade_towards_the_input_of_sigmoid_layers(tmp_path):
    report = run("sigmoid_depth", tmp_path, "--epochs", "1", "--seeds", "2", "--units", "16")
    line = report["numbers"]["update ratio by layer in epoch 1, sigmoid"]
    # Each of five layers multiplies by a slope of a quarter at most, and a kernel of norm near 2.
    assert line[0] < line[-1] / 32
    assert report["verdict"] == "holds"


@pytest.mark.covers("X06")
def test_large_weights_end_a_run_and_clipping_saves_it(tmp_path):
    small = ["--layers", "10", "--units", "16", "--gains", "1", "2", "4", "--steps", "30", "--seeds", "2"]
    report = run("exploding_gradients", tmp_path, *small)
    assert report["verdict"] == "holds"
    # The output is g^11 times what it was, the gradient with respect to kernels g times smaller g^22.
    assert report["numbers"]["power of the gain that it grows with in the end"] == pytest.approx(21, abs=0.1)


def test_a_run_that_never_ends_is_counted_past_the_last_step():
    loss = np.array([[1.0, np.inf, np.nan], [1.0, 2.0, 3.0]])
    assert exploding_gradients.ends_at(loss).tolist() == [2, 4]


@pytest.mark.covers("X26")
def test_noise_frees_a_network_of_zeros(tmp_path):
    small = ["--hidden", "16", "16", "--etas", "0", "0.1", "--epochs", "15", "--seeds", "1"]
    report = run("gradient_noise", tmp_path, *small)
    still, freed = report["numbers"]["training digits right, zeros: mean"]
    assert still < 0.15
    assert freed > 0.5


@pytest.mark.covers("X27")
def test_sorted_examples_teach_less_than_shuffled_ones(tmp_path):
    report = run("curriculum", tmp_path, "--steps", "200", "--seeds", "2", "--examples", "500")
    of = report["numbers"]
    assert of["test digits right, sorted by class: mean"] < of["test digits right, shuffled: mean"] - 0.02
    assert report["verdict"] == "inconclusive"


def test_steps_to_a_level_are_counted_in_looks():
    right = np.array([[0.1, 0.95, 0.9], [0.1, 0.2, 0.3]])
    assert curriculum.steps_to(right, 0.9, 5).tolist() == [10, 20]


@pytest.mark.covers("X28")
def test_a_network_that_learns_wrong_labels_is_better_stopped(tmp_path):
    report = run("early_stopping", tmp_path, "--epochs", "40", "--seeds", "3", "--units", "64")
    of = report["numbers"]
    assert max(of["epoch, stopped"]) < 30
    assert of["test accuracy, stopped epoch: mean"] > of["test accuracy, last epoch: mean"] + 0.02


def test_stopping_waits_for_its_patience():
    loss = np.array([3.0, 2.0, 2.5, 2.4, 1.0, 5.0])
    assert early_stopping.stopped_at(loss, 2) == 1
    # It takes three epochs without a lower loss, which there never are: the last one stands.
    assert early_stopping.stopped_at(loss, 3) == 5


@pytest.mark.covers("X57")
def test_unequal_scales_cost_steps_by_the_condition_number(tmp_path):
    report = run(
        "feature_scaling", tmp_path, "--ratio", "5", "--rates", "15", "--steps", "400", "--seeds", "2"
    )
    of = report["numbers"]
    assert of["condition number, raw"] == pytest.approx(25, rel=0.5)
    assert of["times that each crosses its end in 20 steps"] == [0, 19]
    assert report["verdict"] == "holds"


@pytest.mark.covers("X58")
def test_the_best_of_several_starts_is_as_good_as_chance_says(tmp_path):
    report = run("restarts", tmp_path, "--runs", "300", "--steps", "300", "--starts", "4")
    of = report["numbers"]
    # The deepest well is an eighth of the ground, its walls near half whole numbers.
    assert of["share in the deepest well, one low rate"] == pytest.approx(1 / 8, abs=0.07)
    assert of["share in the deepest well, restarts"] == pytest.approx(1 - (7 / 8) ** 4, abs=0.12)


@pytest.mark.covers("X59")
def test_more_data_close_the_gap_of_a_wide_network(tmp_path):
    small = ["--widths", "1", "32", "--steps", "600", "--seeds", "4", "--many", "100"]
    report = run("over_and_underfit", tmp_path, *small)
    few, many = report["numbers"]["gap of the widest, few and many examples"]
    assert many < few / 2
    narrow, wide = report["numbers"]["training error by width, 16 examples: median"]
    assert narrow > 2 * wide


@pytest.mark.covers("X61")
def test_the_cost_falls_by_the_component_times_the_nudge(tmp_path):
    report = run("gradient_components", tmp_path, "--seeds", "1", "--epochs", "0", "--weights", "40")
    assert report["numbers"]["rank correlation after 0 epochs: least"] > 0.99
    assert report["verdict"] == "holds"


@pytest.mark.covers("X66")
def test_trainings_end_apart_and_matched_units_bring_them_nearer(tmp_path):
    report = run("equivalent_minima", tmp_path, "--units", "16", "--epochs", "20", "--seeds", "2")
    of = report["numbers"]
    assert of["distance with units matched: mean"] < of["distance of two: mean"]
    # Two random vectors of one length are sqrt(2) of it apart.
    assert of["distance of two: mean"] == pytest.approx(2**0.5, abs=0.25)
    assert of["distance of a shuffled copy with units matched"] < 1e-6


@pytest.mark.covers("X67")
def test_nothing_before_a_sign_learns(tmp_path):
    report = run("sign_units", tmp_path, "--hidden", "16", "16", "--epochs", "6", "--seeds", "2")
    assert report["numbers"]["change of each layer, sign: most"][:2] == [0, 0]
    assert report["verdict"] == "holds"


@pytest.mark.covers("X68")
def test_every_start_finds_the_lowest_point_of_a_convex_function_only(tmp_path):
    report = run("convexity", tmp_path, "--starts", "64", "--steps", "2500")
    of = report["numbers"]
    assert of["share that succeeds, bowl"] == of["share that succeeds, logistic regression"] == 1
    # The hill between the wells is near 0.1: a little more than half of the ground drains into the deeper.
    assert of["share that succeeds, tilted double well"] == pytest.approx(0.52, abs=0.2)
    assert report["verdict"] == "holds"


@pytest.mark.covers("X43")
def test_shared_parts_name_what_they_have_hardly_seen_together(tmp_path):
    report = run(
        "shared_parts", tmp_path, "--rare", "1", "10", "--seeds", "3", "--steps", "150", "--each", "10"
    )
    of = report["numbers"]
    assert of["rare one misnamed, parts: mean"][0] < of["rare one misnamed, combinations: mean"][0] / 2
    assert of["parameters, parts"] == pytest.approx(of["parameters, combinations"], rel=0.05)


BOWL = learning_rates.REGIMES
U_SHAPE = np.array([2.0, 0.1, 3.0])
FLOOR = {"constant": 0.2, "constant, a tenth": 0.02, "1/t": 0.01}
ARRIVES = {"constant": 900, "constant, a tenth": 500, "1/t": 400}
RIGHT = (np.array([0.96, 0.97]), np.array([0.95, 0.96]))
SHARP = (np.array([1.0, 1.1]), np.array([4.0, 4.1]))
LOW, HIGH = np.array([0.1, 0.11, 0.12]), np.array([0.3, 0.31, 0.32])
RANKS = {"zero": [0, 0], "constant": [1, 1], "random": [4, 4]}
APART = {"zero": 0.0, "constant": 1e-7, "random": 1.5}
KNOWN = {"zero": 0.1, "constant": 0.2, "random": 0.9}
SILENT = {"ReLU": {"dead at the end": 0.5}, "leaky": {"dead at the end": 0.0}}
FIRST = {"ReLU": 10.0, "tanh": 60.0, "sigmoid": np.inf}


UP, FLAT = np.array([1e-4, 1e-3, 1e-1]), np.array([0.5, 0.2, 0.5])
ENDS, KEPT = np.array([[9, 9], [3, 2]]), np.array([[9, 9], [9, 9]])
FREED = {"zeros": [0.0, 1.0], "He": [1.0, 1.0]}
ORDERED = {"shuffled": np.array([0.95, 0.96, 0.97]), "sorted by class": np.array([0.8, 0.81, 0.82])}
SOONER = {"shuffled": np.array([90, 95, 100]), "easy first": np.array([50, 55, 60])}
STOPPED = {
    "last": np.array([0.6, 0.61, 0.62]),
    "stopped": np.array([0.5, 0.5, 0.51]),
    "best": np.full(3, 0.48),
}
READ = {"last": np.array([0.8, 0.8, 0.81]), "stopped": np.array([0.88, 0.89, 0.9])}
CROSSED, SMALL_FIRST = np.array([0, 19]), np.array([0.01, 0.1])
WELLS = {"one low rate": 0.13, "restarts": 0.56, "high to low": 0.8, "warm restarts": 0.6}
MOVED = {"sign": np.array([0.0, 0.0, 2.0]), "ReLU": np.array([0.5, 0.5, 0.5])}
GROUNDS = {"bowl": 1.0, "logistic regression": 1.0, "tilted double well": 0.5}
RARE = {"combinations": np.array([0.8, 0.9, 0.7]), "parts": np.array([0.1, 0.1, 0.2])}
OTHERS = {"combinations": np.array([0.02, 0.03, 0.02]), "parts": np.array([0.02, 0.02, 0.02])}
PAIRS = np.array([1.4, 1.38])


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        (learning_rates.decide(BOWL, (1.16, 1.2), U_SHAPE, FLOOR, ARRIVES), "holds"),
        (learning_rates.decide(BOWL | {2.5: "in turns"}, (1.16, 1.2), U_SHAPE, FLOOR, ARRIVES), "fails"),
        (learning_rates.decide(BOWL, (0.6, 1.2), U_SHAPE, FLOOR, ARRIVES), "fails"),
        (learning_rates.decide(BOWL, (1.16, 1.2), np.array([3.0, 2.0, 1.0]), FLOOR, ARRIVES), "fails"),
        (learning_rates.decide(BOWL, (1.16, 1.2), U_SHAPE, FLOOR | {"1/t": 0.15}, ARRIVES), "fails"),
        (learning_rates.decide(BOWL, (1.16, 1.2), U_SHAPE, FLOOR, ARRIVES | {"1/t": 600}), "fails"),
        (sgd_vs_gd.decide((2, 20), [1.0, 0.5, 0.0], 0.0, SHARP, RIGHT, 256), "holds"),
        (sgd_vs_gd.decide((20, 20), [1.0, 0.5, 0.0], 0.0, SHARP, RIGHT, 256), "fails"),
        (sgd_vs_gd.decide((2, 20), [0.0, 0.5, 1.0], 0.0, SHARP, RIGHT, 256), "fails"),
        (sgd_vs_gd.decide((2, 20), [1.0, 0.5, 0.0], 0.0, SHARP[::-1], RIGHT, 256), "fails"),
        (fat_vs_thin.decide(LOW, HIGH, {1: HIGH, 3: LOW}, {1000: {1: HIGH, 4: LOW}}), "holds"),
        (fat_vs_thin.decide(LOW, HIGH, {1: HIGH, 3: LOW}, {1000: {1: LOW, 4: HIGH}}), "fails"),
        (fat_vs_thin.decide(LOW, HIGH, {1: LOW, 3: HIGH}, {1000: {1: HIGH, 4: LOW}}), "fails"),
        (fat_vs_thin.decide(LOW, LOW, {1: HIGH, 3: LOW}, {1000: {1: HIGH, 4: LOW}}), "fails"),
        (symmetry.decide(RANKS, APART, KNOWN, 4), "holds"),
        (symmetry.decide(RANKS | {"constant": [1, 2]}, APART, KNOWN, 4), "fails"),
        (symmetry.decide(RANKS, APART | {"constant": 0.5}, KNOWN, 4), "fails"),
        (symmetry.decide(RANKS, APART, KNOWN | {"constant": 0.95}, 4), "fails"),
        (dead_relu.decide(FIRST, SILENT), "holds"),
        (dead_relu.decide(FIRST | {"tanh": 9.0}, SILENT), "fails"),
        (dead_relu.decide(FIRST, SILENT | {"leaky": {"dead at the end": 0.1}}), "fails"),
        (dead_relu.decide(FIRST, SILENT | {"ReLU": {"dead at the end": 0.0}}), "fails"),
        (memorise.decide(np.array([0.2, 0.5, 1.0]), np.full(3, 0.01), 0.1), "holds"),
        (memorise.decide(np.array([0.2, 0.5, 0.9]), np.full(3, 0.01), 0.1), "fails"),
        (memorise.decide(np.array([0.5, 0.2, 1.0]), np.full(3, 0.01), 0.1), "fails"),
        (memorise.decide(np.array([0.2, 0.5, 1.0]), np.full(3, 0.01), 0.9), "fails"),
        (sigmoid_depth.decide({"sigmoid": UP, "ReLU": FLAT}), "holds"),
        (sigmoid_depth.decide({"sigmoid": FLAT, "ReLU": FLAT}), "fails"),
        (sigmoid_depth.decide({"sigmoid": UP, "ReLU": UP}), "fails"),
        (exploding_gradients.decide(ENDS, KEPT, 8), "holds"),
        (exploding_gradients.decide(ENDS[::-1], KEPT, 8), "fails"),
        (exploding_gradients.decide(ENDS, ENDS, 8), "fails"),
        (gradient_noise.decide(FREED), "holds"),
        (gradient_noise.decide(FREED | {"zeros": [0.0, 0.2]}), "fails"),
        (gradient_noise.decide(FREED | {"zeros": [0.5, 1.0]}), "fails"),
        (gradient_noise.decide(FREED | {"He": [1.0, 0.5]}), "fails"),
        (curriculum.decide(ORDERED, SOONER), "holds"),
        (curriculum.decide(ORDERED, SOONER | {"easy first": np.array([95, 90, 100])}), "fails"),
        (curriculum.decide(ORDERED | {"sorted by class": ORDERED["shuffled"]}, SOONER), "fails"),
        (early_stopping.decide(STOPPED, READ), "holds"),
        (early_stopping.decide(STOPPED | {"last": STOPPED["stopped"]}, READ), "fails"),
        (early_stopping.decide(STOPPED | {"best": np.full(3, 0.3)}, READ), "fails"),
        (early_stopping.decide(STOPPED, {"last": READ["stopped"], "stopped": READ["last"]}), "fails"),
        (feature_scaling.decide(800, 2, CROSSED, 20, SMALL_FIRST), "holds"),
        (feature_scaling.decide(100, 2, CROSSED, 20, SMALL_FIRST), "fails"),
        (feature_scaling.decide(800, 2, CROSSED[::-1], 20, SMALL_FIRST), "fails"),
        (feature_scaling.decide(800, 2, CROSSED, 20, SMALL_FIRST[::-1]), "fails"),
        (restarts.decide(WELLS, 1000, 6), "holds"),
        (restarts.decide(WELLS | {"high to low": 0.13}, 1000, 6), "fails"),
        (restarts.decide(WELLS | {"restarts": 0.9}, 1000, 6), "fails"),
        (over_and_underfit.decide(np.array([0.4, 0.1, 0.0]), np.array([0.5, 0.2, 0.4]), (0.4, 0.1)), "holds"),
        (over_and_underfit.decide(np.array([0.4, 0.1, 0.0]), np.array([0.5, 0.2, 0.1]), (0.4, 0.1)), "fails"),
        (over_and_underfit.decide(np.array([0.1, 0.4, 0.0]), np.array([0.5, 0.2, 0.4]), (0.4, 0.1)), "fails"),
        (over_and_underfit.decide(np.array([0.4, 0.1, 0.0]), np.array([0.5, 0.2, 0.4]), (0.4, 0.3)), "fails"),
        (gradient_components.decide([0.999, 1.0], [31.0, 33.0], 32.0), "holds"),
        (gradient_components.decide([0.9, 1.0], [31.0, 33.0], 32.0), "fails"),
        (gradient_components.decide([0.999, 1.0], [20.0, 21.0], 32.0), "fails"),
        (equivalent_minima.decide(np.array([0.02, 0.03]), PAIRS, PAIRS - 0.3, 0.0), "holds"),
        (equivalent_minima.decide(np.array([0.02, 0.5]), PAIRS, PAIRS - 0.3, 0.0), "fails"),
        (equivalent_minima.decide(np.array([0.02, 0.03]), PAIRS, PAIRS, 0.0), "fails"),
        (equivalent_minima.decide(np.array([0.02, 0.03]), PAIRS, PAIRS - 0.3, 0.1), "fails"),
        (sign_units.decide(MOVED, {"sign": 0.7, "ReLU": 0.99}), "holds"),
        (sign_units.decide(MOVED, {"sign": 0.99, "ReLU": 0.99}), "fails"),
        (sign_units.decide(MOVED | {"sign": np.ones(3)}, {"sign": 0.7, "ReLU": 0.99}), "fails"),
        (convexity.decide(GROUNDS), "holds"),
        (convexity.decide(GROUNDS | {"bowl": 0.99}), "fails"),
        (convexity.decide(GROUNDS | {"tilted double well": 1.0}), "fails"),
        (shared_parts.decide(RARE, OTHERS), "holds"),
        (shared_parts.decide(dict(zip(RARE, reversed(RARE.values()), strict=True)), OTHERS), "fails"),
        (shared_parts.decide({name: each[:1] for name, each in RARE.items()}, OTHERS), "inconclusive"),
    ],
)
def test_the_verdict_follows_from_the_numbers(decided, expected):
    assert decided == expected
