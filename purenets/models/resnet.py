"""Residual networks (He et al. 2016a and 2016b), for small images and for large ones.

A *body* computes the change F(x) and a *skip* brings x past it, shortened and widened where the body does.
How the two become one is a :data:`Join`, so that every shortcut that was tried is a short function here:
the sum, the sum scaled, gated, through a convolution or through dropout, and none at all, which makes the
plain twin.

Equal blocks of a stage run under ``repeat`` (``scan=True``), so that the time to compile does not grow with
depth, or one after another, when each block has an entry of its own in params and state. By default a stage is
a loop from five equal blocks on: before that the loop and its backward pass cost the compiler more than the
blocks. The step itself is no slower as a loop; measured on CPU it took 0.9 of the time for ResNet-20 and half of
it for ResNet-110.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from purenets.compose import branch, compose, residual, serial
from purenets.layer import Layer, Params, identity, layer
from purenets.layers.conv import conv
from purenets.layers.dense import dense
from purenets.layers.dropout import dropout
from purenets.layers.norm import batch_norm
from purenets.layers.pool import global_average_pool, max_pool
from purenets.lift import repeat

__all__ = [
    "Join",
    "basic_block",
    "bottleneck_block",
    "conv_join",
    "dropout_join",
    "gated_join",
    "plain_join",
    "resnet",
    "resnet_cifar",
    "scaled_join",
    "shortcut_by_padding",
    "shortcut_by_projection",
    "sum_join",
]

Join: TypeAlias = Callable[[Layer, Layer, int], Layer]
"""``join(body, skip, channels) -> layer``: how a block becomes one of its two branches."""
Shortcut: TypeAlias = Callable[[int, int, int], Layer]

_he = jax.nn.initializers.he_normal()


def _conv(n_in: int, n_out: int, window: int, stride: int = 1) -> Layer:
    """A convolution without bias, since a norm follows; padded alike on both sides, as in the papers."""
    return conv(n_in, n_out, window, stride=stride, padding=window // 2, bias=False, kernel_init=_he)


def sum_join(body: Layer, skip: Layer, channels: int) -> Layer:  # noqa: ARG001
    """``F(x) + x``, the residual network itself."""
    return residual(body, skip)


def plain_join(body: Layer, skip: Layer, channels: int) -> Layer:  # noqa: ARG001
    """``F(x)``: the plain twin, without shortcuts."""
    return body


def scaled_join(skip_factor: float = 0.5, body_factor: float = 0.5) -> Join:
    """``body_factor F(x) + skip_factor x`` (He et al. 2016b, section 3.1, and table 1)."""

    def join(body: Layer, skip: Layer, channels: int) -> Layer:  # noqa: ARG001
        return branch(lambda f, x: body_factor * f + skip_factor * x, body=body, skip=skip)

    return join


def gated_join(*, exclusive: bool, bias: float = -6.0) -> Join:
    """A gate ``g = sigmoid(W x + b)`` of a 1 x 1 convolution lets one branch through (He et al. 2016b).

    ``exclusive``: ``g F(x) + (1 - g) x``. Otherwise only the shortcut is gated: ``F(x) + (1 - g) x``.
    ``bias`` is what b starts from; negative favours the shortcut.
    """

    def join(body: Layer, skip: Layer, channels: int) -> Layer:
        gate = conv(channels, channels, 1, bias_init=jax.nn.initializers.constant(bias))

        @compose(body=body, skip=skip, gate=gate)
        def gated(m: Any, x: jax.Array) -> jax.Array:
            short = m.skip(x)
            g = jax.nn.sigmoid(m.gate(short))
            change = m.body(x)
            return (g * change if exclusive else change) + (1 - g) * short

        return gated

    return join


def conv_join(body: Layer, skip: Layer, channels: int) -> Layer:
    """``F(x) + W x`` with a 1 x 1 convolution in every shortcut."""
    return residual(body, serial(skip, _conv(channels, channels, 1)))


def dropout_join(rate: float = 0.5) -> Join:
    """``F(x) + mask x`` in every shortcut, the mask 1 with probability ``1 - rate`` and otherwise 0.

    What is kept is not scaled up, so on average this is ``F(x) + (1 - rate) x``, and in evaluation exactly.
    """

    def join(body: Layer, skip: Layer, channels: int) -> Layer:  # noqa: ARG001
        return residual(body, serial(skip, dropout(rate), scaled=lambda x: (1 - rate) * x))

    return join


def shortcut_by_padding(n_in: int, n_out: int, stride: int) -> Layer:
    """Every ``stride``-th place, and zeros for the channels that are new: no parameters (option A)."""
    if n_in == n_out and stride == 1:
        return identity

    def pad(_params: Params, x: jax.Array) -> jax.Array:
        return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, n_out - n_in)))

    return layer(None, pad, label=f"shortcut_by_padding({n_in}, {n_out}, {stride})")


def shortcut_by_projection(n_in: int, n_out: int, stride: int) -> Layer:
    """A 1 x 1 convolution and batch norm where the shape changes (option B)."""
    if n_in == n_out and stride == 1:
        return identity
    return serial(conv=_conv(n_in, n_out, 1, stride), norm=batch_norm(n_out))


def basic_block(n_in: int, n_out: int, stride: int = 1, *, pre_activation: bool = False) -> Layer:
    """The body of two 3 x 3 convolutions.

    Convolution, norm, ReLU, convolution, norm; with ``pre_activation`` norm and ReLU come before each.
    """
    if pre_activation:
        return serial(
            norm_1=batch_norm(n_in),
            relu_1=jax.nn.relu,
            conv_1=_conv(n_in, n_out, 3, stride),
            norm_2=batch_norm(n_out),
            relu_2=jax.nn.relu,
            conv_2=_conv(n_out, n_out, 3),
        )
    return serial(
        conv_1=_conv(n_in, n_out, 3, stride),
        norm_1=batch_norm(n_out),
        relu_1=jax.nn.relu,
        conv_2=_conv(n_out, n_out, 3),
        norm_2=batch_norm(n_out),
    )


def bottleneck_block(n_in: int, n_out: int, stride: int = 1) -> Layer:
    """The body of 1 x 1, 3 x 3 and 1 x 1 convolutions, a quarter as wide within; the 3 x 3 has the stride."""
    inner = n_out // 4
    return serial(
        conv_1=_conv(n_in, inner, 1),
        norm_1=batch_norm(inner),
        relu_1=jax.nn.relu,
        conv_2=_conv(inner, inner, 3, stride),
        norm_2=batch_norm(inner),
        relu_2=jax.nn.relu,
        conv_3=_conv(inner, n_out, 1),
        norm_3=batch_norm(n_out),
    )


def _stage(
    body: Callable[[int, int, int], Layer],
    n_in: int,
    n_out: int,
    stride: int,
    blocks: int,
    *,
    join: Join,
    shortcut: Shortcut,
    relu_after: bool,
    scan: bool | None,
) -> Layer:
    """A stage: one block that changes the shape, then equal ones."""

    def block(n_in: int, stride: int) -> Layer:
        joined = join(body(n_in, n_out, stride), shortcut(n_in, n_out, stride), n_out)
        return serial(joined=joined, relu=jax.nn.relu) if relu_after else joined

    parts = {"first": block(n_in, stride)}
    equal = blocks - 1
    if equal >= 5 if scan is None else scan and equal:
        parts["rest"] = repeat(block(n_out, 1), equal)
    else:
        parts.update({f"block_{i}": block(n_out, 1) for i in range(2, blocks + 1)})
    return serial(**parts)


def resnet_cifar(
    depth: int = 20,
    classes: int = 10,
    *,
    width: int = 16,
    channels: int = 3,
    join: Join = sum_join,
    pre_activation: bool = False,
    scan: bool | None = None,
) -> Layer:
    """The network of 6 n + 2 layers for small images, ``[batch, height, width, channels]`` to logits.

    He et al. 2016a, section 4.2: stages of ``width``, ``2 width`` and ``4 width`` channels and n blocks each,
    shortcuts by padding, so the plain twin has the same parameters; with ``pre_activation`` the blocks of He
    et al. 2016b.

    Args:
        depth: 20, 32, 44, 56, 110, ...: 6 n + 2.
        classes: outputs.
        width: channels of the first stage.
        channels: of the input.
        join: how body and shortcut become one; ``plain_join`` for the plain twin.
        pre_activation: norm and ReLU before each convolution.
        scan: run equal blocks under ``repeat``, or one after another; see above for the default.

    Raises:
        ValueError: the depth is not 6 n + 2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"resnet_cifar needs a depth of 6 n + 2 (20, 32, 56, 110, ...), got {depth}")
    blocks = (depth - 2) // 6

    def body(n_in: int, n_out: int, stride: int) -> Layer:
        return basic_block(n_in, n_out, stride, pre_activation=pre_activation)

    sizes = [width, width, 2 * width, 4 * width]
    stages = {
        f"stage_{i}": _stage(
            body,
            sizes[i - 1],
            sizes[i],
            1 if i == 1 else 2,
            blocks,
            join=join,
            shortcut=shortcut_by_padding,
            relu_after=not pre_activation,
            scan=scan,
        )
        for i in (1, 2, 3)
    }
    stem: dict[str, Any] = {"stem": _conv(channels, width, 3)}
    norm: dict[str, Any] = {"norm": batch_norm(4 * width if pre_activation else width), "relu": jax.nn.relu}
    ordered = {**stem, **stages, **norm} if pre_activation else {**stem, **norm, **stages}
    return serial(**ordered, pool=global_average_pool(), head=dense(4 * width, classes))


def resnet(
    blocks: Sequence[int] = (3, 4, 6, 3),
    classes: int = 1000,
    *,
    bottleneck: bool = True,
    width: int = 64,
    channels: int = 3,
    scan: bool | None = None,
) -> Layer:
    """The network for large images (He et al. 2016a, table 1): ``(3, 4, 6, 3)`` is ResNet-50.

    ``resnet((2, 2, 2, 2), bottleneck=False)`` is ResNet-18. Shortcuts are projections where the shape
    changes; in a bottleneck the 3 x 3 convolution has the stride, as is usual since. ``scan`` is that of
    :func:`resnet_cifar`.
    """
    grow = 4 if bottleneck else 1
    parts: dict[str, Any] = {
        "stem": conv(channels, width, 7, stride=2, padding=3, bias=False, kernel_init=_he),
        "norm": batch_norm(width),
        "relu": jax.nn.relu,
        "pool": max_pool(3, stride=2, padding=1),
    }
    n_in = width
    for i, count in enumerate(blocks, 1):
        n_out = width * 2 ** (i - 1) * grow
        parts[f"stage_{i}"] = _stage(
            bottleneck_block if bottleneck else basic_block,
            n_in,
            n_out,
            1 if i == 1 else 2,
            count,
            join=sum_join,
            shortcut=shortcut_by_projection,
            relu_after=True,
            scan=scan,
        )
        n_in = n_out
    return serial(**parts, mean=global_average_pool(), head=dense(n_in, classes))
