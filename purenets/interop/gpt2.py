"""Params of :func:`purenets.models.gpt` by GPT-2's published names: :func:`purenets.models.load_gpt2` the other way.

The published kernels are ``[in, out]``, as ours are and torch's linear layers' are not, with queries, keys and values
side by side: a layout of its own, which :func:`~purenets.interop.to_torch` has not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from purenets.layer import Params
from purenets.models.gpt2_weights import GPT2_BLOCK, GPT2_NAMES
from purenets.paths import flatten

__all__ = ["to_gpt2"]


def to_gpt2(params: Params) -> dict[str, np.ndarray]:
    """The arrays of GPT-2 by their published names, ``h.0.attn.c_attn.weight``, as a safetensors file holds them.

    Args:
        params: of :func:`purenets.models.gpt`.

    Raises:
        ValueError: they have other paths than those of that model.
    """
    flat: dict[str, Any] = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    fused = {
        f"blocks/attention/{name}/{leaf}" for name in ("query", "key", "value") for leaf in ("kernel", "bias")
    }
    ours = {*GPT2_NAMES.values(), *(f"blocks/{path}" for path in GPT2_BLOCK.values()), *fused}
    if different := sorted(ours ^ set(flat)):
        raise ValueError(f"to_gpt2 needs the params of gpt, these differ in {', '.join(different[:6])}")
    depth, heads, size, dim = flat["blocks/attention/out/kernel"].shape
    out = {name: flat[path] for name, path in GPT2_NAMES.items()}
    for i in range(depth):
        out |= {f"h.{i}.{name}": flat[f"blocks/{path}"][i] for name, path in GPT2_BLOCK.items()}
        out[f"h.{i}.attn.c_proj.weight"] = out[f"h.{i}.attn.c_proj.weight"].reshape(heads * size, dim)
        for name, leaf in (("weight", "kernel"), ("bias", "bias")):
            three = [flat[f"blocks/attention/{part}/{leaf}"][i] for part in ("query", "key", "value")]
            side = [part.reshape(*part.shape[:-2], heads * size) for part in three]
            out[f"h.{i}.attn.c_attn.{name}"] = np.concatenate(side, -1)
    return out
