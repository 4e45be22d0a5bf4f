"""Every row runs at tiny sizes, and its contestants agree."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import pytest

from benchmarks.protocol import absent, cases_of, contestants
from benchmarks.run import run, run_case

# One peer in each row is enough to see that a row is in order; together they cover all libraries.
PEERS = {
    "mlp": "equinox",
    "lenet": "haiku",
    "resnet": "linen",
    "lstm": "nnx",
    "transformer": "linen",
    "compile": "raw",
    "optimizer": "optax",
    "sweep": "torch",
    "dispatch": "nnx",
    "generation": "raw",
}


@pytest.mark.parametrize("name", PEERS)
def test_the_contestants_of_a_row_agree_at_tiny_sizes(name):
    libraries = ("purenets", PEERS[name])
    case = replace(next(iter(cases_of(name, "tiny"))), rounds=1, calls=1)
    case = replace(case, checked=1) if case.fresh else case
    result = run_case(name, case, lambda line: None, libraries)
    assert not [entry for entry in result["contestants"] if "differs" in entry]
    found = {entry["library"] for entry in result["contestants"]}
    assert found == set(libraries) - set(absent())
    assert all(entry["seconds"] > 0 for entry in result["contestants"])


def test_a_run_writes_page_figure_and_numbers_and_another_is_merged_into_them(tmp_path):
    for number in range(2):
        rows = ["dispatch", "optimizer"][number : number + 1]
        assert run(
            rows, tmp_path, scale="tiny", rounds=2, tell=lambda line: None, libraries=("purenets", "raw")
        )
    platform = jax.default_backend()
    results = json.loads((tmp_path / f"{platform}.json").read_text())["results"]
    assert {result["row"] for result in results.values()} == {"dispatch", "optimizer"}
    text = (tmp_path / f"{platform}.md").read_text()
    assert "## Optimizer update" in text
    assert "## Dispatch" in text
    assert (tmp_path / f"{platform}.svg").read_text().startswith("<?xml")


def test_a_contestant_with_other_weights_is_found_out():
    case = next(iter(cases_of("dispatch", "tiny")))
    weights = case.given["weights"]
    wrong = type(case)(
        "wrong", "", {**case.given, "weights": {name: leaf + 1 for name, leaf in weights.items()}}
    )
    right = contestants("dispatch", case, ["raw"])["raw", "jit"]
    other = contestants("dispatch", wrong, ["purenets"])["purenets", "make_step"]
    assert abs(float(right()) - float(other())) > 0.1
