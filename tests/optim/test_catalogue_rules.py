"""The catalogue's forms of the classical rules, their printed numbers, and the rules that are printed wrong.

The test problem of the printed numbers is ``x . diag(1, 25) x / 2``, started at (1, 1) unless told otherwise.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenets import optim
from tests.optim.trajectory import assert_same, gradients_of, params_of, walk

CURVATURE = np.array([1.0, 25.0])
SHAPES = {"dense": {"kernel": (3, 2)}, "scale": ()}
RATE = optax.exponential_decay(0.3, 20, 0.7)


def slope(x):
    return CURVATURE * x


def loss(x):
    return float(0.5 * np.sum(CURVATURE * x**2))


def both(ours, theirs, steps=60):
    """The updates and parameters of two optimizers in float64, whatever their states are."""
    params, gradients = params_of("float64", SHAPES), gradients_of("float64", steps=steps, shapes=SHAPES)
    return [jax.jit(lambda o=o: walk(o, params, gradients))()[::2] for o in (ours, theirs)]


def updates_in_numpy(rule, gradients):
    """The updates of ``rule(g, t, memory) -> update`` for one long vector of all leaves, ``t = 1, 2, …``"""
    flat = np.concatenate([np.asarray(g).reshape(len(g), -1) for g in jax.tree.leaves(gradients)], axis=1)
    memory = {}
    return np.stack([rule(g, t + 1, memory) for t, g in enumerate(flat)])


def equals_numpy(optimizer, rule, steps=60, **kwargs):
    params, gradients = (
        params_of("float64", SHAPES),
        gradients_of("float64", steps=steps, shapes=SHAPES, **kwargs),
    )
    updates = jax.jit(lambda: walk(optimizer, params, gradients)[0])()
    flat = np.concatenate([np.asarray(u).reshape(steps, -1) for u in jax.tree.leaves(updates)], axis=1)
    expected = updates_in_numpy(rule, gradients)
    np.testing.assert_allclose(flat, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


@pytest.mark.covers("O06", "O07", "O08", "DEC-33")
def test_the_three_forms_of_momentum_agree_while_the_rate_is_constant(x64):
    a, c = both(optim.momentum(0.1, 0.8, form="A"), optim.momentum(0.1, 0.8))
    b, theirs = both(optim.momentum(0.1, 0.8, form="B"), optax.sgd(0.1, momentum=0.8))
    for mine in (a, b, c):
        assert_same(mine, theirs, 1e-12)


@pytest.mark.covers("O06", "O07", "O08", "DEC-33")
def test_under_a_schedule_old_gradients_keep_their_rate_in_forms_a_and_b_only(x64):
    in_optax = optax.chain(
        optax.scale_by_learning_rate(RATE, flip_sign=False), optax.trace(0.8), optax.scale(-1.0)
    )
    assert_same(*both(optim.momentum(RATE, 0.8, form="A"), in_optax), 1e-12)
    assert_same(*both(optim.momentum(RATE, 0.8, form="B"), in_optax), 1e-12)
    form_c, theirs = both(optim.momentum(RATE, 0.8), optax.sgd(RATE, momentum=0.8))
    assert_same(form_c, theirs, 1e-12)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same(form_c, both(in_optax, in_optax)[0], 1e-3)


@pytest.mark.covers("O06", "O07")
def test_the_velocity_in_the_state_is_the_printed_one():
    for form, expected in [("A", -0.1 * 2.0), ("B", 0.1 * 2.0), ("C", 2.0)]:
        optimizer = optim.momentum(0.1, form=form)
        _, state = optimizer.update(jnp.float32(2.0), optimizer.init(jnp.float32(0.0)))
        (velocity,) = [s.trace for s in state if isinstance(s, optim.TraceState)]
        np.testing.assert_allclose(velocity, expected, rtol=1e-6)


@pytest.mark.covers("O11", "DEC-01")
def test_nesterov_by_look_ahead_is_the_reformulated_one(x64):
    """Form B takes the gradient at ``p - decay v``; those points are the parameters of ``sgd(nesterov)``."""
    rate, decay, start = 0.02, 0.9, jnp.array([1.0, 1.0])
    lookahead, reformulated = optim.momentum(rate, decay, form="B"), optim.sgd(rate, decay, nesterov=True)
    x, y = start, start
    state, other = lookahead.init(x), reformulated.init(y)
    for _ in range(60):
        ahead = optim.look_ahead(x, state[1].trace, decay)
        np.testing.assert_allclose(ahead, y, rtol=1e-12, atol=1e-15)
        update, state = lookahead.update(slope(ahead), state)
        x = optim.apply_updates(x, update)
        update, other = reformulated.update(slope(y), other)
        y = optim.apply_updates(y, update)
    assert loss(np.asarray(x)) < 1e-4


@pytest.mark.covers("O09", "O10", "O11", "DEC-01")
def test_negative_control_nesterov_as_printed_looks_behind_and_diverges():
    """The printed rules add the velocity where it should be subtracted; 60 steps at rate 0.02, decay 0.9."""

    def run(ahead, carries_rate):
        x, v = np.array([1.0, 1.0]), np.zeros(2)
        for _ in range(60):
            g = slope(x + ahead * v)
            v = 0.9 * v + (0.02 * g if carries_rate else g)
            x = x - (v if carries_rate else 0.02 * v)
        return loss(x)

    assert run(-0.9, True) < 1e-4
    np.testing.assert_allclose(run(-0.9 * 0.02, False), run(-0.9, True), rtol=1e-6)
    assert 1e7 < run(+0.9, True) < 1e9
    assert run(+0.9, False) > 1e150


@pytest.mark.covers("O12", "O13")
def test_adagrad_derived_from_a_decaying_rate_over_a_mean_is_adagrad_without_epsilon(x64):
    for theirs in (optax.adagrad(0.3, 0.0, eps=0.0), optim.adagrad(0.3, 0.0, eps=0.0)):
        assert_same(*both(optim.adagrad_by_means(0.3), theirs), 1e-12)


@pytest.mark.covers("O13")
def test_adagrad_without_epsilon_starts_with_the_sign_and_decays_by_the_root_on_a_constant_gradient(x64):
    for optimizer in (optim.adagrad(0.3, 0.0, 0.0), optim.adagrad_by_means(0.3)):
        state = optimizer.init(jnp.zeros(3))
        for t in range(5):
            update, state = optimizer.update(jnp.array([7.0, -1e-3, 0.0]), state)
            np.testing.assert_allclose(update, -0.3 / np.sqrt(t + 1) * np.array([1.0, -1.0, 0.0]), rtol=1e-12)


@pytest.mark.covers("O15", "O16", "DEC-04")
def test_adagrad_with_epsilon_inside_and_outside_of_the_root(x64):
    def inside(g, t, memory):
        memory["sum"] = memory.get("sum", 0.0) + g * g
        return -0.3 * g / np.sqrt(memory["sum"] + 1e-4)

    def outside(g, t, memory):
        memory["sum"] = memory.get("sum", 0.0) + g * g
        return -0.3 * g / (np.sqrt(memory["sum"]) + 1e-4)

    equals_numpy(optim.adagrad(0.3, initial_accumulator_value=0.0, eps=1e-4), inside)
    equals_numpy(optim.adagrad_eps_outside(0.3, eps=1e-4), outside)


@pytest.mark.covers("O15", "O16", "O18", "O23")
def test_the_printed_code_adds_1e_7_and_optax_s_adagrad_begins_at_a_tenth(x64):
    """The first step on a gradient as small as epsilon, where it counts."""
    g = np.array([2e-7, -1e-7])

    def first(optimizer):
        return optimizer.update(jnp.asarray(g), optimizer.init(jnp.zeros(2)))[0]

    np.testing.assert_allclose(
        first(optim.adagrad_eps_outside(0.3)), -0.3 * g / (np.abs(g) + 1e-7), rtol=1e-12
    )
    begun = optim.adagrad_eps_outside(0.3, initial_accumulator_value=1e-14)
    np.testing.assert_allclose(first(begun), -0.3 * g / (np.sqrt(1e-14 + g**2) + 1e-7), rtol=1e-12)
    rmsprop = optim.rmsprop(0.3, decay=0.9, eps=1e-7, eps_in_sqrt=False)
    np.testing.assert_allclose(first(rmsprop), -0.3 * g / (np.sqrt(0.1) * np.abs(g) + 1e-7), rtol=1e-12)
    np.testing.assert_allclose(first(optim.adam(1e-3, eps=1e-7)), -1e-3 * g / (np.abs(g) + 1e-7), rtol=1e-9)
    # The trap: without arguments it begins at 0.1 and so hardly moves.
    for adagrad in (optim.adagrad(0.3), optax.adagrad(0.3)):
        np.testing.assert_allclose(first(adagrad), -0.3 * g / np.sqrt(0.1 + 1e-7), rtol=1e-9)


@pytest.mark.covers("O17", "O18", "DEC-04")
@pytest.mark.parametrize("inside", [True, False])
def test_rmsprop_with_epsilon_inside_and_outside_of_the_root(inside, x64):
    def rule(g, t, memory):
        memory["mean"] = 0.9 * memory.get("mean", 0.0) + 0.1 * g * g
        return -0.3 * g / (np.sqrt(memory["mean"] + 1e-4) if inside else np.sqrt(memory["mean"]) + 1e-4)

    equals_numpy(optim.rmsprop(0.3, decay=0.9, eps=1e-4, eps_in_sqrt=inside), rule)


@pytest.mark.covers("O17")
def test_the_first_step_of_rmsprop_is_3_162_times_the_rate():
    optimizer = optim.rmsprop(1.0, decay=0.9)
    update, _ = optimizer.update(jnp.float32(5.0), optimizer.init(jnp.float32(0.0)))
    np.testing.assert_allclose(update, -3.162, rtol=1e-4)


@pytest.mark.covers("O14", "O19", "O20", "DEC-05")
@pytest.mark.parametrize("name", ["adagrad_norm", "rmsprop_norm", "adam_norm"])
def test_scalar_accumulators_measure_all_leaves_by_one_number(name, x64):
    """In the catalogue's Adam rho1 is the decay of ``u``: it is ``b2`` here, and rho2 is ``b1``."""
    usual = {"rmsprop_norm": {"decay": 0.9}, "adam_norm": {"b2": 0.999, "b1": 0.9}}
    other = {"rmsprop_norm": {"decay": 0.6}, "adam_norm": {"b2": 0.8, "b1": 0.3}}

    def rule(g, t, memory, **decays):
        if name == "adagrad_norm":
            memory["u"] = memory.get("u", 0.0) + g @ g
        else:
            rho1 = decays["decay" if name == "rmsprop_norm" else "b2"]
            memory["u"] = rho1 * memory.get("u", 0.0) + (1 - rho1) * (g @ g)
        rho2 = decays.get("b1", 0.0)
        memory["v"] = rho2 * memory.get("v", 0.0) + (1 - rho2) * g
        return -0.3 * memory["v"] / np.sqrt(memory["u"])

    equals_numpy(getattr(optim, name)(0.3), partial(rule, **usual.get(name, {})))
    if name in other:
        equals_numpy(getattr(optim, name)(0.3, **other[name]), partial(rule, **other[name]))


@pytest.mark.covers("O14", "O19", "O20", "DEC-05")
def test_with_a_single_number_the_scalar_accumulators_are_the_usual_ones(x64):
    gradients = gradients_of("float64", steps=30, shapes=())
    for mine, usual in [
        (optim.adagrad_norm(0.3), optim.adagrad(0.3, 0.0, 0.0)),
        (optim.rmsprop_norm(0.3), optim.rmsprop(0.3, eps=1e-300)),
        (optim.adam_norm(0.3), optim.adam_biased(0.3, eps=0.0)),
    ]:
        a, b = (jax.jit(lambda o=o: walk(o, jnp.float64(1.0), gradients)[0])() for o in (mine, usual))
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.covers("O14", "G11")
def test_a_zero_gradient_at_the_start_moves_nothing():
    zero = {"w": jnp.zeros(3)}
    for optimizer in (
        optim.adagrad_norm(0.1),
        optim.rmsprop_norm(0.1),
        optim.adam_norm(0.1),
        optim.adagrad_by_means(0.1),
        optim.normalize_gradient(),
    ):
        np.testing.assert_array_equal(optimizer.update(zero, optimizer.init(zero))[0]["w"], 0.0)


@pytest.mark.covers("O21")
def test_biased_adam_starts_with_3_162_times_the_rate_and_is_adam_under_a_schedule(x64):
    optimizer = optim.adam_biased(0.1, eps=0.0)
    update, _ = optimizer.update(jnp.float64(-7.0), optimizer.init(jnp.float64(0.0)))
    np.testing.assert_allclose(update, 0.1 * (1 - 0.9) / np.sqrt(1 - 0.999), rtol=1e-12)
    np.testing.assert_allclose(update, 0.3162, rtol=1e-4)

    def unbiased(count):
        return 0.1 * (1 - 0.9 ** (count + 1)) / jnp.sqrt(1 - 0.999 ** (count + 1))

    gradients = jax.tree.map(lambda g: jnp.where(g == 0, 1e-3, g), gradients_of("float64", 40, SHAPES))
    params = params_of("float64", SHAPES)
    a, b = (
        jax.jit(lambda o=o: walk(o, params, gradients)[0])()
        for o in (optimizer, optax.adam(unbiased, eps=0.0))
    )
    assert_same(a, b, 1e-12)


@pytest.mark.covers("O21", "DEC-04")
@pytest.mark.parametrize("inside", [True, False])
def test_biased_adam_is_its_printed_code(inside, x64):
    def rule(g, t, memory, b1=0.9, b2=0.999, eps=1e-7):
        memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        memory["s"] = b2 * memory.get("s", 0.0) + (1 - b2) * g * g
        below = np.sqrt(memory["s"] + eps) if inside else np.sqrt(memory["s"]) + eps
        return -0.1 * memory["m"] / below

    equals_numpy(optim.adam_biased(0.1, eps_in_sqrt=inside), rule)
    other = {"b1": 0.5, "b2": 0.8, "eps": 1e-2}
    equals_numpy(optim.adam_biased(0.1, eps_in_sqrt=inside, **other), partial(rule, **other))


@pytest.mark.covers("O22", "O23", "O24", "DEC-04", "DEC-06")
@pytest.mark.parametrize(("outside", "inside"), [(1e-8, 0.0), (1e-7, 0.0), (0.0, 1e-8)])
def test_adam_with_epsilon_outside_and_inside_of_the_root(outside, inside, x64):
    def rule(g, t, memory):
        memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
        memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g * g
        m, v = memory["m"] / (1 - 0.9**t), memory["v"] / (1 - 0.999**t)
        return -1e-3 * m / (np.sqrt(v + inside) + outside)

    equals_numpy(optim.adam(1e-3, eps=outside, eps_root=inside), rule, seed=3)


@pytest.mark.covers("O25", "DEC-06")
def test_negative_control_adam_that_feeds_corrected_moments_back_stays_behind(x64):
    """The printed rule, read literally, stores the corrected moments; 20 steps at rate 0.1 from (1, 1)."""

    def run(feeds_back):
        x, m, v = np.array([1.0, 1.0]), np.zeros(2), np.zeros(2)
        for t in range(1, 21):
            g = slope(x)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
            x = x - 0.1 * m_hat / np.sqrt(v_hat + 1e-8)
            if feeds_back:
                m, v = m_hat, v_hat
        return x

    optimizer = optim.adam(0.1, eps=0.0, eps_root=1e-8)
    x = jnp.array([1.0, 1.0])
    state = optimizer.init(x)
    for _ in range(20):
        update, state = optimizer.update(slope(x), state)
        x = optim.apply_updates(x, update)
    np.testing.assert_allclose(x, run(False), rtol=1e-9)
    np.testing.assert_allclose(x[0], -0.27, atol=0.005)
    np.testing.assert_allclose(run(True)[0], 0.87, atol=0.005)


@pytest.mark.covers("O26")
def test_nadam_is_its_rule_in_numpy(x64):
    def rule(g, t, memory):
        memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
        memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g * g
        m = 0.9 * memory["m"] / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
        return -0.1 * m / (np.sqrt(memory["v"] / (1 - 0.999**t)) + 1e-8)

    equals_numpy(optim.nadam(0.1), rule)


@pytest.mark.covers("O27")
@pytest.mark.parametrize("corrected", [True, False])
def test_amsgrad_is_the_paper_s_without_correction_and_takes_the_maximum_after_it(corrected, x64):
    def rule(g, t, memory):
        memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
        memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g * g
        m, v = memory["m"], memory["v"]
        if corrected:
            m, v = m / (1 - 0.9**t), v / (1 - 0.999**t)
        memory["top"] = np.maximum(memory.get("top", 0.0), v)
        return -0.1 * m / (np.sqrt(memory["top"]) + 1e-8)

    flags = {"bias_correction_mu": corrected, "bias_correction_nu": corrected}
    equals_numpy(optim.amsgrad(0.1, **flags), rule)


@pytest.mark.covers("O27")
def test_on_reddi_s_counter_example_adam_goes_to_the_wrong_end_and_amsgrad_does_not():
    """Reddi et al. 2018, section 3: slopes 1010 every 101st step and -10 otherwise; best is -1."""

    def last(optimizer):
        def step(carry, t):
            x, state = carry
            slope_now = jnp.where(t % 101 == 0, 1010.0, -10.0)
            update, state = optimizer.update(slope_now, state, x)
            return (jnp.clip(x + update, -1.0, 1.0), state), None

        start = (jnp.float32(0.0), optimizer.init(jnp.float32(0.0)))
        return float(jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(30_000))[0][0])())

    assert last(optim.adam(0.05, b1=0.9, b2=0.99)) > 0.8
    flags = {"bias_correction_mu": False, "bias_correction_nu": False}
    assert last(optim.amsgrad(0.05, b1=0.9, b2=0.99, **flags)) < -0.8


@pytest.mark.covers("O28")
def test_gradient_noise_has_the_printed_deviation_and_zero_mean():
    """``sqrt(eta / t^gamma)`` at update t = 1, 2, …; 40,000 numbers, so 1.5 % is four standard errors."""
    optimizer = optim.add_noise(eta=0.3, gamma=0.55, key=jax.random.key(4))
    gradient = {"a": jnp.full(40_000, 2.0), "b": jnp.full(40_000, -1.0)}
    state = optimizer.init(gradient)
    draws = []
    for t in (1, 2, 3):
        noisy, state = optimizer.update(gradient, state)
        for name, mean in [("a", 2.0), ("b", -1.0)]:
            noise = np.asarray(noisy[name]) - mean
            np.testing.assert_allclose(noise.std(), np.sqrt(0.3 / t**0.55), rtol=0.015)
            np.testing.assert_allclose(noise.mean(), 0.0, atol=0.02 * np.sqrt(0.3))
            draws.append(noise)
    correlation = np.corrcoef(np.stack(draws)) - np.eye(6)
    assert np.abs(correlation).max() < 0.025, "leaves or steps share their noise"


@pytest.mark.covers("G11")
def test_normalising_lengthens_small_gradients_and_shortens_large_ones():
    for factor in (1e-3, 1.0, 1e3):
        gradient = {"a": factor * jnp.array([3.0]), "b": factor * jnp.array([[4.0]])}
        mine, _ = optim.normalize_gradient(2.0).update(gradient, optim.EmptyState())
        theirs, _ = optim.normalize_by_update_norm(2.0, eps=0.0).update(gradient, optim.EmptyState())
        np.testing.assert_allclose([mine["a"][0], mine["b"][0, 0]], [1.2, 1.6], rtol=1e-6)
        chex.assert_trees_all_close(mine, theirs, rtol=1e-6)


@pytest.mark.covers("G13", "W22")
def test_clipping_by_the_global_norm_gives_the_printed_numbers():
    gradient = {"a": jnp.array(3.0), "b": jnp.array([4.0])}
    for most, expected in [(1.0, (0.6, 0.8)), (5.0, (3.0, 4.0)), (25.0, (3.0, 4.0))]:
        clipped, _ = optim.clip_by_global_norm(most).update(gradient, optim.EmptyState())
        np.testing.assert_allclose([clipped["a"], clipped["b"][0]], expected, rtol=1e-6)


@pytest.mark.covers("G12", "G13", "DEC-02")
def test_negative_control_clipping_by_the_squared_norm_shrinks_large_gradients_more():
    """The printed code forgets the root: it acts from ``sqrt(T)`` on and leaves the norm ``T / |g|``."""

    def printed(g, most):
        norm = np.sum(g * g)
        return g * most / norm if norm > most else g

    g = np.array([3.0, 4.0])
    np.testing.assert_allclose(printed(g, 5.0), [0.6, 0.8])
    np.testing.assert_allclose(printed(g, 1.0), [0.12, 0.16])
    np.testing.assert_allclose(printed(g, 25.0), g)
    assert np.linalg.norm(printed(10 * g, 5.0)) < np.linalg.norm(printed(g, 5.0))
    for factor in (1.0, 10.0):
        right, _ = optim.clip_by_global_norm(5.0).update(factor * jnp.asarray(g), optim.EmptyState())
        np.testing.assert_allclose(np.linalg.norm(right), 5.0, rtol=1e-6)


@pytest.mark.covers("G15")
def test_a_nan_is_zeroed_found_and_otherwise_spreads_through_a_global_norm():
    gradient = {"bad": jnp.array([1.0, jnp.nan, jnp.inf]), "good": jnp.array([2.0])}
    optimizer = optim.zero_nans()
    updates, state = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_array_equal(updates["bad"], [1.0, 0.0, np.inf])
    assert bool(state.found_nan["bad"])
    assert not bool(state.found_nan["good"])
    clipped, _ = optim.clip_by_global_norm(1.0).update(gradient, optim.EmptyState())
    assert np.isnan(clipped["good"]).all()
    # In Adam it stays in its leaf and its entry.
    adam = optim.adam(0.1)
    updates, _ = adam.update(gradient, adam.init(gradient))
    np.testing.assert_array_equal(np.isnan(updates["bad"]), [False, True, True])
    assert np.isfinite(updates["good"]).all()


@pytest.mark.covers("O01", "O02", "O03", "O04", "O05", "O38")
def test_descent_by_all_by_one_and_by_batches_finds_the_closed_form_solution(x64):
    """Least squares: batch descent, one epoch of R single-example updates, mini-batches, and a grid agree."""
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(12), np.linspace(-1, 1, 12)], axis=1)
    y = x @ np.array([0.5, -1.25])
    exact = np.linalg.solve(x.T @ x, x.T @ y)

    def descend(rate, batches):
        optimizer = optim.sgd(rate)

        def step(carry, rows):
            theta, state = carry
            xs, ys = jnp.asarray(x)[rows], jnp.asarray(y)[rows]
            gradient = jax.grad(lambda p: 0.5 * jnp.mean((xs @ p - ys) ** 2))(theta)
            update, state = optimizer.update(gradient, state)
            return (optim.apply_updates(theta, update), state), None

        start = jnp.zeros(2)
        (theta, state), _ = jax.lax.scan(step, (start, optimizer.init(start)), batches)
        return theta, state

    full, _ = descend(1.0, np.tile(np.arange(12), (300, 1)))
    np.testing.assert_allclose(full, exact, atol=1e-9)
    orders = np.stack([rng.permutation(12) for _ in range(400)])
    single, state = descend(lambda count: 0.5 / jnp.sqrt(1 + count / 1200), orders.reshape(-1, 1))
    np.testing.assert_allclose(single, exact, atol=1e-9)
    assert int(state[1].count) == 400 * 12
    mini, _ = descend(0.5, orders.reshape(-1, 4))
    np.testing.assert_allclose(mini, exact, atol=1e-9)
    grid = np.stack(np.meshgrid(*[np.linspace(-2, 2, 81)] * 2), -1).reshape(-1, 2)
    best = grid[np.argmin(np.sum((grid @ x.T - y) ** 2, axis=1))]
    np.testing.assert_allclose(best, exact, atol=0.026)


@pytest.mark.covers("O01", "S08")
def test_descent_on_a_sum_takes_the_rate_over_the_number_of_examples(x64):
    """The step is ``eta |grad|``; the gradient of a sum over R examples is R times that of their mean."""
    x, y = np.arange(6.0), np.array([1.0, -2.0, 0.5, 3.0, 1.0, 0.0])
    errors = lambda p: (p * x - y) ** 2 / 2
    theta = {}
    for total, rate in ((jnp.mean, 0.1), (jnp.sum, 0.1 / 6)):
        optimizer, p = optim.sgd(rate), jnp.float64(2.0)
        state = optimizer.init(p)
        for _ in range(5):
            gradient = jax.grad(lambda p, total=total: total(errors(p)))(p)
            update, state = optimizer.update(gradient, state)
            np.testing.assert_allclose(abs(update), rate * abs(gradient), rtol=1e-14)
            p = optim.apply_updates(p, update)
        theta[total] = p
    np.testing.assert_allclose(theta[jnp.sum], theta[jnp.mean], rtol=1e-12)


@pytest.mark.covers("O38", "S05")
def test_vanilla_descent_with_a_decaying_step_divides_the_rate_by_the_root_of_the_count():
    optimizer = optim.sgd(optim.inverse_sqrt(0.6))
    gradients = jax.random.normal(jax.random.key(0), (9, 3))
    state = optimizer.init(gradients[0])
    for t, g in enumerate(gradients):
        update, state = optimizer.update(g, state)
        np.testing.assert_allclose(update, -0.6 / np.sqrt(t + 1) * g, rtol=1e-6)


@pytest.mark.covers("O37")
def test_the_best_step_in_a_small_circle_is_the_normalised_gradient():
    """Least of ``s + u da + v db`` within radius d, by looking at every direction, against the transform."""
    slopes, radius = np.array([2.0, -1.0]), 0.3
    angles = np.linspace(0, 2 * np.pi, 200_001)
    circle = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    best = circle[np.argmin(circle @ slopes)]
    update, _ = optim.normalize_by_update_norm(-radius, eps=0.0).update(
        jnp.asarray(slopes), optim.EmptyState()
    )
    np.testing.assert_allclose(update, best, atol=1e-4)
