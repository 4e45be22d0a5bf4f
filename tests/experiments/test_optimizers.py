"""Experiments on optimizers hold with few steps, and their verdicts follow from the numbers they are given."""

import numpy as np
import pytest

from experiments import adagrad_decay, amsgrad_counterexample, newton_vs_gd, optimizer_race, second_order_race
from tests.experiments.test_first import run


@pytest.mark.covers("O27", "X25")
def test_adam_ends_at_the_worst_point_and_amsgrad_at_the_best(tmp_path):
    report = run("amsgrad_counterexample", tmp_path)
    assert report["verdict"] == "holds"
    assert report["numbers"]["AMSGrad ends at (mean over starts)"] == pytest.approx(-0.9993, abs=2e-4)
    assert report["numbers"]["Adam ends at (mean over starts)"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.covers("X36", "X37")
def test_the_steps_of_adagrad_fade_and_those_of_rmsprop_do_not(tmp_path):
    report = run("adagrad_decay", tmp_path, "--seeds", "16")
    assert report["numbers"]["exponent of AdaGrad's steps"] == pytest.approx(-0.5, abs=0.03)
    assert report["numbers"]["exponent of RMSProp's steps"] == pytest.approx(0.0, abs=0.03)
    # Both divide by the root of how often they have come: 100 times fewer, so sqrt(100).
    assert report["numbers"]["steps of the rare feature over those of the frequent one"] == pytest.approx(
        10, rel=0.1
    )
    assert report["verdict"] == "holds"


@pytest.mark.covers("X39")
def test_newton_takes_one_step_for_a_bowl_whatever_its_condition(tmp_path):
    report = run("newton_vs_gd", tmp_path, "--conditions", "2", "100", "--sizes", "4", "16")
    assert report["numbers"]["steps of Newton by condition"] == [1, 1]
    few, many = report["numbers"]["steps of descent by condition"]
    assert few < 10
    assert many > 200
    assert report["verdict"] == "holds"


@pytest.mark.covers("X40")
def test_curvature_saves_evaluations_and_needs_about_as_many_as_scipy(tmp_path):
    report = run("second_order_race", tmp_path, "--most", "800")
    assert report["verdict"] == "holds"
    assert (
        report["numbers"]["BFGS: rosenbrock, 2"] < 100 < report["numbers"]["steepest descent: rosenbrock, 2"]
    )


@pytest.mark.covers("O39", "X24", "X30", "X31", "X32", "X33", "X34", "X35", "X38")
def test_the_race_runs_and_rules_that_scale_coordinates_leave_the_valley_first(tmp_path):
    report = run(
        "optimizer_race", tmp_path, "--rates", "9", "--seeds", "2", "--epochs", "3", "--steps", "300"
    )
    leave = {name: report["numbers"][f"long valley, {name}: steps to leave"] for name in optimizer_race.RULES}
    assert max(leave[name] for name in optimizer_race.SCALED) < leave["descent"]
    assert report["verdict"] == "holds"


def test_arriving_means_staying():
    reached = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    assert optimizer_race.steps_until(reached).tolist() == [4, 6, 1]


@pytest.mark.parametrize(
    ("decided", "expected"),
    [
        (amsgrad_counterexample.decide(1.0, -0.999, 30_000), "holds"),
        (amsgrad_counterexample.decide(-0.9, -0.999, 30_000), "fails"),
        (amsgrad_counterexample.decide(1.0, -0.999, 100), "inconclusive"),
        (adagrad_decay.decide(-0.5, 0.0, 10.0), "holds"),
        (adagrad_decay.decide(-0.3, 0.0, 10.0), "fails"),
        (adagrad_decay.decide(-0.5, 0.0, 2.0), "fails"),
        (newton_vs_gd.decide([1, 1], [7, 300], [5.0, 50.0]), "holds"),
        (newton_vs_gd.decide([1, 1], [7, 300], [5.0, 4.0]), "fails"),
        (newton_vs_gd.decide([1, 40], [7, 300], [5.0, 50.0]), "fails"),
        (
            optimizer_race.decide(dict.fromkeys(optimizer_race.RULES, 9), {"momentum": 1, "descent": 2}),
            "fails",
        ),
    ],
)
def test_verdicts_follow_from_the_numbers(decided, expected):
    assert decided == expected


@pytest.mark.parametrize(
    ("evaluations", "slope", "expected"), [(50, 1e-6, "holds"), (500, 1e-6, "fails"), (50, 1.0, "fails")]
)
def test_a_method_has_to_arrive_where_scipy_does_and_not_too_late(evaluations, slope, expected):
    rows = {
        "BFGS": {"evaluations": evaluations, "slope": slope, "SciPy": 40, "SciPy slope": 1e-6},
        "steepest descent": {"evaluations": 5000, "slope": 1.0},
    }
    assert second_order_race.decide({"rosenbrock, 2": rows}, 1e-5) == expected
