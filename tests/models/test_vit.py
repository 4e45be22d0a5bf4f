"""The Vision Transformer, beside torchvision's sizes, a Flax twin, and what it must be by construction."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import models
from tests.layers.peers import normal, randomised
from tests.models.counting import count


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, 86_567_656),
        ({"patch": 32}, 88_224_232),
        ({"dim": 1024, "heads": 16, "depth": 24}, 304_326_632),
    ],
    ids=["B/16", "B/32", "L/16"],
)
def test_the_networks_have_the_sizes_of_torchvision(sizes, expected):
    assert count(models.vit(**sizes)) == expected


class _Twin(nn.Module):
    depth: int

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(8, (4, 4), strides=(4, 4), name="patches")(images)
        x = x.reshape(len(x), -1, 8)
        token = self.param("token", nn.initializers.normal(), (8,))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, 8)), x], 1)
        x = x + self.param("positions", nn.initializers.normal(), x.shape[1:])
        for i in range(self.depth):
            norm = nn.LayerNorm(name=f"attention_norm_{i}")
            x = x + nn.MultiHeadDotProductAttention(2, name=f"attention_{i}")(norm(x))
            y = nn.Dense(16, name=f"up_{i}")(nn.LayerNorm(name=f"feed_forward_norm_{i}")(x))
            x = x + nn.Dense(8, name=f"down_{i}")(nn.gelu(y))
        return nn.Dense(5, name="head")(nn.LayerNorm(name="norm")(x)[:, 0])


def test_it_agrees_with_a_flax_twin_in_values_and_gradients():
    depth, images = 2, normal(3, 8, 12, 1)
    net = models.vit((8, 12), 4, 5, dim=8, heads=2, depth=depth, hidden=16, channels=1)
    params = randomised(net.init(jax.random.key(0))[0])
    twin = _Twin(depth)

    def renamed(params):
        theirs = {name: params[name] for name in ("patches", "norm", "head")}
        theirs |= {"token": params["token"]["value"], "positions": params["positions"]["embedding"]}
        for i in range(depth):
            block = jax.tree.map(lambda x, i=i: x[i], params["blocks"])
            theirs |= {f"{name}_{i}": p for name, p in block.items() if name != "feed_forward"}
            theirs |= {f"{name}_{i}": p for name, p in block["feed_forward"].items()}
        return theirs

    ours = lambda p, x: net.apply(p, {}, x)[0]
    theirs = lambda p, x: twin.apply({"params": renamed(p)}, x)
    np.testing.assert_allclose(ours(params, images), theirs(params, images), rtol=2e-4, atol=2e-4)
    slopes = [
        jax.jit(jax.grad(lambda p, f=f: jnp.sum(jnp.sin(f(p, images)))))(params) for f in (ours, theirs)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), *slopes)


def test_without_positions_and_with_the_mean_the_order_of_the_patches_does_not_matter():
    net = models.vit(8, 4, 3, dim=8, heads=2, depth=1, channels=1, pool="mean")
    params, _ = net.init(jax.random.key(0))
    params["positions"]["embedding"] = jnp.zeros_like(params["positions"]["embedding"])
    images = normal(2, 8, 8, 1)
    exchanged = jnp.concatenate([images[:, 4:], images[:, :4]], 1)
    np.testing.assert_allclose(
        net.apply(params, {}, images)[0], net.apply(params, {}, exchanged)[0], rtol=1e-5, atol=1e-6
    )
    shifted = jnp.roll(images, 1, 1)
    assert jnp.abs(net.apply(params, {}, images)[0] - net.apply(params, {}, shifted)[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.vit(30, 4), "needs patches that fill the image, got (4, 4) for an image of (30, 30)"),
        (lambda: models.vit(32, 4, pool="max"), "needs pool='class' or 'mean', got 'max'"),
        (lambda: models.vit(32, 4, dim=10, heads=3), "heads"),
        (
            lambda: pn.out_shape(models.vit(32, 16, 10), 1, 48, 32, 3),
            "needs images of (32, 32), got (48, 32)",
        ),
        (lambda: pn.out_shape(models.vit(32, 16, 10), 1, 3, 32, 32), "the channels seem to come first"),
    ],
    ids=["patches", "pool", "heads", "size", "channels first"],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(ValueError) as caught:
        build()
    assert message in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
