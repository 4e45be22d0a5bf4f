"""Spiking neurons fire at the rate of the formula, by the clock as by events, and learn through a surrogate slope.

Catalogue rows M10 and M11. A leaky integrate-and-fire neuron under a constant current is compared with
``1 / (t_ref + tau ln(RI / (RI - threshold)))`` over many currents. Two layers of neurons driven by random arrivals
are computed by events and by the clock with ever shorter steps. At the shortest step arrivals fall on the clock; longer
ones round them, and a spike that is gained or lost by this is counted. Then hidden neurons learn which of two groups
of inputs fires first, which no count of input spikes tells; beside them are networks whose hidden weights cannot
learn, since the step of a spike has slope zero (Zenke & Ganguli 2018).

Refuted by a mean interval between spikes that is off by more than a step, by spikes that differ in number, or in time
by more than a step, at the shortest one, or if the networks with the surrogate are right in under 90 % of new
examples or no better than those without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes, curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import losses, optim
from purenets.classic.spiking import LIF, firing_rate, simulate, simulate_events


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    currents: int = 40
    duration: float = 1000.0
    """Milliseconds of constant current."""
    halvings: int = 6
    """The shortest step is a millisecond halved so often, which floating point counts without error."""
    neurons: int = 16
    """In each of the two layers."""
    hidden: int = 16
    steps: int = 300
    seeds: int = 8


def rates(config: Config, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Currents, rates of the formula, and rates from the mean interval of simulated spikes."""
    currents = np.linspace(0.5, 6.0, config.currents)
    given = jnp.broadcast_to(jnp.asarray(currents, jnp.float32), (round(config.duration / dt), len(currents)))
    spikes = np.asarray(jax.jit(lambda given: simulate(LIF(), given, dt)[0])(given))
    found = np.zeros(len(currents))
    for i in range(len(currents)):
        times = np.flatnonzero(spikes[:, i])
        if len(times) > 1:
            found[i] = (len(times) - 1) / ((times[-1] - times[0]) * dt)
    return currents, np.asarray(firing_rate(LIF(), jnp.asarray(currents))), found


def by_events(
    config: Config, dt: float, until: float = 200.0
) -> tuple[Any, np.ndarray, list[tuple[float, int]]]:
    """Random arrivals at a first layer, the weights to a second one, and the spikes of all neurons.

    Arrivals are at multiples of ``dt``, so that the clock of that step hears of them at the same time.
    """
    draw, n = np.random.default_rng(0), config.neurons
    onward = draw.uniform(0.2, 0.6, (n, n)) * (draw.random((n, n)) < 0.3)
    times = np.round(draw.uniform(0, until - 5, 60 * n) / dt) * dt
    arrivals = [(float(t), int(i), 0.45) for t, i in zip(times, draw.integers(0, n, 60 * n), strict=True)]
    weights = np.zeros((2 * n, 2 * n))
    weights[:n, n:] = onward
    spikes, _ = simulate_events(LIF(), weights, arrivals, delay=1.0, until=until)
    return arrivals, onward, spikes


def by_clock(arrivals: Any, onward: np.ndarray, dt: float, until: float = 200.0) -> list[tuple[float, int]]:
    """The same network with steps of ``dt``: an arrival becomes the current of a step that lifts as much."""
    n, lag = len(onward), round(1.0 / dt)
    # The clock holds a neuron through the step in which its refractory time ends.
    neuron = replace(LIF(), refractory=LIF().refractory - dt)
    kick = 1 / (1 - math.exp(-dt / neuron.tau))
    lifts = np.zeros((round(until / dt) + 1, n), np.float32)
    for time, i, size in arrivals:
        lifts[round(time / dt), i] += size
    first = simulate(neuron, kick * jnp.asarray(lifts), dt)[0]
    later = jnp.concatenate([jnp.zeros((lag, n)), first[:-lag] @ jnp.asarray(onward, jnp.float32)])
    second = simulate(neuron, kick * later, dt)[0]
    both = np.concatenate([np.asarray(first), np.asarray(second)], 1)
    return [(step * dt, int(i)) for step, i in np.argwhere(both > 0)]


def compare(
    events: list[tuple[float, int]], clock: list[tuple[float, int]], neurons: int
) -> tuple[int, float]:
    """How many spikes one has and the other lacks, and the worst difference in time where a neuron has as many."""
    lacking, worst = 0, 0.0
    for i in range(neurons):
        a, b = (np.array(sorted(t for t, j in spikes if j == i)) for spikes in (events, clock))
        lacking += abs(len(a) - len(b))
        if len(a) == len(b) > 0:
            worst = max(worst, float(np.abs(a - b).max()))
    return lacking, worst


def order_task(key: jax.Array, n: int, time: int = 60, inputs: int = 10) -> tuple[jax.Array, jax.Array]:
    """Input spikes ``[n, time, inputs]``: each input fires once, one half early and one late; which half is early."""
    which, early, late = jax.random.split(key, 3)
    y = jax.random.bernoulli(which, 0.5, (n,)).astype(jnp.int32)
    first = jax.random.randint(early, (n, inputs), 0, time // 3)
    second = jax.random.randint(late, (n, inputs), time // 3, 2 * time // 3)
    leads = (jnp.arange(inputs) < inputs // 2) == (y[:, None] == 1)
    at = jnp.where(leads, first, second)
    return (at[:, None, :] == jnp.arange(time)[:, None]).astype(jnp.float32), y


def network(hidden: int, inputs: int, through_spikes: bool) -> pn.Layer:
    """Dense, spiking neurons, and dense on how often each fired; times in steps of a millisecond."""

    def neurons(x: jax.Array) -> jax.Array:
        counts = simulate(LIF(tau=10.0, refractory=1.0), jnp.moveaxis(x, 1, 0), 1.0)[0].sum(0)
        return counts if through_spikes else jax.lax.stop_gradient(counts)

    scaled = lambda x: 20 * x
    return pn.serial(into=pn.dense(inputs, hidden), scaled=scaled, neurons=neurons, out=pn.dense(hidden, 2))


def learn(key: jax.Array, through_spikes: bool, config: Config) -> tuple[jax.Array, jax.Array]:
    """The loss of every step, and the share of new examples that is right."""
    weights, draws, test = jax.random.split(key, 3)
    x, y = order_task(test, 1000)
    model = network(config.hidden, x.shape[-1], through_spikes)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adam(0.01))

    def once(ts: pn.TrainState, _: None) -> Any:
        ts, metrics = step(ts, order_task(jax.random.fold_in(draws, ts.step), 64))
        return ts, metrics["loss"]

    ts, loss = jax.lax.scan(once, pn.start(model, step.optimizer, weights), None, length=config.steps)
    return loss, jnp.mean(jnp.argmax(model.apply(ts.params, ts.state, x)[0], -1) == y)


def decide(interval: float, lacking: int, late: float, right: float, without: float) -> Verdict:
    """By the worst interval and time, in steps, the spikes that are lacking, and the two shares that are right."""
    return verdict(interval <= 1 and lacking == 0 and late <= 1 and right >= 0.9 and right > without)


def run(config: Config) -> Report:
    """Rates, events beside the clock, and learning."""
    dt = 0.5**config.halvings
    currents, formula, found = rates(config, dt)
    fires = formula > 0
    silent = found[~fires].max(initial=0.0) == 0
    off = np.abs(1 / np.maximum(found[fires], 1e-9) - 1 / formula[fires]).max() if silent else math.inf
    interval = float(off) / dt
    arrivals, onward, events = by_events(config, dt)
    rows: list[list[Any]] = []
    for step in 0.5 ** np.arange(config.halvings + 1):
        lacking, worst = compare(events, by_clock(arrivals, onward, float(step)), 2 * config.neurons)
        rows.append([float(step), lacking, worst, worst / float(step)])
    losses_, right = {}, {}
    for name, through in (("surrogate slope", True), ("slope zero", False)):
        keys = jax.random.split(jax.random.key(0), config.seeds)  # the same weights and examples for both
        loss, share = jax.jit(jax.vmap(lambda key, through=through: learn(key, through, config)))(keys)
        losses_[name], right[name] = np.asarray(loss).mean(0), np.asarray(share)
    figure, panel = axes("current", "spikes per millisecond")
    panel.plot(currents, formula, label="formula")
    panel.plot(currents, found, "o", ms=4, label=f"simulated, steps of {dt:g} ms")
    panel.legend(frameon=False)
    learned, unlearned = (float(right[name].mean()) for name in right)
    _, lacking, _, late = rows[-1]
    return Report(
        numbers={
            "worst mean interval between spikes (steps)": interval,
            "spikes by events": len(events),
            f"spikes lacking at steps of {dt:g} ms": lacking,
            f"worst time at steps of {dt:g} ms (steps)": late,
            **{f"right with {name} (mean over seeds)": float(share.mean()) for name, share in right.items()},
            **{f"right with {name} (least)": float(share.min()) for name, share in right.items()},
        },
        verdict=decide(interval, lacking, late, learned, unlearned),
        because=f"mean intervals are within {interval:.2f} steps of the formula; by the clock {lacking} of "
        f"{len(events)} spikes are lacking and none is off by more than {late:.2f} steps; {learned:.1%} are right "
        f"with the surrogate and {unlearned:.1%} without",
        figures={
            "rate_by_current": figure,
            "loss": curves(losses_, x="step", y="cross-entropy (nats)"),
        },
        tables={
            "Clock beside events": Table(["step (ms)", "spikes lacking", "worst time (ms)", "(steps)"], rows)
        },
    )
