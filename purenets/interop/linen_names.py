"""The names that Flax linen gives by itself, as rules for :func:`~purenets.interop.convert`.

In a compact module Flax numbers the layers of each class in the order in which they are made: ``Dense_0``, ``Conv_0``,
``Dense_1``. Shapes are the same in both libraries, so that names are all there is to change.
"""

from __future__ import annotations

from purenets.interop.torch_places import below, core
from purenets.layer import Layer

__all__ = ["linen_names"]

_CLASSES = {
    "attention": "MultiHeadDotProductAttention",
    "batch_norm": "BatchNorm",
    "conv": "Conv",
    "conv_transpose": "ConvTranspose",
    "cross_attention": "MultiHeadDotProductAttention",
    "dense": "Dense",
    "embedding": "Embed",
    "group_norm": "GroupNorm",
    "instance_norm": "InstanceNorm",
    "layer_norm": "LayerNorm",
    "rms_norm": "RMSNorm",
}


def linen_names(model: Layer) -> tuple[dict[str, str], dict[str, str]]:
    """The rules for ``params`` and ``batch_stats`` of a compact module that makes the layers of a model in its order.

    Layers inside parts count as if they stood in one module. Rules for a module of its own are those of
    its part, with its name ahead: ``{f"Block_0/{old}": f"block/{new}" ...}``. ``inverse`` gives the way back.

    Raises:
        ValueError: the model has no layer that Flax has.

    >>> import purenets as pn
    >>> params, stats = linen_names(pn.serial(pn.dense(2, 3), pn.batch_norm(3), head=pn.dense(3, 1)))
    >>> params
    {'Dense_0/**': 'dense_1/**', 'BatchNorm_0/**': 'batch_norm_1/**', 'Dense_1/**': 'head/**'}
    >>> stats
    {'BatchNorm_0/**': 'batch_norm_1/**'}
    """
    params: dict[str, str] = {}
    stats: dict[str, str] = {}
    counts: dict[str, int] = {}

    def visit(layer: Layer, path: str) -> None:
        name = _CLASSES.get(core(layer).label.split("(")[0])
        if name is None:
            for part, inner in layer.parts.items():
                visit(inner, below(path, part))
            return
        number = counts[name] = counts.get(name, -1) + 1
        rule = {f"{name}_{number}/**": below(path, "**")}
        params.update(rule)
        if name == "BatchNorm":
            stats.update(rule)

    visit(model, "")
    if not params:
        raise ValueError(f"{model.label} has no layer of a kind that Flax has: {', '.join(_CLASSES)}")
    return params, stats
