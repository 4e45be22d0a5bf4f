"""Parts that are learnt once and shared serve a combination that is hardly ever seen.

Claim X43. Things have a shape and a colour, of several each, and show both with noise. One of the combinations is rare
among the training examples. One network names the combination outright, one unit for each. The other is made of two
parts, one that names the shape and one that names the colour, and each part learns from all combinations; the score of
a combination is the sum of its two. Both have hidden units for about the same number of parameters.

Refuted if, with the fewest examples of the rare combination, the parts do not make at most half as many errors on it as
the network that names combinations, by more than two standard errors, or they lose on the frequent ones by as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import losses, models, optim
from purenets.theory import count_parameters, hidden_width


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    kinds: int = 4
    """Of shapes and of colours."""
    each: int = 20
    """Training examples of a frequent combination."""
    rare: tuple[int, ...] = (1, 2, 5, 20)
    """Training examples of the rare one, tried in turn."""
    features: int = 12
    noise: float = 0.5
    width: int = 24
    """Hidden units of each part."""
    steps: int = 400
    seeds: int = 16


def draw(key: Any, world: tuple[jax.Array, jax.Array], labels: jax.Array, config: Config) -> jax.Array:
    """Examples of these combinations ``[n, 2 * features]``: the signs of shape and of colour, with noise."""
    clean = jnp.concatenate([part[labels[:, i]] for i, part in enumerate(world)], -1)
    return clean + config.noise * jax.random.normal(key, clean.shape)


def networks(config: Config) -> dict[str, pn.Layer]:
    """By name, from ``[n, 2 * features]`` to scores ``[n, kinds^2]`` of the combinations."""
    n, kinds = 2 * config.features, config.kinds
    part = (n, config.width, kinds)
    whole = hidden_width(n, kinds**2, 1, 2 * count_parameters(part))
    one = models.mlp(part, activation=jnp.tanh)

    @pn.compose(shape=one, colour=one)
    def parts(m: pn.Wiring, x: jax.Array) -> jax.Array:
        return (m.shape(x)[:, :, None] + m.colour(x)[:, None, :]).reshape(len(x), -1)

    return {
        "combinations": models.mlp((n, whole, kinds**2), activation=jnp.tanh),
        "parts": parts,
    }


def errors(model: pn.Layer, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Shares of new examples misnamed, of the rare combination and the others, ``[rare, seeds]`` each."""
    kinds, most = config.kinds, config.each
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(kinds), jnp.arange(kinds), indexing="ij"), -1).reshape(-1, 2)
    labels = jnp.repeat(pairs, most, axis=0)
    new = jnp.repeat(pairs, 50, axis=0)
    number = lambda labels: labels[:, 0] * kinds + labels[:, 1]
    loss = lambda params, x, weight: (
        jnp.sum(weight * losses.softmax_cross_entropy(model.apply(params, {}, x)[0], number(labels)))
        / jnp.sum(weight)
    )
    optimizer = optim.adam(0.01)

    def run(key: Any, rare: jax.Array) -> Any:
        weights, places, noise, later = jax.random.split(key, 4)
        signs = jax.random.rademacher(places, (2, kinds, config.features), dtype=jnp.float32)
        world = signs[0], signs[1]
        x = draw(noise, world, labels, config)
        # The first combination is the rare one; examples beyond its number count nothing.
        weight = jnp.where(jnp.arange(len(labels)) < most, jnp.arange(len(labels)) < rare, True).astype(
            jnp.float32
        )

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            update, state = optimizer.update(jax.grad(loss)(params, x, weight), state, params)
            return (optim.apply_updates(params, update), state), None

        params = model.init(weights)[0]
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, length=config.steps)
        named = jnp.argmax(model.apply(params, {}, draw(later, world, new, config))[0], -1)
        wrong = named != number(new)
        return wrong[:50].mean(), wrong[50:].mean()

    found = pn.sweep(run, {"rare": config.rare}, seeds=config.seeds).results
    first, others = (np.asarray(x).reshape(len(config.rare), config.seeds) for x in found)
    return first, others


def decide(rare: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> Verdict:
    """By the errors over seeds with the fewest examples, on the rare combination and on the others."""
    if len(rare["parts"]) < 3:
        return "inconclusive"

    def margin(found: dict[str, np.ndarray]) -> tuple[float, float]:
        difference = found["combinations"] - found["parts"]
        return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))

    gained, error = margin(rare)
    kept, its_error = margin(others)
    halved = rare["parts"].mean() <= rare["combinations"].mean() / 2
    return verdict(bool(halved and gained > 2 * error and kept > -2 * its_error - 0.01))


def run(config: Config) -> Report:
    """Both networks, with more and more examples of the rare combination."""
    found = {name: errors(model, config) for name, model in networks(config).items()}
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(model.init(jax.random.key(0))[0]))
        for name, model in networks(config).items()
    }
    figure, panel = axes("training examples of the rare combination", "share misnamed")
    for name, (rare, others) in found.items():
        error = rare.std(1) / np.sqrt(config.seeds)
        panel.errorbar(config.rare, rare.mean(1), error, label=f"{name}, the rare one", capsize=2, marker="o")
        panel.plot(config.rare, others.mean(1), label=f"{name}, the others")
    panel.set_xscale("log")
    panel.set_xticks(config.rare, list(map(str, config.rare)))
    panel.legend(frameon=False)
    fewest = {name: (rare[0], others[0]) for name, (rare, others) in found.items()}
    mean = {name: float(rare.mean()) for name, (rare, _) in fewest.items()}
    return Report(
        numbers={"examples of the rare combination": list(config.rare)}
        | {f"parameters, {name}": size for name, size in sizes.items()}
        | {f"rare one misnamed, {name}: mean": rare.mean(1).tolist() for name, (rare, _) in found.items()}
        | {f"rare one misnamed, {name}: deviation": rare.std(1).tolist() for name, (rare, _) in found.items()}
        | {f"others misnamed, {name}: mean": others.mean(1).tolist() for name, (_, others) in found.items()},
        verdict=decide(
            {name: rare for name, (rare, _) in fewest.items()},
            {name: others for name, (_, others) in fewest.items()},
        ),
        because=f"with {config.rare[0]} example of it the rare combination is misnamed in {mean['combinations']:.1%} "
        f"of cases by the network that names combinations and in {mean['parts']:.1%} by the parts, the others in "
        f"{fewest['combinations'][1].mean():.1%} and {fewest['parts'][1].mean():.1%}",
        figures={"errors_by_examples": figure},
        tables={
            "share misnamed": Table(
                ["examples", *(f"{name}, rare" for name in found), *(f"{name}, others" for name in found)],
                [
                    [
                        count,
                        *(f"{rare[i].mean():.3f}" for rare, _ in found.values()),
                        *(f"{others[i].mean():.3f}" for _, others in found.values()),
                    ]
                    for i, count in enumerate(config.rare)
                ],
            )
        },
    )
