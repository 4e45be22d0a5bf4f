"""Spiking neurons: rates in closed form, events beside the clock, the squid's action potential."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.classic.spiking import (
    LIF,
    firing_rate,
    hodgkin_huxley,
    simulate,
    simulate_events,
    spike,
)


@pytest.mark.covers("M10")
@pytest.mark.parametrize("current", [1.2, 2.0, 5.0])
def test_under_a_constant_current_a_neuron_fires_at_the_rate_of_the_formula(current):
    neuron, dt = LIF(tau=10.0, refractory=2.0), 0.01
    spikes, _ = simulate(neuron, jnp.full(100_000, current), dt)
    times = np.flatnonzero(spikes) * dt
    expected = 2.0 + 10.0 * np.log(current / (current - 1.0))
    np.testing.assert_allclose(np.diff(times).mean(), expected, atol=2 * dt)
    np.testing.assert_allclose(firing_rate(neuron, current), 1 / expected, rtol=1e-5)


@pytest.mark.covers("M10")
def test_below_the_threshold_nothing_fires_and_the_potential_follows_the_circuit():
    neuron, dt = LIF(), 0.1
    spikes, potentials = simulate(neuron, jnp.full(500, 0.9), dt)
    assert float(spikes.sum()) == 0 == float(firing_rate(neuron, 0.9))
    t = dt * np.arange(1, 501)
    np.testing.assert_allclose(potentials, 0.9 * (1 - np.exp(-t / 10)), rtol=1e-4)


@pytest.mark.covers("M10")
def test_a_spike_is_all_or_nothing():
    spikes, _ = simulate(LIF(), jnp.stack([jnp.full(1000, 1.5), jnp.full(1000, 50.0)], 1), 0.1)
    assert set(np.unique(spikes)) == {0.0, 1.0}


@pytest.mark.covers("M11")
def test_events_and_the_clock_agree_in_spike_times_within_a_step():
    neuron, dt, until = LIF(tau=8.0, refractory=3.0), 0.05, 200.0
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 0.5, (6, 6)) * (rng.random((6, 6)) < 0.4)
    np.fill_diagonal(weights, 0)
    # On the grid of the clock, so that both hear of an arrival in the same step.
    inputs = sorted(
        (round(t / dt) * dt, int(i), 0.6)
        for t, i in zip(rng.uniform(0, 180, 120), rng.integers(0, 6, 120), strict=True)
    )
    spikes, handled = simulate_events(neuron, weights, inputs, delay=1.0, until=until)
    assert len(spikes) > 10
    assert handled >= len(inputs)
    potential, free = np.zeros(6), np.full(6, -1.0)
    steps, lag = round(until / dt), round(1.0 / dt)
    arrive = np.zeros((steps + lag + 2, 6))
    for t, i, size in inputs:
        arrive[round(t / dt), i] += size
    found = []
    for k in range(steps + 1):
        time = k * dt
        held = time < free - 1e-9
        potential = np.where(held, neuron.reset, potential * np.exp(-dt / neuron.tau) + arrive[k])
        fired = (potential >= neuron.threshold) & ~held
        for i in np.flatnonzero(fired):
            found.append((time, int(i)))
            arrive[k + lag] += weights[i]
            free[i] = time + neuron.refractory
        potential = np.where(fired, neuron.reset, potential)
    assert [i for _, i in sorted(found)] == [i for _, i in sorted(spikes)]
    np.testing.assert_allclose([t for t, _ in sorted(found)], [t for t, _ in sorted(spikes)], atol=dt)


@pytest.mark.covers("M11")
def test_a_silent_input_costs_no_event():
    assert simulate_events(LIF(), np.ones((3, 3)), []) == ([], 0)


@pytest.mark.covers("M10")
def test_something_is_learned_through_spikes_by_the_surrogate_slope():
    at = lambda x: float(jax.grad(spike)(jnp.float32(x)))
    assert at(0.0) == 1.0
    assert at(0.1) == pytest.approx(0.25)
    drive = lambda w: simulate(LIF(), w * jnp.ones(400), 0.1)[0].sum()
    weight = jnp.float32(0.8)
    assert float(drive(weight)) == 0
    slope = jax.jit(jax.grad(drive))
    for _ in range(50):
        weight = weight + 1e-3 * jnp.clip(slope(weight), -50, 50)
    assert float(drive(weight)) > 0


@pytest.mark.covers("M10")
def test_the_equivalent_circuit_rests_then_fires_with_the_known_shape():
    """Hodgkin & Huxley 1952: rest at -65 mV, a spike to about +40, then below rest; none under a small current."""
    quiet = hodgkin_huxley(jnp.zeros(5000))["potential"]
    np.testing.assert_allclose(quiet, -65.0, atol=0.1)
    fired = hodgkin_huxley(jnp.full(5000, 10.0))["potential"]
    assert 30 < float(fired.max()) < 50
    assert -80 < float(fired[1000:].min()) < -68
    weak = hodgkin_huxley(jnp.full(5000, 1.0))["potential"]
    assert float(weak.max()) < -55


def test_networks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="positive delay"):
        simulate_events(LIF(), np.ones((2, 2)), [], delay=0.0)
    with pytest.raises(ValueError, match=r"weights \[n, n\]"):
        simulate_events(LIF(), np.ones((2, 3)), [])


@pytest.mark.parametrize("dt", [0.01, 0.02, 0.05, 0.25])
def test_the_refractory_time_takes_its_number_of_steps_whatever_the_step(dt):
    neuron = LIF(refractory=2.0)
    spikes, _ = simulate(neuron, jnp.full(round(9 / dt), 1e6), dt)
    # So large a current fires in the first step after the refractory time.
    times = np.flatnonzero(np.asarray(spikes))
    np.testing.assert_array_equal(np.diff(times), round(2.0 / dt) + 1)
