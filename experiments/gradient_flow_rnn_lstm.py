"""Gradients fade over time in a vanilla recurrent network and flow on through the cell of an LSTM.

Claims X47 and G19 (Hochreiter & Schmidhuber 1997). The slope of the last output with respect to the input k steps
earlier, as a norm, for untrained networks of one size over the same random inputs. The LSTM begins with a bias on its
forget gates, 0 as drawn and 3, which opens them; the vanilla network with recurrent weights of spectral norm 0.9 and 1.

Refuted if the vanilla network of norm 0.9 fades by less than its bound 0.9^k says, or the LSTM with open gates keeps
less than a hundred times as much of its slope over the longest lag as the vanilla network does.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import curves
from experiments.report import Report, Verdict, verdict


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    time: int = 50
    units: int = 32
    features: int = 8
    seeds: int = 16


def slopes(cell: pn.Cell, change: dict[str, float], config: Config, key: jax.Array) -> jax.Array:
    """The norm of the slope of the last output on each input, latest first: ``[time]``.

    ``change`` sets the spectral norm of the recurrent weights, or the bias of the forget gates.
    """
    weights, inputs, direction = jax.random.split(key, 3)
    model = pn.rnn(cell)
    params, _ = model.init(weights)
    if "norm" in change:
        recurrent = params["recurrent_kernel"]
        params["recurrent_kernel"] = change["norm"] * recurrent / jnp.linalg.norm(recurrent, 2)
    if "forget" in change:
        n = config.units
        params["bias"] = params["bias"].at[n : 2 * n].set(change["forget"])
    x = 0.3 * jax.random.normal(inputs, (1, config.time, config.features))
    towards = jax.random.normal(direction, (config.units,))
    slope = jax.grad(lambda x: model.apply(params, {}, x)[0][0, -1] @ towards)(x)[0]
    return jnp.linalg.norm(slope, axis=-1)[::-1]


def decide(kept: dict[str, float], bound: float) -> Verdict:
    """By the share of the slope that is left over the longest lag."""
    vanilla = kept["vanilla, norm 0.9"]
    return verdict(vanilla <= bound and kept["LSTM, open gates"] >= 100 * vanilla)


def run(config: Config) -> Report:
    """All networks over all seeds."""
    vanilla = pn.elman_cell(config.features, config.units)
    lstm = pn.lstm_cell(config.features, config.units)
    networks = {
        "vanilla, norm 0.9": (vanilla, {"norm": 0.9}),
        "vanilla, norm 1": (vanilla, {"norm": 1.0}),
        "LSTM": (lstm, {}),
        "LSTM, open gates": (lstm, {"forget": 3.0}),
    }
    found = {}
    for name, (cell, change) in networks.items():
        keys = jax.random.split(jax.random.key(0), config.seeds)  # the same inputs for all of them
        norms = jax.jit(jax.vmap(lambda key, c=cell, d=change: slopes(c, d, config, key)))(keys)
        found[name] = np.asarray(norms) / np.asarray(norms)[:, :1]
    middle = {name: np.median(norms, 0) for name, norms in found.items()}
    kept = {name: float(line[-1]) for name, line in middle.items()}
    # The first input's own weights cancel in the ratio but for their direction, hence the factor.
    bound = 10 * 0.9 ** (config.time - 1)
    return Report(
        numbers={f"{name}: slope kept over {config.time - 1} steps": share for name, share in kept.items()},
        verdict=decide(kept, bound),
        because=f"over {config.time - 1} steps the slope falls to {kept['vanilla, norm 0.9']:.1e} of itself in the "
        f"vanilla network (its bound is {0.9 ** (config.time - 1):.1e}); in the LSTM with open gates "
        f"{kept['LSTM, open gates']:.2g} of it is left",
        figures={
            "slope_by_lag": curves(
                middle, x="steps back in time", y="slope, relative to the last step", log="y"
            )
        },
    )
