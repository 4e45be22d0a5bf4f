"""The experiment on training in 16 bits: it runs, recovers from its overflows, and its verdict follows the numbers."""

import numpy as np
import pytest

from experiments import half_precision
from tests.experiments.test_first import run


def test_training_in_16_bits_goes_on_after_overflows(tmp_path):
    flags = [
        "--text",
        "default",
        "--steps",
        "40",
        "--seeds",
        "2",
        "--dim",
        "16",
        "--depth",
        "1",
        "--context",
        "16",
    ]
    report = run("half_precision", tmp_path, *flags)
    numbers = report["numbers"]
    assert report["verdict"] == "inconclusive"
    assert numbers["overflows, fewest of the seeds"] >= 1
    assert max(numbers["last scale"]) < 2.0**24
    nats = [value for name, value in numbers.items() if name.startswith("held-out")]
    assert len(nats) == 3
    np.testing.assert_allclose(nats, nats[0], rtol=0.1)
    lost = [value for name, value in numbers.items() if "values lost" in name]
    assert 0 <= lost[1] < lost[0] < 1


@pytest.mark.parametrize(
    ("bfloat16", "float16", "overflows", "enough", "expected"),
    [
        (2.009, 1.991, 3, True, "holds"),
        (2.021, 2.0, 3, True, "fails"),
        (2.0, 1.979, 3, True, "fails"),
        (2.0, float("nan"), 3, True, "fails"),
        (2.0, 2.0, 0, True, "fails"),
        (2.0, 2.0, 3, False, "inconclusive"),
    ],
)
def test_the_verdict_on_half_precision_asks_for_one_percent_and_an_overflow(
    bfloat16, float16, overflows, enough, expected
):
    nats = {"float32": 2.0, "bfloat16": bfloat16, "float16, scaled": float16}
    assert half_precision.decide(nats, overflows, enough=enough) == expected
