"""An LSTM learns to write text, character by character, and remembers across the windows it is trained on.

Catalogue rows M57, M58 and G24 at work, after char-rnn (Karpathy 2015). The text is cut into tracks that are read side
by side, window after window; the carry goes on from one window to the next and the gradient does not: truncated
backpropagation through time (Williams & Peng 1990). The held-out tenth is then read twice, once in the same way
and once with an empty carry at the start of every window.

Refuted by more than 2.1 nats per character of the held-out tenth of Shakespeare's plays, or if it is not read
better with the carry of the window before than without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from experiments import writing
from experiments.report import Report, Verdict, verdict
from purenets import data, losses

CLAIMED = 2.1


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    units: int = 192
    layers: int = 1
    steps: int = 800
    batch_size: int = 32
    window: int = 64
    learning_rate: float = 5e-3
    text: writing.Choice = None
    samples: int = 3
    seed: int = 0


def network(size: int, units: int, layers: int) -> pn.Layer:
    """Ids ``[batch, time]`` to logits ``[batch, time, size]``."""
    return pn.serial(
        embed=pn.embedding(size, units),
        rnn=pn.stacked(*[pn.lstm_cell(units, units)] * layers),
        head=pn.dense(units, size),
    )


def in_stream(model: pn.Layer) -> pn.Objective:
    """The mean loss of a window, read after those before it."""

    def objective(params: Any, state: Any, batch: Any, key: Any, train: bool) -> Any:
        x, y = batch
        logits, state = model.apply(params, state, x, key=key, train=train, stream=True)
        loss = jnp.mean(losses.softmax_cross_entropy(logits, y))
        return loss, (state, {"loss": loss})

    return objective


def read_through(model: pn.Layer, params: Any, ids: np.ndarray, window: int, *, keep: bool) -> float:
    """Nats per character over a text in tracks, with the carry of the window before or without."""
    x, y = data.tracks(ids, min(64, len(ids) // (2 * window)), window)
    empty = pn.open_stream(model, {}, batch=x.shape[1], length=window)

    def once(state: Any, batch: Any) -> Any:
        loss, (after, _) = in_stream(model)(params, state, batch, None, False)
        return after if keep else empty, loss

    return float(jax.jit(lambda: jax.lax.scan(once, empty, (x, y))[1].mean())())


def decide(kept: float, emptied: float, *, as_claimed: bool) -> Verdict:
    """By the nats with the carry kept and with it emptied; only the whole setting on Shakespeare decides."""
    return verdict(kept <= CLAIMED and kept < emptied, enough=as_claimed)


def run(config: Config) -> Report:
    """Train, read the held-out tenth in both ways, and write."""
    text = writing.read(config.text)
    model = network(len(text.letters), config.units, config.layers)
    optimizer = writing.optimizer_for(config.steps, config.learning_rate)
    step = pn.make_step(in_stream(model), optimizer)
    x, y = data.tracks(text.train, config.batch_size, config.window)
    fresh = pn.start(model, optimizer, jax.random.key(config.seed))
    state = pn.open_stream(model, fresh.state, batch=config.batch_size, length=config.window)
    every = max(1, min(50, config.steps))
    ts, history = writing.trained(
        step,
        fresh._replace(state=state),
        lambda number: (x[number % len(x)], y[number % len(x)]),
        config.steps,
        every,
    )
    kept, emptied = (
        read_through(model, ts.params, text.held_out, config.window, keep=keep) for keep in (True, False)
    )
    written = writing.samples(
        model, ts.params, text.letters, count=config.samples, steps=200, seed=config.seed + 2
    )
    as_claimed = text.name == "shakespeare" and config == Config(seed=config.seed, samples=config.samples)
    return writing.report(
        text,
        ts.params,
        history,
        every,
        numbers={
            "held-out nats per character": kept,
            "the same, the carry emptied at each window": emptied,
        },
        decided=decide(kept, emptied, as_claimed=as_claimed),
        because=f"{kept:.3f} nats per character of the held-out tenth of {text.name} after {config.steps} steps "
        f"(claimed {CLAIMED} at most; frequencies alone give {text.frequencies_alone():.2f}), and {emptied:.3f} "
        "where each window is read as if there had been none before it",
        written=written,
        figures={"loss_by_place": writing.by_place(model, ts.params, text.held_out, config.window)},
    )
