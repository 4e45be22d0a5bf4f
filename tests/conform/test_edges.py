"""Comparison with a reference where numbers are rare: each question finds the optimizer that is wrong there."""

import jax
import jax.numpy as jnp
import optax
import pytest

from purenets.conform import edges, knobs
from purenets.conform.report import Fail, Note
from purenets.conform.subject import Subject
from purenets.conform.trajectory import shared_settings


def decayed(*, grads=lambda g: g, rule=lambda p, w: w * p, check=lambda w: None, number=lambda w: w):
    """Gradient descent with momentum and decay, and places to break it."""

    def factory(learning_rate=0.1, b1=0.9, weight_decay=0.01):
        check(b1)
        decay = number(weight_decay)

        def init(params):
            return jax.tree.map(jnp.zeros_like, params)

        def update(updates, state, params):
            trace = jax.tree.map(lambda m, g: (b1 * m + grads(g)).astype(m.dtype), state, updates)
            step = lambda m, p: (-learning_rate * (m + rule(p, decay))).astype(p.dtype)
            return jax.tree.map(step, trace, params), trace

        return init, update

    return factory


def ask(check, subject, reference=decayed()):
    subject, reference = Subject(subject), Subject(reference)
    turned = knobs.knobs(subject, reference)
    return dict(edges.questions(subject, reference, turned, shared_settings(subject, reference)))[check]()


def rated(learning_rate=0.1, b1=0.9, weight_decay=0.01):
    if learning_rate < 0:
        raise ValueError("uphill")
    return decayed()(learning_rate, b1, weight_decay)


def swallowing(g):
    return jnp.where(jnp.isnan(g), 0.0, g).astype(g.dtype)


@pytest.mark.parametrize(
    ("check", "wrong", "message"),
    [
        ("gradients of extreme size", decayed(grads=lambda g: jnp.clip(g, -1e20, 1e20)), "with sizes 1e±90"),
        ("gradients that are not finite", decayed(grads=swallowing), "with one NaN: step 3"),
        ("gradients that are not finite", decayed(grads=lambda g: g + 0 * g.sum()), "instead of"),
        ("numbers of exactly zero", decayed(number=lambda w: w or 0.5), "with weight_decay=0.0"),
        ("numbers of exactly zero", decayed(number=lambda w: w or 1e-8), "with weight_decay=0.0"),
        ("numbers traced", rated, "learning_rate may be traced in the reference"),
        (
            "float16 beside float32",
            decayed(grads=lambda g: g * (2 if g.dtype == jnp.float16 else 1)),
            "in float16",
        ),
        ("derivative of an update", decayed(grads=jax.lax.stop_gradient), "the derivative"),
    ],
    ids=[
        "clipped",
        "swallowed",
        "spread",
        "zero is none",
        "zero is tiny",
        "looked at",
        "halves",
        "no derivative",
    ],
)
def test_what_is_wrong_at_an_edge_is_found(check, wrong, message):
    ask(check, decayed())
    with pytest.raises(Fail, match=message):
        ask(check, wrong)


def heavy(learning_rate=0.1, errors=5):
    return optax.apply_if_finite(optax.sgd(learning_rate, 0.9), errors)


def heavy_without_end(learning_rate=0.1, errors=5):
    """As ``heavy``, but errors are counted that are not consecutive."""
    inner = optax.sgd(learning_rate, 0.9)

    def update(updates, state, params):
        fine = jnp.all(jnp.array([jnp.isfinite(g).all() for g in jax.tree.leaves(updates)]))
        seen = state["seen"] + jnp.where(fine, 0, 1)
        taken = fine | (seen > errors)
        out, after = inner.update(updates, state["inner"], params)
        kept = jax.tree.map(lambda a, b: jnp.where(taken, a, b), after, state["inner"])
        return jax.tree.map(lambda u: jnp.where(taken, u, 0.0), out), {"seen": seen, "inner": kept}

    return lambda params: {"seen": jnp.int32(0), "inner": inner.init(params)}, update


def test_errors_that_are_never_forgotten_are_found():
    ask("gradients that are not finite", heavy, heavy)
    with pytest.raises(Fail, match="with NaN at every third step: step 20"):
        ask("gradients that are not finite", heavy_without_end, heavy)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda leaves: [*leaves[:12], *(2 * g for g in leaves[12:])],
        lambda leaves: [g - jnp.mean(g) if g.ndim > 1 and g.shape[-1] == 1 else g for g in leaves],
        lambda leaves: [g[::-1] if g.ndim == 5 else g for g in leaves],
        lambda leaves: [*leaves[:3], leaves[5], leaves[4], leaves[3], *leaves[6:]] if leaves[5:] else leaves,
    ],
    ids=["more than twelve", "axes of one entry", "five axes", "alike in shape"],
)
def test_what_is_wrong_with_many_leaves_is_found(wrong):
    def factory(learning_rate=0.1, b1=0.9, weight_decay=0.01):
        init, update = decayed()(learning_rate, b1, weight_decay)

        def worse(updates, state, params):
            leaves, tree = jax.tree.flatten(updates)
            return update(tree.unflatten(wrong(leaves)), state, params)

        return init, worse

    ask("many leaves", decayed())
    with pytest.raises(Fail, match="leaf_"):
        ask("many leaves", factory)


def test_a_derivative_of_zero_but_for_rounding_is_zero():
    def signs(learning_rate=0.1, dust=0.0):
        def update(updates, state, params):
            return jax.tree.map(lambda g: -learning_rate * jnp.sign(g) + dust * jnp.tanh(g), updates), state

        return lambda params: (), update

    ask("derivative of an update", lambda learning_rate=0.1: signs(learning_rate, 1e-18), signs)
    with pytest.raises(Fail, match="the derivative"):
        ask("derivative of an update", lambda learning_rate=0.1: signs(learning_rate, 1e-9), signs)


def test_an_entry_that_stands_still_after_a_nan_has_swallowed_nothing():
    def guarded(learning_rate=0.1, b1=0.9, weight_decay=0.01):
        init, update = decayed()(learning_rate, b1, weight_decay)

        def safe(updates, state, params):
            out, state = update(updates, state, params)
            return jax.tree.map(lambda u: jnp.where(jnp.isnan(u), 0.0, u).astype(u.dtype), out), state

        return init, safe

    ask("gradients that are not finite", guarded)


def test_what_rounding_costs_where_equal_numbers_are_subtracted_is_measured():
    def centered(moved, floor=0.0):
        def factory(learning_rate=0.1, decay=0.9, eps=1e-8):
            def update(updates, state, params):
                first = jax.tree.map(lambda m, g: moved(m, g, decay), state[0], updates)
                second = jax.tree.map(lambda s, g: moved(s, g * g, decay), state[1], updates)
                step = lambda g, m, s: (
                    -learning_rate * g / jnp.sqrt(s - m * m + eps + (floor if decay == 0 else 0))
                )
                return jax.tree.map(step, updates, first, second), (first, second)

            zeros = lambda params: jax.tree.map(jnp.zeros_like, params)
            return lambda params: (zeros(params), zeros(params)), update

        return factory

    one = centered(lambda a, x, decay: decay * a + (1 - decay) * x)
    other = centered(lambda a, x, decay: a + (1 - decay) * (x - a))
    assert "decay=0.0" in ask("numbers of exactly zero", other, one)
    wrong = centered(lambda a, x, decay: a + (1 - decay) * (x - a), floor=1e-12)
    with pytest.raises(Fail, match=r"decay=0\.0"):
        ask("numbers of exactly zero", wrong, one)


def test_a_number_that_may_not_be_scheduled_here_is_only_told():
    def scheduled(learning_rate=0.1, b1=0.9, weight_decay=0.01):
        return decayed()(learning_rate, b1, weight_decay(0) if callable(weight_decay) else weight_decay)

    with pytest.raises(Note, match="weight_decay scheduled"):
        ask("other numbers scheduled", decayed(), scheduled)


def test_a_number_that_the_factory_refuses_in_words_need_not_be_taken_and_one_on_which_it_breaks_must():
    def none_at_zero(error):
        def check(b1):
            if b1 == 0:
                raise error(f"b1 must be above 0, got {b1}")

        return check

    taken = ask("numbers of exactly zero", decayed(check=none_at_zero(ValueError)), decayed())
    assert "b1=0.0" not in taken
    assert "weight_decay=0.0" in taken
    with pytest.raises(Fail, match=r"with b1=0\.0: raised TypeError: b1 must be above 0"):
        ask("numbers of exactly zero", decayed(check=none_at_zero(TypeError)), decayed())


def test_no_two_half_precisions_meet_in_one_tree_which_optax_cannot_inject_numbers_into():
    injected = lambda learning_rate=0.1: optax.inject_hyperparams(optax.sgd)(learning_rate)
    ask("float16 beside float32", injected, lambda learning_rate=0.1: optax.sgd(learning_rate))


def test_who_looks_at_a_number_besides_the_rate_is_told_so():
    def check(b1):
        if not 0 <= b1 < 1:
            raise ValueError(f"b1 must be from 0 to 1, got {b1}")

    def rule(p, w):
        return w * p if w else 0 * p

    for subject, name in ((decayed(check=check), "b1"), (decayed(rule=rule), "weight_decay")):
        with pytest.raises(Note, match=f"looks at the value of {name}, which may be traced"):
            ask("numbers traced", subject)


def test_an_infinity_may_become_nan_where_it_came_and_nowhere_else():
    def squashed(rule):
        def factory(learning_rate=0.1):
            def update(updates, state, params):
                return jax.tree.map(lambda g: (-learning_rate * rule(g)).astype(g.dtype), updates), state

            return lambda params: (), update

        return factory

    check = "gradients that are not finite"
    one = squashed(lambda g: 1 / (1 + 1 / jnp.where(g == 0, 1e-300, g * g)))
    ask(check, squashed(lambda g: g * g / (1 + g * g)), one)
    with pytest.raises(Fail, match="with one infinity"):
        ask(check, squashed(lambda g: g * g / (1 + g * g) + 0 * jnp.where(jnp.isinf(g), g, 0).sum()), one)
