"""Two runs compared: noise is measured, what is beyond it is found at its first step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenets.conform import trajectory
from purenets.conform.compare import (
    first_divergence,
    jitter,
    noise_of,
    pooled,
    rounded_with,
    tolerance_for,
)
from purenets.conform.report import Fail, Note
from purenets.conform.subject import Subject


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_jittered_number_is_a_neighbour_and_zero_stays_zero(dtype):
    x = np.array([1.0, -3.0, 1e-7, 0.0], dtype)
    moved = jitter(x, np.random.default_rng(0))
    assert moved.dtype == dtype
    assert moved[3] == 0
    for a, b in zip(x[:3], moved[:3], strict=True):
        assert b in (np.nextafter(a, dtype(np.inf)), np.nextafter(a, dtype(-np.inf)))


def test_the_first_step_at_which_runs_part_is_told_with_index_and_both_values():
    theirs = np.linspace(1, 2, 2 * 10 * 3).reshape(2, 10, 3)
    ours = theirs.copy()
    ours[1, 6, 2] *= 1 + 1e-9
    ours[0, 8, 0] *= 2
    found = first_divergence("w", ours, theirs, None, 1e-12)
    assert (found.row, found.step, found.index) == (1, 6, (2,))
    assert (found.ours, found.theirs) == (ours[1, 6, 2], theirs[1, 6, 2])
    assert "step 6, w[2]:" in str(found)


def test_equal_runs_with_nan_in_the_same_places_do_not_part():
    x = np.array([[[1.0, np.nan, np.inf]]])
    assert first_divergence("w", x, x.copy(), None, 1e-12) is None


def test_a_nan_against_a_number_is_a_divergence():
    assert first_divergence("w", np.array([[np.nan]]), np.array([[1.0]]), None, 1e-12).step == 0


def test_nobody_is_asked_to_agree_better_than_the_reference_with_itself():
    base = np.full((1, 9, 1), 1e-3)
    moved = np.stack([base * (1 + 1e-8), base * (1 - 1e-8)])
    noise = noise_of(base, moved)
    ours = base * (1 + 1e-7)
    assert first_divergence("w", ours, base, noise, 1e-12) is None
    assert first_divergence("w", ours, base, None, 1e-12) is not None
    assert first_divergence("w", base * (1 + 1e-5), base, noise, 1e-12) is not None


def test_a_step_at_which_most_entries_are_uncertain_asks_nothing_of_the_lucky_ones():
    base = {"w": np.array([[[1.0, 1.0, 1.0, 1.0]]])}
    noise = {"w": np.array([[[0.5, 0.5, 0.5, 0.0]]])}
    assert np.isinf(pooled(base, noise)["w"]).all()
    base, few = {"w": np.ones((1, 1, 8))}, {"w": np.array([[[0.0] * 7 + [0.5]]])}
    assert pooled(base, few)["w"][0, 0, 0] == 0


def test_tolerances_are_those_of_the_dtype_and_the_length():
    assert tolerance_for(np.float64, 160) == 1e-12
    assert tolerance_for(np.float64, 2400) == 1e-10
    assert tolerance_for(np.float32, 160) == 5e-5


def test_what_products_of_matrices_round_is_judged_on_the_scale_of_the_leaf():
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(40, 40)))[0], rng.normal(size=(40, 30)) * 1e3
    right[:, 0] *= 1e-9
    exact = (left.astype(np.longdouble) @ right.astype(np.longdouble)).astype(np.float64)[None, None]
    # Another order of the same sums: a small entry is what is left of large ones.
    turned = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    ours = ((left @ (right @ turned)) @ turned.T)[None, None]
    assert first_divergence("w", ours, exact, None, 1e-12) is not None
    assert first_divergence("w", ours, exact, None, 1e-12, products=True) is None
    assert first_divergence("w", exact * (1 + 1e-10), exact, None, 1e-12, products=True) is not None


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("optax.contrib:galore", True),
        ("optax.contrib:muon", True),
        ("optax:adam", False),
        ("optax:lamb", False),
    ],
)
def test_rules_with_products_are_told_by_their_programs(name, products):
    assert Subject(name).has_products is products


def test_differences_of_params_are_told_by_their_unit_and_cost_a_few_of_it():
    rng = np.random.default_rng(0)
    for dtype, unit in ((np.float64, 2.0**-52), (np.float32, 2.0**-23), (jnp.bfloat16, 2.0**-7)):
        old = rng.uniform(1, 2, (2, 30)).astype(dtype)
        step = (0.05 * rng.standard_normal((2, 30))).astype(dtype)
        differences = {"w": (old + step - old).astype(dtype)}
        cost = rounded_with(differences, {"w": old})
        np.testing.assert_array_equal(cost["w"], np.full((2, 30), 4 * unit))
        assert rounded_with({"w": step}, {"w": old}) == {}
        assert rounded_with({"w": differences["w"][:, :9]}, {"w": old[:, :9]}) == {}, "too few to tell"
        assert rounded_with({"w": differences["w"], "b": step}, {"w": old, "b": old}) == {}


def test_an_update_that_is_a_difference_of_params_is_rounded_as_they_are():
    def descent(rate, parts=1):
        def factory(learning_rate):
            def update(grads, state, params):
                def step(g, p):
                    new = p
                    for _ in range(parts):
                        new = new - (rate * learning_rate / parts) * g
                    return (new - p).astype(g.dtype)

                return jax.tree.map(step, grads, params), state

            return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

        return factory

    def ask(subject, reference, *checks):
        asked = dict(trajectory.questions(Subject(subject), Subject(reference)))
        for check in checks:
            asked[check]()

    ask(descent(1, parts=2), optax.sgd, "defaults, float64", "bfloat16", "float16 beside float32")
    ask(descent(1, parts=2), descent(1), "defaults, float64", "bfloat16", "float16 beside float32")
    with pytest.raises(Fail, match=r"relative 1\.0e-06"):
        ask(descent(1.000001, parts=2), optax.sgd, "defaults, float64")


def test_nobody_need_share_a_nan_that_the_reference_makes_of_finite_gradients():
    def rooted(of, floor):
        def factory(learning_rate=0.1):
            def update(grads, state, params=None):
                roots = jax.tree.map(lambda g: of * learning_rate * jnp.sqrt(jnp.maximum(g, floor)), grads)
                return roots, state

            return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

        return factory

    def ask(subject):
        asked = dict(trajectory.questions(Subject(subject), Subject(rooted(-1.0, -np.inf))))
        asked["defaults, float64"]()

    ask(rooted(-1.0, 0.0))
    with pytest.raises(Fail, match="instead of"):
        ask(rooted(-1.1, 0.0))


def test_a_flag_that_the_factory_refuses_in_words_is_told_and_one_on_which_it_breaks_is_a_failure():
    def always(error):
        def factory(learning_rate, nesterov=True):
            if not nesterov:
                raise error("always Nesterov")
            return optax.sgd(learning_rate, momentum=0.9, nesterov=True)

        return factory

    def reference(learning_rate, nesterov=True):
        return optax.sgd(learning_rate, momentum=0.9, nesterov=nesterov)

    for error, outcome, text in (
        (ValueError, Note, "refused: ValueError: always Nesterov"),
        (NotImplementedError, Note, "refused"),
        (AssertionError, Note, "refused"),
        (TypeError, Fail, "the reference takes it: TypeError: always Nesterov"),
    ):
        asked = dict(trajectory.questions(Subject(always(error)), Subject(reference)))
        with pytest.raises(outcome, match=text):
            asked["nesterov=False"]()
