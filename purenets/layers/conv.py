"""Convolution over space: ``[batch, ..., n_in]`` to ``[batch, ..., n_out]``, channels last.

The *window* says over how many axes of space: ``(3,)`` for sequences, ``3`` or ``(3, 3)`` for images,
``(3, 3, 3)`` for volumes. What deep learning calls convolution is a cross-correlation: the kernel is not
flipped. Kernels are ``[*window, n_in // groups, n_out]`` and initial values as in Flax.

*Padding* is ``"SAME"`` (the output has size ``ceil(size / stride)``), ``"VALID"`` (no padding; what does not
fill a last window is dropped), one number for all sides, or a pair for each axis of space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from purenets.layer import Key, Layer, Params, describe, fold_name, layer
from purenets.layers.checks import check_floating
from purenets.layers.convolve import convolve

__all__ = [
    "Padding",
    "Sizes",
    "check_fits",
    "check_space",
    "conv",
    "conv_transpose",
    "depthwise_conv",
    "paddings",
    "sizes_of",
]

Sizes: TypeAlias = int | Sequence[int]
"""One size for each axis of space, or one for all."""
Padding: TypeAlias = Literal["SAME", "VALID"] | int | Sequence[tuple[int, int]]
"""By name, as many on every side, or ``(before, after)`` for each axis of space."""

_lecun = jax.nn.initializers.lecun_normal()
_zeros = jax.nn.initializers.zeros


def sizes_of(value: Sizes, rank: int, what: str) -> tuple[int, ...]:
    """One size of at least 1 for each of ``rank`` axes.

    Raises:
        ValueError: there are not ``rank`` of them, or one is less than 1.
    """
    sizes = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(sizes) != rank or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"{what} needs {rank} sizes of at least 1, got {value}")
    return sizes


def paddings(padding: Padding, rank: int, what: str) -> str | tuple[tuple[int, int], ...]:
    """Padding as ``jax.lax`` takes it.

    Raises:
        ValueError: it is another word, or not a pair for each axis.
    """
    if padding in ("SAME", "VALID"):
        return str(padding)
    if isinstance(padding, int):
        return ((padding, padding),) * rank
    pairs = () if isinstance(padding, str) else tuple(padding)
    if len(pairs) != rank or any(isinstance(pair, int) or len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{what} needs padding 'SAME', 'VALID', a number or {rank} pairs (low, high), got {padding!r}"
        )
    return tuple((int(low), int(high)) for low, high in pairs)


def check_space(label: str, x: Any, rank: int, channels: int | None = None) -> None:
    """Refuse an input that is not ``[batch, *space, channels]`` of floating numbers."""
    check_floating(label, x)
    shape = jnp.shape(x)
    axes = ", ".join(["batch", *(["height", "width", "depth"][:rank] if rank > 1 else ["time"])])
    if len(shape) != rank + 2:
        error = ValueError(f"{label} needs [{axes}, channels], got {describe(x)}")
        if len(shape) == rank + 1:
            error.add_note("the input may lack its batch axis, or its axis of channels: x[..., None]")
        raise error
    if channels is not None and shape[-1] != channels:
        error = ValueError(f"{label} needs {channels} channels on the last axis, got {describe(x)}")
        if shape[1] == channels:
            error.add_note("the channels seem to come first: jnp.moveaxis(x, 1, -1)")
        raise error


def conv(
    n_in: int,
    n_out: int,
    window: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Any = _lecun,
    bias_init: Any = _zeros,
) -> Layer:
    """A convolution of ``[batch, *space, n_in]``.

    Params are ``kernel [*window, n_in // groups, n_out]`` and ``bias [n_out]``.

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        window: size of the kernel over each axis of space; a number is a square.
        stride: step of the window.
        padding: see above.
        dilation: distance between the places of the kernel.
        groups: the channels are cut into so many groups that do not see each other.
        bias: learn an offset per output channel.
        kernel_init: truncated normal of variance 1 / fan-in by default.
        bias_init: zeros by default.

    Raises:
        ValueError: groups do not divide the channels. When applied: the input is not ``[batch, *space,
            n_in]``, or under ``"VALID"`` it is smaller than the window.

    >>> from purenets.surgery import out_shape
    >>> out_shape(conv(3, 8, 3, stride=2), 1, 32, 32, 3)
    (1, 16, 16, 8)
    """
    rank = 2 if isinstance(window, int) else len(window)
    label = f"conv({n_in}, {n_out}, {window})"
    sizes = sizes_of(window, rank, f"{label}: window")
    strides = sizes_of(stride, rank, f"{label}: stride")
    dilations = sizes_of(dilation, rank, f"{label}: dilation")
    pads = paddings(padding, rank, label)
    if groups < 1 or n_in % groups or n_out % groups:
        raise ValueError(f"{label} needs groups that divide {n_in} and {n_out} channels, got {groups}")

    def apply(params: Params, x: jax.Array) -> jax.Array:
        check_space(label, x, rank, n_in)
        check_fits(label, x, sizes, dilations, pads)
        y = convolve(
            *_promoted(x, params["kernel"]), padding=pads, stride=strides, dilation=dilations, groups=groups
        )
        return y + params["bias"] if bias else y

    shape = (*sizes, n_in // groups, n_out)
    return layer(_init(shape, n_out, bias, kernel_init, bias_init), apply, label=label)


def depthwise_conv(
    channels: int,
    window: Sizes,
    *,
    multiplier: int = 1,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    bias: bool = True,
    kernel_init: Any = _lecun,
) -> Layer:
    """A convolution in which no channel sees another; each becomes ``multiplier`` channels.

    Raises:
        ValueError: as :func:`conv`.
    """
    return conv(
        channels,
        channels * multiplier,
        window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=channels,
        bias=bias,
        kernel_init=kernel_init,
    )


def conv_transpose(
    n_in: int,
    n_out: int,
    window: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    bias: bool = True,
    kernel_init: Any = _lecun,
    bias_init: Any = _zeros,
) -> Layer:
    """A convolution with fractional steps: under ``"SAME"`` each axis of space grows ``stride`` times.

    Params are ``kernel [*window, n_in, n_out]`` and ``bias [n_out]``, as of Flax's ``ConvTranspose``: the
    places are spread apart and the kernel passes over them, so what each place writes is the kernel turned
    round. The gradient of :func:`conv`, which torch calls transposed, has it turned back and n_in and n_out
    exchanged.

    Raises:
        ValueError: when applied, the input is not ``[batch, *space, n_in]``.

    >>> from purenets.surgery import out_shape
    >>> out_shape(conv_transpose(8, 3, 3, stride=2), 1, 16, 16, 8)
    (1, 32, 32, 3)
    """
    rank = 2 if isinstance(window, int) else len(window)
    label = f"conv_transpose({n_in}, {n_out}, {window})"
    sizes = sizes_of(window, rank, f"{label}: window")
    strides = sizes_of(stride, rank, f"{label}: stride")
    dilations = sizes_of(dilation, rank, f"{label}: dilation")
    reaches = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    pads = paddings(padding, rank, label)
    if isinstance(pads, str):
        pads = tuple(_growing(reach, step, pads) for reach, step in zip(reaches, strides, strict=True))

    def apply(params: Params, x: jax.Array) -> jax.Array:
        check_space(label, x, rank, n_in)
        y = convolve(
            *_promoted(x, params["kernel"]),
            padding=pads,
            stride=(1,) * rank,
            spread=strides,
            dilation=dilations,
        )
        return y + params["bias"] if bias else y

    return layer(_init((*sizes, n_in, n_out), n_out, bias, kernel_init, bias_init), apply, label=label)


def _init(
    shape: tuple[int, ...], n_out: int, bias: bool, kernel_init: Any, bias_init: Any
) -> Callable[[Key], Params]:
    def init(key: Key) -> Params:
        params = {"kernel": kernel_init(fold_name(key, "kernel"), shape, jnp.float32)}
        if bias:
            params["bias"] = bias_init(fold_name(key, "bias"), (n_out,), jnp.float32)
        return params

    return init


def _promoted(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both in one dtype, as a matrix product would have them; ``lax`` refuses two."""
    dtype = jnp.result_type(x, kernel)
    return x.astype(dtype), kernel.astype(dtype)


def _growing(reach: int, stride: int, padding: str) -> tuple[int, int]:
    """The padding around spread places that makes ``n`` of them ``n * stride`` under ``"SAME"``, and as many as
    the windows that cover them under ``"VALID"``.
    """
    if padding == "VALID":
        return reach - 1, max(reach, stride) - 1
    both = reach + stride - 2
    low = reach - 1 if stride > reach - 1 else -(-both // 2)
    return low, both - low


def check_fits(
    label: str,
    x: Any,
    sizes: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: str | tuple[tuple[int, int], ...],
) -> None:
    """Refuse space that is smaller than the window, from which no output would come."""
    if pads == "SAME":
        return
    extra = [0] * len(sizes) if isinstance(pads, str) else [low + high for low, high in pads]
    for axis, (size, dilation, more) in enumerate(zip(sizes, dilations, extra, strict=True)):
        reach, space = (size - 1) * dilation + 1, jnp.shape(x)[1 + axis] + more
        if space < reach:
            error = ValueError(
                f"{label} needs {reach} places along axis {1 + axis}, got {space} in {describe(x)}"
            )
            error.add_note(
                "the window is larger than the image: padding='SAME', a smaller window or less pooling"
            )
            raise error
