"""CIFAR-10: 60,000 pictures of 32 x 32 pixels in ten classes (Krizhevsky 2009).

Three forms of the set are read from ``cifar10/`` in the data folder: the *binary* files of its makers
(``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, there or in
``cifar-10-batches-bin/``), a tree of pictures ``train|test/class/name.jpg``, or a tar archive of such a tree
or of the binary files. Pickled files are not read: unpickling runs code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from purenets.data.arrays import data_folder
from purenets.data.images import cached, in_archive, read_pictures

__all__ = ["CIFAR10_CLASSES", "cifar10", "read_cifar_batch"]

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""The names of the labels 0 to 9."""
_BATCHES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
_RECORD = 1 + 3 * 32 * 32


def cifar10(
    part: Literal["train", "test"] = "train",
    folder: str | Path | None = None,
    *,
    dtype: Any = jnp.float32,
) -> tuple[Array, Array]:
    """CIFAR-10 from ``cifar10/`` in the data folder, in any of the forms above.

    Args:
        part: ``"train"``, 50,000 pictures, or ``"test"``, 10,000.
        folder: the data folder; see :func:`purenets.data.data_folder`.
        dtype: floating point for values in [0, 1], or uint8 for 0 to 255, a quarter of the memory, which a
            step can cast as it needs them.

    Returns:
        Pictures ``[n, 32, 32, 3]``, and labels int32 ``[n]``, indices into :data:`CIFAR10_CLASSES`.

    Raises:
        FileNotFoundError: no form of the set is there; the message says which are looked for, and where.
        ImportError: the set is of pictures, and Pillow is not installed.
        ValueError: a file is damaged or incomplete; there is no such part or dtype.
    """
    if part not in _BATCHES:
        raise ValueError(f"cifar10 has the parts 'train' and 'test', got {part!r}")
    scaled = jnp.issubdtype(dtype, jnp.floating)
    if not scaled and dtype != jnp.uint8:
        raise ValueError(f"cifar10 comes as floating point or uint8, not as {jnp.dtype(dtype).name}")
    images, labels = _found(data_folder(folder) / "cifar10", part)
    if images.shape[1:] != (32, 32, 3):
        raise ValueError(f"cifar10 needs pictures of 32 x 32 pixels, got {list(images.shape[1:])}")
    pixels = jnp.asarray(images)
    return pixels.astype(dtype) / 255 if scaled else pixels, jnp.asarray(labels, jnp.int32)


def _found(home: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    for place in (home, home / "cifar-10-batches-bin"):
        paths = [place / name for name in _BATCHES[part]]
        if all(path.is_file() for path in paths):
            return _joined([read_cifar_batch(path.read_bytes(), str(path)) for path in paths])
    if (home / part).is_dir():
        # A folder's time says nothing of what is deep inside it, so this form is not cached.
        return read_pictures(home, part, CIFAR10_CLASSES)
    archives = sorted(path for path in home.glob("*.tar*") if path.is_file()) + sorted(home.glob("*.tgz"))
    if archives:
        return cached(f"cifar10-{part}", archives[0], lambda: _from_archive(archives[0], part))
    there = ", ".join(sorted(path.name for path in home.iterdir())) if home.is_dir() else "no such folder"
    raise FileNotFoundError(
        f"cifar10 needs {_BATCHES[part][0]} and the like, {part}/airplane/ and the like, or a tar archive of "
        f"either in {home} ({there or 'which is empty'}): put one there, or set PURENETS_DATA to the folder "
        "that holds cifar10/"
    )


def _from_archive(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Of an archive, the binary files if it has them, or else the pictures."""
    wanted = set(_BATCHES[part])
    contents = {name.name: content for name, content in in_archive(path, lambda name: name.name in wanted)}
    if not contents:
        return read_pictures(path, part, CIFAR10_CLASSES)
    if missing := sorted(wanted - set(contents)):
        raise ValueError(f"{path} is incomplete: it lacks {', '.join(missing)}; fetch the file again")
    return _joined([read_cifar_batch(contents[name], f"{name} in {path}") for name in sorted(contents)])


def read_cifar_batch(content: bytes, name: str = "the file") -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 ``[n, 32, 32, 3]`` and labels int32 ``[n]`` of one binary file.

    A record is a byte for the label and 3,072 for the pixels, all red ones first, row by row.

    Raises:
        ValueError: the length is not of whole records, or a label is above 9.
    """
    if not content or len(content) % _RECORD:
        raise ValueError(
            f"{name} should have a multiple of {_RECORD} bytes, one record a picture, it has {len(content)}: "
            "fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int32)
    if labels.max() > 9:
        raise ValueError(f"{name} is no file of CIFAR-10: a record has the label {labels.max()}")
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)
