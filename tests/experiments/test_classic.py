"""Experiments on the historical machines hold in small, and their verdicts follow from the numbers they are given."""

import jax
import numpy as np
import pytest

from experiments import bit_extraction, gates, perceptron, q_learning, spiking
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


ENDED = np.array([3.0, 5.0]), np.array([10.0, 6.0])
KNOWN = {1: 4, 2: 14, 3: 104}


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
    ],
)
def test_verdicts_follow_from_the_numbers(decided, expected):
    assert decided == expected
