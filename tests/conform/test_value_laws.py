"""The laws of a layer's numbers, and a layer compared with one that is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.conform import check_gradients, check_layer
from tests.conform.test_layers import Pair, broken


def weights(key):
    return {"w": jax.random.normal(key, (3,))}, {}


def alike(key):
    w = jax.random.normal(key, (4,))
    return {"a": w, "b": w + 0}, {}


def dropped(key_of):
    def apply(p, s, x, key=None, train=False):
        if not train:
            return x, s
        if key is None:
            raise ValueError("a key is needed")
        return x * jax.random.bernoulli(key_of(key), 0.5, x.shape), s

    return apply


def drops_twice(p, s, x, key=None, train=False):
    if not train:
        return x, s
    return x * jax.random.bernoulli(key, 0.5, x.shape) * jax.random.bernoulli(key, 0.9, x.shape), s


def calling(p, s, x, key=None, train=False):
    jax.debug.callback(lambda: None)
    return x, s


@pytest.mark.parametrize(
    ("law", "init", "apply", "message"),
    [
        ("examples_are_apart", weights, lambda p, s, x, key=None, train=False: (x - x.mean(0), s), "example 0 alone"),
        ("keys_matter", weights, dropped(lambda key: jax.random.key(3)), "the same for eight of them"),
        ("keys_matter", alike, lambda p, s, x, key=None, train=False: (x, s), "b begins with the same numbers as a"),
        ("params_matter", weights, lambda p, s, x, key=None, train=False: (x, s), "nothing depends on w"),
        ("keys_are_used_once", weights, drops_twice, "a key is used twice"),
        ("precision_is_kept", weights,
         lambda p, s, x, key=None, train=False: (x * jnp.linspace(0.0, 1.0, 3), s), "becomes float64"),
        ("bfloat16_is_close", weights,
         lambda p, s, x, key=None, train=False: (x * (2 if x.dtype == jnp.bfloat16 else 1), s), "in bfloat16"),
        ("no_host_callbacks", weights, calling, "calls back into Python"),
    ],
    ids=["batch", "fixed key", "alike", "unused", "key twice", "float64", "bfloat16", "callback"],
)  # fmt: skip
def test_a_law_of_numbers_finds_the_layer_that_breaks_it(law, init, apply, message):
    assert broken(law) is None
    assert message in broken(law, init=init, apply=apply)


def test_a_mask_that_is_the_first_example_s_for_all_is_found():
    mask = jnp.array([[1, 1, 0], [1, 0, 1], [1, 0, 0]], bool)

    def mean(own):
        def apply(p, s, x, key=None, train=False, mask=None):
            m = (mask if own else mask[:1]).astype(x.dtype)
            return (x * m).sum(1) / m.sum(1), s

        return Pair(init=lambda key: ({}, {}), apply=apply)

    check = lambda layer: check_layer(
        layer, (3, 3), side={"mask": mask}, laws="examples_are_apart", raises=False
    )
    assert check(mean(True)).ok
    assert "example 2 alone" in check(mean(False)).failures[0].detail


@pytest.mark.parametrize("bug", ["biased", "train", "nothing"])
def test_a_reference_finds_statistics_that_no_law_forbids(bug):
    model = pn.batch_norm(3)
    n = 6

    def apply(p, s, x, key=None, train=False, **rest):
        out, new = model.apply(p, s, x, key=key, train=train and bug != "train", **rest)
        if train and bug == "biased":
            new = jax.tree.map(lambda old, x: old + (x - old) * n / (n - 1), s, new)
        return out, new

    report = check_layer(Pair(model.init, apply), (n, 3), reference=model, laws=[], raises=False)
    assert report.ok is (bug == "nothing")
    assert [row.check for row in report.rows] == ["reference"]


def test_a_right_custom_vjp_has_no_forward_mode_and_passes():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    assert check_gradients(sine, np.array([0.3, 0.7])).rows[0].detail == "2 numbers, no forward mode"


def test_a_gradient_that_is_wrong_in_float32_alone_is_found():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(
        lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x) * (2 if x.dtype == jnp.float32 else 1),)
    )
    report = check_gradients(sine, np.array([0.3, 0.7]), raises=False)
    assert "in float32 the gradient is" in report.failures[0].detail


def test_a_gradient_that_is_wrong_for_large_inputs_is_found():
    @jax.custom_jvp
    def squash(x):
        return jnp.tanh(x)

    squash.defjvps(lambda t, ans, x: jnp.where(jnp.abs(x) > 2.5, 0.0, 1 - ans**2) * t)
    apply = lambda p, s, x, key=None, train=False: (squash(x), s)
    assert "central differences say" in broken(
        "gradients_are_right", (4, 4), init=lambda key: ({}, {}), apply=apply
    )
