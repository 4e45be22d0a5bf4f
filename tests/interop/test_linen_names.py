"""Flax's default names as rules, against the names that Flax gives."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import purenets as pn
from purenets.interop import convert, inverse, linen_names


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.relu(nn.GroupNorm(2)(nn.Conv(4, (3, 3))(x)))
        x = x.mean((1, 2))
        x = nn.LayerNorm()(nn.Dense(4)(x))
        return nn.Dense(2)(x)


def ours():
    return pn.serial(
        body=pn.serial(
            pn.conv(3, 4, 3),
            pn.batch_norm(4),
            jax.nn.relu,
            pn.conv(4, 4, 3),
            pn.group_norm(4, 2),
            jax.nn.relu,
        ),
        pool=pn.global_average_pool(),
        hidden=pn.remat(pn.dense(4, 4)),
        norm=pn.layer_norm(4),
        head=pn.dense(4, 2),
    )


def test_a_compact_module_is_converted_by_its_default_names_and_back():
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 3))
    variables = Net().init(jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: leaf + 0.25, variables)
    params_rules, stats_rules = linen_names(ours())
    params = convert(variables["params"], params_rules)
    state = convert(variables["batch_stats"], stats_rules)
    wanted = jax.jit(Net().apply)(variables, x)
    got, _ = jax.jit(ours().apply)(params, state, x)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    back = convert(params, inverse(params_rules))
    jax.tree.map(np.testing.assert_array_equal, back, variables["params"])
    assert jax.tree.structure(convert(state, inverse(stats_rules))) == jax.tree.structure(
        variables["batch_stats"]
    )


def test_attention_is_one_layer_of_flax():
    x = jax.random.normal(jax.random.key(1), (2, 5, 4))

    class Attends(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.MultiHeadDotProductAttention(2)(nn.LayerNorm(use_fast_variance=False)(x))

    variables = Attends().init(jax.random.key(0), x)
    model = pn.serial(norm=pn.layer_norm(4), attend=pn.attention(4, 2))
    params = convert(variables["params"], linen_names(model)[0])
    np.testing.assert_allclose(
        model.apply(params, {}, x)[0], Attends().apply(variables, x), rtol=1e-5, atol=1e-6
    )


def test_a_model_without_layers_of_flax_is_refused():
    with pytest.raises(
        ValueError, match="serial has no layer of a kind that Flax has: attention, batch_norm"
    ):
        linen_names(pn.serial(jax.nn.relu))
