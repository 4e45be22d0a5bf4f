"""Llama as its weights at Hugging Face are meant, in float64 NumPy, written from the published description."""

import numpy as np


def rms_norm(x, weight, eps=1e-5):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + eps) * weight


def rotate(x, base=10000.0):
    """``[time, heads, size]``: element i of the first half is a pair with element i of the second."""
    time, _, size = x.shape
    angles = np.arange(time)[:, None] / base ** (np.arange(0, size, 2) / size)
    cos, sin = (np.concatenate([fn(angles)] * 2, -1)[:, None] for fn in (np.cos, np.sin))
    first, second = np.split(x, 2, -1)
    return x * cos + np.concatenate([-second, first], -1) * sin


def attend(x, get, heads, kv_heads):
    time = len(x)
    q, k, v = (
        (x @ get(f"self_attn.{name}_proj").T).reshape(time, n, -1)
        for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads))
    )
    q, k = rotate(q), rotate(k)
    k, v = (np.repeat(part, heads // kv_heads, 1) for part in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(np.tril(np.ones((time, time))), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, v).reshape(time, -1) @ get("self_attn.o_proj").T


def llama(arrays, ids, heads, kv_heads, depth):
    """Logits ``[time, size]`` of one sequence."""
    x = arrays["model.embed_tokens.weight"][ids]
    for i in range(depth):
        get = lambda name, i=i: arrays[f"model.layers.{i}.{name}.weight"]
        x = x + attend(rms_norm(x, get("input_layernorm")), get, heads, kv_heads)
        y = rms_norm(x, get("post_attention_layernorm"))
        gate = y @ get("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ get("mlp.up_proj").T)) @ get("mlp.down_proj").T
    return rms_norm(x, arrays["model.norm.weight"]) @ arrays["lm_head.weight"].T


def shapes(size, dim, heads, kv_heads, depth, hidden):
    head = dim // heads
    found = {
        "model.embed_tokens.weight": (size, dim),
        "model.norm.weight": (dim,),
        "lm_head.weight": (size, dim),
    }
    for i in range(depth):
        at = f"model.layers.{i}"
        found |= {f"{at}.{name}.weight": (dim,) for name in ("input_layernorm", "post_attention_layernorm")}
        found |= {f"{at}.self_attn.{name}_proj.weight": (dim, dim) for name in "qo"}
        found |= {f"{at}.self_attn.{name}_proj.weight": (kv_heads * head, dim) for name in "kv"}
        found |= {f"{at}.mlp.{name}_proj.weight": (hidden, dim) for name in ("gate", "up")}
        found[f"{at}.mlp.down_proj.weight"] = (dim, hidden)
    return found
