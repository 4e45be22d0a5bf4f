"""Each question of each level finds the optimizer that breaks it, and says where."""

import jax
import jax.numpy as jnp
import optax
import pytest

from purenets.conform import NonConformance, check_optimizer
from purenets.conform.traits import declared
from tests.conform.broken import sgd


def failed(factory, level, reference=None, **options):
    report = check_optimizer(factory, reference, levels=[level], raises=False, **options)
    return {row.check: row.detail for row in report.failures}


@pytest.mark.parametrize(
    ("factory", "check", "message"),
    [
        (sgd(after=lambda u, s: (jax.tree.map(jnp.atleast_1d, u), s)), "a scalar", "shape .1,. instead of"),
        (sgd(after=lambda u, s: (jax.tree.leaves(u), s)), "nested containers", "the updates is PyTreeDef"),
        (sgd(after=lambda u, s: (u, s, 0)), "a list", r"must return \(updates, state\)"),
    ],
    ids=["scalars", "structure", "three results"],
)
def test_the_protocol_is_asked_of_every_container(factory, check, message):
    with pytest.raises(NonConformance, match=message) as caught:
        check_optimizer(factory, levels=["L0"])
    assert check in {row.check for row in caught.value.report.failures}


@pytest.mark.parametrize(
    ("factory", "check", "message"),
    [
        (sgd(init_count=lambda: jnp.asarray(0)), "state keeps its form, float32", "weakly typed at 'count'"),
        (sgd(increment=lambda c: c + 2), "counters advance by one", "went [0.0, 2.0, 4.0, 6.0]"),
        (sgd(init_count=lambda: jnp.zeros([], jnp.int8)), "counters stop at their largest value", "after 127"),
        (sgd(after=lambda u, s: (jax.tree.map(lambda x: x.astype(jnp.float32), u), s)),
         "state keeps its form, bfloat16", "float32 instead of bfloat16"),
        (sgd(after=lambda u, s: (u, tuple(s))), "state keeps its form, float32", "the state after an update is"),
        (sgd(init_count=lambda: jnp.zeros([], jnp.bfloat16), increment=lambda c: c + 1),
         "counters in half precision", "'count' counts updates in bfloat16, which goes no further than 256"),
    ],
    ids=["weak", "by two", "narrow", "dtype", "structure", "half"],
)  # fmt: skip
def test_stability_is_found_broken(factory, check, message):
    assert message in failed(factory, "L1")[check]


def test_a_counter_that_begins_again_after_two_thousand_million_updates_is_told():
    report = check_optimizer(sgd(increment=lambda c: c + 1), levels=["L1"])
    (row,) = [row for row in report.rows if row.check == "counters stop at their largest value"]
    assert row.status == "note"
    assert "2147483647 to -2147483648" in row.detail


def test_a_counter_that_ends_early_is_found_beside_one_that_is_only_told():
    def factory(learning_rate=0.1):
        def update(grads, state, params=None):
            counts = {name: (count + 1).astype(count.dtype) for name, count in state.items()}
            return jax.tree.map(lambda g: (-learning_rate * g).astype(g.dtype), grads), counts

        start = {"calls": jnp.zeros([], jnp.int32), "place": jnp.zeros([], jnp.int8)}
        return optax.GradientTransformation(lambda params: start, update)

    found = failed(factory, "L1")["counters stop at their largest value"]
    assert "'place' is int8, which ends after 127 updates" in found


def test_a_pair_that_writes_into_its_inputs_is_found():
    def careless(learning_rate):
        def update(grads, state, params=None):
            for g in jax.tree.leaves(grads):
                if hasattr(g, "flags") and g.ndim:
                    g *= -learning_rate
            return grads, state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    assert "numbers of the gradients in place" in failed(careless, "L1")["inputs are left alone"]


def test_state_outside_of_the_state_is_found():
    def forgetful(learning_rate):
        calls = []

        def update(grads, state, params=None):
            calls.append(None)
            return jax.tree.map(lambda g: -learning_rate / len(calls) * g, grads), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    assert set(failed(forgetful, "L2")) >= {"eager = jit", "two instances in turn"}


def test_numbers_that_all_instances_share_are_found():
    shared = {}

    def ruled(learning_rate=0.1, momentum=0.9):
        shared["momentum"] = momentum

        def update(grads, state, params=None):
            state = jax.tree.map(lambda m, g: (shared["momentum"] * m + g).astype(m.dtype), state, grads)
            return jax.tree.map(lambda m: -learning_rate * m, state), state

        return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)

    assert "after another one was made" in failed(ruled, "L2")["another one made beside"]


@pytest.mark.parametrize(
    ("rule", "check"),
    [
        (lambda g, v, rate: (rate * g, v), "downhill_at_first"),
        (lambda g, v, rate: (v, -rate * g), "answers_at_once"),
        (lambda g, v, rate: (-rate * g / jnp.sqrt(jnp.sum(g * g)), v), "finite"),
    ],
    ids=["uphill", "lagging", "divides by zero"],
)
def test_laws_find_defects_without_any_reference(rule, check):
    assert check in failed(sgd(rule=rule), "L3")


def test_a_schedule_that_starts_at_one_is_found():
    late = sgd(init_count=lambda: jnp.ones([], jnp.int32))
    assert "[[1.0], [2.0], [3.0]]" in failed(late, "L3")["schedule_from_zero"]


def test_a_trait_that_disagrees_with_its_declaration_is_the_finding():
    report = failed("optax:adam", "L3", traits=["odd", "scale_equivariant", "!leaf_local"])
    assert set(report) == {"scale_equivariant", "leaf_local"}
    assert "declared, but step 0" in report["scale_equivariant"]
    assert "declared not to hold, and holds" in report["leaf_local"]


def test_traits_that_are_not_declared_are_measured():
    traits = check_optimizer("optax:lamb", levels=["L3"]).traits
    assert traits["leaf_local"]
    assert traits["linear_in_lr"]
    assert not traits["leaf_split_equivariant"]
    assert not traits["ignores_params"]


@pytest.mark.covers("O17")
def test_a_closed_form_of_the_first_step_is_held_to():
    first = lambda g, p: -0.1 * g / (abs(g) + 1e-8)
    assert not failed("optax:adam", "L3", traits={"first_step": first})
    # RMSProp's first step is 3.162 times the rate.
    assert "first_step" in failed("optax:rmsprop", "L3", traits={"first_step": first})
    root = lambda g, p: -0.1 * g / (0.1 * g * g + 1e-8) ** 0.5
    assert not failed("optax:rmsprop", "L3", traits={"first_step": root})


def test_an_unknown_trait_or_level_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"no trait 'even'; there are: .*odd"):
        declared(["even"])
    with pytest.raises(ValueError, match="no level"):
        check_optimizer("optax:sgd", levels=["L9"])


def test_a_divergence_tells_level_setting_step_leaf_index_and_both_values():
    def swapped(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
        return optax.adam(learning_rate, b1=b2, b2=b1, eps=eps)

    with pytest.raises(NonConformance) as caught:
        check_optimizer(swapped, "optax:adam", levels=["L4"])
    text = {row.check: row.detail for row in caught.value.report.failures}
    assert "step 1" in text["defaults, float64"] or "step 0" in text["defaults, float64"]
    assert "instead of" in text["defaults, float64"]
    assert "everything turned, as plain numbers" in text


def test_a_different_default_is_found_though_all_values_that_are_passed_agree():
    def mine(learning_rate, b1=0.9, b2=0.999, eps=1e-7):
        return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)

    found = failed(mine, "L4", "optax:adam")
    assert "defaults, float64" in found
    assert "everything turned, as plain numbers" not in found


def test_convergence_finds_an_optimizer_that_stays_where_it_is():
    assert "downhill on a bowl" in failed(sgd(rule=lambda g, v, rate: (0.0 * g, v)), "L6")


def test_what_is_allowed_to_fail_becomes_a_note_with_its_reason():
    report = check_optimizer(
        sgd(init_count=lambda: jnp.zeros([], jnp.int8)), levels=["L1"],
        allow={"counters stop at their largest value": "a hundred steps are enough"},
    )  # fmt: skip
    row = next(row for row in report.rows if row.check == "counters stop at their largest value")
    assert row.status == "note"
    assert "a hundred steps are enough" in row.detail


def momentum_in(dtype):
    """Momentum whose average is kept in a dtype, or in that of the parameters."""

    def factory(learning_rate=0.1, decay=0.9):
        def init(params):
            return optax.TraceState(jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params))

        def update(updates, state, params=None):
            moved = jax.tree.map(lambda t, g: (g + decay * t).astype(t.dtype), state.trace, updates)
            step = lambda t, g: (-learning_rate * t).astype(g.dtype)
            return jax.tree.map(step, moved, updates), optax.TraceState(moved)

        return optax.GradientTransformation(init, update)

    return factory


def test_a_state_of_more_precision_is_told_and_one_of_less_is_a_failure():
    wide, narrow = (
        check_optimizer(momentum_in(dtype), momentum_in(None), levels=["L4"], raises=False).rows
        for dtype in (jnp.float32, jnp.float16)
    )
    row = next(row for row in wide if row.check == "dtypes of the state")
    assert row.status == "note"
    assert "is float32 instead of bfloat16, bfloat16 params" in row.detail
    row = next(row for row in narrow if row.check == "dtypes of the state")
    assert row.status == "fail"
    assert "is float16 instead of bfloat16" in row.detail


def test_noise_drawn_from_a_key_that_is_no_state_is_no_loss_of_precision():
    def noisy(learning_rate=0.1):
        def update(updates, count, params=None):
            leaves, tree = jax.tree.flatten(updates)
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), count), len(leaves))
            noise = [jax.random.normal(key, g.shape, g.dtype) for key, g in zip(keys, leaves, strict=True)]
            moved = [(-learning_rate * (g + n)).astype(g.dtype) for g, n in zip(leaves, noise, strict=True)]
            return tree.unflatten(moved), optax.safe_increment(count)

        return optax.GradientTransformation(lambda params: jnp.zeros([], jnp.int32), update)

    assert not failed(noisy, "L3")


def test_two_that_cannot_be_given_the_same_rate_are_refused():
    with pytest.raises(ValueError, match=r"requires 'learning_rate', which .* does not take.*lambda: adam"):
        check_optimizer(optax.adam(1e-3), "optax:adam")
