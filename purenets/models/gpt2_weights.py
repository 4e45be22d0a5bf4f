"""GPT-2's published weights by their names, as params of :func:`~purenets.models.gpt.gpt`.

The published files (safetensors) hold one array for each layer of each block, ``h.0.attn.c_attn.weight``,
with queries, keys and values side by side and kernels ``[in, out]``. Ours hold one array for all blocks.

=====================  ========================================================================
:func:`load_gpt2`      a file, held against the params of a model in every name and shape
:func:`from_gpt2`      arrays that are at hand, as they are
=====================  ========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.layer import Params
from purenets.paths import flatten, unflatten
from purenets.weights import Source, load_weights, stored_weights

__all__ = ["GPT2_BLOCK", "GPT2_NAMES", "from_gpt2", "load_gpt2"]

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


_CAUSAL_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
"""What published files hold beside weights."""

_HEAD = "lm_head.weight"


def load_gpt2(source: Source, like: Params) -> Params:
    """Params of :func:`~purenets.models.gpt.gpt` from a safetensors file with GPT-2's names; all of them or none.

    A ``transformer.`` in front of the names and the causal masks are passed over, and so is the head where it
    is the embedding again.

    Args:
        source: the file, or several that hold one model together, or arrays by name.
        like: params of the model, or their shapes: ``jax.eval_shape(model.init, key)[0]``. They give sizes,
            heads and dtypes.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: there is no such file.
        ValueError: ``like`` has other paths than :func:`~purenets.models.gpt.gpt`; the file is damaged or of
            another format; an array is missing, unexpected or of another shape, each by its name and shapes; or
            the head is not the embedding. A square kernel that is transposed cannot be told.

    ::

        model = gpt2("124M")
        params = load_gpt2("model.safetensors", jax.eval_shape(model.init, jax.random.key(0))[0])
    """
    wanted, heads = _published(like)
    stored = stored_weights(source)
    rename: dict[str, str | None] = {}
    for name in stored:
        plain = name.removeprefix("transformer.")
        if _CAUSAL_MASK.fullmatch(plain):
            rename[name] = None
        elif plain != name:
            rename[name] = plain
    if _HEAD in stored:
        wanted[_HEAD] = wanted["wte.weight"]
    try:
        arrays, _ = load_weights(source, wanted, rename=rename)
    except ValueError as error:
        for name, shape in stored.items():
            want = wanted.get(rename.get(name) or name)
            if want is not None and len(set(want.shape)) == 2 and shape.endswith(str(list(want.shape[::-1]))):
                error.add_note(
                    f"{name} is transposed: GPT-2's kernels stand as [in, out], torch's as [out, in]"
                )
        raise
    head = arrays.pop(_HEAD, arrays["wte.weight"])
    if not np.array_equal(head, arrays["wte.weight"]):
        raise ValueError(
            f"{_HEAD} differs from wte.weight, and nothing was loaded: the head of gpt is the embedding used again"
        )
    return from_gpt2(arrays, heads)


def _published(like: Params) -> tuple[dict[str, jax.ShapeDtypeStruct], int]:
    """What a file for such params holds, by its published names, and the number of heads."""
    flat = flatten(like)
    attention = {
        f"attention/{name}/{kind}" for name in ("query", "key", "value") for kind in ("kernel", "bias")
    }
    ours = {*GPT2_NAMES.values(), *(f"blocks/{path}" for path in {*GPT2_BLOCK.values(), *attention})}
    if different := sorted(ours ^ set(flat)):
        raise ValueError(f"load_gpt2 needs the params of gpt, these differ in {', '.join(different[:6])}")
    depth, dim, heads, _ = flat["blocks/attention/query/kernel"].shape

    def one(path: str, *shape: int) -> jax.ShapeDtypeStruct:
        leaf = flat[path]
        return jax.ShapeDtypeStruct(shape or leaf.shape, leaf.dtype)

    wanted = {name: one(path) for name, path in GPT2_NAMES.items()}
    for i in range(depth):
        for name, path in GPT2_BLOCK.items():
            wanted[f"h.{i}.{name}"] = one(f"blocks/{path}", *flat[f"blocks/{path}"].shape[1:])
        wanted[f"h.{i}.attn.c_proj.weight"] = one("blocks/attention/out/kernel", dim, dim)
        wanted[f"h.{i}.attn.c_attn.weight"] = one("blocks/attention/query/kernel", dim, 3 * dim)
        wanted[f"h.{i}.attn.c_attn.bias"] = one("blocks/attention/query/bias", 3 * dim)
    return wanted, heads


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
