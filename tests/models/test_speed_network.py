"""The network of the speed records: what whitening and the identity at the start promise."""

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from purenets import models
from purenets.models.speed_network import whitening_kernel
from tests.layers.peers import normal
from tests.models.counting import count

IMAGES = jnp.cumsum(normal(40, 34, 33, 3), 2) / 4  # neighbours are alike, as in pictures


def test_whitened_patches_are_uncorrelated_of_variance_one_and_come_in_both_signs(x64):
    images = jnp.asarray(IMAGES, jnp.float64)
    layer = pn.conv(3, 24, 2, padding="VALID", bias=False)
    out = layer.apply({"kernel": whitening_kernel(images, eps=0.0)}, {}, images)[0].reshape(-1, 24)
    np.testing.assert_allclose(out[:, :12], -out[:, 12:], rtol=1e-12)
    np.testing.assert_allclose(out[:, :12].T @ out[:, :12] / len(out), np.eye(12), atol=1e-9)


def test_the_size_is_that_of_the_record():
    """1.97 million weights by its description: 12 x 24 + 24 whitening, 3 stages, 2560 in the head."""
    stages = [(24, 64), (64, 256), (256, 256)]
    expected = 12 * 24 + 24 + sum(9 * i * o + 9 * o * o + 2 * o for i, o in stages) + 2560
    assert count(models.speed_network(10, patches=IMAGES)) == expected
    assert round(expected / 1e6, 2) == 1.97


def test_the_convolutions_begin_as_the_identity_on_what_they_take():
    net = models.speed_network(10, width=32, patches=IMAGES)
    kernel = net.init(jax.random.key(0))[0]["stage_1"]["conv_1"]["kernel"]
    x = normal(2, 8, 8, 24)
    y = pn.conv(24, 32, 3, bias=False).apply({"kernel": kernel}, {}, x)[0]
    np.testing.assert_allclose(y[..., :24], x, rtol=1e-6)
    assert float(jnp.abs(y[..., 24:]).min()) > 0
