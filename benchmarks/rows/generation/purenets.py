"""``pn.generate``."""

from __future__ import annotations

import purenets as pn
from benchmarks.protocol import Call, Case
from purenets import models


def contestants(case: Case) -> dict[str, Call]:
    """From the cache."""
    sizes = case.given["sizes"]
    model = models.gpt(sizes.vocabulary, sizes.dim, sizes.heads, sizes.depth, sizes.time)
    prompt = case.given["batch"][0][:, : sizes.time // 8]
    steps = sizes.time - prompt.shape[1]
    weights = case.given["weights"]
    return {"cached": lambda: pn.generate(model, weights, {}, prompt, steps=steps).tokens}
