"""The layers that every law is held over. A new layer joins with one line in :data:`CASES`.

A line is ``Case(id, layer, given, ...)``: what the layer is given is a shape for float32 numbers, or a
function that draws an array, such as :func:`ids`. Sizes are tiny, and features a multiple of 8, so that
params can be split over eight devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from purenets.layers.attention import attention, cross_attention
from purenets.layers.linear_attention import linear_attention
from purenets.layers.positions import learned_positions, rotary
from purenets.models.transformer_block import feed_forward, transformer_block

Draw = Callable[[np.random.Generator], np.ndarray]


def ids(size: int, *shape: int) -> Draw:
    """Integers from 0 to ``size - 1``."""
    return lambda rng: rng.integers(0, size, shape, np.int32)


@dataclass(frozen=True, eq=False)
class Case:
    """A layer and what it is given."""

    id: str
    layer: Callable[[], pn.Layer]
    given: tuple[tuple[int, ...] | Draw, ...]
    side: dict[str, tuple[int, ...] | Draw] = field(default_factory=dict)
    #: Whether its gradient is meant to be that of its values: not where it stops or rounds on purpose.
    differentiable: bool = True
    #: Whether two programs round it alike: not where XLA fuses what computes a kernel into what uses it.
    rounds_alike: bool = True
    #: How far two orders of the same operations may be apart.
    tolerance: float = 1e-5

    def __str__(self) -> str:
        return self.id


def mlp() -> pn.Layer:
    return pn.serial(pn.dense(8, 8), pn.batch_norm(8), jnp.tanh, pn.dropout(0.5), pn.dense(8, 8))


def pre_norm_block() -> pn.Layer:
    body = pn.serial(
        pn.layer_norm(8), pn.dense(8, 16), jax.nn.gelu, pn.dense(16, 8), pn.stochastic_depth(0.5)
    )
    return pn.residual(body)


def tied() -> pn.Layer:
    @pn.compose(embed=pn.embedding(8, 8), norm=pn.rms_norm(8))
    def language_model(m, tokens):
        return m.norm(m.embed(tokens)) @ m.embed.params["embedding"].T

    return language_model


def shared() -> pn.Layer:
    @pn.compose(layer=pn.dense(8, 8), norm=pn.batch_norm(8), drop=pn.dropout(0.3))
    def twice(m, x):
        return m.drop(m.norm(m.layer(m.drop(m.norm(m.layer(x))))))

    return twice


def with_token() -> pn.Layer:
    @pn.compose(token=pn.parameter((1, 1, 8), jax.nn.initializers.normal()), body=pn.dense(8, 8))
    def prefixed(m, x):
        token = jnp.broadcast_to(m.token(), (x.shape[0], 1, 8))
        return m.body(jnp.concatenate([token, x], 1))

    return prefixed


def with_side_input() -> pn.Layer:
    @pn.compose(layer=pn.dense(8, 8))
    def masked(m, x, *, mask=None):
        return m.layer(x) if mask is None else m.layer(x) * mask

    return pn.serial(masked, pn.dropout(0.5))


def decoder_block() -> pn.Layer:
    to_itself = attention(8, 2, causal=True, rate=0.3)
    return transformer_block(8, to_itself, feed_forward(8, 16), cross=cross_attention(8, 2), rate=0.3)


CASES = [
    # One layer alone.
    Case("identity", lambda: pn.identity, ((4, 8),)),
    Case("function", lambda: pn.function(jnp.tanh), ((4, 8),)),
    Case("dense", lambda: pn.dense(8, 8), ((4, 8),)),
    Case("dense of vectors", lambda: pn.dense(8, 16, bias=False), ((8,),)),
    Case("scale", lambda: pn.scale(8), ((4, 8),)),
    Case("bias", lambda: pn.bias(8), ((4, 8),)),
    Case("embedding", lambda: pn.embedding(16, 8), (ids(16, 4, 3),)),
    Case("dropout", lambda: pn.dropout(0.5), ((4, 8),)),
    Case("spatial dropout", lambda: pn.spatial_dropout(0.5), ((4, 3, 8),)),
    Case("stochastic depth", lambda: pn.stochastic_depth(0.5), ((4, 8),)),
    Case("layer norm", lambda: pn.layer_norm(8), ((4, 8),)),
    Case("rms norm", lambda: pn.rms_norm(8), ((4, 8),)),
    Case("group norm", lambda: pn.group_norm(8, 2), ((4, 3, 8),)),
    Case("instance norm", lambda: pn.instance_norm(8), ((4, 3, 8),)),
    Case("batch norm", lambda: pn.batch_norm(8), ((4, 8),)),
    Case("batch norm as in torch", lambda: pn.batch_norm(8, momentum=0.9, unbiased=True), ((4, 3, 8),)),
    Case("prelu", lambda: pn.prelu(8), ((4, 8),)),
    Case("maxout", lambda: pn.maxout(8, 8, 2), ((4, 8),)),
    Case("conv", lambda: pn.conv(8, 8, 3), ((2, 3, 4, 8),)),
    Case("depthwise conv", lambda: pn.depthwise_conv(8, (3,), stride=2), ((2, 5, 8),)),
    Case("transposed conv", lambda: pn.conv_transpose(8, 8, (2,), stride=2), ((2, 3, 8),)),
    Case("max pool", lambda: pn.max_pool(2), ((2, 4, 5, 8),)),
    Case("max pool, overlapping", lambda: pn.max_pool((3,), stride=1, padding="SAME"), ((2, 5, 8),)),
    Case("average pool", lambda: pn.average_pool((2,)), ((2, 5, 8),)),
    Case("adaptive average pool", lambda: pn.adaptive_average_pool(3), ((2, 5, 8),)),
    Case("squeeze and excitation", lambda: pn.squeeze_excitation(8, 8), ((2, 3, 8),)),
    Case("flatten", pn.flatten, ((4, 2, 4),)),
    Case("reshape", lambda: pn.reshape(2, 4), ((4, 8),)),
    Case("parameter", lambda: pn.parameter((8,), jax.nn.initializers.normal()), ()),
    Case("learned positions", lambda: learned_positions(5, 8), ((2, 3, 8),)),
    Case(
        "attention",
        lambda: attention(16, 8, kv_heads=8, causal=True, relative=rotary(), rate=0.3),
        ((2, 3, 16),),
    ),
    Case("linear attention", lambda: linear_attention(8, 2, causal=True, chunk=2), ((2, 3, 8),)),
    # Layers composed.
    Case("mlp", mlp, ((4, 8),)),
    Case("pre-norm block", pre_norm_block, ((4, 8),)),
    Case("branch", lambda: pn.branch(jnp.multiply, a=pn.dense(8, 8), b=pn.dropout(0.5)), ((4, 8),)),
    Case("tied embedding", tied, (ids(8, 4, 3),)),
    Case("shared twice", shared, ((4, 8),)),
    Case("token in front", with_token, ((4, 2, 8),)),
    Case("decoder block", decoder_block, ((2, 3, 8),), {"memory": (2, 2, 8)}),
    Case("side input", with_side_input, ((4, 8),), {"mask": (4, 1)}),
    # Layers lifted.
    Case("repeat", lambda: pn.repeat(mlp(), 2), ((4, 8),)),
    Case("repeat with remat", lambda: pn.repeat(pre_norm_block(), 2, remat=True), ((4, 8),)),
    Case("ensemble", lambda: pn.ensemble(mlp(), 2), ((4, 8),)),
    Case("weight norm", lambda: pn.weight_norm(mlp()), ((4, 8),), rounds_alike=False),
    # No gradient goes through the power iteration.
    Case(
        "spectral norm", lambda: pn.spectral_norm(mlp()), ((4, 8),), differentiable=False, rounds_alike=False
    ),
    Case("remat", lambda: pn.remat(mlp()), ((4, 8),)),
    Case("cast", lambda: pn.cast(mlp()), ((4, 8),), differentiable=False, tolerance=0.05),
    Case("frozen", lambda: pn.serial(pn.frozen(mlp()), pn.dense(8, 8)), ((4, 8),), differentiable=False),
]
