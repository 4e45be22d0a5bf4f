"""What is kept of a case, the page and the figure, from made-up times."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.figure import draw, fastest
from benchmarks.page import notes_of, page
from benchmarks.protocol import EXTRA, ROWS, Case, row
from benchmarks.results import best_peer, load, ours, save, summarise

TIMES = {
    ("purenets", "make_step"): [1.0, 1.1, 0.9],
    ("raw", "jit"): [2.0, 2.2, 1.8],
    ("linen", "jit"): [4.0, 4.4, 3.6],
    ("torch", "eager"): [0.5, 0.55, 0.45],
}
DIFFER = {("haiku", "jit"): "call 2: 1.5 where ('raw', 'jit') has 1.6"}


def _result(name="lstm", row="lstm", times=None):
    case = Case(name, f"title of {name}", {}, rounds=3, calls=2)
    about = {"processor": "a chip", "cores": "2", "device": "cpu", "jax": "0.0"}
    more = {"environment": about, "absent": ["equinox"], "taken": 1.0, "number": 0}
    return summarise(row, case, times or TIMES, DIFFER, **more)


def test_ratios_are_to_the_fastest_peer_on_jax_and_not_to_torch_or_ourselves():
    result = _result()
    assert best_peer(result)["library"] == "raw"
    assert ours(result)["ratio"] == pytest.approx(0.5)
    assert fastest(result) == pytest.approx({"purenets": 0.5, "raw": 1.0, "linen": 2.0, "torch": 0.25})


def test_a_contestant_that_differs_has_no_time():
    (entry,) = [entry for entry in _result()["contestants"] if entry["library"] == "haiku"]
    assert entry == {"library": "haiku", "form": "jit", "differs": DIFFER["haiku", "jit"]}


def test_results_come_back_from_disk_as_they_were(tmp_path):
    results = {"lstm": _result()}
    save(tmp_path / "cpu.json", results)
    assert load(tmp_path / "cpu.json") == results
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.json"]


def test_there_are_no_results_where_there_is_no_file(tmp_path):
    assert load(tmp_path / "cpu.json") == {}


def test_the_page_has_machine_ratios_differences_absences_and_remarks():
    text = page("cpu", {"lstm": _result()}, "cpu.svg", {"lstm": "Why torch is ahead."})
    assert "| title of lstm | **0.50** | raw, jit | 0.25 | 1 differ |" in text
    assert "| **purenets** | make_step | 0.50 | 0.50 to 0.50 | 1 s | agree |" in text
    assert "| haiku | jit | not timed | | | call 2: 1.5 where ('raw', 'jit') has 1.6 |" in text
    assert "a chip, 2 cores" in text
    assert "Absent, since they are not installed: equinox." in text
    assert text.endswith("Why torch is ahead.\n")


def test_a_case_that_is_not_within_three_hundredths_is_not_bold():
    times = TIMES | {("purenets", "make_step"): [2.1, 2.3, 1.9]}
    assert "| 1.05 | raw, jit |" in page("cpu", {"lstm": _result(times=times)}, "cpu.svg", {})


def test_remarks_are_read_by_their_heading(tmp_path):
    (tmp_path / "notes.md").write_text("Not for the page.\n\n## lstm\n\nOne.\n\n## mlp-shuffled\n\nTwo.\n")
    assert notes_of(tmp_path / "notes.md") == {"lstm": "One.", "mlp-shuffled": "Two."}
    assert notes_of(tmp_path / "none.md") == {}


def test_the_figure_is_the_same_file_for_the_same_results(tmp_path):
    results = [_result(), _result("mlp", "mlp")]
    for name in ("a.svg", "b.svg"):
        draw(results, tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")


def test_an_unknown_row_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"there is no row 'lstn'; there are mlp, lenet, .*generation"):
        row("lstn")


@pytest.mark.parametrize("name", ROWS + EXTRA)
def test_every_row_says_what_it_measures(name):
    package = row(name)
    assert package.TITLE
    assert len(package.__doc__) > 200
