"""``models.gpt`` and ``optim.adamw``; its blocks are a loop, which ``unroll`` opens."""

from __future__ import annotations

from benchmarks.loops import purenets, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.transformer import form
from purenets import models, optim


def contestants(case: Case) -> dict[str, Call]:
    """The model of the library."""
    sizes = case.given["sizes"]

    def made(scan: bool) -> Call:
        shape = (sizes.vocabulary, sizes.dim, sizes.heads, sizes.depth, sizes.time)
        model = models.gpt(*shape, unroll=1 if scan else sizes.depth)
        loop = purenets.loop(model, case.given["optimizer"](optim), case.given["weights"])
        return repeated(loop, case.given["batch"])

    return {form(scan): made(scan) for scan in case.given["forms"]}
