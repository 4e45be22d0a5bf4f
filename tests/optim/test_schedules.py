"""Schedules: optax's values, closed forms, counts that start at 0, traced numbers, errors."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purenets.optim import combine, schedules, schedules_joined
from tests.optim.trajectory import compiled

COUNTS = 130


def call(name, **kwargs):
    return name, kwargs


CYCLE = {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 0, "decay_steps": 30, "end_value": 0.1}
STEPS = {60: 0.1, 20: 0.5, 90: 3.0}
SAME_AS_OPTAX = {
    "constant": call("constant_schedule", value=0.3),
    "polynomial": call("polynomial_schedule", init_value=1.0, end_value=0.1, power=2.5, transition_steps=98),
    "polynomial late": call(
        "polynomial_schedule",
        init_value=1.0,
        end_value=0.1,
        power=0.5,
        transition_steps=64,
        transition_begin=20,
    ),
    "polynomial of no steps": call(
        "polynomial_schedule", init_value=1.0, end_value=0.1, power=2, transition_steps=0
    ),
    "polynomial begun before 0": call(
        "polynomial_schedule",
        init_value=1.0,
        end_value=0.1,
        power=2,
        transition_steps=30,
        transition_begin=-7,
    ),
    "linear": call("linear_schedule", init_value=0.0, end_value=2.0, transition_steps=41, transition_begin=3),
    "exponential": call("exponential_decay", init_value=0.7, transition_steps=9, decay_rate=0.8),
    "exponential in stairs": call(
        "exponential_decay",
        init_value=0.7,
        transition_steps=9,
        decay_rate=0.8,
        staircase=True,
        transition_begin=5,
    ),
    "exponential to a floor": call(
        "exponential_decay", init_value=0.7, transition_steps=9, decay_rate=0.8, end_value=0.2
    ),
    "exponential to a ceiling": call(
        "exponential_decay", init_value=0.7, transition_steps=9, decay_rate=1.3, end_value=4.0
    ),
    "exponential of rate 0": call("exponential_decay", init_value=0.7, transition_steps=9, decay_rate=0),
    "exponential of no steps": call("exponential_decay", init_value=0.7, transition_steps=0, decay_rate=0.5),
    "exponential begun before 0": call(
        "exponential_decay", init_value=0.7, transition_steps=9, decay_rate=0.5, transition_begin=-3
    ),
    "cosine": call("cosine_decay_schedule", init_value=0.3, decay_steps=100),
    "cosine to a floor": call(
        "cosine_decay_schedule", init_value=0.3, decay_steps=100, alpha=0.1, exponent=1.7
    ),
    "stairs": call("piecewise_constant_schedule", init_value=0.5, boundaries_and_scales=STEPS),
    "stairs without steps": call("piecewise_constant_schedule", init_value=0.5),
    "piecewise linear": call(
        "piecewise_interpolate_schedule",
        interpolate_type="linear",
        init_value=0.5,
        boundaries_and_scales=STEPS,
    ),
    "piecewise cosine": call(
        "piecewise_interpolate_schedule",
        interpolate_type="cosine",
        init_value=0.5,
        boundaries_and_scales=STEPS,
    ),
    "piecewise without pieces": call(
        "piecewise_interpolate_schedule", interpolate_type="cosine", init_value=0.5
    ),
    "one-cycle linear": call("linear_onecycle_schedule", transition_steps=100, peak_value=2.0),
    "one-cycle linear, all set": call(
        "linear_onecycle_schedule",
        transition_steps=97,
        peak_value=2.0,
        pct_start=0.21,
        pct_final=0.7,
        div_factor=5.0,
        final_div_factor=50.0,
    ),
    "one-cycle cosine": call("cosine_onecycle_schedule", transition_steps=100, peak_value=2.0),
    "one-cycle cosine, all set": call(
        "cosine_onecycle_schedule",
        transition_steps=97,
        peak_value=2.0,
        pct_start=0.45,
        div_factor=5.0,
        final_div_factor=50.0,
    ),
    "warm-up": call("warmup_constant_schedule", init_value=0.0, peak_value=1.0, warmup_steps=10),
    "warm-up and cosine": call(
        "warmup_cosine_decay_schedule",
        init_value=0.1,
        peak_value=1.0,
        warmup_steps=10,
        decay_steps=110,
        end_value=0.01,
        exponent=1.2,
    ),
    "warm-up and cosine at peak 0": call(
        "warmup_cosine_decay_schedule", init_value=0.1, peak_value=0.0, warmup_steps=10, decay_steps=110
    ),
    "warm-up and exponential": call(
        "warmup_exponential_decay_schedule",
        init_value=0.1,
        peak_value=1.0,
        warmup_steps=10,
        transition_steps=15,
        decay_rate=0.6,
        transition_begin=4,
        staircase=True,
        end_value=0.02,
    ),
    "restarts": call(
        "sgdr_schedule",
        cosine_kwargs=[CYCLE | {"warmup_steps": 5, "decay_steps": 40}, CYCLE, CYCLE | {"exponent": 2.0}],
    ),
}


def ours(name):
    return getattr(schedules, name, None) or getattr(schedules_joined, name)


@cache
def curves(x64):
    """Every schedule of the table and its twin, over all counts, as one program."""

    def run():
        counts = jnp.arange(COUNTS, dtype=jnp.int32)
        return {
            case: [
                jax.vmap(lambda count, f=make(name)(**kwargs): jnp.asarray(f(count), float))(counts)
                for make in (ours, lambda name: getattr(optax, name))
            ]
            for case, (name, kwargs) in SAME_AS_OPTAX.items()
        }

    with jax.enable_x64(x64):
        return jax.tree.map(np.asarray, jax.jit(run)())


@pytest.mark.parametrize("case", SAME_AS_OPTAX)
@pytest.mark.parametrize(
    ("x64", "rtol", "atol"), [(True, 1e-12, 1e-16), (False, 5e-6, 3e-7)], ids=["f64", "f32"]
)
@pytest.mark.covers("S01", "S02", "S03", "S04", "S07")
def test_a_schedule_has_the_values_of_its_optax_twin(case, x64, rtol, atol):
    mine, theirs = curves(x64)[case]
    np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol * np.abs(theirs).max())


CLOSED_FORMS = {
    "inverse_sqrt": (schedules.inverse_sqrt(0.6), lambda t: 0.6 / math.sqrt(t + 1)),
    "inverse_sqrt slower": (schedules.inverse_sqrt(0.6, 10), lambda t: 0.6 / math.sqrt(t / 10 + 1)),
    "inverse_time": (schedules.inverse_time(0.6), lambda t: 0.6 / (t + 1)),
    "inverse_time slower": (schedules.inverse_time(0.6, 10), lambda t: 0.6 / (t / 10 + 1)),
    "cosine": (schedules.cosine_decay_schedule(2.0, 50), lambda t: 1 + math.cos(math.pi * min(t, 50) / 50)),
    "exponential": (schedules.exponential_decay(2.0, 7, 0.5), lambda t: 2.0 * 0.5 ** (t / 7)),
    "halved every ten": (
        schedules.piecewise_constant_schedule(2.0, {10: 0.5, 20: 0.5, 30: 0.5}),
        lambda t: 2.0 * 0.5 ** min(t // 10, 3),
    ),
    "halved every ten, as stairs": (
        schedules.exponential_decay(2.0, 10, 0.5, staircase=True),
        lambda t: 2.0 * 0.5 ** (t // 10),
    ),
    "cosine to a tenth": (
        schedules.cosine_decay_schedule(2.0, 50, alpha=0.1),
        lambda t: 2.0 * (0.9 * 0.5 * (1 + math.cos(math.pi * min(t, 50) / 50)) + 0.1),
    ),
    "constant": (schedules.constant_schedule(0.3), lambda t: 0.3),
}


@pytest.mark.parametrize("case", CLOSED_FORMS)
@pytest.mark.covers("S01", "S02", "S03", "S04", "S05", "S06")
def test_a_schedule_is_its_closed_form(case, x64):
    schedule, form = CLOSED_FORMS[case]
    counts = np.arange(60)
    values = np.broadcast_to(jax.vmap(schedule)(jnp.asarray(counts)), counts.shape)
    np.testing.assert_allclose(values, [form(int(t)) for t in counts], rtol=1e-12, atol=1e-15)


@pytest.mark.covers("S05", "S06", "DEC-08")
def test_the_slides_1_over_t_decay_is_the_inverse_square_root_and_the_true_one_is_another():
    t = jnp.asarray([0, 3, 8])
    np.testing.assert_allclose(schedules.inverse_sqrt(1.0)(t), [1, 1 / 2, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(schedules.inverse_time(1.0)(t), [1, 1 / 4, 1 / 9], rtol=1e-6)


@pytest.mark.parametrize("power", [0.5, 1, 2.5])
def test_a_compiled_polynomial_ends_exactly_at_its_end_and_stays_there(power):
    lengths = jnp.arange(1, 200)
    ends = jax.jit(
        jax.vmap(
            lambda n: [schedules.polynomial_schedule(1.0, 0.1, power, n)(n + later) for later in (0, 1, 1000)]
        )
    )(lengths)
    np.testing.assert_array_equal(ends, np.float32(0.1))
    if power == 2.5:
        # The negative control: optax ends in NaN wherever 1 - n / n comes out below zero.
        theirs = jax.jit(jax.vmap(lambda n: optax.polynomial_schedule(1.0, 0.1, power, 10)(n)))(
            jnp.arange(12)
        )
        assert np.isnan(theirs[10:]).all()


@pytest.mark.covers("S07")
@pytest.mark.parametrize(
    "case",
    [
        "exponential",
        "cosine",
        "halved every ten, as stairs",
        "one-cycle cosine",
        "inverse_sqrt",
        "inverse_time",
    ],
)
def test_a_decay_starts_high_and_ends_low(case):
    """And never rises between; one cycle begins at its peak."""
    values = curves(False)[case][0] if case in SAME_AS_OPTAX else CLOSED_FORMS[case][0](np.arange(COUNTS))
    values = np.asarray(values)[np.argmax(values) if case.startswith("one-cycle") else 0 :]
    assert values[0] > 2 * values[-1]
    assert (np.diff(values) <= 0).all()


def recorder(seen, value=0.5):
    def schedule(count):
        seen.append(int(count))
        return value

    return schedule


@pytest.mark.parametrize(
    "make", [combine.scale_by_schedule, combine.scale_by_learning_rate], ids=lambda make: make.__name__
)
def test_a_schedule_sees_0_1_2_once_each(make):
    seen = []
    optimizer = make(recorder(seen))
    state = optimizer.init(jnp.zeros(2))
    for _ in range(5):
        _, state = optimizer.update(jnp.ones(2), state)
    assert seen == [0, 1, 2, 3, 4]


def test_joined_schedules_count_from_their_own_beginning_and_never_below_zero():
    first, second, third = [], [], []
    joined = schedules_joined.join_schedules(
        [recorder(first, 1.0), recorder(second, 2.0), recorder(third, 3.0)], [2, 5]
    )
    assert [float(joined(count)) for count in range(7)] == [1, 1, 2, 2, 2, 3, 3]
    assert first == [0, 1, 2, 3, 4, 5, 6]
    assert second == [0, 0, 0, 1, 2, 3, 4]
    assert third == [0, 0, 0, 0, 0, 0, 1]


def numbers(kwargs):
    return {k: float(v) for k, v in kwargs.items() if isinstance(v, int | float) and not isinstance(v, bool)}


@pytest.mark.parametrize("case", [c for c, (_, kwargs) in SAME_AS_OPTAX.items() if numbers(kwargs)])
def test_every_number_of_a_schedule_may_be_traced(case, x64):
    name, kwargs = SAME_AS_OPTAX[case]
    traced = numbers(kwargs)
    fixed = {k: v for k, v in kwargs.items() if k not in traced}
    scaled = {k: jnp.asarray([v, 1.5 * v]) for k, v in traced.items()}
    if "pct_start" in scaled:
        scaled["pct_start"] = jnp.asarray([kwargs["pct_start"]] * 2)
        if "pct_final" in scaled:
            scaled["pct_final"] = jnp.asarray([kwargs["pct_final"]] * 2)
    counts = jnp.arange(0, COUNTS, 26)
    theirs = getattr(optax, name)(**kwargs)
    alone = ours(name)(**fixed, **{k: float(v[1]) for k, v in scaled.items()})

    @compiled
    def curves_of(scaled):
        def curve(schedule):
            return jax.vmap(lambda count: jnp.asarray(schedule(count), float))(counts)

        both = jax.vmap(lambda hyper: curve(ours(name)(**fixed, **hyper)))(scaled)
        return both, curve(theirs), curve(alone)

    both, first, second = curves_of(scaled)
    np.testing.assert_allclose(both[0], first, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(both[1], second, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: schedules.cosine_decay_schedule(1.0, 0),
            "cosine_decay_schedule needs positive decay_steps, got 0",
        ),
        (lambda: schedules.inverse_sqrt(1.0, 0), "inverse_sqrt needs positive transition_steps, got 0"),
        (lambda: schedules.inverse_time(1.0, -1), "inverse_time needs positive transition_steps, got -1"),
        (
            lambda: schedules.piecewise_constant_schedule(1.0, {3: -0.5}),
            "scale factors that are not negative, got -0.5",
        ),
        (
            lambda: schedules_joined.piecewise_interpolate_schedule("linear", 1.0, {3: -0.5}),
            "piecewise_interpolate_schedule needs scale factors that are not negative, got -0.5",
        ),
        (
            lambda: schedules_joined.piecewise_interpolate_schedule("cubic", 1.0),
            "interpolate_type must be 'linear' or 'cosine', got 'cubic'",
        ),
        (
            lambda: schedules_joined.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=100, decay_steps=60),
            r"above warmup_steps: decay_steps - warmup_steps must be positive, got -40",
        ),
        (lambda: schedules_joined.linear_onecycle_schedule(0, 1.0), "needs positive transition_steps, got 0"),
        (
            lambda: schedules_joined.cosine_onecycle_schedule(-2, 1.0),
            "needs positive transition_steps, got -2",
        ),
        (
            lambda: schedules_joined.join_schedules([lambda t: t, lambda t: t], [1, 2]),
            "join_schedules of 2 schedules needs 1 boundaries, got 2",
        ),
    ],
)
def test_a_number_that_makes_no_schedule_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_count_may_be_a_python_number_a_numpy_number_or_traced():
    schedule = schedules_joined.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100)
    expected = optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100)(37)
    for count in (37, np.int64(37), jnp.int32(37)):
        assert float(schedule(count)) == pytest.approx(float(expected), rel=1e-6)
    assert float(jax.jit(schedule)(37)) == pytest.approx(float(expected), rel=1e-6)


def test_a_count_near_the_end_of_int32_does_not_overflow():
    last = jnp.asarray(2**31 - 1, jnp.int32)
    for schedule in (
        schedules.cosine_decay_schedule(1.0, 100),
        schedules.inverse_sqrt(1.0),
        schedules.linear_schedule(1.0, 0.5, 10),
    ):
        assert 0 <= float(schedule(last)) <= 1
