"""Spiking neurons: leaky integrate-and-fire by the clock and by events, and the circuit of Hodgkin and Huxley.

A leaky integrate-and-fire neuron (Lapicque 1907) is a capacitor with a leak: ``tau dV/dt = rest - V + R I``. When V
reaches the threshold it fires, V goes back to ``reset`` and stays there for the refractory time. Times are in
milliseconds, potentials in millivolts.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["LIF", "firing_rate", "hodgkin_huxley", "simulate", "simulate_events", "spike"]


@dataclass(frozen=True)
class LIF:
    """The constants of a neuron."""

    tau: float = 10.0
    resistance: float = 1.0
    rest: float = 0.0
    threshold: float = 1.0
    reset: float = 0.0
    refractory: float = 2.0


def firing_rate(neuron: LIF, current: float | jax.Array) -> jax.Array:
    """Spikes per millisecond under a constant current, 0 where it does not reach the threshold.

    ``1 / (t_ref + tau ln((R I - reset + rest) / (R I - threshold + rest)))``.
    """
    drive = neuron.rest + neuron.resistance * jnp.asarray(current)
    above = drive > neuron.threshold
    safe = jnp.where(above, drive - neuron.threshold, 1.0)
    time = neuron.refractory + neuron.tau * jnp.log(jnp.where(above, drive - neuron.reset, 1.0) / safe)
    return jnp.where(above, 1 / time, 0.0)


@jax.custom_jvp
def spike(excess: jax.Array) -> jax.Array:
    """1 where the potential is over the threshold, else 0, with the slope ``1 / (1 + 10 |x|)^2`` in its place.

    The step itself has slope zero everywhere, so that nothing could learn through it (Zenke & Ganguli 2018).
    """
    return (excess >= 0).astype(jnp.result_type(excess, jnp.float32))


@spike.defjvp
def _surrogate(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    return spike(x), dx / (1 + 10 * jnp.abs(x)) ** 2


def simulate(neuron: LIF, current: jax.Array, dt: float) -> tuple[jax.Array, jax.Array]:
    """By the clock: currents ``[time, ...]`` to spikes, 0 or 1, and potentials, ``[time, ...]``.

    Each step decays exactly, so a constant current errs only by when within the step the threshold is met. It is
    differentiable through :func:`spike`.
    """
    decay = math.exp(-dt / neuron.tau)

    def step(carry: Any, now: jax.Array) -> Any:
        v, wait = carry
        goal = neuron.rest + neuron.resistance * now
        held = wait > dt / 2  # by half a step, since sums of dt are not exact
        v = jnp.where(held, neuron.reset, goal + (v - goal) * decay)
        fired = spike(v - neuron.threshold) * ~held
        wait = jnp.where(fired > 0, neuron.refractory, wait - dt)
        return (v * (1 - fired) + neuron.reset * fired, wait), (fired, v)

    start = (jnp.full(current.shape[1:], neuron.rest), jnp.zeros(current.shape[1:]))
    _, (spikes, potentials) = jax.lax.scan(step, start, current)
    return spikes, potentials


def simulate_events(
    neuron: LIF,
    weights: np.ndarray,
    inputs: Sequence[tuple[float, int, float]],
    *,
    delay: float = 1.0,
    until: float = 100.0,
) -> tuple[list[tuple[float, int]], int]:
    """By events: neurons that rest until a spike reaches them, on the host.

    A spike of neuron i arrives at j after ``delay`` and raises its potential by ``weights[i, j]`` at once, so a
    threshold is only ever met at an arrival, and between arrivals nothing is computed.

    Args:
        neuron: the constants of all of them.
        weights: ``[neurons, neurons]``, 0 for none.
        inputs: arrivals from outside, ``(time, neuron, size)``.
        delay: of every connection, positive.
        until: when to stop.

    Returns:
        The spikes ``(time, neuron)`` in order, and how many arrivals were handled.

    Raises:
        ValueError: the weights are not square, or the delay is not positive.
    """
    size = len(weights)
    if np.shape(weights) != (size, size) or delay <= 0:
        raise ValueError(
            f"simulate_events needs weights [n, n] and a positive delay, got {np.shape(weights)}, {delay}"
        )
    queue = list(inputs)
    heapq.heapify(queue)
    potential, seen, free = np.full(size, neuron.rest), np.zeros(size), np.zeros(size)
    spikes: list[tuple[float, int]] = []
    handled = 0
    while queue and queue[0][0] <= until:
        time, i, jump = heapq.heappop(queue)
        handled += 1
        if time < free[i]:
            continue
        past = time - max(seen[i], free[i])
        potential[i] = neuron.rest + (potential[i] - neuron.rest) * math.exp(-past / neuron.tau) + jump
        seen[i] = time
        if potential[i] >= neuron.threshold:
            spikes.append((time, i))
            potential[i], free[i] = neuron.reset, time + neuron.refractory
            for j in np.flatnonzero(weights[i]):
                heapq.heappush(queue, (time + delay, int(j), float(weights[i, j])))
    return spikes, handled


def hodgkin_huxley(current: jax.Array, dt: float = 0.01) -> dict[str, jax.Array]:
    """The membrane as an equivalent circuit (Hodgkin & Huxley 1952): currents ``[time]`` in uA/cm^2 to potentials.

    ``C dV/dt = I - g_Na m^3 h (V - E_Na) - g_K n^4 (V - E_K) - g_L (V - E_L)``, the resting potential at -65 mV.
    Forward steps of ``dt`` milliseconds. Returns ``potential`` and the gates ``m``, ``h``, ``n``, each ``[time]``.
    """

    def rates(v: jax.Array) -> Any:
        def ratio(x: jax.Array) -> jax.Array:  # x / (1 - exp(-x)), which is 1 at 0
            small = jnp.abs(x) < 1e-6
            return jnp.where(small, 1 + x / 2, x / -jnp.expm1(-jnp.where(small, 1.0, x)))

        return {
            "m": (ratio((v + 40) / 10), 4 * jnp.exp(-(v + 65) / 18)),
            "h": (0.07 * jnp.exp(-(v + 65) / 20), 1 / (1 + jnp.exp(-(v + 35) / 10))),
            "n": (0.1 * ratio((v + 55) / 10), 0.125 * jnp.exp(-(v + 65) / 80)),
        }

    def step(carry: Any, now: jax.Array) -> Any:
        v, gates = carry
        flow = (
            120 * gates["m"] ** 3 * gates["h"] * (v - 50)
            + 36 * gates["n"] ** 4 * (v + 77)
            + 0.3 * (v + 54.387)
        )
        speeds = rates(v)
        gates = {
            name: x + dt * (speeds[name][0] * (1 - x) - speeds[name][1] * x) for name, x in gates.items()
        }
        v = v + dt * (now - flow)
        return (v, gates), {"potential": v, **gates}

    rest = jnp.asarray(-65.0)
    gates = {name: a / (a + b) for name, (a, b) in rates(rest).items()}
    return jax.lax.scan(step, (rest, gates), current)[1]
