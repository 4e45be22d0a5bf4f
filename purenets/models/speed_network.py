"""The network of the public speed records on CIFAR-10 (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds").

A fixed *whitening* convolution makes the 2 x 2 patches of the input uncorrelated and of one variance, both signs of
each component, so that what follows starts from what matters. Three stages of two convolutions, each pooled once,
and a dense layer without bias. The convolutions begin as the identity on as many channels as they take.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purenets.compose import serial
from purenets.layer import Layer
from purenets.layers.conv import conv
from purenets.layers.dense import dense
from purenets.layers.norm import batch_norm
from purenets.layers.pool import max_pool
from purenets.layers.shape import flatten

__all__ = ["speed_network", "whitening_kernel"]


def whitening_kernel(images: jax.Array, window: int = 2, eps: float = 5e-4) -> jax.Array:
    """Kernel ``[window, window, channels, 2 n]`` whose first n outputs are uncorrelated and of variance 1.

    The n = window^2 channels components are the eigenvectors of the patches' second moments, divided by the roots
    of their eigenvalues plus ``eps``; the last n are the first with the sign turned.

    Args:
        images: ``[n, height, width, channels]``, as the network will see them.
        window: height and width of a patch.
        eps: keeps components of hardly any variance small.
    """
    channels = images.shape[-1]
    patches = jax.lax.conv_general_dilated_patches(
        images, (window, window), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    flat = patches.reshape(-1, patches.shape[-1])
    values, vectors = jnp.linalg.eigh(flat.T @ flat / len(flat))
    scaled = vectors / jnp.sqrt(values + eps)
    # Patches come with the channel first: [channels, window, window].
    kernel = jnp.moveaxis(scaled.reshape(channels, window, window, -1), 0, 2)
    return jnp.concatenate([kernel, -kernel], -1)


def _identity_on_inputs(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """The identity for the first ``n_in`` outputs, the rest as a convolution usually begins."""
    height, width, n_in, n_out = shape
    kernel = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)
    same = jnp.zeros((height, width, n_in, min(n_in, n_out)), dtype)
    same = same.at[height // 2, width // 2].set(jnp.eye(n_in, min(n_in, n_out), dtype=dtype))
    return jnp.concatenate([same, kernel[..., n_in:]], -1) if n_out > n_in else same


def _stage(n_in: int, n_out: int) -> Layer:
    def convolved(n_in: int) -> Layer:
        return conv(n_in, n_out, 3, bias=False, kernel_init=_identity_on_inputs)

    return serial(
        conv_1=convolved(n_in),
        pool=max_pool(2),
        norm_1=batch_norm(n_out, momentum=0.6, eps=1e-12, scale=False),
        gelu_1=jax.nn.gelu,
        conv_2=convolved(n_out),
        norm_2=batch_norm(n_out, momentum=0.6, eps=1e-12, scale=False),
        gelu_2=jax.nn.gelu,
    )


def speed_network(classes: int = 10, *, width: int = 64, patches: jax.Array) -> Layer:
    """Images ``[batch, 32, 32, channels]`` to logits ``[batch, classes]``, scaled by 1/9 as in the source.

    ``patches`` are images to whiten by. The kernel at ``whiten/kernel`` is meant to stay as it is:
    ``trainable`` without it.

    Raises:
        ValueError: when applied, the image is smaller than 32 x 32.
    """
    kernel = whitening_kernel(patches)
    n = kernel.shape[-1]

    def whitening(_key: jax.Array, _shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return kernel.astype(dtype)

    return serial(
        whiten=conv(patches.shape[-1], n, 2, padding="VALID", kernel_init=whitening),
        gelu=jax.nn.gelu,
        stage_1=_stage(n, width),
        stage_2=_stage(width, 4 * width),
        stage_3=_stage(4 * width, 4 * width),
        pool=max_pool(3),
        flatten=flatten(),
        head=dense(4 * width, classes, bias=False),
        temper=lambda x: x / 9,
    )
