"""What is made of another library's model keeps every law of a layer, and a library that is missing is named."""

import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx

from purenets import interop
from purenets.conform import check_layer
from tests.layers.peers import normal


class Linen(nn.Module):
    """Running statistics and dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dropout(0.5, deterministic=not train)(x)


def _linen():
    return interop.from_linen(Linen(), (5, 3))


def _nnx():
    make = lambda rngs: nnx.Sequential(
        nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
    )
    return interop.from_nnx(make)


def _haiku():
    hk = pytest.importorskip("haiku")

    def net(x, is_training):
        x = hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), is_training)
        return hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x

    return interop.from_haiku(hk.transform_with_state(net), normal(5, 3), train="is_training")


def _equinox():
    eqx = pytest.importorskip("equinox")

    def make(key):
        parts = [eqx.nn.Linear(3, 4, key=key), eqx.nn.BatchNorm(4, "batch", mode="ema"), eqx.nn.Dropout(0.5)]
        return eqx.nn.Sequential(parts)

    return interop.from_equinox(eqx.nn.make_with_state(make))


@pytest.mark.parametrize("make", [_linen, _nnx, _haiku, _equinox])
def test_it_keeps_the_laws_of_a_layer(make):
    check_layer(make(), (5, 3))


def test_a_cache_of_linen_fills_in_a_stream_as_the_whole_sequence_does():
    x = normal(1, 4, 8)
    model = interop.from_linen(nn.MultiHeadDotProductAttention(2, decode=True), x)
    params, state = model.init(jax.random.key(0))
    parts = []
    for step in range(4):
        out, state = model.apply(params, state, x[:, step : step + 1], stream=True)
        parts.append(out)
    mask = nn.make_causal_mask(x[..., 0])
    whole = nn.MultiHeadDotProductAttention(2).apply({"params": params}, x, mask=mask)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "module", "package"),
    [
        (lambda: interop.from_linen(nn.Dense(2), (1, 2)), "flax", "flax"),
        (lambda: interop.from_nnx(lambda rngs: None), "flax.nnx", "flax"),
        (lambda: interop.from_haiku(None), "haiku", "dm-haiku"),
        (lambda: interop.from_equinox(None), "equinox", "equinox"),
        (lambda: interop.load_program(b""), "flatbuffers", "flatbuffers"),
    ],
    ids=["linen", "nnx", "haiku", "equinox", "program"],
)
def test_a_library_that_is_missing_is_named_with_what_to_install(monkeypatch, call, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"this needs {package}: pip install {package}"):
        call()
