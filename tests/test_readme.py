"""The README's code runs, from top to bottom, as it is printed."""

import re
from pathlib import Path

import numpy as np


def test_the_code_of_the_readme_runs():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    names = {}
    exec("\n".join(blocks), names)
    assert names["history"]["validation/accuracy"][-1] > 0.95
    assert names["written"].tokens.shape == (1, 8)
    rows = names["found"].rows(lambda accuracy: accuracy)
    assert np.allclose([row["rate"] for row in rows], [1e-3, 1e-2])
    assert len(names["ts"].params["dense_1"]["kernel"].sharding.device_set) == 8
    assert names["costs"].fits
    told = "L4  FAIL  defaults, float64  step 0, state mu/"
    assert told in text
    assert told in str(names["proof"])
    assert set(names["report"].loaded) == {"dense_1/kernel", "dense_1/bias", "head/kernel", "head/bias"}
