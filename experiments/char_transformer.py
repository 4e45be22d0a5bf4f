"""A small Transformer learns to write text, character by character.

Catalogue rows M59 to M66 at work. ``--scale small``, the default, takes a minute or two on two CPU cores.
``--scale medium`` is six blocks, 128 wide, over 128 characters, and ought to reach 1.9 nats per character of the
held-out tenth of Shakespeare's plays. ``--scale full`` is the character setting of nanoGPT (Karpathy 2022: six
blocks, six heads, 384 wide, 256 characters, dropout 0.2), whose published result is 1.47 nats, for a GPU.

The text is tinyshakespeare where the data folder has it; otherwise prose that is at hand, on which nothing is
claimed.

Refuted by more nats than claimed: 2.2 (small), 1.9 (medium), 1.47 within 0.03 (full).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

import purenets as pn
from experiments import writing
from experiments.report import Report, Verdict, verdict
from purenets import data, losses, models

CLAIMED = {"small": 2.2, "medium": 1.9, "full": 1.50}


@dataclass(frozen=True)
class Config:
    """Settings of the run; None takes what the scale has."""

    scale: Literal["small", "medium", "full"] = "small"
    steps: int | None = None
    batch_size: int | None = None
    context: int | None = None
    depth: int | None = None
    dim: int | None = None
    text: writing.Choice = None
    samples: int = 3
    seed: int = 0


@dataclass(frozen=True)
class _Scale:
    """What a scale stands for."""

    steps: int
    batch_size: int
    context: int
    depth: int
    heads: int
    dim: int
    rate: float
    learning_rate: float


SCALES = {
    "small": _Scale(600, 32, 64, 4, 4, 64, 0.0, 3e-3),
    "medium": _Scale(1500, 32, 128, 6, 4, 128, 0.0, 2e-3),
    "full": _Scale(5000, 64, 256, 6, 6, 384, 0.2, 1e-3),
}


def _chosen(config: Config) -> _Scale:
    scale = SCALES[config.scale]
    given = {name: getattr(config, name, None) for name in vars(scale)}
    return _Scale(**{name: given[name] or value for name, value in vars(scale).items()})


def decide(scale: str, nats: float, *, as_claimed: bool) -> Verdict:
    """The verdict: only the whole setting on Shakespeare decides."""
    return verdict(nats <= CLAIMED[scale], enough=as_claimed)


def run(config: Config) -> Report:
    """Train, measure on the held-out tenth, and write."""
    scale = _chosen(config)
    text = writing.read(config.text)
    model = models.gpt(len(text.letters), scale.dim, scale.heads, scale.depth, scale.context, rate=scale.rate)
    optimizer = writing.optimizer_for(scale.steps, scale.learning_rate)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optimizer)
    ids = jnp.asarray(text.train)

    def drawn(number: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
        return data.draw_windows(key, ids, scale.batch_size, scale.context)

    every = max(1, min(50, scale.steps))
    fresh = pn.start(model, optimizer, jax.random.key(config.seed))
    ts, history = writing.trained(step, fresh, drawn, scale.steps, every)
    nats = pn.evaluate(step, ts, data.windows(text.held_out, scale.context), batch_size=64)["loss"]
    written = writing.samples(
        model, ts.params, text.letters, count=config.samples, steps=scale.context - 1, seed=config.seed + 2
    )
    as_claimed = text.name == "shakespeare" and scale == SCALES[config.scale]
    return writing.report(
        text,
        ts.params,
        history,
        every,
        numbers={"held-out nats per character": nats},
        decided=decide(config.scale, nats, as_claimed=as_claimed),
        because=f"{nats:.3f} nats per character of the held-out tenth of {text.name} after {scale.steps} steps "
        f"(claimed {CLAIMED[config.scale]} at most; frequencies alone give {text.frequencies_alone():.2f})",
        written=written,
        figures={"loss_by_place": writing.by_place(model, ts.params, text.held_out, scale.context)},
    )
