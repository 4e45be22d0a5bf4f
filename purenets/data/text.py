"""Text as tokens: characters or bytes, windows of a long text, and texts that are at hand.

A *tokeniser* turns a text into ids, int32, and back. A *window* is a stretch of a long text, with the token after
each of its tokens as target.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from purenets.data.arrays import data_folder
from purenets.errors import describe
from purenets.layer import Key

__all__ = [
    "Bytes",
    "Characters",
    "default_text",
    "draw_windows",
    "split_text",
    "tinyshakespeare",
    "tracks",
    "windows",
]


@dataclass(frozen=True)
class Characters:
    """Each character is a token, numbered by its place in ``alphabet``.

    >>> letters = Characters.of("hello")
    >>> letters.alphabet, letters.encode("hole").tolist(), letters.decode([2, 3])
    ('ehlo', [1, 3, 2, 0], 'lo')
    """

    alphabet: str

    @classmethod
    def of(cls, text: str) -> Characters:
        """The tokeniser of all characters of a text, in the order of their code points."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> np.ndarray:
        """The ids, int32 ``[length]``.

        Raises:
            ValueError: a character is not in the alphabet; the message names it and where it is.
        """
        places = {character: i for i, character in enumerate(self.alphabet)}
        try:
            return np.array([places[character] for character in text], np.int32)
        except KeyError as error:
            unknown = error.args[0]
            raise ValueError(
                f"character {unknown!r} at {text.index(unknown)} is not one of the {len(self)} of the alphabet"
            ) from None

    def decode(self, ids: Any) -> str:
        """The text of ids ``[length]``.

        Raises:
            ValueError: an id is not one of the alphabet.
        """
        return "".join(self.alphabet[i] for i in _checked(ids, len(self)))

    def save(self, path: str | Path) -> None:
        """Write the alphabet as JSON."""
        Path(path).write_text(json.dumps({"alphabet": self.alphabet}))

    @classmethod
    def load(cls, path: str | Path) -> Characters:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            found = json.loads(Path(path).read_text())
            return cls(str(found["alphabet"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold an alphabet as Characters.save writes it") from error


@dataclass(frozen=True)
class Bytes:
    """Each byte of the text in UTF-8 is a token, so that every text has ids: 256 of them.

    >>> Bytes().decode(Bytes().encode("né"))
    'né'
    """

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> np.ndarray:
        """The ids, int32 ``[bytes]``."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, ids: Any) -> str:
        """The text of ids ``[bytes]``; what is no UTF-8 shows as a replacement sign.

        Raises:
            ValueError: an id is not a byte.
        """
        return bytes(_checked(ids, 256)).decode(errors="replace")


def _checked(ids: Any, size: int) -> list[int]:
    array = np.asarray(ids)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"decode needs integer ids [length], got {describe(array)}")
    if array.size and not 0 <= array.min() <= array.max() < size:
        raise ValueError(f"ids go from 0 to {size - 1}, got {array.min()} to {array.max()}")
    return [int(i) for i in array]


def windows(ids: Any, length: int, stride: int | None = None) -> tuple[Array, Array]:
    """All windows of a text: inputs and targets, both int32 ``[windows, length]``.

    Args:
        ids: the text ``[n]``.
        length: tokens in a window.
        stride: from the start of one to that of the next, ``length`` by default, so that none overlap.

    Raises:
        ValueError: the text is shorter than a window and its last target.

    >>> windows(jnp.arange(7), 3)[1].tolist()
    [[1, 2, 3], [4, 5, 6]]
    """
    array = np.asarray(ids, np.int32)
    step = length if stride is None else stride
    if array.ndim != 1 or length < 1 or step < 1 or len(array) <= length:
        raise ValueError(
            f"windows of {length} need a text [n] of more tokens than that, got {describe(array)}"
        )
    starts = np.arange(0, len(array) - length, step)
    places = starts[:, None] + np.arange(length)
    return jnp.asarray(array[places]), jnp.asarray(array[places + 1])


def draw_windows(key: Key, ids: Array, batch: int, length: int) -> tuple[Array, Array]:
    """Windows from anywhere, ``[batch, length]``, uniformly and with replacement; traced or not.

    Raises:
        ValueError: the text is shorter than a window and its last target.
    """
    if len(ids) <= length:
        raise ValueError(f"windows of {length} need a text of more tokens than that, got {describe(ids)}")
    starts = jax.random.randint(key, (batch, 1), 0, len(ids) - length)
    places = starts + jnp.arange(length)
    return ids[places], ids[places + 1]


def tracks(ids: Any, batch: int, length: int) -> tuple[Array, Array]:
    """A text cut into ``batch`` tracks that are read side by side: inputs and targets ``[windows, batch, length]``.

    Each window goes on where the one before it ended, so that a stream over the windows reads every track from
    its start to its end: truncated backpropagation through time (Williams & Peng 1990). What is left over at
    the end of the text is not used.

    Raises:
        ValueError: the text is shorter than one window of all tracks and its last target.

    >>> tracks(jnp.arange(9), 2, 2)[0].tolist()
    [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    """
    array = np.asarray(ids, np.int32)
    count = (len(array) - 1) // (batch * length) if array.ndim == 1 and batch > 0 and length > 0 else 0
    if not count:
        raise ValueError(
            f"{batch} tracks of windows of {length} need a text [n] of more tokens than that, "
            f"got {describe(array)}"
        )
    whole = count * batch * length

    def cut(x: np.ndarray) -> Array:
        return jnp.asarray(x.reshape(batch, count, length).swapaxes(0, 1))

    return cut(array[:whole]), cut(array[1 : whole + 1])


def split_text(ids: np.ndarray, held_out: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """The first part of a text, and the last, which is held out."""
    cut = round(len(ids) * (1 - held_out))
    return ids[:cut], ids[cut:]


def tinyshakespeare(folder: str | Path | None = None) -> str:
    """A million characters of Shakespeare's plays, from ``tinyshakespeare/input.txt`` in the data folder.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = data_folder(folder) / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"tinyshakespeare needs the file {path}: put it there, or set PURENETS_DATA to the folder that holds "
            "tinyshakespeare/"
        )
    return path.read_text()


def default_text() -> str:
    """English prose that is at hand offline: the descriptions of data sets that come with scikit-learn.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    folder = resources.files("sklearn.datasets.descr")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".rst"))
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
