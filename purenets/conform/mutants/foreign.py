"""Correct optimizers in the style of other hands, on which a kit that is too strict raises a false alarm.

Scalars in float32 whatever the parameters have, and constants with them, such as pi; powers of the betas kept as
running products; averages moved by a share of the way, which round otherwise where they nearly cancel; a place in a
cycle that is an integer and no count of updates.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from purenets.conform.mutants.common import each, increment, pair, rate_at

__all__ = [
    "adam_in_float32_scalars",
    "adam_of_running_products",
    "rmsprop_of_moved_averages",
    "sgd_along_a_cosine",
    "sgd_mean_of_two",
]


def adam_in_float32_scalars(
    learning_rate: Any, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8
) -> optax.GradientTransformation:
    """Adam whose corrections are computed in float32, with its state in a dict."""

    def init(params: Any) -> Any:
        zeros = lambda: each(jnp.zeros_like, params)
        return {"step": jnp.int32(0), "m": zeros(), "v": zeros()}

    def update(grads: Any, state: Any, params: Any = None, **_: Any) -> Any:
        step, rate = increment(state["step"]), rate_at(learning_rate, state["step"])
        t = step.astype(jnp.float32)
        first, second = 1 - b1**t, 1 - b2**t
        m = each(lambda a, g: a + (1 - b1) * (g - a), state["m"], grads)
        v = each(lambda a, g: a + (1 - b2) * (g * g - a), state["v"], grads)

        def move(a: Any, b: Any) -> Any:
            root = jnp.sqrt(b / second.astype(b.dtype)) + eps
            return (-rate * a / first.astype(a.dtype) / root).astype(a.dtype)

        return each(move, m, v), {"step": step, "m": m, "v": v}

    return pair(init, update)


def adam_of_running_products(
    learning_rate: Any, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8
) -> optax.GradientTransformation:
    """Adam that keeps the powers of its betas, in a tuple."""

    def init(params: Any) -> Any:
        zeros = lambda: each(jnp.zeros_like, params)
        return jnp.int32(0), jnp.float32(1), jnp.float32(1), zeros(), zeros()

    def update(grads: Any, state: Any, params: Any = None, **_: Any) -> Any:
        count, p1, p2, m, v = state
        rate = rate_at(learning_rate, count)
        p1, p2 = (p1 * b1).astype(p1.dtype), (p2 * b2).astype(p2.dtype)
        m = each(lambda a, g: b1 * a + (1 - b1) * g, m, grads)
        v = each(lambda a, g: b2 * a + (1 - b2) * g * g, v, grads)
        move = lambda a, b: (-rate * a / (1 - p1) / (jnp.sqrt(b / (1 - p2)) + eps)).astype(a.dtype)
        return each(move, m, v), (increment(count), p1, p2, m, v)

    return pair(init, update)


def rmsprop_of_moved_averages(
    learning_rate: Any, decay: Any = 0.9, eps: Any = 1e-8
) -> optax.GradientTransformation:
    """Centered RMSprop whose averages go a share of the way to what is new."""

    def init(params: Any) -> Any:
        zeros = lambda: each(jnp.zeros_like, params)
        return jnp.int32(0), zeros(), zeros()

    def update(grads: Any, state: Any, params: Any = None, **_: Any) -> Any:
        count, mean, square = state
        rate = rate_at(learning_rate, count)
        moved = lambda a, x: (a + (1 - decay) * (x - a)).astype(a.dtype)
        mean, square = each(moved, mean, grads), each(lambda a, g: moved(a, g * g), square, grads)
        step = lambda g, m, s: (-rate * g / jnp.sqrt(s - m * m + eps)).astype(g.dtype)
        return each(step, grads, mean, square), (increment(count), mean, square)

    return pair(init, update)


def sgd_along_a_cosine(learning_rate: Any, decay_steps: int = 40) -> optax.GradientTransformation:
    """Gradient descent with a rate that falls to zero along half a cosine, in float32."""

    def init(params: Any) -> Any:
        del params
        return jnp.int32(0)

    def update(grads: Any, state: Any, params: Any = None, **_: Any) -> Any:
        share = jnp.minimum(state.astype(jnp.float32) / decay_steps, 1.0)
        factor = 0.5 * (1 + jnp.cos(jnp.pi * share))
        rate = rate_at(learning_rate, state)
        return each(lambda g: (-rate * factor.astype(g.dtype) * g).astype(g.dtype), grads), increment(state)

    return pair(init, update)


def sgd_mean_of_two(learning_rate: Any) -> optax.GradientTransformation:
    """Gradient descent on the mean of two gradients, which starts its count again."""

    def init(params: Any) -> Any:
        return {"place": jnp.int32(0), "done": jnp.int32(0), "mean": each(jnp.zeros_like, params)}

    def update(grads: Any, state: Any, params: Any = None, **_: Any) -> Any:
        rate, emits = rate_at(learning_rate, state["done"]), state["place"] == 1
        part = lambda a, g: a + (g - a) / (state["place"] + 1).astype(g.dtype)
        mean = each(part, state["mean"], grads)

        def go(_: Any) -> Any:
            moved = each(lambda a: (-rate * a).astype(a.dtype), mean)
            return moved, jnp.int32(0), increment(state["done"]), each(jnp.zeros_like, mean)

        def stay(_: Any) -> Any:
            return each(jnp.zeros_like, mean), state["place"] + 1, state["done"], mean

        updates, place, done, mean = jax.lax.cond(emits, go, stay, None)
        return updates, {"place": place, "done": done, "mean": mean}

    return pair(init, update)


def _accumulating(learning_rate: Any) -> Any:
    return optax.MultiSteps(optax.sgd(learning_rate), 2).gradient_transformation()


def _centered(learning_rate: Any, decay: Any = 0.9, eps: Any = 1e-8) -> Any:
    return optax.rmsprop(learning_rate, decay, eps, centered=True)


def _along_a_cosine(learning_rate: Any, decay_steps: int = 40) -> Any:
    factor = optax.cosine_decay_schedule(1.0, decay_steps)
    return optax.chain(optax.scale_by_schedule(factor), optax.scale_by_learning_rate(learning_rate))


REFERENCES: dict[str, Any] = {
    "adam_in_float32_scalars": "optax:adam",
    "adam_of_running_products": "optax:adam",
    "rmsprop_of_moved_averages": _centered,
    "sgd_along_a_cosine": _along_a_cosine,
    "sgd_mean_of_two": _accumulating,
}
"""What each is compared with."""
