"""Deep and thin against wide and shallow, at equal numbers of parameters.

Claims X41, X42 and X65. (1) On handwritten digits, one, two and four hidden layers under the same budgets. (2) The
word error rates of Seide, Li & Yu 2011 (table 4) as printed: layers of 2,000 units against one hidden layer with as
many parameters. Their speech is not free; on our surrogate, points on three arms of a wound spiral, layers of equal
width stand against one layer with as many parameters. (3) That deep networks are better only because they have more
parameters: the same depths with a width held fixed (a free budget) and with the number of parameters held fixed.

Refuted if in the printed table a fat network is better than its thin equal; if on the surrogate the deepest thin
network is not better than its fat equal by two standard errors; if with a fixed budget depth does not help there; or
if on the digits four layers are worse than one by two standard errors at most of the budgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments.classifiers import standardised
from experiments.figures import axes
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim
from purenets.theory import count_parameters, hidden_width

PRINTED = {"1 x 2k": 24.2, "2 x 2k": 20.4, "3 x 2k": 18.4, "4 x 2k": 17.8, "5 x 2k": 17.2, "7 x 2k": 17.1}
"""Word error rate in percent, thin networks."""
PRINTED_FAT = {"5 x 2k": ("1 x 3772", 22.5), "7 x 2k": ("1 x 4634", 22.6)}
"""One layer with as many parameters as the thin network, and its error."""
PRINTED_WIDEST = ("1 x 16k", 22.1)


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    seeds: int = 6
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    """Peaks of Adam's rate that each network chooses from, by its training loss."""
    budgets: tuple[int, ...] = (1000, 2000, 4000)
    """Parameters, on the digits."""
    layers: tuple[int, ...] = (1, 2, 4)
    """Hidden ones, on the digits."""
    depths: tuple[int, ...] = (1, 2, 3, 5)
    """Of the surrogate."""
    width: int = 12
    """Of the surrogate's thin networks."""
    digit_epochs: int = 40
    spiral_epochs: int = 150
    examples: int = 600
    """Of the surrogate."""
    turns: float = 1.5


def spirals(config: Config) -> tuple[Any, Any]:
    """Training and test points of three arms."""
    train, test = jax.random.split(jax.random.key(3))
    draw = lambda key, count: data.spirals(key, count, 0.02, classes=3, turns=config.turns)
    return draw(train, config.examples), draw(test, 2000)


def held_out_errors(
    layers: int, width: int, sizes: tuple[int, int], epochs: int, sets: Any, config: Config
) -> np.ndarray:
    """The test error of equal hidden layers after training by Adam, at the rate that fits best, ``[seeds]``."""
    train, (x, y) = sets
    model = models.mlp((sizes[0], *[width] * layers, sizes[1]))
    objective = pn.supervised(model, losses.softmax_cross_entropy)
    steps = epochs * (len(train[1]) // 64)

    def run(key: Any, rate: jax.Array) -> Any:
        step = pn.make_step(objective, optim.adam(optim.cosine_onecycle_schedule(steps, rate)))
        ts = pn.start(model, step.optimizer, key)
        ts, rows = pn.train(step, ts, train, epochs=epochs, batch_size=64, ahead=0)
        return rows["loss"][-1].mean(), jnp.mean(jnp.argmax(model.apply(ts.params, {}, x)[0], -1) != y)

    found = pn.sweep(run, {"rate": config.rates}, seeds=config.seeds).results
    loss, error = (np.asarray(each).reshape(len(config.rates), config.seeds) for each in found)
    return error[int(np.argmin(loss.mean(1)))]


def better(first: np.ndarray, second: np.ndarray) -> float:
    """By how many standard errors the first errors are lower than the second; over seeds."""
    error = np.sqrt(sum(np.var(each, ddof=1) / len(each) for each in (first, second)))
    return float((second.mean() - first.mean()) / max(error, 1e-9))


def decide(
    thin: np.ndarray, fat: np.ndarray, fixed: dict[int, np.ndarray], digits: dict[int, dict[int, np.ndarray]]
) -> Verdict:
    """By errors over seeds: of the deepest thin and its fat equal, by depth under one budget, of the digits by both."""
    if len(thin) < 3:
        return "inconclusive"
    printed = all(PRINTED[name] < error for name, (_, error) in PRINTED_FAT.items())
    shallow, deep = fixed[min(fixed)], min((fixed[d] for d in fixed if d != min(fixed)), key=np.mean)
    worse = [better(of[min(of)], of[max(of)]) > 2 for of in digits.values()]
    return verdict(
        printed and better(thin, fat) > 2 and better(deep, shallow) > 2 and sum(worse) <= len(worse) / 2
    )


def run(config: Config) -> Report:
    """Digits under budgets, then the surrogate, free and fixed."""
    pictures = standardised(*data.train_test_split(data.digits(), 360, jax.random.key(2024)))
    flat = tuple((x.reshape(len(x), -1), y) for x, y in pictures)
    digits = {
        budget: {
            layers: held_out_errors(
                layers,
                hidden_width(64, 10, layers, budget),
                (64, 10),
                config.digit_epochs,
                flat,
                config,
            )
            for layers in config.layers
        }
        for budget in config.budgets
    }
    sets, known = spirals(config), {}

    def surrogate(layers: int, width: int) -> np.ndarray:
        if (layers, width) not in known:
            known[layers, width] = held_out_errors(layers, width, (2, 3), config.spiral_epochs, sets, config)
        return known[layers, width]

    size = {depth: count_parameters((2, *[config.width] * depth, 3)) for depth in config.depths}
    free = {depth: surrogate(depth, config.width) for depth in config.depths}
    fat = {depth: surrogate(1, hidden_width(2, 3, 1, size[depth])) for depth in config.depths}
    middle = config.depths[len(config.depths) // 2]
    widths = {depth: hidden_width(2, 3, depth, size[middle]) for depth in config.depths}
    fixed = {depth: surrogate(depth, widths[depth]) for depth in config.depths}
    deepest = max(config.depths)

    figure, panels = axes("parameters", "test error", columns=2, width=9)
    for layers in config.layers:
        errors = np.stack([digits[budget][layers] for budget in config.budgets])
        panels[0, 0].errorbar(
            config.budgets, errors.mean(1), errors.std(1), label=f"{layers} hidden", capsize=2
        )
    panels[0, 0].set_title("handwritten digits")
    lines = {f"layers of {config.width}": free, "one layer": fat}
    for name, of in lines.items():
        errors = np.stack(list(of.values()))
        panels[0, 1].errorbar(
            list(size.values()), errors.mean(1), errors.std(1), label=name, capsize=2, marker="o"
        )
    panels[0, 1].set_title("three spirals")
    for panel in panels.flat:
        panel.legend(frameon=False)
    budget_figure, panel = axes("hidden layers", "test error")
    for name, of in {f"layers of {config.width}": free, f"{size[middle]} parameters": fixed}.items():
        errors = np.stack(list(of.values()))
        panel.errorbar(list(of), errors.mean(1), errors.std(1), label=name, capsize=2, marker="o")
    panel.legend(frameon=False)
    mean = lambda of: [float(each.mean()) for each in of.values()]
    return Report(
        numbers={
            f"digits, error by layers {list(config.layers)}, {budget} parameters": mean(of)
            for budget, of in digits.items()
        }
        | {
            f"digits, standard errors that {max(config.layers)} layers beat 1, {budget} parameters": better(
                of[max(of)], of[min(of)]
            )
            for budget, of in digits.items()
        }
        | {
            "surrogate, depths": list(config.depths),
            "surrogate, parameters": list(size.values()),
            "surrogate, error, thin": mean(free),
            "surrogate, error, one layer with as many parameters": mean(fat),
            "surrogate, error, fixed budget": mean(fixed),
            "surrogate, widths under the fixed budget": list(widths.values()),
        },
        verdict=decide(free[deepest], fat[deepest], fixed, digits),
        because=f"on the surrogate {deepest} layers of {config.width} err on {free[deepest].mean():.1%} and one layer "
        f"with as many parameters on {fat[deepest].mean():.1%}; on the digits one layer and {max(config.layers)} err "
        "on "
        + ", ".join(
            f"{of[min(of)].mean():.1%} and {of[max(of)].mean():.1%} ({budget} parameters)"
            for budget, of in digits.items()
        ),
        figures={"equal_parameters": figure, "free_and_fixed_budgets": budget_figure},
        tables={
            "word error rates as printed (percent)": Table(
                ["thin", "error", "fat", "error"],
                [[name, error, *PRINTED_FAT.get(name, ("", ""))] for name, error in PRINTED.items()]
                + [["", "", *PRINTED_WIDEST]],
            ),
            "our surrogate: test error": Table(
                ["layers x units", "parameters", "thin", "one layer of", "fat"],
                [
                    [
                        f"{depth} x {config.width}",
                        size[depth],
                        f"{free[depth].mean():.3f}",
                        hidden_width(2, 3, 1, size[depth]),
                        f"{fat[depth].mean():.3f}",
                    ]
                    for depth in config.depths
                ],
            ),
        },
    )
