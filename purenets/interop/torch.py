"""Weights of torch models as params and state, and back, without torch.

A torch model keeps its arrays in a *state dict*, name to tensor, which is also what a safetensors file of it holds.
:func:`from_torch` takes either for a model of ours that is built like it. Names are matched by rules
(:mod:`purenets.interop.torch_names`), and the layout of each array follows from the kind of the layer it belongs to
(:mod:`purenets.interop.torch_layouts`). Reports and errors name an array by the path of our layer and torch's name
within it, ``head/weight``, with shapes as torch has them.

What no array tells has to be the same in both models: the epsilon of a norm (torch's is 1e-5 everywhere),
gelu exact (torch's default) or approximate (that of ``jax.nn.gelu``), and padding: ``"SAME"`` with a stride is not
torch's ``padding=1``. :func:`~purenets.interop.port_check` finds where they differ.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purenets.errors import describe
from purenets.interop.torch_names import Rename, named_apart, paths_of_names, torch_names
from purenets.interop.torch_places import Place, pack, places_of, unpack
from purenets.layer import Layer, Params, State
from purenets.paths import Where, flatten, matching
from purenets.weights import LoadReport, Source, load_weights, stored_weights

__all__ = ["TorchReport", "from_torch", "numpy_of", "to_torch"]

_COUNTER = "num_batches_tracked"
"""Of a batch norm: how many batches it has seen, which only ``momentum=None`` uses."""


@dataclass(frozen=True)
class TorchReport(LoadReport):
    """What became of every array; paths are those of our layers with torch's name of the array."""

    ignored: dict[str, str] = field(default_factory=dict)
    """Name to what it is, of what has no counterpart here: how many batches a batch norm has seen."""
    summed: tuple[str, ...] = ()
    """Recurrent layers, whose two biases became one."""

    def __str__(self) -> str:
        lines = [super().__str__()]
        lines += [f"{name}: {what}, ignored" for name, what in self.ignored.items()]
        return "\n".join([*lines, *(f"{path}: its two biases were added" for path in self.summed)])


def from_torch(
    source: Source,
    model: Layer,
    *,
    like: tuple[Params, State] | None = None,
    rename: Rename | None = None,
    flattened: Mapping[str, Sequence[int]] | None = None,
    tied: Mapping[str, str] | None = None,
    where: Where = "**",
    strict: bool = True,
) -> tuple[Params, State, TorchReport]:
    """Params and state of a model from the state dict of a torch model; all of them or none.

    Args:
        source: a state dict, of tensors or NumPy arrays, or a safetensors file of one, or several.
        model: built like the torch model.
        like: params and state to fill, which give dtypes and devices; by default the model's own, as shapes.
        rename: pattern of torch's names to paths, as in ``{"fc{1,2}": "{up,down}", "old": None}``; see
            :mod:`purenets.interop.torch_names`. By default ``encoder.up`` is ``encoder/up``.
        flattened: pattern of dense layers to the shape that torch flattens ahead of them, ``(channels, height,
            width)``, since torch flattens channels first and we last.
        tied: torch's name of an array that is another one again to the path of that one, ``{"lm_head.weight":
            "embed/weight"}``; it has to be equal and is not loaded twice.
        where: which arrays to load, ``"backbone/**"``; the others stay as in ``like``.
        strict: refuse missing, unexpected and misshapen arrays. Otherwise these stay as in ``like``.

    Raises:
        ImportError: safetensors is not installed and a file is to be read.
        FileNotFoundError: there is no such file.
        ValueError: with ``strict``, anything that is not in place, by paths and shapes; a file is damaged or of
            another format; a rule or pattern matches nothing; a dense layer after a ``flatten`` of convolutions is not
            in ``flattened``; what is ``tied`` differs; or something is not loaded and ``like`` has no value for it.
            Nothing was loaded then.

    >>> import purenets as pn
    >>> arrays = {"fc.weight": np.array([[1.0, 2.0], [3.0, 4.0]], "float32"), "fc.bias": np.zeros(2, "float32")}
    >>> params, state, report = from_torch(arrays, pn.serial(pn.dense(2, 2)), rename={"fc": "dense_1"})
    >>> params["dense_1"]["kernel"].tolist()
    [[1.0, 3.0], [2.0, 4.0]]
    >>> print(report)
    2 loaded, 0 missing, 0 unexpected, 0 reshaped, 0 converted
    """
    if isinstance(source, Mapping):
        source = {name: numpy_of(tensor) for name, tensor in source.items()}
    stored = _stored(source)
    paths = paths_of_names(rename, stored)
    params, state = jax.eval_shape(model.init, jax.random.key(0)) if like is None else like
    tree = {"params": params, "state": state}
    places = places_of(model, tree, {path for path in paths.values() if path}, flattened)
    ignored = {name: stored[name] for name, path in paths.items() if path in _counters(places)}
    wanted = pack(places, flatten(tree))
    again = {str(paths[name]): path for name, path in _known(tied, paths, wanted).items()}
    wanted |= {path: wanted[first] for path, first in again.items()}
    try:
        theirs, report = load_weights(
            source, wanted, rename={**paths, **dict.fromkeys(ignored)}, where=where, strict=strict
        )
    except ValueError as error:
        _note_transposed(error, stored, paths, wanted)
        raise
    for path, first in again.items():
        if not np.array_equal(theirs[path], theirs[first]):
            raise ValueError(f"{path} differs from {first}, which it is tied to, and nothing was loaded")
    flat = flatten(tree)
    filled, _ = load_weights(unpack(places, theirs, flat), tree)
    summed = dict.fromkeys(
        path.rpartition("/")[0] or model.label for path in report.loaded if "/bias_hh" in f"/{path}"
    )
    return (
        filled["params"],
        filled["state"],
        TorchReport(**vars(report), ignored=ignored, summed=tuple(summed)),
    )


def _stored(source: Source) -> dict[str, str]:
    try:
        return stored_weights(source)
    except ValueError as error:
        files = [source] if isinstance(source, (str, Path)) else source
        if any(Path(file).suffix in (".pt", ".pth", ".bin", ".ckpt") for file in files):
            error.add_note(
                "a file of torch.save is read by torch: from_torch(torch.load(file, weights_only=True), ...)"
            )
        raise


def _known(tied: Mapping[str, str] | None, names: Iterable[str], paths: Iterable[str]) -> dict[str, str]:
    for name, path in (tied or {}).items():
        matching(name, names, kind="name")
        matching(path, paths, kind="array")
    return dict(tied or {})


def _counters(places: list[Place]) -> set[str]:
    """Where torch keeps how many batches a batch norm has seen."""
    norms = [place for place in places if place.label.startswith("batch_norm(")]
    return {f"{name}/{_COUNTER}".lstrip("/") for place in norms for name, _ in place.members}


def _note_transposed(
    error: ValueError, stored: Mapping[str, str], paths: Mapping[str, str | None], wanted: Mapping[str, Any]
) -> None:
    for name, there in stored.items():
        want = wanted.get(paths[name] or "")
        if want is None or there.endswith(str(list(want.shape))):
            continue
        if len(want.shape) > 1 and there.endswith(str(list(want.shape[::-1]))):
            error.add_note(f"{name} is turned round: torch has it as {list(want.shape)}, outputs first")


def to_torch(
    model: Layer,
    params: Params,
    state: State | None = None,
    *,
    like: Mapping[str, Any] | None = None,
    rename: Rename | None = None,
    flattened: Mapping[str, Sequence[int]] | None = None,
    tied: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The state dict of the torch model that a model is built like: :func:`from_torch` the other way.

    The sum of a recurrent layer's two biases comes back as ``bias_ih`` beside a ``bias_hh`` of zero, which computes the
    same. Names that a rule leaves out do not come back.

    Args:
        model: the model.
        params: the model's.
        state: the model's, if it has one.
        like: the torch model's own state dict. It gives names, their order and dtypes, and ``num_batches_tracked``, and
            where its values are tensors, tensors come back. Without it the rules are read backwards, arrays are
            NumPy's in the dtype they have, and ``num_batches_tracked`` is 0.
        rename: as of :func:`from_torch`.
        flattened: as of :func:`from_torch`.
        tied: as of :func:`from_torch`.

    Raises:
        ValueError: ``like`` lacks an array, has one more or one of another shape; a rule matches nothing; or, without
            ``like``, two rules lead to one path.

    >>> import purenets as pn
    >>> params = {"kernel": np.array([[1.0, 3.0], [2.0, 4.0]])}
    >>> to_torch(pn.dense(2, 2, bias=False), params)["weight"].tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    tree = {"params": params, "state": state or {}}
    if like is None:
        every = pack(places_of(model, tree, None, flattened), jax.eval_shape(lambda: flatten(tree)))
        places = places_of(model, tree, named_apart(rename, every), flattened)
        arrays = pack(places, flatten(tree)) | dict.fromkeys(sorted(_counters(places)), np.int64(0))
        names = torch_names(rename, arrays)
        again = {name: arrays[path] for name, path in _known(tied, tied or {}, arrays).items()}
        return {
            name: np.array(array)
            for name, array in ({names[path]: a for path, a in arrays.items()} | again).items()
        }
    paths = paths_of_names(rename, like)
    places = places_of(model, tree, {path for path in paths.values() if path}, flattened)
    counters, arrays = _counters(places), pack(places, flatten(tree))
    arrays |= {str(paths[name]): arrays[path] for name, path in _known(tied, paths, arrays).items()}
    kept = {name: path for name, path in paths.items() if path is not None}
    _refuse(arrays, {path: like[name] for name, path in kept.items() if path not in counters})
    return {
        name: like[name] if path in counters else _like(arrays[path], like[name])
        for name, path in kept.items()
    }


def _refuse(arrays: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    lines = [
        f"{path}: {describe(array)}, not in like" for path, array in arrays.items() if path not in wanted
    ]
    for path, want in wanted.items():
        shape = tuple(want.shape)
        if path not in arrays:
            lines.append(f"{path}: {list(shape)} in like, which the model has not")
        elif arrays[path].shape != shape:
            lines.append(f"{path}: {describe(arrays[path])}, {list(shape)} in like")
    if lines:
        raise ValueError("the weights do not fit the torch model:\n" + "\n".join(lines[:40]))


def numpy_of(tensor: Any) -> np.ndarray:
    """A tensor of torch, or anything that NumPy takes, as an array; memory is shared where it can be."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        torch = sys.modules["torch"]
        return np.asarray(tensor.view(torch.int16).numpy()).view(jax.numpy.bfloat16)
    return np.asarray(tensor.numpy())


def _like(array: np.ndarray, tensor: Any) -> Any:
    """In the dtype of the other, and a tensor where that is one."""
    if not hasattr(tensor, "detach"):
        return np.array(array, tensor.dtype)
    torch = sys.modules["torch"]
    # Through float32, since NumPy's bfloat16 is not torch's.
    plain = np.array(array, np.float32 if array.dtype == jax.numpy.bfloat16 else None)
    return torch.from_numpy(plain).to(tensor.dtype)
