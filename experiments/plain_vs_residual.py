"""Plain networks get harder to train the deeper they are; their residual twins do not.

Claims X12 and X69 (He et al. 2016a, section 4.2 and figure 6: on CIFAR-10 the training error of plain networks
rises from 20 layers on). The twins have the same parameters and batch norms; only the shortcut is left out.
Pictures are small ones of CIFAR-10 by default. Then the size of the gradient on the first layer's output before
any training, by depth, in stacks of dense ReLU layers without norms, drawn a little too small: x + F(x) against F(x).

Refuted if, between the shallowest and the deepest networks, the training loss of the plain ones does not rise or
that of the residual ones rises by more than a tenth of it; or if the plain gradient does not fade by depth at
least a thousandfold more than the residual one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import learning, small_cifar
from experiments.figures import axes, curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import initializers, models, optim

JOINS = {"plain": models.plain_join, "residual": models.sum_join}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    depths: tuple[int, ...] = (8, 20, 56)
    width: int = 8
    size: int = 16
    examples: int = 1024
    epochs: int = 8
    learning_rate: float = 0.05
    seeds: int = 2
    stack_depths: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    units: int = 64


def first_gradient(depth: int, residual: bool, config: Config, key: Any) -> jax.Array:
    """The norm of the gradient of a random sum of outputs on what enters the stack."""
    weights, inputs, towards = jax.random.split(key, 3)
    draw = initializers.normal((1.0 / config.units) ** 0.5)  # half of what He's rule gives ReLU
    unit = pn.serial(dense=pn.dense(config.units, config.units, kernel_init=draw), relu=jax.nn.relu)
    stack = pn.repeat(pn.residual(unit) if residual else unit, depth)
    params, state = stack.init(weights)
    x, direction = (jax.random.normal(k, (config.units,)) for k in (inputs, towards))
    slope = jax.grad(lambda x: stack.apply(params, state, x[None])[0][0] @ direction)(x)
    return jnp.linalg.norm(slope) / jnp.linalg.norm(direction)


def decide(final: dict[str, list[float]], gradients: dict[str, list[float]], enough: bool = True) -> Verdict:
    """By the training losses and the gradients, each from the shallowest network to the deepest."""
    plain, residual = final["plain"], final["residual"]
    harder = plain[-1] > plain[0] and residual[-1] <= 1.1 * residual[0]
    kept = {name: line[-1] / line[0] for name, line in gradients.items()}
    return verdict(harder and kept["plain"] <= 1e-3 * kept["residual"], enough=enough)


def run(config: Config) -> Report:
    """Gradients before training, then the twins at each depth."""
    gradients = {
        name: [
            float(np.median(pn.sweep(partial(first_gradient, depth, residual, config), seeds=32).results))
            for depth in config.stack_depths
        ]
        for name, residual in (("plain", False), ("residual", True))
    }
    train, test = small_cifar(config.examples, 1024, config.size)
    steps = config.epochs * (len(train[1]) // 64)
    optimizer = optim.sgd(
        optim.cosine_onecycle_schedule(steps, config.learning_rate), momentum=0.9, nesterov=True
    )
    found = {
        name: [
            learning(
                models.resnet_cifar(depth, width=config.width, join=join),
                optimizer,
                train,
                test,
                epochs=config.epochs,
                seeds=config.seeds,
            )
            for depth in config.depths
        ]
        for name, join in JOINS.items()
    }
    final = {name: [each.last("loss")[0] for each in of] for name, of in found.items()}
    training, panels = axes("epoch", "training loss", columns=2, width=8)
    for panel, (name, of) in zip(panels.flat, found.items(), strict=True):
        for depth, each in zip(config.depths, of, strict=True):
            panel.plot(np.arange(1, config.epochs + 1), each.loss.mean(0), label=f"{depth} layers")
        panel.set_title(name)
        panel.set_ylim(0, 2.5)
        panel.legend(frameon=False)
    rows = [
        [name, depth, *(f"{m:.3f} ± {s:.3f}" for m, s in map(each.last, ("loss", "test_accuracy")))]
        for name, of in found.items()
        for depth, each in zip(config.depths, of, strict=True)
    ]
    few, many = config.depths[0], config.depths[-1]
    shallow, deep = config.stack_depths[0], config.stack_depths[-1]
    return Report(
        numbers={
            f"training loss, {name}, by depth {list(config.depths)}": line for name, line in final.items()
        }
        | {
            f"gradient, {name}, by depth {list(config.stack_depths)}": line
            for name, line in gradients.items()
        },
        verdict=decide(final, gradients, enough=config == Config()),
        because=f"from {few} to {many} layers the training loss goes from {final['plain'][0]:.2f} to "
        f"{final['plain'][-1]:.2f} in plain networks and from {final['residual'][0]:.2f} to "
        f"{final['residual'][-1]:.2f} in residual ones; from {shallow} to {deep} layers the first gradient goes from "
        f"{gradients['plain'][0]:.2g} to {gradients['plain'][-1]:.1e} and from {gradients['residual'][0]:.2g} to "
        f"{gradients['residual'][-1]:.1e}",
        figures={
            "training": training,
            "gradient_by_depth": curves(
                gradients, x="layers", y="gradient on the first layer", at=config.stack_depths, log="xy"
            ),
        },
        tables={"after training": Table(["network", "layers", "training loss", "test accuracy"], rows)},
    )
