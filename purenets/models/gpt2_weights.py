"""GPT-2's published weights by their names, as params of :func:`~purenets.models.gpt.gpt`.

The published files (safetensors) hold one array for each layer of each block, ``h.0.attn.c_attn.weight``,
with queries, keys and values side by side and kernels ``[in, out]``. Ours hold one array for all blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from purenets.layer import Params
from purenets.paths import unflatten

__all__ = ["GPT2_BLOCK", "GPT2_NAMES", "from_gpt2"]

GPT2_NAMES = {
    "wte.weight": "embed/embedding",
    "wpe.weight": "positions/embedding",
    "ln_f.weight": "norm/scale",
    "ln_f.bias": "norm/bias",
}
"""Published name to path, of what is outside of the blocks."""

GPT2_BLOCK = {
    "ln_1.weight": "attention_norm/scale",
    "ln_1.bias": "attention_norm/bias",
    "attn.c_proj.weight": "attention/out/kernel",
    "attn.c_proj.bias": "attention/out/bias",
    "ln_2.weight": "feed_forward_norm/scale",
    "ln_2.bias": "feed_forward_norm/bias",
    "mlp.c_fc.weight": "feed_forward/up/kernel",
    "mlp.c_fc.bias": "feed_forward/up/bias",
    "mlp.c_proj.weight": "feed_forward/down/kernel",
    "mlp.c_proj.bias": "feed_forward/down/bias",
}
"""Published name after ``h.0.`` to path after ``blocks/``, of what is one array in both."""


def from_gpt2(arrays: Mapping[str, Any], heads: int) -> Params:
    """Params of :func:`~purenets.models.gpt.gpt` from arrays by their published names.

    Args:
        arrays: as ``safetensors.numpy.load_file`` gives them; a ``transformer.`` in front of the names, and
            arrays that are no weights (the causal mask, the head that is the embedding again), are passed
            over.
        heads: attention heads, which the arrays do not tell: 12 of the model of 124M parameters.

    Raises:
        ValueError: an array is missing, or the heads do not divide the width.
    """
    named = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    depth = len({name.split(".")[1] for name in named if name.startswith("h.")})
    if not depth:
        raise ValueError(f"from_gpt2 needs names such as h.0.attn.c_attn.weight, got {sorted(named)[:3]}")

    def get(name: str) -> np.ndarray:
        if name not in named:
            raise ValueError(f"from_gpt2 needs {name}, which is not among the {len(named)} arrays given")
        return np.asarray(named[name])

    def stacked(name: str) -> np.ndarray:
        return np.stack([get(f"h.{number}.{name}") for number in range(depth)])

    dim = get("wte.weight").shape[1]
    if dim % heads:
        raise ValueError(f"from_gpt2 needs a number of heads that divides {dim}, got {heads}")
    flat = {path: get(name) for name, path in GPT2_NAMES.items()}
    flat |= {f"blocks/{path}": stacked(name) for name, path in GPT2_BLOCK.items()}
    out = flat["blocks/attention/out/kernel"]
    flat["blocks/attention/out/kernel"] = out.reshape(depth, heads, dim // heads, dim)
    for kind, fused in (("kernel", "attn.c_attn.weight"), ("bias", "attn.c_attn.bias")):
        for name, part in zip(("query", "key", "value"), np.split(stacked(fused), 3, -1), strict=True):
            split = part.reshape(*part.shape[:-1], heads, dim // heads)
            flat[f"blocks/attention/{name}/{kind}"] = split
    return unflatten({path: jnp.asarray(array) for path, array in flat.items()})
