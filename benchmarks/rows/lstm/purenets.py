"""``layers.rnn`` of ``layers.lstm_cell``."""

from __future__ import annotations

from benchmarks.loops import purenets, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.lstm import RATE
from purenets import layers, optim


def contestants(case: Case) -> dict[str, Call]:
    """The layer of the library."""
    size = case.given["size"]
    model = layers.rnn(layers.lstm_cell(size, size))
    loop = purenets.loop(model, optim.sgd(RATE), case.given["weights"], lambda out, y: (out - y) ** 2)
    return {"make_step": repeated(loop, case.given["batch"])}
