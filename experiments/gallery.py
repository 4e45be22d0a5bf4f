"""``python -m experiments report``: every experiment's result, run or reused, as one gallery of static pages.

The gallery is ``index.html`` beside the folders of the results: a card for each experiment with its verdict, in
topics, with a search; and ``catalogue.html``, which says what establishes each row of the course's catalogue. All
of it opens from the disk, without network. Each experiment runs in a process of its own, and its result stands as
soon as it is there, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from experiments.report import open_folder, render, write
from experiments.rows import SECTIONS, cited, rows

__all__ = [
    "LEARNING",
    "TOPICS",
    "VIEWS",
    "Card",
    "Settings",
    "card_of",
    "source_of",
    "stale",
    "write_gallery",
]

TOPICS = {
    "first machines": "perceptron gates xor spiking q_learning svm_vs_net polynomial_vs_net rbm_pretraining sign_units",
    "what networks can do": "universal_approximation relu_rate bit_extraction memorise shared_parts",
    "training": "learning_rates sgd_vs_gd curriculum early_stopping over_and_underfit restarts convexity "
    "feature_scaling gradient_noise gradient_components equivalent_minima digits mnist_mlp",
    "optimizers": "optimizer_race amsgrad_counterexample adagrad_decay newton_vs_gd second_order_race",
    "depth": "symmetry init_depth sigmoid_depth exploding_gradients dead_relu batch_norm plain_vs_residual "
    "resnet_shortcuts scaled_shortcuts loss_landscape fat_vs_thin",
    "pictures and sounds": "raw_or_features mnist_cnn cifar_resnet mlp_vs_cnn what_layers_see augmentation dropout",
    "sequences": "char_lstm char_transformer gradient_flow_rnn_lstm exploding_rnn_clipping attention_vs_rnn "
    "linear_attention_cost positional_encoding translation",
    "precision": "half_precision",
}
"""Topic: the names of its experiments."""


LEARNING = ("with a teacher", "without", "by trial", "none")
VIEWS = {
    "points": {
        "with a teacher": "perceptron xor optimizer_race over_and_underfit polynomial_vs_net convexity",
        "by trial": "q_learning",
    },
    "tables and curves": {
        "with a teacher": "adagrad_decay feature_scaling universal_approximation early_stopping shared_parts",
        "none": "gates bit_extraction relu_rate newton_vs_gd second_order_race",
    },
    "pictures": {
        "with a teacher": "digits mnist_mlp mnist_cnn cifar_resnet mlp_vs_cnn dropout",
        "without": "dropout rbm_pretraining",
    },
    "sequences and sounds": {
        "with a teacher": "translation attention_vs_rnn exploding_rnn_clipping raw_or_features spiking",
        "without": "char_lstm char_transformer",
    },
}
"""Row D12: what the data are, and how one learns from them, with experiments that do."""

PATIENCE = 1800
"""Seconds after which an experiment is stopped; at its default settings each takes less than four minutes."""


@dataclass(frozen=True)
class Settings:
    """What to run, and where the results are."""

    results: Annotated[Path, "The folder of the results and of the gallery."] = Path("results")
    only: tuple[str, ...] = ()
    """Names of those to run; the others' results are shown as they are."""
    changed: bool = False
    """Run those again whose program has changed since, or whose result is not of the default settings."""
    again: bool = False
    """Run all of them again."""


@dataclass(frozen=True)
class Card:
    """What the index shows of an experiment."""

    name: str
    topic: str
    title: str
    rows: Sequence[str]
    verdict: str
    because: str
    thumbnail: str | None
    seconds: float | None


def source_of(path: Path) -> str:
    """A short hash of a program's text."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def stale(result: dict[str, Any] | None, source: str, settings: Settings) -> bool:
    """Whether an experiment is to be run, by the result there is."""
    if result is None or settings.again:
        return True
    return settings.changed and (result.get("source") != source or not result.get("default"))


def read(folder: Path) -> dict[str, Any] | None:
    """The result in a folder, if there is a whole one."""
    try:
        found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and (folder / "index.html").is_file() else None


def card_of(name: str, claim: str, folder: Path, error: str = "") -> Card:
    """The card of an experiment: of its result, or of what kept it from one."""
    topic = next((topic for topic, of in TOPICS.items() if name in of.split()), "others")
    title, found = claim.split("\n\n")[0].replace("\n", " "), read(folder)
    if found is None:
        return Card(
            name, topic, title, cited(claim), "not run", error or "there is no result yet", None, None
        )
    pictures = [*folder.glob("thumbnail.png"), *sorted(folder.glob("*.svg"))]
    return Card(
        name,
        topic,
        title,
        cited(claim),
        found["verdict"],
        found["because"],
        f"{name}/{pictures[0].name}" if pictures else None,
        found["seconds"],
    )


def write_gallery(cards: Sequence[Card], results: Path) -> Path:
    """Write the index and the catalogue; returns the path of the index."""
    order = list(TOPICS)
    cards = sorted(cards, key=lambda c: (order.index(c.topic) if c.topic in order else len(order), c.name))
    groups = {
        topic: [c for c in cards if c.topic == topic] for topic in dict.fromkeys(c.topic for c in cards)
    }
    counts = {v: sum(c.verdict == v for c in cards) for v in ("holds", "fails", "inconclusive", "not run")}
    ready = {card.name for card in cards if card.seconds is not None}
    index = render("gallery.html", groups=groups, counts=counts, views=VIEWS, learning=LEARNING, ready=ready)
    write(results / "index.html", index)
    table = rows()
    sections = {
        f"{letter}: {about}": [row for row in table if row.id[0] == letter]
        for letter, (about, _) in SECTIONS.items()
    }
    lacking = [row.id for row in table if not row.covered and not row.optional]
    write(
        results / "catalogue.html", render("catalogue.html", sections=sections, lacking=lacking, rows=table)
    )
    return results / "index.html"


def _run(name: str, results: Path) -> str:
    """Run one in a process of its own; returns what went wrong, or nothing."""
    command = [sys.executable, "-m", "experiments", name, "--results", str(results.resolve())]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {PATIENCE} seconds"
    if not done.returncode:
        return ""
    return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it failed without a word"


def run_all(claims: dict[str, str], settings: Settings) -> int:
    """Run what is to be run, one after another, and write the gallery after each; returns the exit status."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if unknown := [name for name in settings.only if name not in claims]:
        print(
            f"there are no experiments {', '.join(unknown)}; there are {', '.join(claims)}", file=sys.stderr
        )
        return 2
    results = open_folder(settings.results)
    here = Path(__file__).parent
    chosen = [
        name
        for name in settings.only or claims
        if settings.only or stale(read(results / name), source_of(here / f"{name}.py"), settings)
    ]
    errors: dict[str, str] = {}

    def finish() -> Path:
        cards = [card_of(name, claim, results / name, errors.get(name, "")) for name, claim in claims.items()]
        return write_gallery(cards, results)

    finish()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(chosen))
        for name in chosen:
            progress.update(task, description=name)
            if error := _run(name, results):
                errors[name] = error
                progress.console.print(f"{name}: {error}")
            finish()
            progress.advance(task)
    print(finish())
    return 1 if errors else 0
