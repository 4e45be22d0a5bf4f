"""Experiments on training hold at small sizes where they hold at all, and their verdicts follow from the numbers."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import dead_relu, fat_vs_thin, learning_rates, memorise, sgd_vs_gd, symmetry
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
    ],
)
def test_the_verdict_follows_from_the_numbers(decided, expected):
    assert decided == expected
