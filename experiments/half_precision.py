"""A Transformer trained in 16 bits ends where it ends in 32.

Params, norms, softmax and the loss stay in float32, all else is computed in bfloat16 or in float16 (Micikevicius et al.
2018). bfloat16 has the range of float32. Of float16, whose smallest number is 6e-8, gradients fall out, unless the loss
is scaled; here its scale starts far too large, at 2^24, and has to find its way down by overflows.

Refuted by a held-out loss, on average over the seeds, that is more than 1 % from that of float32, in either; or by a
scale that starts without an overflow, or a training that does not recover from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments import writing
from experiments.figures import curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models
from purenets.train.loss_scale import loss_scaled
from purenets.train.run import mean_metrics

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16, scaled": jnp.float16}


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    steps: int = 300
    seeds: int = 3
    batch_size: int = 16
    context: int = 32
    dim: int = 48
    depth: int = 2
    text: writing.Choice = None
    learning_rate: float = 3e-3
    first_scale: float = 2.0**24


def _model(size: int, dtype: Any, config: Config) -> pn.Layer:
    model = models.gpt(size, config.dim, 4, config.depth, config.context)
    return pn.cast(model, pn.Policy(compute=dtype))


def _train(name: str, text: writing.Text, config: Config) -> Any:
    """Of every seed: the final TrainState, the metrics of each step and the held-out nats."""
    objective = pn.supervised(_model(len(text.letters), DTYPES[name], config), losses.softmax_cross_entropy)
    step = pn.make_step(objective, writing.optimizer_for(config.steps, config.learning_rate))
    if "scaled" in name:
        step = loss_scaled(step, initial=config.first_scale)
    ids = jnp.asarray(text.train)
    held_out = data.windows(text.held_out, config.context)
    held_out = jax.tree.map(lambda leaf: leaf[:512], held_out)

    @jax.jit
    @jax.vmap
    def run(key: jax.Array) -> Any:
        start, draw = jax.random.split(key)

        def body(ts: pn.TrainState, number: jax.Array) -> Any:
            own = jax.random.fold_in(draw, number)
            return step(ts, data.draw_windows(own, ids, config.batch_size, config.context))

        fresh = pn.start(objective.model, step.optimizer, start)
        ts, metrics = jax.lax.scan(body, fresh, jnp.arange(config.steps))
        scores = mean_metrics(objective, ts.params, ts.state, held_out, min(64, len(held_out[0])))
        return ts, metrics, scores["loss"]

    return run(jax.random.split(jax.random.key(0), config.seeds))


def lost_gradients(text: writing.Text, scale: float, config: Config) -> float:
    """Of the gradient values that are not zero in float32, the share that is in float16, at the first params."""
    windows = data.windows(text.train, config.context)
    batch = jax.tree.map(lambda leaf: leaf[: config.batch_size], windows)

    params, _ = _model(len(text.letters), jnp.float32, config).init(jax.random.key(0))

    def gradient(dtype: Any) -> np.ndarray:
        objective = pn.supervised(_model(len(text.letters), dtype, config), losses.softmax_cross_entropy)
        grads = jax.jit(jax.grad(lambda p: scale * objective(p, {}, batch, None, True)[0]))(params)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])

    return float(np.mean(gradient(jnp.float16)[gradient(jnp.float32) != 0] == 0))


def decide(nats: dict[str, float], overflows: float, *, enough: bool) -> Verdict:
    """The verdict: both ends within 1 % of float32, after at least one overflow in every seed."""
    near = all(abs(value / nats["float32"] - 1) <= 0.01 for value in nats.values())
    return verdict(near and overflows >= 1, enough=enough)


def run(config: Config) -> Report:
    """Train in each of the dtypes from the same starts on the same batches."""
    text = writing.read(config.text)
    found = {name: _train(name, text, config) for name in DTYPES}
    nats = {name: float(np.mean(held_out)) for name, (_, _, held_out) in found.items()}
    scaled_ts, scaled_metrics, _ = found["float16, scaled"]
    skipped = np.asarray(scaled_ts.opt_state.skipped)
    mean_loss = {name: np.asarray(metrics["loss"]).mean(0) for name, (_, metrics, _) in found.items()}
    spread = {name: float(np.std(held_out)) for name, (_, _, held_out) in found.items()}
    rows = [
        [
            name,
            f"{nats[name]:.4f}",
            f"{spread[name]:.4f}",
            f"{100 * (nats[name] / nats['float32'] - 1):+.2f} %",
        ]
        for name in DTYPES
    ]
    lost, kept = lost_gradients(text, 1.0, config), lost_gradients(text, 2.0**12, config)
    others = " and ".join(f"{nats[name]:.4f} in {name}" for name in list(DTYPES)[1:])
    return Report(
        numbers={
            **{f"held-out nats, {name}": value for name, value in nats.items()},
            "overflows, fewest of the seeds": int(skipped.min()),
            "last scale": np.asarray(scaled_ts.opt_state.scale).tolist(),
            "gradient values lost in float16, unscaled": lost,
            "gradient values lost in float16, scaled by 2^12": kept,
        },
        verdict=decide(nats, float(skipped.min()), enough=config.steps >= 200),
        because=(
            f"{nats['float32']:.4f} nats per character in float32, {others}, "
            f"after {skipped.min()} overflows at least"
        ),
        figures={
            "loss": curves(mean_loss, x="step", y="loss (nats per character)", log="x"),
            "scale": curves(
                {f"seed {i}": line for i, line in enumerate(np.asarray(scaled_metrics["loss_scale"]))},
                x="step",
                y="scale of the loss",
                log="xy",
            ),
        },
        tables={"held_out": Table(["computed in", "nats per character", "deviation", "from float32"], rows)},
        metrics=[
            {"step": i, **{name: float(line[i]) for name, line in mean_loss.items()}}
            for i in range(config.steps)
        ],
    )
