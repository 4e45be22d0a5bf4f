"""A network on raw sound needs no hand-made features, if there are enough examples to learn its own from.

Claims X64 and row M72. The older way of recognising sounds is a pipeline of boxes made by hand and one box that
learns: here the frequencies of a signal, their energies in bands that widen upwards, logarithms, a cosine transform
(the coefficients known as MFCC; Davis & Mermelstein 1980), and a softmax regression. In the newer way every box
learns: a network of convolutions on the samples themselves. The sounds are made: four classes, each with two tones of
its own at any phase, loudness and small detuning, under noise. A softmax regression on the samples shows what the boxes
in between are worth.

Refuted if, with the most examples, the network on samples reads fewer test sounds right than the pipeline, or a
regression on samples comes within ten points of either. Where the pipeline is ahead with few examples is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import learning
from experiments.figures import axes, curves
from experiments.report import Report, Verdict, verdict
from purenets import optim

TONES = jnp.array([[0.03, 0.17], [0.06, 0.12], [0.03, 0.12], [0.06, 0.17]])
"""In cycles a sample; no single tone tells the class."""


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    samples: int = 256
    noise: float = 1.5
    sizes: tuple[int, ...] = (40, 160, 640, 2560)
    test: int = 1000
    steps: int = 600
    seeds: int = 3


def sounds(key: Any, n: int, config: Config) -> tuple[jax.Array, jax.Array]:
    """Signals ``[n, samples, 1]`` and their classes."""
    kinds, phases, loudness, detune, noise = jax.random.split(key, 5)
    y = jax.random.randint(kinds, (n,), 0, 4)
    rates = TONES[y] * (1 + 0.05 * jax.random.uniform(detune, (n, 2), minval=-1.0))
    angles = 2 * jnp.pi * (rates[:, None] * jnp.arange(config.samples)[:, None])
    angles += 2 * jnp.pi * jax.random.uniform(phases, (n, 1, 2))
    tones = (jnp.sin(angles) * jax.random.uniform(loudness, (n, 1, 2), minval=0.5, maxval=1.5)).sum(-1)
    x = tones + config.noise * jax.random.normal(noise, tones.shape)
    return x[..., None], y


def hand_made(x: jax.Array) -> jax.Array:
    """Twelve cepstral coefficients of each signal, ``[n, 12]``: all by hand, nothing learnt."""
    power = jnp.square(jnp.abs(jnp.fft.rfft(x[..., 0] * jnp.hanning(x.shape[1]))))
    edges = jnp.geomspace(2, power.shape[1] - 1, 22)
    place = jnp.arange(power.shape[1])
    rise = (place - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - place) / (edges[2:] - edges[1:-1])[:, None]
    bands = jnp.log(power @ jnp.maximum(0, jnp.minimum(rise, fall)).T + 1e-6)
    cosines = jnp.cos(jnp.pi * jnp.arange(1, 13)[:, None] * (jnp.arange(20) + 0.5) / 20)
    features = bands @ cosines.T
    return (features - features.mean(0)) / features.std(0)


def networks(samples: int) -> dict[str, pn.Layer]:
    """What is learnt: on the samples, on the hand-made features, and end to end."""

    def block(n_in: int, n_out: int) -> pn.Layer:
        return pn.serial(
            conv=pn.conv(n_in, n_out, (9,), bias=False),
            norm=pn.batch_norm(n_out, momentum=0.9),
            relu=jax.nn.relu,
        )

    deep = pn.serial(
        block_1=block(1, 16),
        pool_1=pn.max_pool((4,)),
        block_2=block(16, 32),
        mean=lambda x: x.mean(1),
        hidden=pn.dense(32, 32),
        relu=jax.nn.relu,
        head=pn.dense(32, 4),
    )
    return {
        "regression on samples": pn.serial(flat=pn.flatten(), head=pn.dense(samples, 4)),
        "regression on features": pn.dense(12, 4),
        "network on samples": deep,
    }


def decide(right: dict[str, list[float]], enough: bool = True) -> Verdict:
    """By the shares of test sounds right, from few examples to many."""
    raw, features, deep = (right[name][-1] for name in networks(1))
    return verdict(deep >= features and min(deep, features) > raw + 0.1, enough=enough)


def run(config: Config) -> Report:
    """Train all three on more and more examples."""
    data_key, test_key = jax.random.split(jax.random.key(2024))
    whole, test = sounds(data_key, max(config.sizes), config), sounds(test_key, config.test, config)
    right: dict[str, list[float]] = {}
    spread: dict[str, list[float]] = {}
    for name, model in networks(config.samples).items():
        right[name], spread[name] = [], []
        made = hand_made if "features" in name else (lambda x: x)
        for size in config.sizes:
            train = (made(whole[0][:size]), whole[1][:size])
            batch = min(40, size)
            epochs = max(config.steps // (size // batch), 1)
            found = learning(
                model,
                optim.adam(optim.cosine_decay_schedule(3e-3, config.steps)),
                train,
                (made(test[0]), test[1]),
                epochs=epochs,
                batch_size=batch,
                seeds=config.seeds,
            )
            mean, deviation = found.last("test_accuracy")
            right[name].append(mean)
            spread[name].append(deviation)
    examples, panels = axes("sample", "sound", columns=2, rows=2, width=8, height=4)
    for kind, panel in enumerate(panels.flat):
        panel.plot(np.asarray(whole[0][np.argmax(np.asarray(whole[1]) == kind), :, 0]), linewidth=0.8)
        panel.set_title(f"class {kind}", fontsize=9)
    figure = curves(right, x="training sounds", y="share of test sounds right", at=config.sizes, log="x")
    ahead = [
        size
        for size, features, deep in zip(
            config.sizes, right["regression on features"], right["network on samples"], strict=True
        )
        if features > deep
    ]
    return Report(
        numbers={f"test sounds right with {list(config.sizes)}, {name}": line for name, line in right.items()}
        | {f"deviation over seeds, {name}": line for name, line in spread.items()},
        verdict=decide(right, enough=config.sizes == Config.sizes),
        because=f"with {config.sizes[-1]} sounds: "
        + ", ".join(f"{name} {line[-1]:.1%}" for name, line in right.items())
        + f"; the pipeline is ahead of the network with {ahead or 'no number'} of sounds",
        figures={"by_examples": figure, "sounds": examples},
    )
