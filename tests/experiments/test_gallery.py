"""The gallery shows every experiment once, runs what is to be run, and opens in a real browser."""

import dataclasses
import json
import re

import pytest

from experiments import __main__ as command
from experiments import gallery, rows
from experiments.gallery import Settings, card_of, stale, write_gallery
from tests.browser import Browser, assert_sound, needs_browser
from tests.experiments.test_first import run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A gallery of two results, one failure and one not run."""
    results = tmp_path_factory.mktemp("results")
    run("scaled_shortcuts", results, "--depths", "2", "6", "--seeds", "2")
    run("adagrad_decay", results, "--seeds", "2")
    cards = [
        card_of(name, command.claim_of(name), results / name)
        for name in ("scaled_shortcuts", "adagrad_decay")
    ]
    cards.append(card_of("digits", "Digits.\n\nRow T01.", results / "digits", "no <data> & no net"))
    cards.append(card_of("another", "Another one.", results / "another"))
    return results, cards, write_gallery(cards, results)


def test_every_experiment_has_exactly_one_topic():
    listed = [name for names in gallery.TOPICS.values() for name in names.split()]
    assert sorted(listed) == command.names()


@pytest.mark.covers("D12")
def test_the_table_by_data_and_learning_links_experiments_that_there_are(made):
    cells = {
        (data, kind): names.split() for data, row in gallery.VIEWS.items() for kind, names in row.items()
    }
    assert {kind for _, kind in cells} <= set(gallery.LEARNING)
    assert {name for names in cells.values() for name in names} <= set(command.names())
    # Each way of learning that the course names is there, and each kind of data is learnt from with a teacher.
    assert {kind for _, kind in cells} == set(gallery.LEARNING)
    assert all((data, "with a teacher") in cells for data in gallery.VIEWS)
    page = made[2].read_text()
    table = page[page.index('id="views"') :]
    assert all(name in table for names in cells.values() for name in names)
    assert re.findall(r'<a href="(\w+)/', table) == [
        "adagrad_decay"
    ]  # the only one of them that has a result here


def test_every_row_that_is_not_optional_has_a_test_or_an_experiment():
    assert [row.id for row in rows.rows() if not row.covered and not row.optional] == []


def test_every_claim_has_an_experiment_of_its_own():
    lacking = [row.id for row in rows.rows() if row.id[0] == "X" and not row.experiments and not row.optional]
    assert lacking == []


def test_there_are_as_many_rows_as_in_the_catalogue():
    table = rows.rows()
    assert len(table) == 344
    assert sum(row.optional for row in table) == 12


def test_rows_are_read_from_marks_and_docstrings():
    table = {row.id: row for row in rows.rows()}
    assert ("purenets.theory.memorise", "all prefix sums of random bits are exact in float64") in table[
        "M32"
    ].tests
    assert "scaled_shortcuts" in table["X14"].experiments
    assert rows.cited("Rows W05, T99 and X19 to X21, of He et al. 2016.") == ["W05", "X19", "X20", "X21"]


def test_a_row_that_nothing_establishes_is_shown_in_red(tmp_path, monkeypatch):
    table = [rows.Row("M01", tests=[("purenets.classic", "a gate")]), rows.Row("M02"), rows.Row("M43")]
    monkeypatch.setattr(gallery, "rows", lambda: table)
    write_gallery([], tmp_path)
    page = (tmp_path / "catalogue.html").read_text()
    assert re.search(r'class="lacking">\s*<th scope="row" id="M02"', page)
    assert page.count('class="lacking"') == 1
    assert "1 without test or experiment: M02" in page


def test_cards_tell_verdicts_reasons_and_what_kept_one_from_running(made):
    _, cards, index = made
    page = index.read_text()
    assert [card.verdict for card in cards] == ["holds", "holds", "not run", "not run"]
    assert cards[0].rows == ["X14"]
    assert "no &lt;data&gt; &amp; no net" in page
    assert 'href="scaled_shortcuts/index.html"' in page
    assert 'href="digits/index.html"' not in page


def test_what_is_run_again_follows_from_the_settings():
    result = {"source": "abc", "default": True}
    settings = Settings()
    assert stale(None, "abc", settings)
    assert not stale(result, "other", settings)
    changed = dataclasses.replace(settings, changed=True)
    assert stale(result, "other", changed)
    assert not stale(result, "abc", changed)
    assert stale({**result, "default": False}, "abc", changed)
    assert stale(result, "abc", dataclasses.replace(settings, again=True))


def test_the_command_reuses_results_runs_what_is_missing_and_goes_on_after_a_failure(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("PURENETS_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    kept = tmp_path / "results" / "adagrad_decay"
    kept.mkdir(parents=True)
    (kept / "report.json").write_text(json.dumps({"verdict": "holds", "because": "kept", "seconds": 1.0}))
    (kept / "index.html").write_text("kept")
    claims = {
        name: command.claim_of(name) for name in ("adagrad_decay", "amsgrad_counterexample", "cifar_resnet")
    }
    assert gallery.run_all(claims, Settings(results=tmp_path / "results")) == 1
    assert (kept / "index.html").read_text() == "kept"
    told = json.loads((tmp_path / "results" / "amsgrad_counterexample" / "report.json").read_text())
    assert told["verdict"] == "holds"
    assert told["default"] is True
    page = (tmp_path / "results" / "index.html").read_text()
    assert "cifar10 needs data_batch_1.bin" in page
    assert "1 not run" in page


def test_a_name_that_is_no_experiment_is_refused_before_anything_runs(tmp_path, capsys):
    assert command.main(["report", "--results", str(tmp_path / "new"), "--only", "xnor"]) == 2
    assert "there are no experiments xnor" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@needs_browser
@pytest.mark.parametrize("page", ["index.html", "catalogue.html", "scaled_shortcuts/index.html"])
def test_a_browser_shows_the_pages_soundly_on_a_phone_and_on_a_desk(made, page):
    with Browser() as browser:
        assert_sound(browser, made[0] / page)


@needs_browser
def test_the_search_leaves_the_cards_that_have_all_its_words(made):
    with Browser() as browser:
        browser.open(made[2], 1400)
        browser.ask("search.value = 'x14 holds'; search.dispatchEvent(new Event('input'))")
        shown = "[...document.querySelectorAll('.card')].filter(c => c.offsetParent).map(c => c.textContent)"
        (text,) = browser.ask(shown)
        assert "scaled_shortcuts" in text


@needs_browser
def test_the_browser_test_finds_what_is_wrong_with_a_page(tmp_path):
    bad = tmp_path / "bad.html"
    for content, complaint in (
        ("<img src='gone.png'>", "broken picture"),
        ("<script>nothing()</script>", "Uncaught"),
        ("<div style='width: 500px'>wide</div>", "500 pixels wide at a width of 360"),
        ("<p style='font-size: 7px'>small</p>", "too small to read: small"),
    ):
        bad.write_text(
            f"<!doctype html><meta name='viewport' content='width=device-width'><body style='margin:0'>{content}"
        )
        with Browser() as browser, pytest.raises(AssertionError, match=complaint):
            assert_sound(browser, bad)
