"""With two inputs a polynomial is as good as a network on a boundary that is no line; with more inputs it is not.

Claim X54. Two moons, turned at random among inputs that are nothing but noise, are told apart by logistic regression
over all monomials up to a degree, fitted by Newton's method in float64, and by a network with one hidden layer, trained
by Adam. All see the same few hundred points. Of a polynomial the best of several penalties counts, chosen on the new
points, which is in its favour. The boundary is the same whatever the inputs, but the monomials of degree 3 grow with
the cube of their number: a picture of 50 x 50 pixels has 3,126,250 of degree 2 alone (row W18), where a network of 16
units has 40,033 parameters.

Refuted if with the most inputs a polynomial is as good as the network within a point, or if with the fewest none is.
Left open if with the most the network is better by less than two standard errors over the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.figures import axes, boundary
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim
from purenets.classic.regression import count_monomials, fit_logistic, polynomial_features
from purenets.layer import Params
from purenets.theory import count_parameters


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    inputs: tuple[int, ...] = (2, 5, 8)
    degrees: tuple[int, ...] = (1, 2, 3)
    penalties: tuple[float, ...] = (1e-2, 1e-1)
    newton: int = 10
    """Steps of Newton's method."""
    hidden: int = 16
    steps: int = 1000
    """Of Adam, each over all points."""
    examples: int = 400
    seeds: int = 6


def sample(key: jax.Array, inputs: int, n: int) -> tuple[jax.Array, jax.Array]:
    """Two moons in a random plane of so many inputs, with noise of about their size across it."""
    points, noise, turn = jax.random.split(key, 3)
    x, y = data.moons(points, n, 0.15)
    across = 0.5 * jax.random.normal(noise, (n, inputs - 2))
    rotation, _ = jnp.linalg.qr(jax.random.normal(turn, (inputs, inputs)))
    return jnp.concatenate([x - jnp.array([0.5, 0.25]), across], 1) @ rotation, y


def divided(key: jax.Array, inputs: int, config: Config) -> data.Split:
    """Points to learn from and 2,000 new ones, turned alike."""
    x, y = sample(key, inputs, config.examples + 2000)
    n = config.examples
    return data.Split((x[:n], y[:n]), (x[n:], y[n:]))


def share(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of the logits that have the sign of their label."""
    return jnp.mean((logits[:, 0] > 0) == (labels > 0))


def polynomial(
    key: jax.Array, penalty: Any, inputs: int, degree: int, config: Config
) -> tuple[Params, jax.Array]:
    """The logistic model, and its share of new points that is right."""
    (x, y), (new, labels) = divided(jax.random.split(key)[0], inputs, config)
    params = fit_logistic(
        polynomial_features(x, degree), y.astype(x.dtype), penalty=penalty, steps=config.newton
    )
    return params, share(polynomial_logits(params, new, degree), labels)


def polynomial_logits(params: Params, x: jax.Array, degree: int) -> jax.Array:
    """``[n, 1]``."""
    return polynomial_features(x, degree) @ params["kernel"] + params["bias"]


def network(key: jax.Array, inputs: int, config: Config) -> tuple[Params, jax.Array]:
    """A trained network, and its share of new points that is right."""
    points, weights = jax.random.split(key)
    (x, y), (new, labels) = divided(points, inputs, config)
    model = models.mlp((inputs, config.hidden, 1), activation=jnp.tanh)
    objective = pn.supervised(model, lambda out, y: losses.sigmoid_binary_cross_entropy(out[:, 0], y))
    optimizer = optim.adam(optim.cosine_decay_schedule(0.02, config.steps))
    step = pn.make_step(objective, optimizer)
    once = lambda ts, _: (step(ts, (x, y.astype(x.dtype)))[0], None)
    ts, _ = jax.lax.scan(once, pn.start(model, optimizer, weights), None, length=config.steps)
    return ts.params, share(pn.stateless(model)(ts.params, new), labels)


def monomials(inputs: int, degree: int) -> int:
    """The parameters of a polynomial: its monomials of all degrees and the bias."""
    return sum(count_monomials(inputs, power) for power in range(degree + 1))


def decide(polynomials: np.ndarray, networks: np.ndarray) -> Verdict:
    """By the shares that are right, ``[inputs, degrees, seeds]`` and ``[inputs, seeds]``, fewest inputs first."""
    few = polynomials[0].mean(1).max() - networks[0].mean()
    ahead = networks[-1] - polynomials[-1][polynomials[-1].mean(1).argmax()]
    noise = ahead.std(ddof=1) / np.sqrt(len(ahead))
    holds = bool(few >= -0.01 and ahead.mean() > 0.01)
    return verdict(holds, enough=not holds or bool(ahead.mean() > 2 * noise))


def run(config: Config) -> Report:
    """Fit both for each number of inputs."""
    keys = lambda: jax.random.split(jax.random.key(0), config.seeds)  # the same seeds for all
    polynomials = np.zeros((len(config.inputs), len(config.degrees), config.seeds))
    networks = np.zeros((len(config.inputs), config.seeds))
    rows: list[list[Any]] = []
    drawn: dict[str, Any] = {}
    for i, inputs in enumerate(config.inputs):
        for j, degree in enumerate(config.degrees):
            one = lambda key, penalty, n=inputs, d=degree: polynomial(key, penalty, n, d, config)
            fit = jax.jit(jax.vmap(one, (0, None)))
            with jax.enable_x64(True):
                found = [fit(keys(), penalty) for penalty in config.penalties]
            params, right = max(found, key=lambda pair: float(pair[1].mean()))
            polynomials[i, j] = right
            rows.append(
                [
                    inputs,
                    f"degree {degree}",
                    monomials(inputs, degree),
                    float(right.mean()),
                    float(right.min()),
                ]
            )
            if inputs == 2:
                drawn[f"degree {degree}"] = jax.tree.map(lambda leaf: leaf[0].astype(np.float32), params)
        params, right = jax.jit(jax.vmap(lambda key, n=inputs: network(key, n, config)))(keys())
        networks[i] = right
        sizes = (inputs, config.hidden, 1)
        rows.append(
            [
                inputs,
                f"{config.hidden} units",
                count_parameters(sizes),
                float(right.mean()),
                float(right.min()),
            ]
        )
    by_inputs, panel = axes("inputs", "share of new points right (mean of the seeds)")
    for j, degree in enumerate(config.degrees):
        panel.plot(config.inputs, polynomials[:, j].mean(1), marker="o", label=f"degree {degree}")
    panel.plot(config.inputs, networks.mean(1), "k-", marker="s", label=f"{config.hidden} units")
    panel.legend(frameon=False)
    figures = {"accuracy_by_inputs": by_inputs}
    if drawn:
        figures["polynomials_of_two_inputs"], panels = axes(
            "x1", "x2", columns=len(drawn), width=10, height=3.4
        )
        key = jax.random.split(keys()[0])[0]
        points = [np.asarray(part)[:150] for part in divided(key, 2, config).train]
        for panel, (name, params) in zip(np.ravel(panels), drawn.items(), strict=True):
            degree = int(name.split()[1])
            shown = lambda xs, p=params, d=degree: jax.nn.sigmoid(polynomial_logits(p, xs, d)[:, 0])
            boundary(panel, shown, *points, title=name)
    counts = [[n, monomials(n, 2), monomials(n, 3), count_parameters((n, 16, 1))] for n in (2, 10, 100, 2500)]
    few, many = (float(polynomials[place].mean(1).max()) for place in (0, -1))
    fewest, most = config.inputs[0], config.inputs[-1]
    parameters = monomials(most, config.degrees[-1])
    return Report(
        numbers={
            f"best polynomial of {fewest} inputs": few,
            f"network of {fewest} inputs": float(networks[0].mean()),
            f"best polynomial of {most} inputs": many,
            f"network of {most} inputs": float(networks[-1].mean()),
            f"parameters of degree {config.degrees[-1]} in {most} inputs": parameters,
            f"parameters of the network of {most} inputs": count_parameters((most, config.hidden, 1)),
            "monomials of degree 2 of 2,500 pixels": count_monomials(2500, 2),
        },
        verdict=decide(polynomials, networks),
        because=f"with {fewest} inputs the best polynomial is right on {few:.1%} and the network on "
        f"{networks[0].mean():.1%}; with {most} inputs {many:.1%} and {networks[-1].mean():.1%}",
        figures=figures,
        tables={
            "Share of new points right": Table(["inputs", "model", "parameters", "mean", "least seed"], rows),
            "Parameters by inputs": Table(
                ["inputs", "degree 2", "degree 3", "a network of 16 units"], counts
            ),
        },
    )
