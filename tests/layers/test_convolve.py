"""The convolution that layers share: JAX's own in every derivative, and in the fast layout inside loops."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.layers.convolve import convolve

CASES: dict[str, dict[str, Any]] = {
    "plain": {"stride": (1, 1), "padding": "SAME"},
    "stride": {"stride": (2, 3), "padding": "VALID"},
    "dilation": {"stride": (2, 1), "padding": ((2, 1), (0, 3)), "dilation": (2, 1)},
    "groups": {"stride": (2, 2), "padding": "SAME", "groups": 2},
    "depthwise": {"stride": (1, 1), "padding": "SAME", "groups": 4},
    "spread": {"stride": (1, 1), "padding": ((2, 2), (1, 2)), "spread": (2, 2)},
}


def _operands(groups: int = 1, window: tuple[int, ...] = (3, 2)) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 2)
    space = (7, 6, 5)[: len(window)]
    x = jax.random.normal(keys[0], (3, *space, 4), jnp.float64)
    return x, jax.random.normal(keys[1], (*window, 4 // groups, 8), jnp.float64)


def _reference(x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    space = "HWD"[: x.ndim - 2]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        options["stride"],
        options["padding"],
        lhs_dilation=options.get("spread"),
        rhs_dilation=options.get("dilation"),
        feature_group_count=options.get("groups", 1),
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
    )


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_values_and_all_derivatives_are_those_of_jax(options: dict[str, Any], x64: None) -> None:
    """First derivatives in both modes, second ones, and all under ``vmap``."""
    operands = _operands(options.get("groups", 1))

    def derivatives(op: Any, x: jax.Array, kernel: jax.Array) -> Any:
        def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(op(x, kernel, **options)) ** 3)

        gradient = jax.grad(loss, argnums=(0, 1))
        ones = (jnp.ones_like(x), jnp.ones_like(kernel))
        forward = jax.jvp(loss, (x, kernel), ones)
        turned = jax.jvp(gradient, (x, kernel), ones)
        twice = jax.grad(lambda *z: sum(jnp.vdot(g, g) for g in gradient(*z)), argnums=(0, 1))(x, kernel)
        return forward, turned, twice

    many = jax.tree.map(lambda z: jnp.stack([z, -2 * z]), operands)
    ours = jax.vmap(lambda *z: derivatives(convolve, *z))(*many)
    wanted = jax.vmap(lambda *z: derivatives(_reference, *z))(*many)
    for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("window", [(3,), (2, 2, 2)], ids=["time", "volume"])
def test_gradients_over_one_and_three_axes_of_space(window: tuple[int, ...], x64: None) -> None:
    options = {"stride": (2,) * len(window), "padding": "SAME"}
    x, kernel = _operands(window=window)

    def gradient(op: Any) -> Any:
        return jax.grad(lambda z: jnp.sum(jnp.sin(op(*z, **options))))((x, kernel))

    for mine, theirs in zip(gradient(convolve), gradient(_reference), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_inside_a_loop_every_convolution_has_the_layout_that_the_cpu_backend_runs_fast(groups: int) -> None:
    """Read from the compiled program, beside plain JAX, whose gradient of the kernel is not in it."""
    x = jnp.ones((2, 8, 8, 4))

    def layouts(op: Any) -> set[str]:
        def descend(kernel: jax.Array, _: None) -> tuple[jax.Array, None]:
            y = lambda k, z: jnp.sum(jnp.tanh(op(z, k, stride=(1, 1), padding="SAME", groups=groups)))
            dk, dx = jax.grad(y, argnums=(0, 1))(kernel, x)
            return kernel - dk + dx.mean(), None

        run = jax.jit(lambda kernel: jax.lax.scan(descend, kernel, None, length=3)[0])
        text = run.lower(jnp.ones((3, 3, 4 // groups, 8))).compile().as_text()
        return set(re.findall(r"dim_labels=(\S+?)[,\s]", text))

    assert layouts(convolve) == {"b01f_01io->b01f"}
    assert layouts(_reference) != {"b01f_01io->b01f"}


def test_an_input_that_is_not_differentiated_costs_no_convolution() -> None:
    """The first layer of a network: the gradient of its kernel alone, so one forward and one backward."""
    x, kernel = jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 2))
    loss = lambda k: jnp.sum(convolve(x, k, stride=(1, 1), padding="SAME") ** 2)
    assert str(jax.make_jaxpr(jax.grad(loss))(kernel)).count("conv_general_dilated[") == 2
