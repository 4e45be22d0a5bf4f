"""A whole LSTM sequence, with its derivative stated so that the backward pass is one product per weight.

Differentiating a scan step by step adds a gradient of the weights at every step. Here the derivative of the
sequence is written as what it is, one large product ahead of a loop that is linear::

    p  = dx W + x dW + h dU + db                           all steps at once
    dc <- f dc + a_i z_i + a_f z_f + a_g z_g               z = p_t + dh U
    dh <- a_o z_o + o (1 - tanh(c)^2) dc

and transposing that, which JAX does, gives the weights' gradients as one product after the loop. Being a
derivative and not a gradient, it serves forward mode and higher orders as well.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

__all__ = ["lstm_sequence"]

Outputs = tuple[jax.Array, jax.Array, jax.Array]


def _activated(z: jax.Array) -> tuple[jax.Array, ...]:
    i, f, g, o = jnp.split(z, 4, -1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _inputs(kernel: jax.Array, bias: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
    """What the loop goes over, and what it does to it: the product ahead of the loop, but on CPU inside."""
    if jax.default_backend() == "cpu":
        return x, lambda now: now @ kernel + bias
    return x @ kernel + bias, lambda now: now


@jax.custom_jvp
def lstm_sequence(
    kernel: jax.Array, recurrent: jax.Array, bias: jax.Array, x: jax.Array, c: jax.Array, h: jax.Array
) -> Outputs:
    """All outputs ``[time, batch, n_out]`` and the last ``c`` and ``h``, for inputs ``x [time, batch, n_in]``.

    The gates stand in the order i, f, g, o along the last axes of the weights.
    """
    xs, project = _inputs(kernel, bias, x)

    def step(carry: Any, now: jax.Array) -> Any:
        c, h = carry
        i, f, g, o = _activated(project(now) + h @ recurrent)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (c, h), h

    (c, h), y = jax.lax.scan(step, (c, h), xs)
    return y, c, h


@partial(lstm_sequence.defjvp, symbolic_zeros=True)
def _jvp(primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[Outputs, Outputs]:
    kernel, recurrent, bias, x, c, h = primals
    d_kernel, d_recurrent, d_bias, dx, dc, dh = tangents
    xs, project = _inputs(kernel, bias, x)

    def step(carry: Any, now: jax.Array) -> Any:
        c, h = carry
        i, f, g, o = _activated(project(now) + h @ recurrent)
        cell = f * c + i * g
        shown = jnp.tanh(cell)
        slopes = (
            f,
            g * i * (1 - i),
            c * f * (1 - f),
            i * (1 - g * g),
            shown * o * (1 - o),
            o * (1 - shown * shown),
        )
        return (cell, o * shown), (o * shown, *slopes)

    (last_c, last_h), (y, *slopes) = jax.lax.scan(step, (c, h), xs)
    before = jnp.concatenate([h[None], y[:-1]], 0)
    weights = [_filled(d, like) for d, like in ((d_kernel, kernel), (d_recurrent, recurrent), (d_bias, bias))]
    ahead = jnp.concatenate([x, before], -1) @ jnp.concatenate(weights[:2], 0) + weights[2]
    if not isinstance(dx, SymbolicZero):
        ahead = ahead + dx @ kernel
    # Transposed beforehand, so that the loop of the gradient multiplies by a matrix that lies as it is read.
    turned = recurrent.T

    def linear(carry: Any, given: Any) -> Any:
        dc, dh = carry
        p, f, a_i, a_f, a_g, a_o, through = given
        z = p + jax.lax.dot_general(dh, turned, (((1,), (1,)), ((), ())))
        z_i, z_f, z_g, z_o = jnp.split(z, 4, -1)
        dc = f * dc + a_i * z_i + a_f * z_f + a_g * z_g
        dh = a_o * z_o + through * dc
        return (dc, dh), dh

    start = (_filled(dc, c), _filled(dh, h))
    (dc, dh), dy = jax.lax.scan(linear, start, (ahead, *slopes))
    return (y, last_c, last_h), (dy, dc, dh)


def _filled(tangent: Any, like: jax.Array) -> jax.Array:
    return jnp.zeros_like(like) if isinstance(tangent, SymbolicZero) else tangent
