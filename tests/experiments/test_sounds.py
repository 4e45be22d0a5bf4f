"""Sounds: hand-made features and end-to-end networks."""

import jax
import numpy as np
import pytest
from scipy import fft

from experiments import raw_or_features as sounds
from tests.experiments.test_first import run


@pytest.mark.covers("M72")
def test_the_hand_made_boxes_are_the_cepstral_coefficients_of_scipy():
    x, _ = sounds.sounds(jax.random.key(0), 40, sounds.Config())
    power = np.abs(np.fft.rfft(np.asarray(x)[..., 0] * np.hanning(256))) ** 2
    edges = np.geomspace(2, 128, 22)
    bands = np.stack([np.interp(np.arange(129), edges[i : i + 3], [0, 1, 0]) for i in range(20)])
    cepstrum = fft.dct(np.log(power @ bands.T + 1e-6), type=2)[:, 1:13]
    wanted = (cepstrum - cepstrum.mean(0)) / cepstrum.std(0)
    np.testing.assert_allclose(sounds.hand_made(x), wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.covers("X64", "M72")
def test_features_serve_where_samples_do_not(tmp_path):
    report = run(
        "raw_or_features", tmp_path, "--sizes", "160", "--steps", "100", "--seeds", "1", "--test", "300"
    )
    right = {
        name: report["numbers"][f"test sounds right with [160], {name}"][0] for name in sounds.networks(1)
    }
    assert right["regression on features"] > right["regression on samples"] + 0.2
    assert report["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("raw", "features", "deep", "expected"),
    [(0.3, 0.8, 0.9, "holds"), (0.3, 0.9, 0.8, "fails"), (0.75, 0.8, 0.9, "fails")],
)
def test_the_verdict_follows_from_the_numbers(raw, features, deep, expected):
    right = dict(zip(sounds.networks(1), ([raw], [features], [deep]), strict=True))
    assert sounds.decide(right) == expected
