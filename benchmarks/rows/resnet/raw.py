"""JAX by hand; the running statistics are the state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.loops import raw, repeated
from benchmarks.protocol import Call, Case
from benchmarks.rows.resnet import DECAY, EPS, MOMENTUM, RATE, flat, strides


def _conv(x: jax.Array, p: Any, stride: int = 1) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    padding = ((1, 1), (1, 1))
    return jax.lax.conv_general_dilated(x, p["kernel"], (stride,) * 2, padding, dimension_numbers=numbers)


def _norm(x: jax.Array, p: Any, s: Any) -> Any:
    mean = x.mean((0, 1, 2))
    var = jnp.square(x).mean((0, 1, 2)) - jnp.square(mean)
    y = (x - mean) * (jax.lax.rsqrt(var + EPS) * p["scale"]) + p["bias"]
    new = {"mean": DECAY * s["mean"] + (1 - DECAY) * mean, "var": DECAY * s["var"] + (1 - DECAY) * var}
    return y, new


def _run(depth: int, p: Any, s: Any, x: jax.Array) -> Any:
    new: dict[str, Any] = {}
    x, new["norm"] = _norm(_conv(x, p["stem"]), p["norm"], s["norm"])
    x = jax.nn.relu(x)
    for number, stride in enumerate(strides(depth), 1):
        b, t, own = p[f"block_{number}"], s[f"block_{number}"], {}
        y, own["norm_1"] = _norm(_conv(x, b["conv_1"], stride), b["norm_1"], t["norm_1"])
        y, own["norm_2"] = _norm(_conv(jax.nn.relu(y), b["conv_2"]), b["norm_2"], t["norm_2"])
        if x.shape != y.shape:
            x = jnp.pad(x[:, ::stride, ::stride], ((0, 0),) * 3 + ((0, y.shape[-1] - x.shape[-1]),))
        x, new[f"block_{number}"] = jax.nn.relu(x + y), own
    return x.mean((1, 2)) @ p["head"]["kernel"] + p["head"]["bias"], new


def _stats(weights: Any) -> Any:
    """Zeros and ones for each norm."""
    found = {}
    for name, value in weights.items():
        if "scale" in value:
            found[name] = {"mean": jnp.zeros_like(value["scale"]), "var": jnp.ones_like(value["scale"])}
        elif isinstance(value, dict) and "conv_1" in value:
            found[name] = _stats(value)
    return found


def contestants(case: Case) -> dict[str, Call]:
    """A jitted step."""
    weights, depth = flat(case.given["weights"]), case.given["depth"]
    run = lambda params, state, x: _run(depth, params, state, x)
    made = raw.loop(run, weights, _stats(weights), optax.sgd(RATE, momentum=MOMENTUM))
    return {"jit": repeated(made, case.given["batch"])}
