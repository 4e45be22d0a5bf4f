"""Which layer of a ported model is the first to give something else than in the framework it comes from, and why.

The *reference* is what the other framework's modules gave out for the same input, by name. It is compared with what
our layers give out, in the order in which they run. At the first that differs, known mistakes of porting are tried one
after another (:mod:`purenets.interop.port_causes`), and those that make it agree are the likely causes.

Outputs may have their channels first or last, heads apart or side by side, and features of a flatten in either order:
they are compared as they are closest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from purenets.inspect.table import text_table
from purenets.interop.observed import Observation, observe
from purenets.interop.port_causes import Candidate, candidates
from purenets.interop.torch import numpy_of
from purenets.interop.torch_names import Rename, paths_of_outputs
from purenets.interop.torch_places import core
from purenets.layer import Layer, Params, State

__all__ = ["LayerCheck", "PortCheck", "port_check"]


_ROUNDING = 1.2e-7
"""Of float32."""


@dataclass(frozen=True)
class LayerCheck:
    """One layer beside the reference."""

    path: str
    """With the number of the member under ``repeat``; ``""`` is the model."""
    name: str
    """In the reference."""
    label: str
    shape: tuple[int, ...]
    reference_shape: tuple[int, ...]
    difference: float
    """The largest, infinite where shapes do not fit or one has a NaN."""
    relative: float
    """That, divided by the largest magnitude of the reference."""
    agrees: bool


@dataclass(frozen=True)
class PortCheck:
    """What :func:`port_check` found; ``str`` makes a report of it."""

    layers: tuple[LayerCheck, ...]
    """In the order in which they ran."""
    causes: tuple[str, ...]
    """What would make the first that differs agree."""
    tried: int
    """How many causes were tried."""
    unmatched: tuple[str, ...]
    """Names in the reference that no layer has."""

    @property
    def first(self) -> LayerCheck | None:
        """The first that differs."""
        return next((layer for layer in self.layers if not layer.agrees), None)

    def __str__(self) -> str:
        rows = [
            (
                one.path or "(the model)",
                one.label,
                str(list(one.shape)),
                str(list(one.reference_shape)),
                f"{one.difference:.3g}",
                f"{one.relative:.3g}",
                "" if one.agrees else "differs",
            )
            for one in self.layers
        ]
        columns = ("layer", "kind", "output", "reference", "difference", "relative", "")
        table = text_table(columns, rows, right=("difference", "relative"))
        lines = [table, *([f"no layer for: {', '.join(self.unmatched)}"] if self.unmatched else [])]
        if self.first is None:
            return "\n".join([*lines, f"all {len(self.layers)} agree"])
        lines.append(f"the first that differs is {self.first.path or 'the model'}, {self.first.label}")
        found = [f"likely: {cause}" for cause in self.causes]
        return "\n".join([*lines, *(found or [f"none of {self.tried} known causes makes it agree"])])


def port_check(
    model: Layer,
    params: Params,
    state: State,
    reference: Mapping[str, Any] | Callable[..., Mapping[str, Any]],
    *inputs: Any,
    rename: Rename | None = None,
    tolerance: float = 1e-5,
    **side: Any,
) -> PortCheck:
    """Compare the outputs of a model's layers with those of the model it was ported from, in evaluation.

    Args:
        model: ours.
        params: the ported params.
        state: the ported state.
        reference: name of a module to its output, as :func:`~purenets.interop.torch_outputs` captures them, or a
            function of the inputs that gives that. The more modules, the nearer to the mistake; ``""`` is the whole
            model.
        inputs: a small batch, as our model takes it; the reference has to be of the same.
        rename: pattern of the reference's names to paths, as of :func:`~purenets.interop.from_torch`; rules that match
            none of them are passed over.
        tolerance: the largest difference that is rounding, as a share of the largest magnitude in a reference output.
            In float32 a layer gives about 1e-7, and what comes before adds up to 1e-6 in a deep network.
        side: side inputs.

    Raises:
        ValueError: no name of the reference is that of a layer.

    >>> import purenets as pn
    >>> model = pn.serial(up=pn.dense(2, 2, bias=False))
    >>> params = {"up": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}}
    >>> x = np.ones((1, 2), "float32")
    >>> print(port_check(model, params, {}, {"up": x @ np.array([[1.0, 3.0], [2.0, 4.0]])}, x).causes)
    ('its kernel is transposed',)
    """
    given = reference(*inputs) if callable(reference) else reference
    theirs = {name: _wide(numpy_of(output)) for name, output in given.items()}
    seen = observe(model, params, state, *map(jnp.asarray, inputs), **side)
    ours = {one.name: one for one in seen}
    names = {path: name for name, path in paths_of_outputs(rename, theirs).items() if path in ours}
    if not names:
        raise ValueError(
            f"no name of the reference is that of a layer: give rename={{old pattern: path}}; "
            f"the reference has {list(theirs)[:20]}, the layers are {list(ours)[:20]}"
        )
    compared = [one for one in seen if one.name in names and hasattr(one.output, "shape")]
    layers = [_check(one, names[one.name], theirs[names[one.name]], tolerance) for one in compared]
    wrong = next((i for i, check in enumerate(layers) if not check.agrees), None)
    causes, tried = (
        ([], 0) if wrong is None else _causes(compared[wrong], seen, theirs[layers[wrong].name], tolerance)
    )
    unmatched = tuple(name for name in theirs if name not in names.values())
    return PortCheck(tuple(layers), tuple(causes), tried, unmatched)


def _check(one: Observation, name: str, theirs: np.ndarray, tolerance: float) -> LayerCheck:
    difference, scale = _difference(one, _wide(one.output), theirs)
    relative = difference / scale if scale else (np.inf if difference else 0.0)
    return LayerCheck(
        one.name,
        name,
        core(one.layer).label,
        tuple(np.shape(one.output)),
        tuple(theirs.shape),
        difference,
        float(relative),
        bool(relative <= tolerance),
    )


def _difference(one: Observation, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The largest difference, as the axes fit best, and the largest magnitude of the reference."""
    aligned = _aligned(one, ours, theirs)
    difference = np.inf if aligned is None else np.max(np.abs(ours - aligned), initial=0)
    size = float(np.max(np.abs(theirs), initial=0))
    return float(difference if np.isfinite(difference) else np.inf), size


def _aligned(one: Observation, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray | None:
    """The reference with its axes as they are closest to ours; ``None`` if they do not fit."""
    views = list(_views(one, ours.shape, theirs))
    return min(views, key=lambda view: np.max(np.abs(ours - view), initial=0), default=None)


def _views(one: Observation, shape: tuple[int, ...], theirs: np.ndarray) -> Iterator[np.ndarray]:
    """The reference with its axes as ours may stand."""
    if theirs.shape == shape:
        yield theirs
    if theirs.ndim > 2 and (last := np.moveaxis(theirs, 1, -1)).shape == shape:
        yield last
    kind = core(one.layer).label.split("(")[0]
    if kind == "to_heads" and theirs.size == np.prod(shape):
        yield theirs.reshape(shape)
    if kind == "flatten" and theirs.shape == shape and np.ndim(one.inputs[0]) > 2:
        batch, *space, channels = np.shape(one.inputs[0])
        yield np.moveaxis(theirs.reshape(batch, channels, *space), 1, -1).reshape(shape)


def _causes(
    one: Observation, before: Sequence[Observation], theirs: np.ndarray, tolerance: float
) -> tuple[list[str], int]:
    flattened = [
        tuple(np.shape(other.inputs[0])[1:])
        for other in before
        if core(other.layer).label == "flatten" and np.ndim(other.inputs[0]) > 2
    ]
    agreeing: list[tuple[float, str]] = []
    tried = 0
    for candidate in candidates(one, flattened):
        tried += 1
        output = _computed(candidate)
        difference, size = (np.inf, 0.0) if output is None else _difference(one, output, theirs)
        if difference <= tolerance * size:
            agreeing.append((max(difference, size * _ROUNDING), candidate.says))
    # Of several epsilons that are all within the tolerance, one is nearest.
    best = min(agreeing, default=(0.0, ""))[0]
    nearest = [says for difference, says in sorted(agreeing) if difference <= 8 * best]
    return [*_of_outputs(one, theirs, tolerance), *nearest], tried


def _computed(candidate: Candidate) -> np.ndarray | None:
    """Its output; ``None`` where the layer so changed cannot take its input."""
    try:
        return _wide(candidate.compute())
    except (TypeError, ValueError):
        return None


def _wide(x: Any) -> np.ndarray:
    return np.asarray(x).astype(np.float64)


def _of_outputs(one: Observation, theirs: np.ndarray, tolerance: float) -> Iterator[str]:
    """What the two outputs tell by themselves."""
    ours, slack = _wide(one.output), tolerance * np.max(np.abs(theirs), initial=0)

    def close(a: np.ndarray, b: np.ndarray) -> bool:
        return a.shape == b.shape and bool(np.max(np.abs(a - b), initial=0) <= slack)

    if ours.ndim > 2 and theirs.ndim > 2 and close(ours, theirs.swapaxes(0, 1)):
        yield "the reference has time ahead of the batch: [time, batch, features]"
    aligned = _aligned(one, ours, theirs)
    if aligned is None or not ours.any():
        return
    factor = float(np.vdot(ours, aligned) / np.vdot(ours, ours))
    if close(factor * ours, aligned):
        yield f"the reference is {factor:.6g} times ours"
    if ours.ndim > 1 and ours[..., 0].size > 1:
        offset = (aligned - ours).mean(tuple(range(ours.ndim - 1)))
        if close(ours + offset, aligned):
            yield "the reference adds a constant to each feature: a bias is missing here"
    kept = (aligned != 0) & (ours != 0)
    if kept.any() and not kept[ours != 0].all():
        scaled = ours * (aligned[kept] / ours[kept]).mean()
        if close(np.where(aligned == 0, 0, scaled), aligned):
            yield "the reference ran in training mode: dropout was active"
