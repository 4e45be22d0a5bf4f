"""The layers, one family a file."""

from purenets.layers.activation import maxout, prelu
from purenets.layers.attention import attention, cross_attention
from purenets.layers.attention_scores import additive, dot_product, scaled_dot_product
from purenets.layers.cells import Cell, elman_cell, gru_cell, lstm_cell
from purenets.layers.conv import conv, conv_transpose, depthwise_conv
from purenets.layers.dense import bias, dense, scale
from purenets.layers.dropout import dropout, spatial_dropout, stochastic_depth
from purenets.layers.embed import embedding
from purenets.layers.linear_attention import linear_attention
from purenets.layers.norm import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    moments,
    normalize,
    rms_norm,
)
from purenets.layers.pool import (
    adaptive_average_pool,
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
)
from purenets.layers.positions import alibi, learned_positions, rotary, sinusoidal_positions
from purenets.layers.recurrent import bidirectional, last_step, rnn, stacked
from purenets.layers.shape import flatten, parameter, reshape
from purenets.layers.squeeze_excitation import squeeze_excitation
from purenets.layers.state_space import lru_cell
from purenets.layers.weight_norm import spectral_norm, weight_norm

__all__ = [
    "Cell",
    "adaptive_average_pool",
    "additive",
    "alibi",
    "attention",
    "average_pool",
    "batch_norm",
    "bias",
    "bidirectional",
    "conv",
    "conv_transpose",
    "cross_attention",
    "dense",
    "depthwise_conv",
    "dot_product",
    "dropout",
    "elman_cell",
    "embedding",
    "flatten",
    "global_average_pool",
    "global_max_pool",
    "group_norm",
    "gru_cell",
    "instance_norm",
    "last_step",
    "layer_norm",
    "learned_positions",
    "linear_attention",
    "lru_cell",
    "lstm_cell",
    "max_pool",
    "maxout",
    "moments",
    "normalize",
    "parameter",
    "prelu",
    "reshape",
    "rms_norm",
    "rnn",
    "rotary",
    "scale",
    "scaled_dot_product",
    "sinusoidal_positions",
    "spatial_dropout",
    "spectral_norm",
    "squeeze_excitation",
    "stacked",
    "stochastic_depth",
    "weight_norm",
]
