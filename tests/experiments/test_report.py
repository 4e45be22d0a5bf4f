"""The folder of results: complete, self-contained, and checked for writing before anything is computed."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from experiments import __main__ as command
from experiments.figures import confusion, curves
from experiments.report import Report, Table, open_folder, rows_of, save, verdict


@dataclass(frozen=True)
class Config:
    rate: float = 0.1


def report():
    return Report(
        numbers={"accuracy": 0.975, "count": 13002, "name": "<b>"},
        verdict="holds",
        because="0.975 is above 0.97",
        figures={"loss_curve": curves({"a": [3, 2, 1]}, x="epoch", y="loss")},
        tables={"Rows": Table(["a", "b"], [[1, 2.5]])},
        metrics=rows_of({"loss": np.array([3.0, 2.0])}, seed=0),
    )


def test_saving_writes_every_file_and_one_page_that_needs_no_network(tmp_path):
    page = save(report(), tmp_path, name="trial", claim="A claim.", config=Config(), seconds=1.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "environment.json",
        "index.html",
        "loss_curve.svg",
        "metrics.jsonl",
        "report.json",
        "thumbnail.png",
    ]
    html = page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", html)
    assert "<script" not in html
    assert "<svg" in html
    assert "&lt;b&gt;" in html
    assert "13,002" in html
    assert json.loads((tmp_path / "config.json").read_text()) == {"rate": 0.1}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"seed": 0, "epoch": 1, "loss": 3.0},
        {"seed": 0, "epoch": 2, "loss": 2.0},
    ]
    assert {"jax", "python", "device"} <= json.loads((tmp_path / "environment.json").read_text()).keys()


def test_the_same_numbers_give_the_same_figure_file(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(report(), tmp_path / name, name="trial", claim="", config=Config(), seconds=1.0)
    first, second = ((tmp_path / name / "loss_curve.svg").read_text() for name in ("a", "b"))
    assert first == second


def test_a_verdict_comes_from_the_numbers():
    assert verdict(True) == "holds"
    assert verdict(False) == "fails"
    assert verdict(True, enough=False) == "inconclusive"


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"results cannot be written to .*file.*choose another folder"):
        open_folder(tmp_path / "file" / "digits")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_by_name(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="results cannot be written"):
        open_folder(tmp_path / "digits")


def test_an_unwritable_folder_ends_the_command_before_it_computes(tmp_path, capsys, monkeypatch):
    import experiments.xor

    monkeypatch.setattr(experiments.xor, "run", lambda config: pytest.fail("must not run"))
    (tmp_path / "file").write_text("")
    assert command.main(["xor", "--results", str(tmp_path / "file")]) == 1
    assert "results cannot be written" in capsys.readouterr().err


def test_an_unknown_experiment_is_refused_with_the_nearest(capsys):
    assert command.main(["digit"]) == 2
    assert "there is no experiment 'digit'; did you mean digits?" in capsys.readouterr().err


def test_every_experiment_states_a_claim_and_what_would_refute_it():
    for name in command.names():
        claim = command.claim_of(name)
        assert len(claim.splitlines()[0]) > 20, name
        assert "efuted" in claim, name


def test_the_list_is_shown_without_arguments():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "experiments"], cwd=root, capture_output=True, text=True, check=True
    )
    assert {"digits", "mnist_mlp", "xor"} <= {line.split(" ")[0] for line in done.stdout.splitlines()}


def test_a_confusion_matrix_prints_its_counts():
    figure = confusion(np.array([[5, 1], [0, 7]]), ["a", "b"])
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1", "5", "7"]
