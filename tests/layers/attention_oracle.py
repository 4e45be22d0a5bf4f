"""Attention written token by token in float64 NumPy, from the papers' formulas."""

import math

import numpy as np


def attend(params, x, memory=None, *, score="scaled", seen=lambda b, t, s: True, rotate=None, bias=None):
    """``[batch, time, dim]``: for each token and head, scores of the keys it sees, softmax, weighted sum.

    ``rotate(vector, position)`` turns queries and keys, ``bias(head, t, s)`` is added to the scores.
    """
    x = np.asarray(x, float)
    source = x if memory is None else np.asarray(memory, float)
    maps = {name: {k: np.asarray(v, float) for k, v in params[name].items()} for name in params}
    heads, kv_heads = maps["query"]["kernel"].shape[1], maps["key"]["kernel"].shape[1]

    def project(name, vector, head):
        return vector @ maps[name]["kernel"][:, head] + maps[name]["bias"][head]

    out = np.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            for head in range(heads):
                shared = head * kv_heads // heads
                query = project("query", x[b, t], head)
                query = rotate(query, t) if rotate else query
                scores, values = [], []
                for s in range(source.shape[1]):
                    if not seen(b, t, s):
                        continue
                    key = project("key", source[b, s], shared)
                    key = rotate(key, s) if rotate else key
                    scores.append(_score(score, query, key, maps, head) + (bias(head, t, s) if bias else 0))
                    values.append(project("value", source[b, s], shared))
                if scores:
                    weights = np.exp(np.array(scores) - max(scores))
                    out[b, t] += (weights / weights.sum()) @ np.array(values) @ maps["out"]["kernel"][head]
            out[b, t] += maps["out"]["bias"]
    return out


def _score(kind, query, key, maps, head):
    if kind == "additive":
        return maps["scores"]["vector"][head] @ np.tanh(query + key)
    return query @ key / (math.sqrt(len(query)) if kind == "scaled" else 1)


def rotated(vector, position, base=10000.0):
    """Pair (i, i + half) as a complex number, turned by position / base^(2i / dim)."""
    half = len(vector) // 2
    turn = np.exp(1j * position * base ** (-2 * np.arange(half) / len(vector)))
    turned = (vector[:half] + 1j * vector[half:]) * turn
    return np.concatenate([turned.real, turned.imag])
