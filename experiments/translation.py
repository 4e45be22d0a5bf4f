"""A Transformer translates dates as people write them into dates as machines do, exactly.

Rows M67 and M68 (Vaswani et al. 2017; the task is that of many tutorials on attention). The source is a date in one
of several forms, ``"the 3rd of March, 1998"`` or ``"Tuesday 3 Mar 1998"``, the target ``"1998-03-03"``. In training
the decoder is given the target itself, one character behind (*teacher forcing*); afterwards it goes on from its own
characters alone, the likeliest each time (*greedy*). A translation counts if all ten are right. The dates of the test
are held out in every form. What each character of the answer looks at is drawn: the weights of the last
cross-attention, the mean over its heads.

Refuted if fewer than 99 % of the translations of held-out dates are exactly right.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import purenets as pn
from experiments import writing
from experiments.figures import curves
from experiments.report import Report, Table, Verdict, verdict
from purenets import data, losses, models, optim
from purenets.paths import flatten

CLAIMED = 0.99
FIRST_DAY = datetime.date(1900, 1, 1)
DAYS = 200 * 365
START = "^"
"""What stands before the first character of a target."""

ANSWER = 10
"""Characters of a target."""


@dataclass(frozen=True)
class Config:
    """Settings of the run."""

    dim: int = 64
    heads: int = 4
    depth: int = 2
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 2e-3
    examples: int = 40_000
    tested: int = 1000
    seed: int = 0


def _ordinal(day: int) -> str:
    ending = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


FORMS = (
    lambda d: f"{d.day} {d:%B} {d.year}",
    lambda d: f"{d:%B} {d.day}, {d.year}",
    lambda d: f"the {_ordinal(d.day)} of {d:%B}, {d.year}",
    lambda d: f"{d:%A}, {d:%b} {_ordinal(d.day)} {d.year}",
    lambda d: f"{d:%A} {d.day} {d:%b} {d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.month}/{d.day}/{d.year}",
)
"""How a date may be written; with points the day comes first, with strokes the month."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sources and targets as ids."""

    source: np.ndarray
    """``[n, longest]``, the rest filled with 0."""
    lengths: np.ndarray
    target: np.ndarray
    """``[n, 1 + ANSWER]``, START first."""


def days(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All days in a random order, a tenth of them held out."""
    order = rng.permutation(DAYS)
    return order[DAYS // 10 :], order[: DAYS // 10]


def pairs(
    rng: np.random.Generator, chosen: np.ndarray, n: int, letters: data.Characters, longest: int
) -> Pairs:
    """``n`` examples of those days, each in a form of its own."""
    texts = []
    for day, form in zip(rng.choice(chosen, n), rng.integers(len(FORMS), size=n), strict=True):
        date = FIRST_DAY + datetime.timedelta(days=int(day))
        texts.append((FORMS[form](date), START + date.isoformat()))
    source = np.zeros((n, longest), np.int32)
    for row, (text, _) in zip(source, texts, strict=True):
        row[: len(text)] = letters.encode(text)
    return Pairs(
        source,
        np.array([len(text) for text, _ in texts], np.int32),
        np.stack([letters.encode(answer) for _, answer in texts]),
    )


def alphabet() -> tuple[data.Characters, int]:
    """The characters of all forms and of the answers, and the length of the longest source."""
    written = [
        form(datetime.date(2000, month, day))
        for form in FORMS
        for month in range(1, 13)
        for day in range(1, 29)
    ]
    return data.Characters.of("".join(written) + START + "-0123456789"), max(map(len, written))


def network(size: int, config: Config) -> pn.Layer:
    """Ids of source and of what stands before each character of the target, to logits of that character."""
    return models.encoder_decoder(size, size, config.dim, config.heads, config.depth)


def forced(model: pn.Layer) -> pn.Objective:
    """The mean loss per character of the target, given those before it."""

    def objective(params: Any, state: Any, batch: Any, key: Any, train: bool) -> Any:
        source, lengths, target = batch
        logits, state = model.apply(
            params, state, source, target[:, :-1], source_lengths=lengths, key=key, train=train
        )
        loss = jnp.mean(losses.softmax_cross_entropy(logits, target[:, 1:]))
        return loss, (state, {"loss": loss})

    return objective


def trained(config: Config, model: pn.Layer, given: Pairs, every: int) -> tuple[Any, np.ndarray]:
    """The params after training on random batches, and the mean loss of each ``every`` steps."""
    rate = optim.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.steps // 10, config.steps, 0.0
    )
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(rate, b2=0.98))
    step = pn.make_step(forced(model), optimizer)
    examples = tuple(jnp.asarray(x) for x in (given.source, given.lengths, given.target))

    def drawn(number: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
        rows = jax.random.randint(key, (config.batch_size,), 0, len(examples[0]))
        return tuple(x[rows] for x in examples)

    fresh = pn.start(model, optimizer, jax.random.key(config.seed))
    ts, history = writing.trained(step, fresh, drawn, config.steps, every)
    return ts.params, history


def translated(model: pn.Layer, params: Any, given: Pairs) -> np.ndarray:
    """Greedy translations ``[n, ANSWER]``: the source is encoded once, the decoder goes on from START."""
    encode = jax.jit(lambda p, x, n: model.parts["encoder"].apply(p, {}, x, lengths=n)[0])
    memory = encode(params["encoder"], given.source, given.lengths)
    side = {"memory": memory, "memory_lengths": jnp.asarray(given.lengths)}
    first = jnp.asarray(given.target[:, :1])
    decoder = model.parts["decoder"]
    return np.asarray(pn.generate(decoder, params["decoder"], {}, first, steps=ANSWER, side=side).tokens)


def attention_map(model: pn.Layer, params: Any, given: Pairs) -> np.ndarray:
    """Weights ``[n, ANSWER, longest]`` of the last cross-attention, the mean over its heads."""
    tapped = pn.edit(model, "decoder/**/cross/scores/weights", pn.tap)
    _, state = tapped.init(jax.random.key(0))
    _, state = tapped.apply(params, state, given.source, given.target[:, :-1], source_lengths=given.lengths)
    (weights,) = flatten(pn.taps(state)).values()
    return np.asarray(weights)[-1].mean(1)


def maps(weights: np.ndarray, given: Pairs, letters: data.Characters) -> Figure:
    """Maps, one below the other: a row for each character of the answer."""
    figure = Figure(figsize=(7.5, 2.9 * len(weights)), layout="constrained")
    panels = figure.subplots(len(weights), 1, squeeze=False)[:, 0]
    for panel, map_, source, length, target in zip(
        panels, weights, given.source, given.lengths, given.target, strict=True
    ):
        panel.imshow(map_[:, :length], cmap="Greys", aspect="auto", vmin=0)
        panel.grid(False)
        panel.set_xticks(range(length), letters.decode(source[:length]))
        panel.set_yticks(range(ANSWER), letters.decode(target[1:]))
        panel.set_xlabel("source")
        panel.set_ylabel("answer")
    return figure


def decide(exact: float) -> Verdict:
    """By the share of held-out dates whose ten characters are all right."""
    return verdict(exact >= CLAIMED)


def run(config: Config) -> Report:
    """Train, translate dates that were held out, draw what was looked at."""
    rng = np.random.default_rng(config.seed)
    letters, longest = alphabet()
    seen, held_out = days(rng)
    given = pairs(rng, seen, config.examples, letters, longest)
    asked = pairs(rng, held_out, config.tested, letters, longest)
    model = network(len(letters), config)
    every = max(1, min(50, config.steps))
    params, history = trained(config, model, given, every)
    answers = translated(model, params, asked)
    right = (answers == asked.target[:, 1:]).all(1)
    exact = float(right.mean())
    shown = Pairs(asked.source[:3], asked.lengths[:3], asked.target[:3])
    wrong_first = np.argsort(right, kind="stable")[:12]
    return Report(
        numbers={
            "exactly right, held-out dates": exact,
            "characters right": float((answers == asked.target[:, 1:]).mean()),
            "held-out translations": len(asked.source),
            "forms of a date": len(FORMS),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "steps": config.steps,
        },
        verdict=decide(exact),
        because=f"{exact:.1%} of {len(asked.source)} held-out dates were translated exactly by greedy generation "
        f"(claimed {CLAIMED:.0%} at least)",
        figures={
            "loss": curves(
                {"training": history},
                x="step",
                y="nats per character",
                at=every * np.arange(1, len(history) + 1),
                log="y",
            ),
            "attention_of_the_answer_to_the_source": maps(
                attention_map(model, params, shown), shown, letters
            ),
        },
        tables={
            "translations, wrong ones first": Table(
                ["source", "answer", "right"],
                [
                    [
                        letters.decode(asked.source[i][: asked.lengths[i]]),
                        letters.decode(answers[i]),
                        "yes" if right[i] else "no",
                    ]
                    for i in wrong_first
                ],
            )
        },
        metrics=[{"step": (i + 1) * every, "loss": float(value)} for i, value in enumerate(history)],
    )
