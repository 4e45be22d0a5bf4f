"""Tokenisers, windows and tasks on sequences, checked by what they promise."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets.data import sequence_tasks as tasks
from purenets.data.text import (
    Bytes,
    Characters,
    default_text,
    draw_windows,
    split_text,
    tinyshakespeare,
    tracks,
    windows,
)


@pytest.mark.parametrize("tokeniser", [Characters.of("naïve café\n"), Bytes()], ids=["characters", "bytes"])
def test_decoding_undoes_encoding(tokeniser):
    text = "face\nnaïve"
    ids = tokeniser.encode(text)
    assert ids.dtype == np.int32
    assert 0 <= ids.min() <= ids.max() < len(tokeniser)
    assert tokeniser.decode(ids) == text


def test_an_alphabet_is_saved_and_loaded(tmp_path):
    letters = Characters.of("to be or not")
    letters.save(tmp_path / "alphabet.json")
    assert Characters.load(tmp_path / "alphabet.json") == letters
    (tmp_path / "other.json").write_text(json.dumps(["a"]))
    with pytest.raises(ValueError, match=r"other.json does not hold an alphabet"):
        Characters.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Characters.of("abc").encode("cat"), "character 't' at 2 is not one of the 3"),
        (lambda: Characters.of("abc").decode([3]), "ids go from 0 to 2, got 3 to 3"),
        (lambda: Bytes().decode([-1]), "ids go from 0 to 255"),
        (lambda: Bytes().decode([0.5]), r"integer ids \[length\], got float64\[1\]"),
        (lambda: windows(np.arange(4), 4), "windows of 4 need a text"),
        (lambda: draw_windows(jax.random.key(0), jnp.arange(4), 1, 4), "windows of 4 need a text"),
        (lambda: tracks(np.arange(12), 3, 4), "3 tracks of windows of 4 need a text"),
        (lambda: tasks.copy_task(jax.random.key(0), 1, delay=0), "needs a delay of at least 1"),
        (lambda: tasks.adding_problem(jax.random.key(0), 1, 1), "at least 2 numbers"),
    ],
    ids=[
        "unknown",
        "beyond",
        "negative",
        "float",
        "short",
        "short to draw",
        "short for tracks",
        "no delay",
        "no place",
    ],
)
def test_bad_text_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_windows_cover_the_text_and_their_targets_are_one_ahead():
    text = np.arange(101) * 3
    inputs, targets = windows(text, 10)
    np.testing.assert_array_equal(inputs.ravel(), text[:100])
    np.testing.assert_array_equal(targets.ravel(), text[1:])
    assert len(windows(text, 10, stride=1)[0]) == 91
    first, last = split_text(text, 0.1)
    np.testing.assert_array_equal(np.concatenate([first, last]), text)
    assert len(last) == 10


def test_windows_of_tracks_go_on_where_those_before_ended():
    text = np.arange(100) * 3
    inputs, targets = tracks(text, 3, 5)
    assert inputs.shape == targets.shape == (6, 3, 5)
    for track in range(3):
        start = track * 30
        np.testing.assert_array_equal(inputs[:, track].ravel(), text[start : start + 30])
        np.testing.assert_array_equal(targets[:, track].ravel(), text[start + 1 : start + 31])
    assert tracks(np.arange(13), 3, 4)[0].shape == (1, 3, 4)


def test_drawn_windows_are_stretches_of_the_text_from_everywhere_and_depend_on_the_key_alone():
    text = jnp.arange(50)
    draw = jax.jit(lambda key: draw_windows(key, text, 500, 5))
    inputs, targets = draw(jax.random.key(0))
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(jnp.diff(inputs, axis=1), 1)
    assert set(np.asarray(inputs[:, 0])) == set(range(45))
    np.testing.assert_array_equal(inputs, draw(jax.random.key(0))[0])
    assert not np.array_equal(inputs, draw(jax.random.key(1))[0])


def test_there_is_a_text_offline_and_a_missing_one_says_what_to_put_where(tmp_path):
    text = default_text()
    assert text == default_text()
    assert len(text) > 30_000
    assert "Iris" in text
    with pytest.raises(
        FileNotFoundError, match=r"tinyshakespeare/input.txt: put it there, or set PURENETS_DATA"
    ):
        tinyshakespeare(tmp_path)


def test_shakespeare_has_its_65_characters(real_data):
    text = tinyshakespeare(real_data)
    assert len(text) == 1_115_394
    assert len(Characters.of(text)) == 65


@pytest.mark.covers("M58")
def test_the_tasks_are_what_they_say():
    inputs, targets = tasks.copy_task(jax.random.key(0), 4, symbols=5, length=3, delay=4)
    assert inputs.shape == targets.shape == (4, 10)
    np.testing.assert_array_equal(targets[:, -3:], inputs[:, :3])
    assert np.all(np.asarray(targets[:, :7]) == 0)
    np.testing.assert_array_equal(np.argwhere(np.asarray(inputs) == 6)[:, 1], 6)
    x, y = tasks.adding_problem(jax.random.key(1), 4000, 11)
    marked = [row[row[:, 1] == 1, 0] for row in np.asarray(x)]
    assert {len(row) for row in marked} == {2}
    np.testing.assert_allclose([row.sum() for row in marked], y, rtol=1e-6)
    np.testing.assert_allclose(np.mean((np.asarray(y) - 1) ** 2), 1 / 6, rtol=0.06)
    x, y = tasks.reversal(jax.random.key(2), 3, 5)
    np.testing.assert_array_equal(np.flip(x, 1), y)
    x, y = tasks.sorting(jax.random.key(3), 3, 5)
    np.testing.assert_array_equal(np.sort(x, 1), y)
    for question, answer in tasks.additions(jax.random.key(4), 20, 2):
        assert (len(question), len(answer)) == (5, 3)
        assert sum(map(int, question.split("+"))) == int(answer)
