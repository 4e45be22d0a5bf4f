"""Without positions a Transformer does not see the order of its tokens; with them it does.

Claim X51 (Vaswani et al. 2017, section 3.5). First as an identity: exchanging the tokens exchanges the
outputs and changes nothing else. Then as a task that only the order decides: which of two marked tokens comes
first. Networks with and without sinusoidal positions are trained alike, over several seeds at once.

Refuted if without positions the outputs of exchanged tokens differ by more than 1e-5, or are right in over 60
% of the sequences, or if with positions fewer than 95 % are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import curves
from experiments.report import Report, Verdict, verdict
from purenets import losses, models, optim


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    length: int = 12
    dim: int = 32
    steps: int = 300
    batch_size: int = 64
    seeds: int = 4


def task(key: Any, n: int, length: int) -> tuple[jax.Array, jax.Array]:
    """Tokens 0 to 7 with one 8 and one 9 among them, and whether the 8 comes first."""
    tokens, places = jax.random.split(key)
    x = jax.random.randint(tokens, (n, length), 0, 8)
    order = jax.vmap(lambda k: jax.random.permutation(k, length)[:2])(jax.random.split(places, n))
    rows = jnp.arange(n)
    x = x.at[rows, order[:, 0]].set(8).at[rows, order[:, 1]].set(9)
    return x, (order[:, 0] < order[:, 1]).astype(jnp.int32)


def network(config: Config, positions: bool) -> pn.Layer:
    """A small encoder, the mean over the tokens, and two classes."""
    return pn.serial(
        encoder=models.encoder(10, config.dim, 4, 2, positions=None if positions else pn.identity),
        mean=lambda x: x.mean(1),
        head=pn.dense(config.dim, 2),
    )


def trained(config: Config, positions: bool, key: Any) -> tuple[jax.Array, jax.Array]:
    """The loss of every step, and the share of new sequences that is right."""
    model = network(config, positions)
    weights, draws, test = jax.random.split(key, 3)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adam(2e-3))

    def once(ts: pn.TrainState, _: None) -> Any:
        key = jax.random.fold_in(draws, ts.step)
        ts, metrics = step(ts, task(key, config.batch_size, config.length))
        return ts, metrics["loss"]

    ts, loss = jax.lax.scan(once, pn.start(model, step.optimizer, weights), None, length=config.steps)
    x, y = task(test, 1000, config.length)
    return loss, jnp.mean(jnp.argmax(model.apply(ts.params, ts.state, x)[0], -1) == y)


def exchanged(config: Config) -> float:
    """How far the vectors of exchanged tokens are from the exchanged vectors, without positions."""
    model = models.encoder(10, config.dim, 4, 2, positions=pn.identity)
    params, state = model.init(jax.random.key(0))
    x, _ = task(jax.random.key(1), 4, config.length)
    order = jax.random.permutation(jax.random.key(2), config.length)
    return float(
        jnp.abs(model.apply(params, state, x)[0][:, order] - model.apply(params, state, x[:, order])[0]).max()
    )


def decide(difference: float, without: float, with_: float) -> Verdict:
    """By the identity and the two shares that are right."""
    return verdict(difference < 1e-5 and without <= 0.6 and with_ >= 0.95)


def run(config: Config) -> Report:
    """Both kinds over all seeds."""
    found = {}
    for name, positions in (("with positions", True), ("without", False)):
        keys = jax.random.split(jax.random.key(0), config.seeds)
        found[name] = [
            np.asarray(x) for x in jax.jit(jax.vmap(lambda k, p=positions: trained(config, p, k)))(keys)
        ]
    shares = {name: float(right.mean()) for name, (_, right) in found.items()}
    difference = exchanged(config)
    return Report(
        numbers={
            "right with positions": shares["with positions"],
            "right without": shares["without"],
            "difference of exchanged tokens, without": difference,
            "seeds": config.seeds,
        },
        verdict=decide(difference, shares["without"], shares["with positions"]),
        because=f"which of two tokens comes first is right in {shares['with positions']:.1%} with positions and "
        f"{shares['without']:.1%} without (chance 50 %); exchanged tokens differ by {difference:.1e}",
        figures={
            "loss": curves(
                {name: loss.mean(0) for name, (loss, _) in found.items()}, x="step", y="cross entropy"
            )
        },
    )
