"""The rounding of float32 scalars in float64 is told apart from a defect."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenets.conform import check_optimizer
from purenets.conform.mutants import CLEAN, reference_of
from purenets.conform.mutants.edit import edited
from purenets.conform.runs import counts_updates
from purenets.conform.subject import Subject
from purenets.conform.widened import Widened, narrow


def steps(subject, count=4):
    tx = subject.build()
    params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "s": jnp.asarray(0.3)}
    state, out = tx.init(params), []
    for t in range(count):
        grads = jax.tree.map(lambda x, t=t: x * (1.0 + t), params)
        updates, state = tx.update(grads, state, params)
        out.append(updates)
    return jax.tree.leaves(out)


@pytest.mark.parametrize("name", ["adam_in_float32_scalars", "adam_of_running_products"])
def test_widened_scalars_leave_no_difference_to_optax(name, x64):
    subject, theirs = Subject(CLEAN[name]), steps(Subject("optax:adam"))
    assert narrow(subject)
    assert not narrow(Subject("optax:adam"))
    apart = lambda ours: max(
        np.max(np.abs(a / b - 1)) for a, b in zip(ours, theirs, strict=True) if np.all(b)
    )
    assert apart(steps(subject)) > 1e-6
    assert apart(steps(Widened(subject))) < 1e-12


def test_a_reference_with_float32_arrays_is_widened_throughout(x64):
    reference = Subject(
        lambda learning_rate: optax.MultiSteps(optax.sgd(learning_rate), 2).gradient_transformation()
    )
    assert narrow(reference, arrays=True)
    ours, theirs = (steps(Widened(x, True)) for x in (Subject(CLEAN["sgd_mean_of_two"]), reference))
    np.testing.assert_allclose(
        np.hstack(list(map(np.ravel, ours))), np.hstack(list(map(np.ravel, theirs))), rtol=1e-13
    )


def test_rounding_becomes_a_note_and_a_defect_beside_it_stays_a_failure():
    right = CLEAN["adam_in_float32_scalars"]
    wrong = edited(right, "b2**t", "b1**t")
    found = {
        name: {
            row.check: row.status for row in check_optimizer(f, "optax:adam", levels="L3", raises=False).rows
        }
        for name, f in (("right", right), ("wrong", wrong))
    }
    assert found["right"]["variations as the reference"] == "note"
    assert "fail" not in found["right"].values()
    assert found["wrong"]["variations as the reference"] == "fail"


def test_constants_of_many_digits_are_nudged_and_others_are_exact(x64):
    subject = Widened(Subject(CLEAN["sgd_along_a_cosine"]))
    rounded = np.hstack(list(map(np.ravel, steps(subject))))
    assert subject.has_rounded_constants
    nudged = [np.hstack(list(map(np.ravel, steps(subject.nudged(n))))) for n in (1, 2, 3)]
    apart = max(np.max(np.abs(x - rounded)) for x in nudged)
    assert 1e-12 < apart < 1e-7
    exact = Widened(Subject(CLEAN["adam_in_float32_scalars"]))
    for a, b in zip(steps(exact), steps(exact.nudged(1)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not exact.has_rounded_constants


@pytest.mark.parametrize("name", ["rmsprop_of_moved_averages", "sgd_along_a_cosine"])
def test_lawful_rounding_raises_no_alarm_and_a_defect_of_a_millionth_does(name):
    right, reference = CLEAN[name], reference_of(name)
    wrong = edited(right, "-rate *", "-1.000001 * rate *")
    for factory, fine in ((right, True), (wrong, False)):
        report = check_optimizer(factory, reference, levels="L4", raises=False)
        assert (not report.failures) is fine, report.failures


def test_a_place_in_a_cycle_is_no_count_of_updates():
    assert counts_updates(Subject("optax:adam"), {}) == {"0/count": True}
    cycle = counts_updates(Subject(CLEAN["sgd_mean_of_two"]), {})
    assert cycle["place"] is False
