"""Layers of images beside torch's, where torch is installed: weights moved, values, gradients, statistics.

Kernels move from torch's ``[n_out, n_in, *window]`` to ``[*window, n_in, n_out]`` and images from channels first to
channels last; nothing else differs but what the tests name.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import layers
from tests.layers.peers import normal

torch = pytest.importorskip("torch")


def _first(x: Any) -> Any:
    """Channels first, as torch has them."""
    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy(), requires_grad=True)


def _last(x: Any) -> np.ndarray:
    return np.moveaxis(x.detach().numpy(), 1, -1)


def _kernel(weight: Any) -> np.ndarray:
    """``[n_out, n_in, *window]`` as ``[*window, n_in, n_out]``."""
    return np.transpose(weight.detach().numpy(), (*range(2, weight.ndim), 1, 0))


def _agree(
    layer: pn.Layer, params: Any, theirs: Any, x: Any, grads: Any = lambda _: {}, state: Any = None
) -> Any:
    """Values, the gradient of the input, and those of the weights that ``grads(theirs)`` names as ours."""
    state = layer.init(jax.random.key(0))[1] if state is None else state
    turned = _first(x)
    wanted = theirs(turned)
    weights = normal(*_last(wanted).shape, seed=3)
    (wanted * _first(weights).detach()).sum().backward()

    def weighted(params: Any, x: Any) -> Any:
        out, after = layer.apply(params, state, x, train=True)
        return jnp.sum(weights * out), (out, after)

    (dp, dx), (out, after) = jax.grad(weighted, (0, 1), has_aux=True)(params, x)
    np.testing.assert_allclose(out, _last(wanted), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(dx, _last(turned.grad), rtol=2e-4, atol=5e-5)
    for name, gradient in grads(theirs).items():
        np.testing.assert_allclose(dp[name], gradient, rtol=2e-4, atol=2e-4)
    return after


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (2, 1, 1, 2), (1, 1, 1, 4), (3, 2, 2, 2)],
)
def test_convolution(stride: int, padding: int, dilation: int, groups: int) -> None:
    layer = layers.conv(4, 8, 3, stride=stride, padding=padding, dilation=dilation, groups=groups)
    theirs = torch.nn.Conv2d(4, 8, 3, stride, padding, dilation, groups)
    params = {
        "kernel": jnp.asarray(_kernel(theirs.weight)),
        "bias": jnp.asarray(theirs.bias.detach().numpy()),
    }
    grads = lambda t: {"kernel": _kernel(t.weight.grad), "bias": t.bias.grad.numpy()}
    _agree(layer, params, theirs, normal(2, 9, 8, 4), grads)


@pytest.mark.parametrize("rank", [1, 3])
def test_convolution_over_time_and_over_volumes(rank: int) -> None:
    layer = layers.conv(2, 3, (3,) * rank, padding=1)
    theirs = {1: torch.nn.Conv1d, 3: torch.nn.Conv3d}[rank](2, 3, 3, padding=1)
    params = {
        "kernel": jnp.asarray(_kernel(theirs.weight)),
        "bias": jnp.asarray(theirs.bias.detach().numpy()),
    }
    _agree(layer, params, theirs, normal(2, *(5,) * rank, 2), lambda t: {"kernel": _kernel(t.weight.grad)})


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 0), (2, 1), (3, 1)])
def test_transposed_convolution_has_its_kernel_turned_back(stride: int, padding: int) -> None:
    """Torch pads what the gradient of a convolution would; ours pads what the window passes over."""
    sides = ((2 - padding, 2 - padding),) * 2
    layer = layers.conv_transpose(3, 5, 3, stride=stride, padding=sides)
    theirs = torch.nn.ConvTranspose2d(3, 5, 3, stride, padding)
    turned = np.transpose(theirs.weight.detach().numpy(), (2, 3, 0, 1))[::-1, ::-1]
    params = {"kernel": jnp.asarray(turned.copy()), "bias": jnp.asarray(theirs.bias.detach().numpy())}
    grads = lambda t: {"kernel": np.transpose(t.weight.grad.numpy(), (2, 3, 0, 1))[::-1, ::-1]}
    _agree(layer, params, theirs, normal(2, 5, 4, 3), grads)


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 0)])
def test_pooling(window: int, stride: int, padding: int) -> None:
    x = normal(2, 7, 8, 3)
    _agree(
        layers.max_pool(window, stride=stride, padding=padding),
        {},
        torch.nn.MaxPool2d(window, stride, padding),
        x,
    )
    if not padding:
        _agree(layers.average_pool(window, stride=stride), {}, torch.nn.AvgPool2d(window, stride), x)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_adaptive_pooling(size: tuple[int, int]) -> None:
    x = normal(2, 7, 9, 3)
    _agree(layers.adaptive_average_pool(*size), {}, torch.nn.AdaptiveAvgPool2d(size), x)


def _affine(theirs: Any) -> dict[str, jax.Array]:
    """Random scale and bias, ours and theirs the same."""
    with torch.no_grad():
        theirs.weight.normal_()
        theirs.bias.normal_()
    return {
        name: jnp.asarray(p.detach().numpy()) for name, p in (("scale", theirs.weight), ("bias", theirs.bias))
    }


def _slopes(theirs: Any) -> dict[str, np.ndarray]:
    return {"scale": theirs.weight.grad.numpy(), "bias": theirs.bias.grad.numpy()}


@pytest.mark.parametrize("unbiased", [True, False], ids=["torch's variance", "ours by default"])
def test_batch_norm_and_its_running_statistics_over_three_batches(unbiased: bool) -> None:
    """Torch keeps the running variance of 1/(n - 1), as ``unbiased=True`` does; the default keeps that of 1/n.

    Its momentum is the share of the new value, ours that of the old.
    """
    layer = layers.batch_norm(3, momentum=0.9, unbiased=unbiased)
    theirs = torch.nn.BatchNorm2d(3, momentum=0.1)
    params, state = _affine(theirs), layer.init(jax.random.key(0))[1]
    biased = np.ones(3)
    for seed in range(3):
        x = 2 * normal(4, 3, 2, 3, seed=seed) + seed
        theirs.zero_grad()
        state = _agree(layer, params, theirs, x, _slopes, state)
        biased = 0.9 * biased + 0.1 * np.asarray(x, np.float64).var((0, 1, 2))
    np.testing.assert_allclose(state["mean"], theirs.running_mean, rtol=1e-5, atol=1e-6)
    if unbiased:
        np.testing.assert_allclose(state["var"], theirs.running_var, rtol=1e-5)
    else:
        np.testing.assert_allclose(state["var"], biased, rtol=1e-5)
        assert np.all(theirs.running_var.numpy() > 1.01 * np.asarray(state["var"]))


def test_group_norm_and_instance_norm() -> None:
    x = normal(2, 4, 3, 6)
    for layer, theirs in (
        (layers.group_norm(6, 3, eps=1e-5), torch.nn.GroupNorm(3, 6)),
        (layers.instance_norm(6, eps=1e-5), torch.nn.InstanceNorm2d(6, affine=True)),
    ):
        _agree(layer, _affine(theirs), theirs, x, _slopes)


def test_layer_norm_and_rms_norm() -> None:
    """Torch's take the last axes, so nothing is turned."""
    x = normal(2, 4, 6)
    norm, rms = torch.nn.LayerNorm(6, eps=1e-6), torch.nn.RMSNorm(6, eps=1e-6)
    params = _affine(norm)
    with torch.no_grad():
        rms.weight.copy_(norm.weight)
    for layer, theirs in ((layers.layer_norm(6), norm), (layers.rms_norm(6), rms)):
        names = layer.init(jax.random.key(0))[0]
        found = layer.apply({name: params[name] for name in names}, {}, x)[0]
        wanted = theirs(torch.tensor(np.asarray(x))).detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
