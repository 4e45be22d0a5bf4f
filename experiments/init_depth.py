"""How the weights are drawn decides how deep a network without norms can be trained.

Claims X02, X03 and X04. First the sizes, per layer, of signals and gradients in an untrained stack of ten tanh
layers: with a standard deviation of 0.01 both fade, after Glorot & Bengio 2010 (eq. 12 and 16) they stay of one
scale. Then plain convolutional stacks with ReLU, trained on the digits from weights after Glorot (Xavier) and after
He et al. 2015 (section 2.2, figures 2 and 3), who saw both learn at 22 layers, their own sooner, and only their own
at 30. After how many layers Xavier's stall depends on the data and on how long one waits; here it is fewer.

Refuted if, at ten layers, Xavier's last signal is less than a tenth of its first or the small draw's keeps more than
1e-5; or if there is no depth at which both stacks learn, or no greater one at which He's learn and Xavier's do not.
To learn is to end with more than half of the training digits right; chance is a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import learning, standardised
from experiments.figures import axes
from experiments.report import Report, Verdict, verdict
from purenets import data, initializers, models, optim

LEARNT = 0.5


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    layers: int = 10
    units: int = 500
    depths: tuple[int, ...] = (6, 10, 14, 22, 30)
    width: int = 16
    epochs: int = 20
    learning_rate: float = 0.01
    seeds: int = 2


def spread(config: Config, kernel_init: Any, key: Any) -> tuple[jax.Array, jax.Array]:
    """The standard deviations of the layers' outputs and of the loss's gradient on them, ``[layers]`` each."""
    weights, inputs, towards = jax.random.split(key, 3)
    unit = pn.serial(dense=pn.dense(config.units, config.units, kernel_init=kernel_init), tanh=jnp.tanh)
    params = [unit.init(k)[0] for k in jax.random.split(weights, config.layers)]
    x = jax.random.normal(inputs, (256, config.units))
    direction = jax.random.normal(towards, (256, config.units))

    def changed(changes: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        y, outputs = x, []
        for each, change in zip(params, changes, strict=True):
            y = unit.apply(each, {}, y)[0] + change
            outputs.append(y)
        return jnp.sum(y * direction), outputs

    slopes, outputs = jax.grad(changed, has_aux=True)([jnp.zeros_like(x)] * config.layers)
    return jnp.stack([y.std() for y in outputs]), jnp.stack([g.std() for g in slopes])


def decide(kept: dict[str, float], final: dict[str, list[float]], enough: bool = True) -> Verdict:
    """By the share of its size that a signal keeps, and by which stacks have learnt, from shallow to deep."""
    sizes = kept["Xavier"] >= 0.1 and kept["0.01"] <= 1e-5
    xavier, he = (np.array(final[name]) > LEARNT for name in ("Xavier", "He"))
    both, one = np.flatnonzero(xavier & he), np.flatnonzero(he & ~xavier)
    return verdict(sizes and bool(both.size and one.size and both.min() < one.max()), enough=enough)


def run(config: Config) -> Report:
    """Sizes over ten layers, then the training of the stacks."""
    draws = {"0.01": initializers.normal(0.01), "Xavier": initializers.glorot_normal()}
    sizes = {
        name: [
            np.asarray(x).mean(0) for x in pn.sweep(partial(spread, config, init), seeds=config.seeds).results
        ]
        for name, init in draws.items()
    }
    kept = {name: float(forward[-1] / forward[0]) for name, (forward, _) in sizes.items()}
    backward = {name: float(back[0] / back[-1]) for name, (_, back) in sizes.items()}

    train, test = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    inits = {"Xavier": initializers.glorot_normal(), "He": initializers.kaiming_normal()}
    found = {
        name: [
            learning(
                models.plain_stack(depth, channels=1, width=config.width, kernel_init=init),
                optim.sgd(config.learning_rate, momentum=0.9),
                train,
                test,
                epochs=config.epochs,
                seeds=config.seeds,
            )
            for depth in config.depths
        ]
        for name, init in inits.items()
    }
    final = {name: [each.last("accuracy")[0] for each in of] for name, of in found.items()}
    figures = {"sizes_by_layer": axes("layer", "standard deviation", columns=2, width=8)}
    for panel, which, title in zip(
        figures["sizes_by_layer"][1][0], (0, 1), ("signal", "gradient"), strict=True
    ):
        for name, each in sizes.items():
            panel.plot(np.arange(1, config.layers + 1), each[which], label=f"drawn with {name}")
        panel.set_yscale("log")
        panel.set_title(title)
        panel.legend(frameon=False)
    figures["training"] = axes("epoch", "share of training digits right", columns=2, width=8)
    for panel, (name, of) in zip(figures["training"][1].flat, found.items(), strict=True):
        for depth, each in zip(config.depths, of, strict=True):
            panel.plot(np.arange(1, config.epochs + 1), each.accuracy.mean(0), label=f"{depth} layers")
        panel.set_ylim(0, 1)
        panel.set_title(f"weights after {name}")
        panel.legend(frameon=False)
    numbers: dict[str, Any] = {f"signal kept, {name}": share for name, share in kept.items()}
    numbers |= {f"gradient kept, {name}": share for name, share in backward.items()}
    for name, of in found.items():
        for depth, each in zip(config.depths, of, strict=True):
            numbers[f"training digits right, {name}, {depth} layers: mean, deviation"] = list(
                each.last("accuracy")
            )
    learnt = {
        name: [d for d, a in zip(config.depths, line, strict=True) if a > LEARNT]
        for name, line in final.items()
    }
    return Report(
        numbers=numbers,
        verdict=decide(kept, final, enough=config == Config()),
        because=f"over {config.layers} tanh layers the signal keeps {kept['Xavier']:.2g} of its size after Xavier and "
        f"{kept['0.01']:.1e} with 0.01; of stacks of {list(config.depths)} layers, those of {learnt['Xavier']} learn "
        f"from Xavier's weights and those of {learnt['He']} from He's",
        figures={name: figure for name, (figure, _) in figures.items()},
    )
