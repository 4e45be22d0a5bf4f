"""Attention maps: where each query of a model looks, layer by layer.

The weights of an attention layer are the input of its part ``scores/weights``, so that they can be tapped there
(:mod:`purenets.layers.attention_scores`).
"""

from __future__ import annotations

from typing import Any

import jax

from purenets.layer import Layer, Params, State
from purenets.surgery import edit, layer_paths, tap, taps, untapped

__all__ = ["attention_maps"]

_WEIGHTS = "scores/weights"


def attention_maps(
    model: Layer, params: Params, state: State, *inputs: Any, **side: Any
) -> dict[str, jax.Array]:
    """The weights of every attention layer in evaluation, by path of the layer: they sum to one over the keys.

    A query that may see no key has weights of zero.

    Args:
        model: with layers of :func:`purenets.attention` or :func:`purenets.cross_attention`.
        params: the model's.
        state: the model's.
        inputs: of the model.
        side: side inputs, such as ``lengths`` or ``mask``.

    Returns:
        Path to ``[batch, heads, time, source]``, with the members in front under ``repeat`` and ``ensemble``; an
        attention layer by itself has the path ``""``.

    Raises:
        ValueError: the model has no attention layer, or one that holds no weights: on GPU and TPU those whose
            scores are ``fused``.

    >>> import jax.numpy as jnp
    >>> import purenets as pn
    >>> model = pn.attention(4, 2, causal=True)
    >>> params, state = model.init(jax.random.key(0))
    >>> maps = attention_maps(model, params, state, jnp.zeros((1, 2, 4)))
    >>> maps[""].shape, maps[""][0, 0].tolist()
    ((1, 2, 2, 2), [[1.0, 0.0], [0.5, 0.5]])
    """
    every = layer_paths(model)
    tapped = [path for path in every if path == _WEIGHTS or path.endswith(f"/{_WEIGHTS}")]
    if not tapped:
        raise ValueError(
            f"{model.label} has no attention layer, which has a part {_WEIGHTS}; there are {every}"
        )
    # Without what earlier taps left, which would stand where a layer keeps nothing now.
    _, after = edit(model, tapped, tap).apply(params, untapped(state), *inputs, **side)
    found = taps(after)
    if missing := [path for path in tapped if path not in found]:
        raise ValueError(
            f"attention at {missing} holds no weights: on {jax.default_backend()} its scores are computed in one "
            "fused call. Make it with scores=functools.partial(scaled_dot_product, fused=False); the params are the "
            "same"
        )
    return {path.removesuffix(_WEIGHTS).rstrip("/"): found[path] for path in tapped}
