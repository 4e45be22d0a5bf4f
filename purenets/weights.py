"""Weights as safetensors files: every array by its path, read and written by other libraries too.

Loading is *strict* (every leaf is found, nothing is left over) or *partial* (what fits is loaded and the rest stays as
it was). Either way a :class:`LoadReport` tells the leaves that are

- *missing*: wanted and not in the file,
- *unexpected*: in the file and not wanted,
- *reshaped*: in both, in different shapes,
- *converted*: loaded, in another dtype than they were saved in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from purenets.errors import describe
from purenets.paths import Where, leaf_paths, matching
from purenets.rename import rename_all

__all__ = ["LoadReport", "load_weights", "save_weights", "stored_weights"]

Source: TypeAlias = str | Path | Sequence[str | Path] | Mapping[str, Any]
"""A file, the files of one model together, or arrays by name."""

_DTYPES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "C64": "complex64",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
"""The format's name of a dtype to ours; narrower floats cannot be read into NumPy."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every leaf. Shapes and dtypes stand as ``float32[3, 16]``."""

    loaded: dict[str, str]
    """Path to the name in the file."""
    missing: dict[str, str]
    """Path to what was wanted."""
    unexpected: dict[str, str]
    """Name in the file to what it is."""
    reshaped: dict[str, tuple[str, str]]
    """Path to what is in the file and what was wanted."""
    converted: dict[str, tuple[str, str]]
    """Path to what is in the file and what it was loaded as."""

    def problems(self) -> list[str]:
        """A line for every leaf that was not loaded as it is, the gravest first."""
        lines = [
            f"{path}: {there} in the file, {want} wanted" for path, (there, want) in self.reshaped.items()
        ]
        lines += [f"{path}: {want} wanted, missing" for path, want in self.missing.items()]
        return lines + [f"{name}: {there} in the file, unexpected" for name, there in self.unexpected.items()]

    def __str__(self) -> str:
        counts = ", ".join(
            f"{len(getattr(self, name))} {name}"
            for name in ("loaded", "missing", "unexpected", "reshaped", "converted")
        )
        casts = [f"{path}: {there} as {want}" for path, (there, want) in self.converted.items()]
        return "\n".join([counts, *self.problems(), *casts])


class _Entry(NamedTuple):
    """An array that can be read, before it is."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def save_weights(file: str | Path, tree: Any, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write every leaf of a tree by its path; whole or not at all.

    Args:
        file: where to; an earlier file is replaced once the new one is on disk.
        tree: params, state or any pytree of arrays.
        metadata: text to put in the file's header.

    Raises:
        ImportError: safetensors is not installed.
        TypeError: a leaf is no array of numbers, such as a key.
        OSError: it cannot be written; an earlier file is untouched.
    """
    _safetensors()
    from safetensors.numpy import save_file

    leaves = zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    arrays = {path: _numbers(path, leaf) for path, leaf in leaves}
    file = Path(file)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        save_file(arrays, part, metadata=None if metadata is None else dict(metadata))
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if type(error).__name__ == "SafetensorError":
            raise OSError(f"{file} could not be written: {error}") from error
        raise


def stored_weights(source: Source) -> dict[str, str]:
    """What files hold: name to dtype and shape, as ``float32[3, 16]``; no array is read.

    Raises:
        ImportError: safetensors is not installed and a file is to be read.
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, or two files hold the same name.

    >>> stored_weights({"fc.weight": np.ones((3, 2))})
    {'fc.weight': 'float64[3, 2]'}
    """
    with ExitStack() as stack:
        return {name: str(entry) for name, entry in _entries(source, stack).items()}


def load_weights(
    source: Source,
    like: Any,
    *,
    rename: Mapping[str, str | None] | None = None,
    where: Where = "**",
    strict: bool = True,
) -> tuple[Any, LoadReport]:
    """The tree with its leaves from safetensors files, and a report.

    Args:
        source: a file, several files that hold one model together, or arrays by name.
        like: the tree to fill, of arrays or ``jax.ShapeDtypeStruct``: it gives shapes, dtypes and devices.
        rename: pattern of names in the file to paths, as of :func:`~purenets.rename.rename_all`; ``None``
            leaves names out.
        where: which leaves to load; the others stay, and what the file has for them is passed over.
        strict: refuse missing, unexpected and reshaped leaves. Otherwise these stay as they are in ``like``.

    Returns:
        The filled tree and a :class:`LoadReport`. ``like`` is not changed.

    Raises:
        ImportError: safetensors is not installed and a file is to be read.
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, two files hold the same name, a rule or pattern matches nothing, a leaf
            would change its kind (integers for reals), nothing fits at all, or a leaf of ``like`` that is to stay
            is only a shape; with ``strict``, anything that is not in place, by paths and shapes. Nothing was
            loaded then.

    >>> import purenets as pn
    >>> params, _ = pn.dense(2, 3).init(jax.random.key(0))
    >>> arrays = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(4)}
    >>> filled, report = load_weights(arrays, params, rename={"fc.{weight,bias}": "{kernel,bias}"}, strict=False)
    >>> print(report)
    1 loaded, 0 missing, 0 unexpected, 1 reshaped, 1 converted
    bias: float64[4] in the file, float32[3] wanted
    kernel: float64[2, 3] as float32[2, 3]
    """
    paths, leaves = leaf_paths(like), jax.tree.leaves(like)
    wanted = dict(zip(paths, leaves, strict=True))
    chosen = matching(where, paths)
    with ExitStack() as stack:
        entries = _entries(source, stack)
        names = rename_all(rename or {}, entries)
        found = {path: name for name, path in names.items() if path is not None}
        report = _compare(found, entries, {path: wanted[path] for path in chosen}, set(paths))
        _refuse(report, strict, wanted)
        filled = {path: _placed(entries[name].read(), wanted[path]) for path, name in report.loaded.items()}
    return jax.tree.unflatten(jax.tree.structure(like), [filled.get(p, wanted[p]) for p in paths]), report


def _compare(
    found: dict[str, str], entries: dict[str, _Entry], wanted: dict[str, Any], known: set[str]
) -> LoadReport:
    fits = {
        path: found[path]
        for path, leaf in wanted.items()
        if path in found and entries[found[path]].shape == jnp.shape(leaf)
    }
    both = {
        path: (str(entries[found[path]]), describe(leaf)) for path, leaf in wanted.items() if path in found
    }
    return LoadReport(
        loaded=fits,
        missing={path: describe(leaf) for path, leaf in wanted.items() if path not in found},
        unexpected={name: str(entries[name]) for path, name in found.items() if path not in known},
        reshaped={path: pair for path, pair in both.items() if path not in fits},
        converted={path: pair for path, pair in both.items() if path in fits and pair[0] != pair[1]},
    )


def _refuse(report: LoadReport, strict: bool, wanted: dict[str, Any]) -> None:
    problems = report.problems()
    if strict and problems:
        listed = "\n".join(problems[:40]) + (f"\n… ({len(problems)} in all)" if len(problems) > 40 else "")
        error = ValueError(f"the weights do not fit, and nothing was loaded:\n{listed}")
        if report.missing and report.unexpected:
            error.add_note("where only names differ, give rename={old pattern: new path}")
        error.add_note("strict=False loads what fits")
        raise error
    if not report.loaded:
        raise ValueError(
            f"no leaf fits, and nothing was loaded; the file has {', '.join(report.unexpected) or 'nothing'}"
        )
    for path, (there, want) in report.converted.items():
        if not _same_kind(there.partition("[")[0], want.partition("[")[0]):
            raise ValueError(f"{path} is {there} in the file and {want} is wanted: the kinds differ")
    for path in (*report.missing, *report.reshaped):
        if isinstance(wanted[path], jax.ShapeDtypeStruct):
            raise ValueError(
                f"{path} is not loaded and has no value to keep: give initialised params as like"
            )


def _same_kind(there: str, want: str) -> bool:
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer, jnp.bool_)
    known = there in _DTYPES.values()
    return known and any(jnp.issubdtype(there, kind) and jnp.issubdtype(want, kind) for kind in kinds)


def _placed(array: np.ndarray, leaf: Any) -> jax.Array:
    array = array.astype(leaf.dtype)
    # An array that may be anywhere stays so: committed to one device it could not be mixed with sharded ones.
    free = isinstance(leaf, jax.Array) and not leaf.committed
    sharding = None if free else getattr(leaf, "sharding", None)
    # Not by jnp.asarray, which compiles a program for every shape.
    return jax.device_put(array, sharding)


def _numbers(path: str, leaf: Any) -> np.ndarray:
    if jnp.issubdtype(getattr(leaf, "dtype", np.dtype(object)), jax.dtypes.extended):
        raise TypeError(f"{path} is a random key: save params or state, or a whole training by Checkpoints")
    # Rows in order: the format has no strides, and safetensors writes the buffer as it lies.
    array = np.asarray(leaf, order="C")
    if str(array.dtype) not in _DTYPES.values():
        raise TypeError(f"{path} is {describe(leaf)}, which a safetensors file cannot hold")
    return array


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise ImportError("weights in files need safetensors: pip install safetensors") from error
    return safetensors


def _entries(source: Source, stack: ExitStack) -> dict[str, _Entry]:
    """All arrays of a source by name, none of them read yet."""
    if isinstance(source, Mapping):
        return {name: _Entry(np.shape(a), str(a.dtype), partial(np.asarray, a)) for name, a in source.items()}
    entries: dict[str, _Entry] = {}
    for file in [source] if isinstance(source, (str, Path)) else source:
        for name, entry in _of_file(Path(file), stack).items():
            if name in entries:
                raise ValueError(f"{name} stands in more than one of the files, again in {file}")
            entries[name] = entry
    return entries


def _of_file(file: Path, stack: ExitStack) -> dict[str, _Entry]:
    safetensors = _safetensors()
    try:
        opened = stack.enter_context(safetensors.safe_open(file, framework="numpy"))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors file: {error}") from error
    out = {}
    for name in opened.keys():  # noqa: SIM118  (it is no mapping)
        header = opened.get_slice(name)
        out[name] = _Entry(
            tuple(header.get_shape()),
            _DTYPES.get(header.get_dtype(), header.get_dtype()),
            partial(opened.get_tensor, name),
        )
    return out
