"""Products with few columns: the values and derivatives of the plain product, by way of the turned gradient."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.layers.narrow import multiply

SHAPES = [(64,), (5, 64), (3, 5, 64), (2, 0, 64)]


def numbers(shape, n_out, dtype=np.float64):
    rng = np.random.default_rng(len(shape))
    return [rng.normal(size=size).astype(dtype) for size in (shape, (shape[-1], n_out), (*shape[:-1], n_out))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_out", [1, 10, 33])
def test_values_and_gradients_are_those_of_the_product(x64, shape, n_out):
    x, kernel, weights = numbers(shape, n_out)
    value, gradients = jax.value_and_grad(lambda x, k: jnp.sum(multiply(x, k) * weights), (0, 1))(x, kernel)
    np.testing.assert_allclose(value, (x @ kernel * weights).sum(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradients[0], weights @ kernel.T, rtol=1e-12, atol=1e-12)
    rows, seen = weights.reshape(-1, n_out), x.reshape(-1, 64)
    np.testing.assert_allclose(gradients[1], seen.T @ rows, rtol=1e-12, atol=1e-12)


def test_forward_mode_and_second_derivatives_too(x64):
    x, kernel, weights = numbers((4, 6), 2)
    dx, dk = x[::-1].copy(), kernel[::-1].copy()
    _, along = jax.jvp(multiply, (x, kernel), (dx, dk))
    np.testing.assert_allclose(along, dx @ kernel + x @ dk, rtol=1e-12)
    # Of sum(w (x k)**2), the second derivative in k is 2 w x x' for one column and zero across columns.
    curvature = jax.hessian(lambda k: jnp.sum(weights * multiply(x, k) ** 2))(kernel)
    wanted = 2 * np.einsum("no,ni,nj,op->iojp", weights, x, x, np.eye(2))
    np.testing.assert_allclose(curvature, wanted, rtol=1e-10, atol=1e-12)


def test_a_batch_of_products_is_each_of_them(x64):
    x, kernel, weights = numbers((3, 5, 64), 10)
    kernels = np.stack([kernel, -kernel, kernel[::-1]])
    found = jax.vmap(jax.grad(lambda k, x, w: jnp.sum(multiply(x, k) * w)))(kernels, x, weights)
    np.testing.assert_allclose(found, np.einsum("nbi,nbo->nio", x, weights), rtol=1e-12)


@pytest.mark.parametrize(("n_out", "turned"), [(10, True), (32, True), (33, False)])
def test_the_gradient_of_a_narrow_kernel_is_computed_turned(n_out, turned):
    if jax.default_backend() != "cpu":
        pytest.skip("the turned gradient is for CPU")
    x, kernel = jnp.ones((8, 64)), jnp.ones((64, n_out))
    program = jax.jit(jax.grad(lambda k: jnp.sum(multiply(x, k) ** 3))).lower(kernel).compile().as_text()
    shapes = set(re.findall(r"f32\[(\d+,\d+)\]\S* dot\(", program))
    assert (f"{n_out},64" in shapes, f"64,{n_out}" in shapes) == (turned, not turned)


@pytest.mark.parametrize(
    "dtypes", [("bfloat16", "bfloat16"), ("float32", "bfloat16"), ("bfloat16", "float32")]
)
def test_dtypes_of_the_product_are_kept(dtypes):
    x, kernel = jnp.ones((3, 4), dtypes[0]), jnp.ones((4, 2), dtypes[1])
    assert multiply(x, kernel).dtype == (x @ kernel).dtype
    assert jax.grad(lambda k: multiply(x, k).sum().astype(jnp.float32))(kernel).dtype == kernel.dtype
