"""Self-attention does what a recurrent network does, without going through the sequence step by step.

Claim X49 (Vaswani et al. 2017, table 1). An LSTM and a block of self-attention, each over several seeds, learn the
same task: to add two marked numbers of a long sequence. Then both are taken apart for sequences of doubling
length. The *dependency depth* of a program is its longest chain of operations that each need the result of the one
before; it is read off the program of the loss and its gradient, where a loop counts its body as often as it
turns, and bounds the time on a machine with any number of processors. (A sum over a whole axis counts as one
operation.) The time of the same programs is measured in turns, so that both meet the same machine, and given as a
ratio; it depends on the machine and decides nothing.

Refuted if either network is within 0.1 of the sum in fewer than 95 % of new sequences, if the depth of
self-attention grows with the length, or if that of the LSTM does not grow in proportion to it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

import purenets as pn
from experiments.figures import axes, curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import optim
from purenets.data import sequence_tasks
from purenets.models.transformer_block import feed_forward, transformer_block

LSTM, ATTENTION = "LSTM", "self-attention"
RATES = {LSTM: 1e-2, ATTENTION: 2e-3}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    length: int = 30
    dim: int = 32
    heads: int = 4
    steps: int = 600
    batch_size: int = 64
    seeds: int = 3
    lengths: tuple[int, ...] = (32, 64, 128, 256, 512)
    timed_batch: int = 16
    repeats: int = 15


def networks(dim: int, heads: int) -> dict[str, pn.Layer]:
    """Both as sequences ``[batch, time, 2]`` to sums ``[batch, 1]``, read off the last step."""
    block = transformer_block(dim, pn.attention(dim, heads), feed_forward(dim, 4 * dim))
    return {
        LSTM: pn.serial(
            rnn=pn.rnn(pn.lstm_cell(2, dim)),
            last=pn.last_step(),
            head=pn.dense(dim, 1),
        ),
        ATTENTION: pn.serial(
            embed=pn.dense(2, dim),
            block=block,
            norm=pn.layer_norm(dim),
            last=pn.last_step(),
            head=pn.dense(dim, 1),
        ),
    }


def squared_error(output: jax.Array, sums: jax.Array) -> jax.Array:
    return (output[:, 0] - sums) ** 2


def trained(config: Config, model: pn.Layer, rate: float, key: Any) -> tuple[jax.Array, jax.Array]:
    """The loss of every step, and the share of new sequences whose sum is right within 0.1."""
    falling = optim.cosine_decay_schedule(rate, config.steps)
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(falling))
    step = pn.make_step(pn.supervised(model, squared_error), optimizer)
    weights, draws, test = jax.random.split(key, 3)

    def once(ts: pn.TrainState, _: None) -> Any:
        key = jax.random.fold_in(draws, ts.step)
        ts, metrics = step(ts, sequence_tasks.adding_problem(key, config.batch_size, config.length))
        return ts, metrics["loss"]

    ts, loss = jax.lax.scan(once, pn.start(model, optimizer, weights), None, length=config.steps)
    x, y = sequence_tasks.adding_problem(test, 1000, config.length)
    answer = model.apply(ts.params, ts.state, x)[0][:, 0]
    return loss, jnp.mean(jnp.abs(answer - y) < 0.1)


def depth(jaxpr: Any) -> int:
    """The longest chain of operations of a program, a loop's body times its turns.

    Raises:
        ValueError: the program has a loop of a number of turns that is not known.
    """
    at: dict[Any, int] = {}
    deepest = 0
    for equation in jaxpr.eqns:
        given = (at.get(x, 0) for x in equation.invars if not isinstance(x, Literal))
        end = max(given, default=0) + _own_depth(equation)
        at.update(dict.fromkeys(equation.outvars, end))
        deepest = max(deepest, end)
    return deepest


def _own_depth(equation: Any) -> int:
    if equation.primitive.name == "while":
        raise ValueError("the depth of a while loop is not known before it runs")
    inner = [depth(program) for value in equation.params.values() for program in _programs(value)]
    return (
        equation.params["length"] * max(inner) if equation.primitive.name == "scan" else max(inner, default=1)
    )


def _programs(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [program for item in value for program in _programs(item)]
    program = getattr(value, "jaxpr", value)
    return [program] if hasattr(program, "eqns") else []


def loss_and_gradient(model: pn.Layer) -> Any:
    objective = pn.supervised(model, squared_error)
    return jax.value_and_grad(lambda params, batch: objective(params, {}, batch, None, False)[0])


def depth_at(model: pn.Layer, length: int) -> int:
    """The depth of the loss and its gradient on one sequence."""
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    batch = jax.ShapeDtypeStruct((1, length, 2), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    return depth(jax.make_jaxpr(loss_and_gradient(model))(params, batch).jaxpr)


def seconds_in_turns(
    models: dict[str, pn.Layer], length: int, batch: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of the loss and its gradient, one network after the other, ``repeats`` times."""
    data = sequence_tasks.adding_problem(jax.random.key(0), batch, length)
    programs = {name: jax.jit(loss_and_gradient(model)) for name, model in models.items()}
    params = {name: model.init(jax.random.key(1))[0] for name, model in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(repeats + 1):
        for name, program in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(program(params[name], data))
            if turn:  # the first compiles
                taken[name].append(time.perf_counter() - started)
    return taken


def decide(right: dict[str, float], depths: dict[str, list[int]], lengths: tuple[int, ...]) -> Verdict:
    """By the shares that are right, and how the depths grow over the last two lengths."""
    growth = (depths[LSTM][-1] - depths[LSTM][-2]) / depths[LSTM][-2]
    longer = (lengths[-1] - lengths[-2]) / lengths[-2]
    in_proportion = abs(growth / longer - 1) < 0.1
    return verdict(min(right.values()) >= 0.95 and len(set(depths[ATTENTION])) == 1 and in_proportion)


def run(config: Config) -> Report:
    """Train both, count both, time both."""
    models = networks(config.dim, config.heads)
    loss, right = {}, {}
    for name, model in models.items():
        keys = jax.random.split(jax.random.key(0), config.seeds)
        train = jax.jit(jax.vmap(lambda key, m=model, r=RATES[name]: trained(config, m, r, key)))
        losses, shares = train(keys)
        loss[name], right[name] = np.asarray(losses).mean(0), float(shares.mean())
    depths = {name: [depth_at(model, n) for n in config.lengths] for name, model in models.items()}
    taken = [seconds_in_turns(models, n, config.timed_batch, config.repeats) for n in config.lengths]
    ratios = [float(np.median(np.divide(each[LSTM], each[ATTENTION]))) for each in taken]
    times = {name: [1e3 * float(np.median(each[name])) for each in taken] for name in models}
    figure, panel = axes("length", "time of the LSTM over that of self-attention")
    panel.plot(config.lengths, ratios, marker="o")
    panel.set_xscale("log", base=2)
    panel.axhline(1, color="black", linewidth=0.8)
    first, last = config.lengths[0], config.lengths[-1]
    return Report(
        numbers={
            **{f"right within 0.1, {name}": share for name, share in right.items()},
            **{f"dependency depth, {name}": counts for name, counts in depths.items()},
            "time of the LSTM over that of self-attention": ratios,
            "lengths": list(config.lengths),
            "seeds": config.seeds,
        },
        verdict=decide(right, depths, config.lengths),
        because=f"right in {right[LSTM]:.1%} (LSTM) and {right[ATTENTION]:.1%} (self-attention); from length {first} "
        f"to {last} the dependency depth goes from {depths[LSTM][0]:,} to {depths[LSTM][-1]:,} and from "
        f"{depths[ATTENTION][0]:,} to {depths[ATTENTION][-1]:,}; on this machine the LSTM takes {ratios[0]:.2g} times "
        f"as long as self-attention at {first} and {ratios[-1]:.2g} times at {last}",
        figures={
            "loss": curves(loss, x="step", y="mean squared error", log="y"),
            "dependency_depth": curves(
                depths, x="length", y="operations in a chain", at=config.lengths, log="xy"
            ),
            "time": figure,
        },
        tables={
            "by length": Table(
                ["length", "depth, LSTM", "depth, self-attention", "ms, LSTM", "ms, self-attention", "ratio"],
                [
                    list(row)
                    for row in zip(config.lengths, *depths.values(), *times.values(), ratios, strict=True)
                ],
            )
        },
    )
