"""Layers as torch's documentation states them, in float64 NumPy: the shapes of their arrays and what they compute.

Inputs and outputs have our axes, channels last; arrays have torch's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np

import purenets as pn

sigmoid = lambda x: 1 / (1 + np.exp(-x))


@dataclass(frozen=True)
class Case:
    model: pn.Layer
    shapes: dict[str, tuple[int, ...]]
    compute: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]
    x: tuple[int, ...]


def linear(a, x):
    return x @ a["weight"].T + a.get("bias", 0)


def conv(a, x, stride=1, padding=0, groups=1):
    """``weight [out, in / groups, h, w]``."""
    weight = a["weight"]
    n_out, n_in, height, width = weight.shape
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    rows, columns = ((x.shape[i] - k) // stride + 1 for i, k in ((1, height), (2, width)))
    y = np.zeros((x.shape[0], rows, columns, n_out))
    for o in range(n_out):
        first = o // (n_out // groups) * n_in
        for i in range(rows):
            for j in range(columns):
                seen = x[
                    :, i * stride : i * stride + height, j * stride : j * stride + width, first : first + n_in
                ]
                y[:, i, j, o] = np.einsum("bhwc,chw->b", seen, weight[o])
    return y + a.get("bias", 0)


def conv_transpose(a, x, stride, padding):
    """``weight [in, out, h, w]``: each place writes the kernel, as it is, around itself."""
    _, n_out, height, width = a["weight"].shape
    batch, rows, columns, _ = x.shape
    y = np.zeros((batch, (rows - 1) * stride + height, (columns - 1) * stride + width, n_out))
    for i in range(rows):
        for j in range(columns):
            written = np.einsum("bc,cohw->bhwo", x[:, i, j], a["weight"])
            y[:, i * stride : i * stride + height, j * stride : j * stride + width] += written
    return y[:, padding : y.shape[1] - padding, padding : y.shape[2] - padding] + a["bias"]


def norm(a, x, axes):
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * a["weight"] + a["bias"]


def batch_norm(a, x):
    return (x - a["running_mean"]) / np.sqrt(a["running_var"] + 1e-5) * a["weight"] + a["bias"]


def group_norm(a, x):
    grouped = x.reshape(*x.shape[:3], 2, -1)
    mean, var = (stat((1, 2, 4), keepdims=True) for stat in (grouped.mean, grouped.var))
    return ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * a["weight"] + a["bias"]


def gates(a, x, h, end):
    """The two affine maps of a recurrent layer."""
    ih, hh = x @ a[f"weight_ih{end}"].T, h @ a[f"weight_hh{end}"].T
    return ih + a.get(f"bias_ih{end}", 0), hh + a.get(f"bias_hh{end}", 0)


def over_time(step, a, x, size, end, backward=False):
    """The outputs ``[batch, time, size]`` of steps ``(a, x, h, c, end) -> (h, c)``."""
    h = c = np.zeros((len(x), size))
    out = np.zeros((*x.shape[:2], size))
    for t in reversed(range(x.shape[1])) if backward else range(x.shape[1]):
        h, c = step(a, x[:, t], h, c, end)
        out[:, t] = h
    return out


def lstm(a, x, h, c, end):
    ih, hh = gates(a, x, h, end)
    i, f, g, o = np.split(ih + hh, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(a, x, h, c, end):
    (xr, xz, xn), (hr, hz, hn) = (np.split(side, 3, -1) for side in gates(a, x, h, end))
    z = sigmoid(xz + hz)
    return (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h, c


def elman(a, x, h, c, end):
    ih, hh = gates(a, x, h, end)
    return np.tanh(ih + hh), c


def recurrent(step, a, x, size=4, layers=1, both=False):
    for layer in range(layers):
        sides = [over_time(step, a, x, size, f"_l{layer}")]
        if both:
            sides.append(over_time(step, a, x, size, f"_l{layer}_reverse", backward=True))
        x = np.concatenate(sides, -1)
    return x


def recurrent_shapes(gates, n_in=3, size=4, layers=1, both=False, bias=True):
    shapes = {}
    for layer in range(layers):
        for end in [f"_l{layer}", *([f"_l{layer}_reverse"] if both else [])]:
            shapes[f"weight_ih{end}"] = (gates * size, n_in if layer == 0 else size * (1 + both))
            shapes[f"weight_hh{end}"] = (gates * size, size)
            if bias:
                shapes |= {f"bias_ih{end}": (gates * size,), f"bias_hh{end}": (gates * size,)}
    return shapes


def attention(a, x, heads=2):
    dim = x.shape[-1]
    packed = x @ a["in_proj_weight"].T + a.get("in_proj_bias", 0)
    q, k, v = (part.reshape(*x.shape[:2], heads, -1) for part in np.split(packed, 3, -1))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(dim // heads)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    y = np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
    return y @ a["out_proj.weight"].T + a.get("out_proj.bias", 0)


def flattened(a, x):
    """torch's order: channels first."""
    y = conv({"weight": a["conv.weight"], "bias": a["conv.bias"]}, x)
    y = np.moveaxis(y, -1, 1).reshape(len(x), -1)
    return y @ a["head.weight"].T + a["head.bias"]


def blocks(a, x):
    for i in range(3):
        x = x + np.tanh(x @ a[f"blocks.{i}.up.weight"].T + a[f"blocks.{i}.up.bias"])
    return x


def _block():
    @pn.compose(up=pn.dense(4, 4))
    def block(m, x):
        return x + jnp.tanh(m.up(x))

    return block


def _embed(a, x):
    return a["weight"][x]


_NORM = {"weight": (4,), "bias": (4,)}
_lstm, _gru, _elman = pn.lstm_cell, pn.gru_cell, pn.elman_cell

CASES = {
    "linear": Case(pn.dense(3, 5), {"weight": (5, 3), "bias": (5,)}, linear, (2, 3)),
    "square linear": Case(pn.dense(4, 4), {"weight": (4, 4), "bias": (4,)}, linear, (2, 4)),
    "linear without bias": Case(pn.dense(4, 4, bias=False), {"weight": (4, 4)}, linear, (2, 4)),
    "conv": Case(
        pn.conv(3, 5, (3, 2), padding=1, stride=2),
        {"weight": (5, 3, 3, 2), "bias": (5,)},
        partial(conv, stride=2, padding=1),
        (2, 6, 5, 3),
    ),
    "square conv in groups": Case(
        pn.conv(4, 2, 2, padding="VALID", groups=2, bias=False),
        {"weight": (2, 2, 2, 2)},
        partial(conv, groups=2),
        (2, 4, 4, 4),
    ),
    "transposed conv": Case(
        pn.conv_transpose(3, 2, (3, 4), stride=2, padding=[(1, 1), (2, 2)]),
        {"weight": (3, 2, 3, 4), "bias": (2,)},
        partial(conv_transpose, stride=2, padding=1),
        (2, 3, 4, 3),
    ),
    "square transposed conv": Case(
        pn.conv_transpose(3, 3, 3, padding=2),
        {"weight": (3, 3, 3, 3), "bias": (3,)},
        partial(conv_transpose, stride=1, padding=0),
        (2, 3, 3, 3),
    ),
    "batch norm": Case(
        pn.batch_norm(4), {**_NORM, "running_mean": (4,), "running_var": (4,)}, batch_norm, (2, 3, 3, 4)
    ),
    "layer norm": Case(pn.layer_norm(4, eps=1e-5), _NORM, partial(norm, axes=-1), (2, 3, 4)),
    "group norm": Case(pn.group_norm(4, 2, eps=1e-5), _NORM, group_norm, (2, 3, 3, 4)),
    "instance norm": Case(pn.instance_norm(4, eps=1e-5), _NORM, partial(norm, axes=(1, 2)), (2, 3, 3, 4)),
    "embedding": Case(pn.embedding(5, 4), {"weight": (5, 4)}, _embed, (2, 3)),
    "square embedding": Case(pn.embedding(4, 4), {"weight": (4, 4)}, _embed, (2, 3)),
    "lstm": Case(pn.rnn(_lstm(3, 4)), recurrent_shapes(4), partial(recurrent, lstm), (2, 5, 3)),
    "lstm without bias": Case(
        pn.rnn(_lstm(3, 4, bias=False)), recurrent_shapes(4, bias=False), partial(recurrent, lstm), (2, 5, 3)
    ),
    "lstm of two layers": Case(
        pn.stacked(_lstm(3, 4), _lstm(4, 4)),
        recurrent_shapes(4, layers=2),
        partial(recurrent, lstm, layers=2),
        (2, 5, 3),
    ),
    "lstm both ways in two layers": Case(
        pn.serial(pn.bidirectional(_lstm(3, 4), _lstm(3, 4)), pn.bidirectional(_lstm(8, 4), _lstm(8, 4))),
        recurrent_shapes(4, layers=2, both=True),
        partial(recurrent, lstm, layers=2, both=True),
        (2, 5, 3),
    ),
    "gru": Case(pn.rnn(_gru(3, 4)), recurrent_shapes(3), partial(recurrent, gru), (2, 5, 3)),
    "gru both ways": Case(
        pn.bidirectional(_gru(3, 4), _gru(3, 4)),
        recurrent_shapes(3, both=True),
        partial(recurrent, gru, both=True),
        (2, 5, 3),
    ),
    "rnn": Case(pn.rnn(_elman(3, 4)), recurrent_shapes(1), partial(recurrent, elman), (2, 5, 3)),
    "attention": Case(
        pn.attention(4, 2),
        {"in_proj_weight": (12, 4), "in_proj_bias": (12,), "out_proj.weight": (4, 4), "out_proj.bias": (4,)},
        attention,
        (2, 5, 4),
    ),
    "attention without bias": Case(
        pn.attention(4, 2, bias=False),
        {"in_proj_weight": (12, 4), "out_proj.weight": (4, 4)},
        attention,
        (2, 5, 4),
    ),
    "dense after flatten": Case(
        pn.serial(conv=pn.conv(2, 3, 2, padding="VALID"), flatten=pn.flatten(), head=pn.dense(18, 4)),
        {"conv.weight": (3, 2, 2, 2), "conv.bias": (3,), "head.weight": (4, 18), "head.bias": (4,)},
        flattened,
        (2, 4, 3, 2),
    ),
    "repeated blocks": Case(
        pn.serial(blocks=pn.repeat(_block(), 3)),
        {
            f"blocks.{i}.up.{name}": shape
            for i in range(3)
            for name, shape in (("weight", (4, 4)), ("bias", (4,)))
        },
        blocks,
        (2, 4),
    ),
}
"""Every kind of layer in the table of ``torch_layouts``; square ones where a shape would not tell a turn."""


def arrays_of(shapes, seed=0):
    """Numbers in torch's shapes, float32; variances positive."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.uniform(0.5, 2, shape) if "var" in name else rng.normal(size=shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def input_of(case, seed=1):
    rng = np.random.default_rng(seed)
    if case.model.label.startswith("embedding"):
        return rng.integers(0, 4, case.x).astype(np.int32)
    return rng.normal(size=case.x).astype(np.float32)
