"""Experiments on the historical machines hold in small, and their verdicts follow from the numbers they are given."""

import jax
import numpy as np
import pytest

from experiments import (
    bit_extraction,
    gates,
    perceptron,
    polynomial_vs_net,
    q_learning,
    rbm_pretraining,
    relu_rate,
    spiking,
    svm_vs_net,
    universal_approximation,
)
from tests.experiments.test_first import run


def small(name, folder, flags):
    """Run an experiment with flags as they are typed."""
    return run(name, folder, *flags.split())


@pytest.mark.covers("X55", "M03", "M04")
def test_the_perceptron_keeps_to_its_bound_and_goes_in_circles_on_xor(tmp_path):
    report = small(
        "perceptron", tmp_path, "--gaps 0.2 1.0 --sets 6 --points 30 --epochs 300 --runs 8 --passes 20"
    )
    assert report["numbers"]["sets separated"] == 12
    assert 0 < report["numbers"]["largest share of the bound"] <= 1
    assert report["numbers"]["runs over XOR that come back to their weights"] == 8
    assert report["verdict"] == "holds"


def test_random_sets_are_as_far_from_their_line_as_asked():
    config = perceptron.Config(points=40)
    x, y = perceptron.separated_set(jax.random.key(0), 0.5, config)
    assert x.shape == (40, 2)
    assert set(np.unique(y)) == {-1.0, 1.0}
    near = min(float(np.linalg.norm(a - b)) for a in np.asarray(x)[y == 1] for b in np.asarray(x)[y == -1])
    assert near >= 1.0  # half on either side of the line


def test_weights_that_had_come_before_make_a_period():
    assert perceptron.period(np.array([[0, 1], [2, 0], [0, 1], [2, 0]])) == 2
    assert perceptron.period(np.array([[0, 1], [0, 2], [0, 3]])) == 0


@pytest.mark.covers("M01", "M06", "M07", "M09")
def test_gates_are_right_in_every_row_and_one_unit_learns_the_known_number_of_tables(tmp_path):
    report = small("gates", tmp_path, "--inputs 3 --compiled 20 --epochs 60")
    assert report["numbers"]["rows wrong"] == 0
    assert report["numbers"]["tables compiled"] == 4 + 16 + 20
    assert [report["numbers"][f"tables of {n} inputs one unit learns"] for n in (1, 2, 3)] == [4, 14, 104]
    assert report["verdict"] == "holds"


@pytest.mark.covers("M31")
def test_bits_are_counted_up_to_the_limit_of_the_number(tmp_path):
    report = small("bit_extraction", tmp_path, "--all-up-to 4 --lengths 24 25 53 --strings 60")
    assert report["numbers"]["share right within the limits, least"] == 1
    assert report["numbers"]["share right when float32 has to hold more than 24 bits, most"] < 1
    assert (report["numbers"]["width"], report["numbers"]["hidden layers for 4 bits"]) == (7, 8)
    assert report["verdict"] == "holds"


@pytest.mark.covers("M10", "M11")
def test_spikes_keep_to_the_formula_and_to_the_events(tmp_path):
    report = small(
        "spiking", tmp_path, "--currents 6 --duration 400 --halvings 2 --neurons 6 --steps 40 --seeds 2"
    )
    assert report["numbers"]["worst mean interval between spikes (steps)"] <= 1
    assert report["numbers"]["spikes by events"] > 20
    assert report["numbers"]["spikes lacking at steps of 0.25 ms"] == 0
    assert report["numbers"]["worst time at steps of 0.25 ms (steps)"] <= 1


def test_in_the_task_of_order_each_input_fires_once_and_the_leading_half_early():
    x, y = spiking.order_task(jax.random.key(0), 50)
    np.testing.assert_array_equal(x.sum(1), 1)
    first = np.asarray(x.argmax(1))
    assert (first[y == 1][:, :5] < 20).all()
    assert (first[y == 1][:, 5:] >= 20).all()
    assert (first[y == 0][:, 5:] < 20).all()


def test_spikes_are_compared_in_number_and_time():
    assert spiking.compare([(1.0, 0), (2.0, 1)], [(1.5, 0)], 2) == (1, 0.5)


@pytest.mark.covers("D04")
def test_what_is_learned_is_what_is_computed_and_the_printed_table_is_read(tmp_path):
    with jax.debug_key_reuse(
        False
    ):  # which takes the keys of a scan in a scan for used once they are batched
        report = small("q_learning", tmp_path, "--height 3 --width 4 --episodes 1000 --stages 5 --seeds 2")
    assert report["numbers"]["printed table, greedy policy"] == "right, tie, down, right, right"
    assert report["numbers"]["exploring 0.5: steps too many"] == 0
    assert report["verdict"] == "holds"


@pytest.mark.covers("X44", "X45", "M20", "M29", "M30", "W25")
def test_errors_fall_with_the_units_and_cells_grow_with_the_dimension(tmp_path):
    flags = "--units 16 64 256 --curves 2 --trained-units 8 --steps 5 --dimensions 1 2 3 --errors 0.25 0.125"
    report = small("universal_approximation", tmp_path, flags)
    assert report["numbers"]["cells for an error of 0.125, by dimension"] == [4, 16, 64]
    assert report["numbers"]["exponent of the error, ReLU"] == pytest.approx(-2, abs=0.25)
    assert report["verdict"] == "holds"


def test_the_table_of_cells_is_the_maximum_of_the_middle():
    """In two dimensions, three cells a side."""
    model = universal_approximation.table(2, 3)
    params, _ = model.init(jax.random.key(0))
    x = np.array([[0.1, 0.2], [0.5, 0.1], [0.4, 0.9], [0.99, 0.99]], np.float32)
    np.testing.assert_allclose(model.apply(params, {}, x)[0][:, 0], [1 / 6, 1 / 2, 5 / 6, 5 / 6], rtol=1e-6)


@pytest.mark.covers("X46", "M33", "W32")
def test_networks_of_the_theorems_size_come_within_its_bound(tmp_path):
    report = small("relu_rate", tmp_path, "--sizes 2 2 4 2 3 3 --curves 2 --points 3000 --counted-up-to 16")
    assert report["numbers"]["exponent of the error in N L"] == pytest.approx(-2, abs=0.15)
    assert report["numbers"]["largest error times (NL)^2"] <= 1.5 + 1e-6  # a step of the walk and half a cell
    assert report["numbers"]["fewest pieces over N^2 L^2"] >= 1
    assert report["verdict"] == "holds"


@pytest.mark.parametrize(("n", "length"), [(1, 1), (1, 3), (2, 1), (3, 2), (5, 3)])
def test_the_network_finds_the_cell_of_a_number(n, length, x64):
    stack = relu_rate.Stack()
    *known, _ = relu_rate.indices(stack, n, length)
    model = stack.network(known)
    cells = np.arange((n * length) ** 2)
    x = (cells + 0.4) / len(cells)
    found = np.asarray(model.apply(model.init(jax.random.key(0))[0], {}, x[:, None])[0])
    parts, last = np.divmod(cells, length)
    parts, middle = np.divmod(parts, length)
    np.testing.assert_allclose(found, np.stack([*np.divmod(parts, n), middle, last], 1), atol=1e-6)


@pytest.mark.parametrize(("n", "length"), [(1, 2), (2, 3), (4, 2)])
def test_the_network_looks_up_any_table(n, length, x64):
    stack = relu_rate.Stack()
    tables = np.random.default_rng(0).uniform(0, 1, (2, n, n, length))
    l, first, second, _ = relu_rate.look_up(stack, tables, list(np.eye(5)))
    model = stack.network([l, first, second])
    a, b, m = np.unravel_index(np.arange(n * n * length), (n, n, length))
    x = np.stack([a, b, m, np.ones_like(a)], 1).astype(float)
    found = np.asarray(model.apply(model.init(jax.random.key(0))[0], {}, x)[0])
    np.testing.assert_allclose(found, np.stack([x[:, 3], *tables.reshape(2, -1)], 1), atol=1e-10)


@pytest.mark.covers("X60", "M35", "M36")
def test_a_machine_and_a_network_both_learn_odd_digits_and_their_times_are_taken(tmp_path):
    flags = "--examples 50 400 --seeds 2 --timed 50 100 200 --repeats 1 --sweeps 60 --epochs 10 --steps 100"
    report = small("svm_vs_net", tmp_path, flags)
    for name in ("machine", "network"):
        few, many = (report["numbers"][f"{name}: right with {n} examples"] for n in (50, 400))
        assert 0.7 < few < many
        assert many > 0.9
        assert report["numbers"][f"{name}: seconds for 200"] > 0
    assert report["numbers"]["largest gap of the dual"] < 0.2


def test_the_exponent_is_that_of_the_three_largest():
    assert svm_vs_net.exponent((1, 10, 20, 40), [9.0, 1.0, 4.0, 16.0]) == pytest.approx(2.0)


@pytest.mark.covers("X54", "M12", "W18")
def test_monomials_multiply_with_the_inputs_and_a_network_does_not(tmp_path):
    flags = "--inputs 2 4 --degrees 3 --penalties 0.1 --newton 8 --steps 300 --examples 200 --seeds 2"
    report = small("polynomial_vs_net", tmp_path, flags)
    assert report["numbers"]["monomials of degree 2 of 2,500 pixels"] == 3_126_250
    assert report["numbers"]["parameters of degree 3 in 4 inputs"] == 35
    assert report["numbers"]["best polynomial of 2 inputs"] > 0.95
    assert report["numbers"]["network of 2 inputs"] > 0.95


@pytest.mark.covers("X56", "M37", "M38", "I18")
def test_stacks_of_sigmoids_are_trained_from_machines_and_from_weights_as_drawn(tmp_path):
    flags = "--depths 1 3 --width 48 --epochs 15 --pretraining-epochs 6 --seeds 2"
    with jax.debug_key_reuse(False):  # as above
        report = small("rbm_pretraining", tmp_path, flags)
    shallow, deep = report["numbers"]["misread as drawn, by layers"]
    assert shallow < 0.3
    assert report["numbers"]["misread pre-trained, by layers"][1] < deep


ENDED = np.array([3.0, 5.0]), np.array([10.0, 6.0])
FEW, MANY = {"machine": 0.8, "network": 0.75}, {"machine": 0.98, "network": 0.99}
TIMES = {"machine": 2.1, "network": 1.0}
RIGHT = (
    np.array([[[0.87, 0.87], [0.99, 0.99]], [[0.87, 0.87], [0.92, 0.92]]]),
    np.array([[0.99, 0.99], [0.95, 0.96]]),
)
DEPTHS = (2, 3, 4, 6)
DRAWN = np.array([[0.05, 0.06], [0.05, 0.06], [0.08, 0.1], [0.4, 0.5]])
TRAINED = np.array([[0.05, 0.06], [0.05, 0.06], [0.05, 0.06], [0.05, 0.06]])
KNOWN = {1: 4, 2: 14, 3: 104}
RATES = {"step": -1.0, "sigmoid": -0.9, "ReLU": -2.1}
CELLS = {0.25: [2, 4, 8], 0.125: [4, 16, 64]}
NETWORK = {
    "width": 9,
    "width allowed": 24,
    "depth": 6,
    "depth allowed": 26,
    "error": 0.1,
    "bound": 1,
    "pieces": 0,
}
NETWORKS = [{**NETWORK, "cells": 4}, {**NETWORK, "cells": 4, "pieces": 8}, {**NETWORK, "cells": 16}]


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        (perceptron.decide(*ENDED, np.array([True, True]), [4, 1], 0), "holds"),
        (perceptron.decide(*ENDED, np.array([True, False]), [4, 1], 0), "inconclusive"),
        (perceptron.decide(ENDED[0] + 5, ENDED[1], np.array([True, False]), [4, 1], 0), "fails"),
        (perceptron.decide(*ENDED, np.array([True, True]), [4, 0], 0), "fails"),
        (perceptron.decide(*ENDED, np.array([True, True]), [4, 1], 1), "fails"),
        (gates.decide(0, 4e-5, KNOWN), "holds"),
        (gates.decide(1, 4e-5, KNOWN), "fails"),
        (gates.decide(0, 4e-4, KNOWN), "fails"),
        (gates.decide(0, 4e-5, KNOWN | {3: 103}), "fails"),
        (bit_extraction.decide([1.0, 1.0], [0.9], 7), "holds"),
        (bit_extraction.decide([1.0, 0.99], [0.9], 7), "fails"),
        (bit_extraction.decide([1.0], [1.0], 7), "fails"),
        (bit_extraction.decide([1.0], [0.9], 8), "fails"),
        (bit_extraction.decide([1.0], [], 7), "inconclusive"),
        (spiking.decide(0.9, 0, 1.0, 0.95, 0.8), "holds"),
        (spiking.decide(1.1, 0, 1.0, 0.95, 0.8), "fails"),
        (spiking.decide(0.9, 1, 1.0, 0.95, 0.8), "fails"),
        (spiking.decide(0.9, 0, 1.5, 0.95, 0.8), "fails"),
        (spiking.decide(0.9, 0, 1.0, 0.95, 0.96), "fails"),
        (q_learning.decide(1e-6, 1e-4, 0), "holds"),
        (q_learning.decide(1e-6, 0.1, 0), "fails"),
        (q_learning.decide(1e-6, 1e-4, 1), "fails"),
        (universal_approximation.decide(RATES, True, CELLS, (1, 2, 3)), "holds"),
        (universal_approximation.decide(RATES | {"ReLU": -1.0}, True, CELLS, (1, 2, 3)), "fails"),
        (universal_approximation.decide(RATES, False, CELLS, (1, 2, 3)), "fails"),
        (universal_approximation.decide(RATES, True, CELLS | {0.25: [2, 4, 6]}, (1, 2, 3)), "fails"),
        (svm_vs_net.decide(FEW, MANY, TIMES, 0.01), "holds"),
        (svm_vs_net.decide(FEW, MANY, TIMES, 0.1), "inconclusive"),
        (svm_vs_net.decide(FEW | {"network": 0.85}, MANY, TIMES, 0.01), "fails"),
        (svm_vs_net.decide(FEW, MANY | {"network": 0.96}, TIMES, 0.01), "fails"),
        (svm_vs_net.decide(FEW, MANY, TIMES | {"machine": 1.0}, 0.01), "fails"),
        (polynomial_vs_net.decide(*RIGHT), "holds"),
        (polynomial_vs_net.decide(RIGHT[0], RIGHT[1] - [[0], [0.04]]), "fails"),
        (polynomial_vs_net.decide(RIGHT[0] - [[[0.1]], [[0]]], RIGHT[1]), "fails"),
        (polynomial_vs_net.decide(RIGHT[0], RIGHT[1] + [-0.1, 0.1]), "inconclusive"),
        (rbm_pretraining.decide(DRAWN, TRAINED, DEPTHS), "holds"),
        (rbm_pretraining.decide(DRAWN - [[0], [0], [0.05], [0]], TRAINED, DEPTHS), "fails"),
        (rbm_pretraining.decide(DRAWN, TRAINED + 0.2, DEPTHS), "fails"),
        (rbm_pretraining.decide(DRAWN, TRAINED + 0.4, DEPTHS), "inconclusive"),
        (relu_rate.decide(NETWORKS, -1.95), "holds"),
        (relu_rate.decide(NETWORKS, -1.5), "fails"),
        (relu_rate.decide(NETWORKS[:2], -1.5), "inconclusive"),
        (relu_rate.decide([*NETWORKS, {**NETWORK, "cells": 9, "error": 1.1}], -2), "fails"),
        (relu_rate.decide([*NETWORKS, {**NETWORK, "cells": 9, "width": 25}], -2), "fails"),
        (relu_rate.decide([*NETWORKS, {**NETWORK, "cells": 9, "pieces": 8}], -2), "fails"),
    ],
)
def test_verdicts_follow_from_the_numbers(decided, expected):
    assert decided == expected
