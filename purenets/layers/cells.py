"""Recurrent cells: one step in time, as pure functions of params.

::

    cell.carry(batch)                  -> carry                what the cell remembers, at first zeros
    cell.project(params, x)            -> xs                   what depends on the inputs alone
    cell.step(params, carry, x)        -> (carry, output)      one step, on one step of what project gave

:func:`purenets.layers.rnn` makes a layer of a cell. With the carry ``h`` and sigmoid s, on ``[x; h]``:

=======================  =====================================================================
:func:`elman_cell`       ``h' = tanh(W x + U h + b)``
:func:`gru_cell`         ``h' = (1 - z) n + z h``
:func:`lstm_cell`        ``c' = f c + i g``, ``h' = o tanh(c')``
=======================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from purenets.layer import Key, Params, fold_name
from purenets.layers.lstm_sequence import lstm_sequence
from purenets.layers.norm import normalize

__all__ = ["Cell", "elman_cell", "gru_cell", "lstm_cell"]

_lecun = jax.nn.initializers.lecun_normal()
_orthogonal = jax.nn.initializers.orthogonal()


@dataclass(frozen=True, eq=False, repr=False)
class Cell:
    """One step in time of a recurrent layer, as pure functions."""

    init: Callable[[Key], Params]
    carry: Callable[[int], Any]
    """``carry(batch)``: what is remembered before the first step, a pytree of ``[batch, ...]``."""
    step: Callable[[Params, Any, Any], tuple[Any, jax.Array]]
    """``step(params, carry, x) -> (carry, output)``, on ``[batch, ...]``."""
    n_in: int
    n_out: int
    label: str
    project: Callable[[Params, jax.Array], Any] = lambda params, x: x
    """What depends on the inputs alone, ``[..., n_in]`` of any number of axes at once."""
    sequence: Callable[[Params, Any, jax.Array], tuple[Any, jax.Array]] | None = None
    """All steps at once, ``(params, carry, x [time, batch, n_in]) -> (carry, outputs)``, where the cell has a
    faster way than one after another."""

    def __repr__(self) -> str:
        return self.label


def _gates(n_in: int, n_out: int, gates: int, bias: bool) -> Callable[[Key], Params]:
    """Params of ``gates`` affine maps side by side: of the input, and of the last output."""

    def init(key: Key) -> Params:
        recurrent_key = fold_name(key, "recurrent")
        blocks = [_orthogonal(jax.random.fold_in(recurrent_key, i), (n_out, n_out)) for i in range(gates)]
        params: Params = {
            "kernel": _lecun(fold_name(key, "kernel"), (n_in, gates * n_out), jnp.float32),
            "recurrent_kernel": jnp.concatenate(blocks, 1),
        }
        if bias:
            params["bias"] = jnp.zeros((gates * n_out,), jnp.float32)
        return params

    return init


def _affine(params: Params, x: jax.Array) -> jax.Array:
    y = x @ params["kernel"]
    return y + params["bias"] if "bias" in params else y


def _zeros(n_out: int) -> Callable[[int], jax.Array]:
    return lambda batch: jnp.zeros((batch, n_out), jnp.float32)


def elman_cell(
    n_in: int, n_out: int, *, activation: Callable[[Any], Any] = jnp.tanh, bias: bool = True
) -> Cell:
    """``h' = tanh(W x + U h + b)`` (Elman 1990).

    Params are ``kernel [n_in, n_out]``, ``recurrent_kernel [n_out, n_out]`` and ``bias [n_out]``; with the
    identity as activation it is the linear recurrence.
    """

    def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = activation(x + h @ params["recurrent_kernel"])
        return h, h

    label = f"elman_cell({n_in}, {n_out})"
    return Cell(_gates(n_in, n_out, 1, bias), _zeros(n_out), step, n_in, n_out, label, _affine)


def lstm_cell(
    n_in: int, n_out: int, *, bias: bool = True, peephole: bool = False, layer_norm: bool = False
) -> Cell:
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    ``c' = f c + i g`` and ``h' = o tanh(c')``; the gates i, f, o are sigmoids and g is a tanh of affine maps
    of x and h. Params are ``kernel [n_in, 4 n_out]``, ``recurrent_kernel [n_out, 4 n_out]`` and ``bias [4
    n_out]``, the gates in the order i, f, g, o as in torch and Flax. The carry is ``(c, h)``.

    Args:
        n_in: features of the input.
        n_out: units.
        bias: learn an offset per gate and unit.
        peephole: the gates see the cell through ``peephole [3, n_out]``, i and f before the step and o after it
            (Gers & Schmidhuber 2000).
        layer_norm: normalise both products and the cell before its tanh (Ba et al. 2016, appendix), with
            ``input_scale``, ``recurrent_scale [4 n_out]``, ``cell_scale`` and ``cell_bias [n_out]``.
    """
    gates = _gates(n_in, n_out, 4, bias)

    def init(key: Key) -> Params:
        params = gates(key)
        if peephole:
            params["peephole"] = jnp.zeros((3, n_out), jnp.float32)
        if layer_norm:
            params |= {
                name: jnp.ones((4 * n_out,), jnp.float32) for name in ("input_scale", "recurrent_scale")
            }
            params |= {
                "cell_scale": jnp.ones((n_out,), jnp.float32),
                "cell_bias": jnp.zeros((n_out,), jnp.float32),
            }
        return params

    def project(params: Params, x: jax.Array) -> jax.Array:
        if not layer_norm:
            return _affine(params, x)
        y = normalize(x @ params["kernel"], -1, 1e-6) * params["input_scale"]
        return y + params["bias"] if bias else y

    def step(params: Params, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        c, h = carry
        z = h @ params["recurrent_kernel"]
        if layer_norm:
            z = normalize(z, -1, 1e-6) * params["recurrent_scale"]
        i, f, g, o = jnp.split(x + z, 4, -1)
        if peephole:
            i, f = i + params["peephole"][0] * c, f + params["peephole"][1] * c
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        o = o + params["peephole"][2] * c if peephole else o
        shown = normalize(c, -1, 1e-6) * params["cell_scale"] + params["cell_bias"] if layer_norm else c
        h = jax.nn.sigmoid(o) * jnp.tanh(shown)
        return (c, h), h

    def carry(batch: int) -> tuple[jax.Array, jax.Array]:
        return _zeros(n_out)(batch), _zeros(n_out)(batch)

    def sequence(params: Params, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        offset = params.get("bias", jnp.zeros((4 * n_out,), x.dtype))
        y, *last = lstm_sequence(params["kernel"], params["recurrent_kernel"], offset, x, *carry)
        return tuple(last), y

    kinds = ["peephole"] * peephole + ["layer_norm"] * layer_norm
    label = f"lstm_cell({', '.join([str(n_in), str(n_out), *kinds])})"
    return Cell(init, carry, step, n_in, n_out, label, project, None if kinds else sequence)


def gru_cell(n_in: int, n_out: int, *, bias: bool = True) -> Cell:
    """The gated recurrent unit (Cho et al. 2014), in the form of torch, Flax and cuDNN.

    ``h' = (1 - z) n + z h`` with ``n = tanh(W x + b + r (U h + c))``: the reset gate r acts after the
    recurrent product. Params are ``kernel [n_in, 3 n_out]``, ``recurrent_kernel [n_out, 3 n_out]``, ``bias [3
    n_out]`` and ``recurrent_bias [n_out]``, the gates in the order r, z, n.
    """
    gates = _gates(n_in, n_out, 3, bias)

    def init(key: Key) -> Params:
        params = gates(key)
        return {**params, "recurrent_bias": jnp.zeros((n_out,), jnp.float32)} if bias else params

    def step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        xr, xz, xn = jnp.split(x, 3, -1)
        hr, hz, hn = jnp.split(h @ params["recurrent_kernel"], 3, -1)
        hn = hn + params["recurrent_bias"] if bias else hn
        z = jax.nn.sigmoid(xz + hz)
        n = jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
        h = (1 - z) * n + z * h
        return h, h

    return Cell(init, _zeros(n_out), step, n_in, n_out, f"gru_cell({n_in}, {n_out})", _affine)
