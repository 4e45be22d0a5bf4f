"""What the experiments that learn to write text share: the text, the training, what is written, the report.

The text is tinyshakespeare where the data folder has it; otherwise prose that is at hand, on which nothing is
claimed. Its last tenth is held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import purenets as pn
from experiments.figures import axes, curves
from experiments.report import Report, Table, Verdict
from purenets import data, losses, optim

__all__ = ["Choice", "Text", "by_place", "optimizer_for", "read", "report", "samples", "trained"]

Choice = Literal["shakespeare", "default"] | None
"""A text by name; None takes Shakespeare's plays where they are."""


@dataclass(frozen=True, eq=False)
class Text:
    """A text as ids, cut in two."""

    name: str
    letters: data.Characters
    train: np.ndarray
    held_out: np.ndarray

    def frequencies_alone(self) -> float:
        """The nats per character of knowing how frequent each character is and nothing else."""
        size = len(self.letters)
        share = (np.bincount(self.train, minlength=size) + 1) / (len(self.train) + size)
        return float(-np.log(share[self.held_out]).mean())


def read(choice: Choice) -> Text:
    """The text of that name.

    Raises:
        FileNotFoundError: Shakespeare's plays are asked for and not in the data folder.
    """
    name, text = _named(choice)
    letters = data.Characters.of(text)
    return Text(name, letters, *data.split_text(letters.encode(text)))


def _named(choice: Choice) -> tuple[str, str]:
    if choice != "default":
        try:
            return "shakespeare", data.tinyshakespeare()
        except FileNotFoundError:
            if choice == "shakespeare":
                raise
    return "default", data.default_text()


def optimizer_for(steps: int, learning_rate: float) -> Any:
    """AdamW on the matrices, clipped, its rate warmed up and then falling to a tenth."""
    warm = min(100, steps // 10)
    rate = optim.warmup_cosine_decay_schedule(0.0, learning_rate, warm, steps, learning_rate / 10)
    return optim.chain(
        optim.clip_by_global_norm(1.0), optim.adamw(rate, b2=0.99, weight_decay=0.1, mask=_matrices)
    )


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def trained(
    step: pn.Step, ts: pn.TrainState, batch_at: Callable[[jax.Array], Any], steps: int, every: int
) -> tuple[pn.TrainState, np.ndarray]:
    """Train on ``batch_at(step)``, made on the device; and the mean loss of each ``every`` steps."""

    def once(ts: pn.TrainState, _: None) -> tuple[pn.TrainState, jax.Array]:
        ts, metrics = step(ts, batch_at(ts.step))
        return ts, metrics["loss"]

    some = jax.jit(lambda ts: jax.lax.scan(once, ts, None, length=every), donate_argnums=0)
    history: list[float] = []
    for _ in range(steps // every):
        ts, found = some(ts)
        history.append(float(found.mean()))
        print(f"step {len(history) * every}: {history[-1]:.3f} nats", flush=True)
    return ts, np.array(history)


def samples(
    model: pn.Layer, params: Any, letters: data.Characters, *, count: int, steps: int, seed: int
) -> list[str]:
    """Stretches that the model writes after the end of a line, at temperature 0.8."""
    prompts = jnp.asarray(letters.encode("\n"))[None].repeat(count, 0)
    key = jax.random.key(seed)
    written = pn.generate(model, params, {}, prompts, steps=steps, key=key, temperature=0.8)
    texts = [letters.decode(np.asarray(row)) for row in written.tokens]
    print("\n---\n".join(texts))
    return texts


def by_place(model: pn.Layer, params: Any, ids: np.ndarray, context: int) -> Figure:
    """The more of the context is seen, the less there is to guess."""
    inputs, targets = (x[:128] for x in data.windows(ids, context))
    logits, _ = jax.jit(model.apply)(params, {}, inputs)
    nats = np.asarray(losses.softmax_cross_entropy(logits, targets)).mean(0)
    figure, panel = axes("characters seen", "nats per character")
    panel.plot(np.arange(1, len(nats) + 1), nats)
    return figure


def report(
    text: Text,
    params: Any,
    history: np.ndarray,
    every: int,
    *,
    numbers: dict[str, Any],
    decided: Verdict,
    because: str,
    written: list[str],
    figures: dict[str, Figure],
) -> Report:
    """What both experiments measure, and ``numbers`` before it."""
    at = every * np.arange(1, len(history) + 1)
    return Report(
        numbers={
            **numbers,
            "nats of the letters' frequencies alone": text.frequencies_alone(),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "characters to train on": len(text.train),
            "held-out characters": len(text.held_out),
            "alphabet": len(text.letters),
            "steps": int(at[-1]),
            "text": text.name,
        },
        verdict=decided,
        because=because,
        figures={
            "loss": curves({"training": history}, x="step", y="nats per character", at=at),
            **figures,
        },
        tables={"samples": Table(["sample"], [[sample] for sample in written])},
        metrics=[{"step": int(step), "loss": float(value)} for step, value in zip(at, history, strict=True)],
    )
