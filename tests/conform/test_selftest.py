"""The kit's own banks: every edit fits, a sample is found, and what is right passes."""

import jax
import jax.numpy as jnp
import pytest

from purenets.conform import check_optimizer, kill_rate
from purenets.conform.mutants import CLEAN, MUTANTS, mutated, reference_of
from purenets.conform.mutants.edit import edited
from purenets.conform.public_bugs import PUBLIC_BUGS

SAMPLE = [
    "sgd: nesterov doubles the momentum",
    "adam: epsilon scaled by the correction",
    "adam: correction ends after a thousand steps",
    "adam: large leaves use another epsilon",
    "adam: wrong in half precision",
    "adam: wrong with a scheduled rate",
    "adam: wrong when compiled",
    "adam: one array is both moments",
    "adamw: mask ignored",
    "lamb: stuck leaves give NaN",
    "rprop: no largest step",
]
BUGS = [
    "optax rprop: every update is that of the step before, the first is zero",
    "JAX training cookbook: the roles of Adam's betas exchanged",
    "optax schedule_free: the schedule's step 0 is skipped",
    "optax sam: NaN where all gradients are zero",
    "optax sm3: fails on scalar parameters",
    "optax rmsprop: epsilon inside the root where others have it outside",
]


def test_the_bank_is_large_and_its_names_are_different():
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 60
    assert len({m.base for m in MUTANTS}) >= 12
    assert len({b.name for b in PUBLIC_BUGS}) == len(PUBLIC_BUGS) >= 10
    assert set(SAMPLE) <= {m.name for m in MUTANTS}
    assert set(BUGS) <= {b.name for b in PUBLIC_BUGS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_every_edit_fits_once_and_makes_a_factory(mutant):
    assert callable(mutated(mutant))


def test_an_edit_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="stands 0 times in sgd, not once"):
        edited(CLEAN["sgd"], "no such text", "")
    with pytest.raises(ValueError, match="changes nothing"):
        edited(CLEAN["sgd"], "mu * v + g, old.trace", "mu * v + g, old.trace")


def test_every_public_bug_cites_where_it_was_told():
    cited = [bug for bug in PUBLIC_BUGS if bug.thread.startswith("https://github.com/")]
    assert len(cited) >= 20


def test_a_sample_of_the_mutants_is_found():
    rate = kill_rate(names=SAMPLE)
    assert len(rate.verdicts) == len(SAMPLE)
    assert rate.survivors == ()


def test_a_sample_of_the_public_bugs_is_found():
    rate = kill_rate("bugs", names=BUGS)
    assert len(rate.verdicts) == len(BUGS)
    assert rate.survivors == ()


def test_laws_alone_find_some_of_what_is_wrong():
    rate = kill_rate(
        names=[
            "sgd: steps uphill",
            "adam: count in eight bits",
            "sm3: no scalars",
            "sgd: the last numbers of a long leaf stay",
            "sgd: leaves of one last name share their momentum",
        ],
        referenced=False,
    )
    assert rate.rate == 1


@pytest.mark.parametrize("name", ["adamw", "rprop", "lamb"])
def test_a_correct_optimizer_passes(name):
    check_optimizer(CLEAN[name], reference_of(name))


@pytest.mark.parametrize("name", ["optax:lion", "optax:adafactor"])
def test_an_optimizer_of_optax_keeps_every_law_alone(name):
    check_optimizer(name)


def test_optax_rprop_is_found_to_lag_by_one_step():
    """https://github.com/google-deepmind/optax/pull/1725"""
    report = check_optimizer("optax:rprop", "paper:rprop", levels=["L4"], raises=False)
    assert "step 0" in report.failures[0].detail
    assert "-0.0 instead of" in report.failures[0].detail


def test_an_equal_rewriting_passes_though_it_rounds_otherwise():
    def adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
        def init(params):
            zeros = lambda: jax.tree.map(jnp.zeros_like, params)
            return {"m": zeros(), "v": zeros(), "t": jnp.zeros([], jnp.int32)}

        def update(grads, state, params=None, **_):
            t = jnp.where(state["t"] < 2**31 - 1, state["t"] + 1, state["t"])
            rate = learning_rate(state["t"]) if callable(learning_rate) else learning_rate
            m = jax.tree.map(lambda m, g: (m * b1 + g) - b1 * g, state["m"], grads)
            v = jax.tree.map(lambda v, g: v + (1 - b2) * (g * g - v), state["v"], grads)
            scale = rate * jnp.sqrt(1 - b2**t) / (1 - b1**t)
            step = lambda m, v: (-scale * m / (jnp.sqrt(v) + eps * jnp.sqrt(1 - b2**t))).astype(m.dtype)
            return jax.tree.map(step, m, v), {"m": m, "v": v, "t": t}

        return init, update

    check_optimizer(adam, "optax:adam")
