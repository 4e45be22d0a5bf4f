"""Around its minimum the loss of a deep residual network is smooth; without its shortcuts it is rugged.

Claims X17 and X18 (Li et al. 2018, sections 4 and 6 and their figures 1, 5 and 6): residual networks and their plain
twins are trained alike, and the training loss is drawn on a plane through the result, along two random directions
whose every filter has the norm of the network's own. They saw a smooth bowl for ResNet-56 and chaos without the
shortcuts, growing from 20 layers to 110. ``roughness`` is 1 where every line of the plane has a single valley.

Refuted if the deepest plain network is not rougher than its residual twin, or not rougher than the shallowest plain
one, in the mean over seeds. Rougher by less than a tenth shows the order but no chaos, and decides nothing: these
networks are narrow and their pictures small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import learning, standardised
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim
from purenets.inspect import filter_normalized_direction, landscape, roughness
from purenets.paths import leaf_paths

JOINS = {"plain": models.plain_join, "residual": models.sum_join}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    depths: tuple[int, ...] = (8, 20, 38)
    width: int = 8
    epochs: int = 15
    seeds: int = 2
    points: int = 25
    reach: float = 1.0
    examples: int = 256


def planes(model: pn.Layer, found: Any, config: Config, train: Any) -> np.ndarray:
    """The loss on a plane through each seed's result, ``[seeds, points, points]``."""
    x, y = jax.tree.map(lambda leaf: leaf[: config.examples], train)
    at = np.linspace(-config.reach, config.reach, config.points)
    stacked = [
        path for path in leaf_paths(jax.tree.map(lambda leaf: leaf[0], found.params)) if "/rest/" in path
    ]
    drawn = []
    for seed in range(config.seeds):
        params, state = (
            jax.tree.map(lambda leaf, s=seed: leaf[s], tree) for tree in (found.params, found.state)
        )
        keys = jax.random.split(jax.random.key(seed))
        directions = [filter_normalized_direction(key, params, stacked=stacked or None) for key in keys]

        def loss(params: Any, state: Any = state) -> Any:
            return jnp.mean(losses.softmax_cross_entropy(model.apply(params, state, x)[0], y))

        drawn.append(np.asarray(landscape(loss, params, directions, at)))
    return np.stack(drawn)


def decide(rough: dict[str, list[float]], enough: bool = True) -> Verdict:
    """By the roughness of plain and residual networks, each from shallow to deep."""
    plain, residual = rough["plain"], rough["residual"]
    ordered = plain[-1] > residual[-1] and plain[-1] > plain[0]
    return verdict(ordered, enough=enough and (not ordered or plain[-1] >= 1.1 * residual[-1]))


def run(config: Config) -> Report:
    """Train the twins at each depth and draw the planes."""
    train, test = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    steps = config.epochs * (len(train[1]) // 64)
    optimizer = optim.chain(
        optim.add_decayed_weights(5e-4),
        optim.sgd(optim.cosine_onecycle_schedule(steps, 0.05), momentum=0.9, nesterov=True),
    )
    surfaces: dict[str, list[np.ndarray]] = {}
    ended: dict[str, list[tuple[float, float]]] = {}
    for name, join in JOINS.items():
        surfaces[name], ended[name] = [], []
        for depth in config.depths:
            model = models.resnet_cifar(depth, channels=1, width=config.width, join=join)
            found = learning(model, optimizer, train, test, epochs=config.epochs, seeds=config.seeds)
            surfaces[name].append(planes(model, found, config, train))
            ended[name].append(found.last("loss"))
    # Far out the loss is large, and a logarithm, as in the paper, lets the whole plane be seen.
    rough = {
        name: [[roughness(np.log(surface)) for surface in of] for of in each]
        for name, each in surfaces.items()
    }
    mean = {name: [float(np.mean(of)) for of in each] for name, each in rough.items()}
    at = np.linspace(-config.reach, config.reach, config.points)
    figure, panels = axes(
        "first direction", "second direction", columns=len(config.depths), rows=2, width=9, height=6
    )
    for row, (name, each) in zip(panels, surfaces.items(), strict=True):
        for panel, depth, of, value in zip(row, config.depths, each, mean[name], strict=True):
            drawn = panel.contourf(at, at, np.log10(of[0]).T, levels=24)
            drawn.set_rasterized(True)
            figure.colorbar(drawn, ax=panel, label="log10 of the loss")
            panel.set_title(f"{name}, {depth} layers: roughness {value:.2f}", fontsize=9)
    lines, panel = axes("step along the first direction", "loss")
    for name, each in surfaces.items():
        panel.plot(at, each[-1][0][:, config.points // 2], label=f"{name}, {config.depths[-1]} layers")
    panel.set_yscale("log")
    panel.legend(frameon=False)
    rows = [
        [name, depth, f"{of:.2f}", ", ".join(f"{r:.2f}" for r in single), f"{loss[0]:.3f}"]
        for name in JOINS
        for depth, of, single, loss in zip(config.depths, mean[name], rough[name], ended[name], strict=True)
    ]
    few, many = config.depths[0], config.depths[-1]
    return Report(
        numbers={f"roughness, {name}, by depth {list(config.depths)}": line for name, line in mean.items()}
        | {f"training loss, {name}, by depth": [m for m, _ in each] for name, each in ended.items()},
        verdict=decide(mean, enough=config == Config()),
        because=f"at {many} layers the roughness is {mean['plain'][-1]:.2f} plain and {mean['residual'][-1]:.2f} "
        f"residual (1: a single valley on every line); at {few} layers {mean['plain'][0]:.2f} and "
        f"{mean['residual'][0]:.2f}",
        figures={"planes": figure, "lines": lines},
        tables={"roughness": Table(["network", "layers", "mean", "by seed", "training loss"], rows)},
    )
