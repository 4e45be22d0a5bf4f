"""Readers of folders and archives of small pictures: from files to one uint8 array.

A set of pictures is a tree ``part/class/picture.jpg``, as a folder or in a tar archive, zipped or not. All
pictures have one size. They are decoded once, by Pillow, and kept as an array in the user's cache folder,
under a name made of the file's path, size and time, so that a file that changes is decoded anew.

A folder that does not fit in memory is a :class:`PictureFolder`, whose pictures are decoded as they are asked for.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile

import numpy as np

__all__ = ["PictureFolder", "cache_folder", "cached", "in_archive", "read_pictures"]

_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp"}


def cache_folder() -> Path:
    """Where decoded pictures are kept: ``purenets`` in ``$XDG_CACHE_HOME``, or else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "purenets"


def read_pictures(source: str | Path, part: str, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of one part, those of the first class first, each class in the order of its file names.

    Args:
        source: a folder or a tar archive that holds ``part/class/*.jpg`` (or png, bmp), at any depth.
        part: ``"train"`` or the like.
        classes: the names of the folders of the classes; a label is an index into them.

    Returns:
        Pictures uint8 ``[n, height, width, 3]`` and labels int32 ``[n]``.

    Raises:
        FileNotFoundError: there is no such source.
        ImportError: Pillow is not installed.
        ValueError: the archive or a picture is damaged or incomplete, a class has no pictures or fewer than
            another, or the pictures differ in size. The message names the file.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}")
    labels = {name: label for label, name in enumerate(classes)}

    def wanted(path: PurePosixPath) -> bool:
        place = len(path.parts) >= 3 and path.parts[-3] == part and path.parts[-2] in labels
        return place and path.suffix.lower() in _ENDINGS

    found: list[tuple[int, str, np.ndarray]] = []
    for path, content in _in_folder(source, wanted) if source.is_dir() else in_archive(source, wanted):
        label = labels[path.parts[-2]]
        found.append((label, path.name, _decoded(content, f"{path} in {source}")))
    _check_counts(source, part, classes, [label for label, _, _ in found])
    found.sort(key=lambda entry: entry[:2])
    size = found[0][2].shape
    for _, name, picture in found:
        if picture.shape != size:
            shapes = f"{list(size)} and {list(picture.shape)}"
            raise ValueError(f"the pictures in {source} need one size, got {shapes} ({name})")
    return np.stack([picture for _, _, picture in found]), np.array([entry[0] for entry in found], np.int32)


class PictureFolder:
    """A tree ``class/picture.jpg`` (or png, bmp) as a source of examples, for :func:`~purenets.data.stream`.

    Example i is a picture uint8 ``[height, width, 3]`` and its label, int32, an index into ``classes``; those of the
    first class come first, each class in the order of its file names. Nothing is decoded before it is asked for.

    Args:
        folder: the folder that holds those of the classes.
        classes: their names; all folders there in alphabetical order by default.

    Raises:
        FileNotFoundError: there is no such folder.
        ImportError: (when asked for a picture) Pillow is not installed.
        ValueError: there are no pictures; or (when asked for it) a picture is damaged. The message names the file.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        found = sorted(path.name for path in self.folder.iterdir() if path.is_dir())
        self.classes = tuple(found if classes is None else classes)
        self._names = [
            (name, label)
            for label, kind in enumerate(self.classes)
            for name in sorted(path.name for path in (self.folder / kind).glob("*"))
            if PurePosixPath(name).suffix.lower() in _ENDINGS
        ]
        if not self._names:
            raise ValueError(f"{folder} holds no pictures called class/name.jpg of {', '.join(self.classes)}")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        name, label = self._names[index]
        path = self.folder / self.classes[label] / name
        return _decoded(path.read_bytes(), str(path)), np.int32(label)


def _in_folder(
    source: Path, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    for path in source.rglob("*"):
        name = PurePosixPath(path.relative_to(source).as_posix())
        if path.is_file() and wanted(name):
            yield name, path.read_bytes()


def in_archive(
    source: Path, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Name and bytes of the wanted files of a tar archive, zipped or not, read once from front to back.

    Raises:
        ValueError: the archive is damaged or incomplete.
    """
    try:
        with tarfile.open(source, "r:*") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                file = archive.extractfile(member) if member.isfile() and wanted(name) else None
                if file is not None:
                    yield name, file.read()
            _check_end(archive)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(
            f"{source} is damaged or incomplete, it cannot be read as a tar archive ({error}): "
            "fetch the file again"
        ) from error


def _check_end(archive: tarfile.TarFile) -> None:
    """That the archive ends where it ought to: ``tarfile`` takes any damage behind the first file for its end.

    Reading on to the end of a zipped file is what compares its checksum.
    """
    rest: Any = archive.fileobj
    rest.seek(archive.offset)
    if rest.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it breaks off after {archive.offset} bytes")
    while rest.read(2**20):
        pass


def _decoded(content: bytes, name: str) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        error.add_note("pictures are decoded by Pillow: pip install purenets[experiments]")
        raise
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{name} is damaged or no picture: {error}") from error


def _check_counts(source: Path, part: str, classes: Sequence[str], labels: list[int]) -> None:
    counts = np.bincount(np.array(labels, int), minlength=len(classes))
    if not labels:
        raise ValueError(f"{source} holds no pictures called {part}/class/name.jpg of {', '.join(classes)}")
    if counts.min() != counts.max():
        each = ", ".join(f"{name} {count}" for name, count in zip(classes, counts, strict=True))
        raise ValueError(
            f"{source} needs as many pictures of each class in {part}, it has {each}: it may be incomplete, "
            "fetch it again"
        )


def cached(
    name: str, source: Path, read: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """What ``read`` gives, from the cache folder if it was read before from the source as it is now.

    A folder that cannot be written is no error: then there is no cache.
    """
    status = source.stat()
    stamp = f"{source.resolve()} {status.st_size} {status.st_mtime_ns}"
    path = cache_folder() / f"{name}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.npz"
    # A file that is not there, or not whole, is as good as none.
    with suppress(OSError, ValueError, EOFError, KeyError, BadZipFile), np.load(path) as arrays:
        return arrays["images"], arrays["labels"]
    images, labels = read()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, images=images, labels=labels)
    return images, labels


def _write(path: Path, **arrays: Any) -> None:
    """As a whole or not at all, so that an interrupted run leaves no half of a cache."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        try:
            np.savez(file, **arrays)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
