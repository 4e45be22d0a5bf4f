"""Where a step first went wrong: the first value that is not finite, by stage and path.

The *stages* of a step are what goes in, each layer's output in the order they are computed, the loss, the new state,
the gradients from the loss backwards, and what the optimizer makes of them. They are looked at one after another, by
running the step in pieces; so this is for a step that is known to fail, which ``guard.py`` finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.errors import describe
from purenets.layer import Key, Layer, Params, State
from purenets.lift import wrapper
from purenets.paths import merge, path_of
from purenets.surgery import edit, layer_paths, tap, taps, untapped
from purenets.train.objective import Objective, Supervised
from purenets.train.step import Step, TrainState, _divide, _micro_batches

__all__ = ["NonFinite", "locate_nonfinite"]

Values = Iterator[tuple[str, str, np.ndarray]]
"""Stage, path and value, in the order they are computed."""


@dataclass(frozen=True)
class NonFinite:
    """The first value that is not finite in one step."""

    step: int
    """The number of the step, 0 for the first of the training."""
    stage: str
    """``batch``, ``params``, ``output of``, ``loss``, ``new state``, ``gradient``, ``optimizer state`` or
    ``new params``, in this order."""
    path: str
    """Of the leaf; of an output that of the layer, with the number of the member under ``repeat`` or ``ensemble``."""
    detail: str
    """How many values, of which shape, and where the first of them is."""

    def __str__(self) -> str:
        return f"not finite in step {self.step}: {self.stage} {self.path}".rstrip() + f", {self.detail}"


def locate_nonfinite(step: Step, ts: TrainState, batch: Any) -> NonFinite | None:
    """The first value that is not finite in a step from ``ts`` on ``batch``, or None.

    Outputs of layers are looked at where the objective is one of
    :func:`~purenets.train.objective.supervised`. Of the gradients that are not finite, the one nearest to the
    loss comes first, since backwards the others follow from it.
    """
    for stage, path, value in _stages(step, ts, batch):
        if jnp.issubdtype(value.dtype, jnp.inexact) and not np.isfinite(value).all():
            return NonFinite(int(ts.step), stage, path, _detail(value))
    return None


def _detail(value: np.ndarray) -> str:
    nan, infinite = np.isnan(value), np.isinf(value)
    counts = [f"{mask.sum()} {name}" for mask, name in ((nan, "NaN"), (infinite, "infinite")) if mask.any()]
    first = np.argwhere(nan | infinite)[0].tolist()
    return f"{describe(value)} has {' and '.join(counts)} of {value.size}, the first at {first}"


def _stages(step: Step, ts: TrainState, batch: Any) -> Values:
    yield from _leaves("batch", batch)
    yield from _leaves("params", ts.params)
    trained, fixed = _divide(ts.params, step.trainable)
    key, state = jax.random.fold_in(ts.key, ts.step), ts.state
    for part, own_key in _parts(batch, getattr(step, "accumulate", 1), key):
        watch = _watch(step.objective, ts.params, state, part, own_key)
        (loss, (after, _)) = jax.jit(watch.objective, static_argnums=4)(ts.params, state, part, own_key, True)
        yield from watch.outputs(after)
        yield "loss", "", np.asarray(loss)
        after = untapped(after)
        yield from _became("new state", state, after)

        def loss_of(trained: Params, state: State = state, part: Any = part, key: Key = own_key) -> jax.Array:
            return step.objective(merge(trained, fixed), state, part, key, True)[0]

        yield from sorted(_leaves("gradient", jax.jit(jax.grad(loss_of))(trained)), key=watch.nearness)
        state = after
    end, _ = jax.jit(step)(ts, batch)
    yield from _became("optimizer state", ts.opt_state, end.opt_state)
    yield from _became("new params", ts.params, end.params)


def _parts(batch: Any, count: int, key: Key) -> Iterator[tuple[Any, Key]]:
    """The batches that gradients are taken of, with their keys."""
    if count == 1:
        yield batch, key
        return
    parts = _micro_batches(batch, count)
    for index in range(count):
        yield jax.tree.map(itemgetter(index), parts), jax.random.fold_in(key, index)


def _leaves(stage: str, tree: Any) -> Values:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            yield stage, path_of(path), np.asarray(leaf)


def _became(stage: str, before: Any, after: Any) -> Values:
    """The leaves after; what was not finite before, such as a best loss to start from, is left out."""
    old = {path: value for _, path, value in _leaves(stage, before)}
    for _, path, value in _leaves(stage, after):
        if path not in old or not jnp.issubdtype(value.dtype, jnp.inexact) or np.isfinite(old[path]).all():
            yield stage, path, value


class _Watch:
    """An objective some of whose layers keep their outputs, and the order in which they were traced."""

    def __init__(self, objective: Objective, paths: list[str]) -> None:
        self.objective = objective
        self.ranks: dict[str, list[int]] = {}
        if isinstance(objective, Supervised):
            model = objective.model
            for path in paths:
                model = edit(model, path, partial(self._watched, path=path))
            self.objective = replace(objective, model=self._watched(model, ""))

    def runs(self, *given: Any) -> bool:
        """Whether these layers can keep anything; one that a body calls inside of a loop of its own cannot."""

        def run(params: Params, state: State, batch: Any, key: Key) -> Any:
            return self.objective(params, state, batch, key, True)

        try:
            jax.eval_shape(run, *given)
        except ValueError:
            return False
        return True

    def _watched(self, layer: Layer, path: str) -> Layer:
        return tap(self._recorded(layer, path))

    def _recorded(self, layer: Layer, path: str) -> Layer:
        """The layer, which notes when it was done and how many axes its output has there."""

        def apply(params: Params, state: State, *inputs: Any, **keywords: Any) -> tuple[Any, State]:
            output, state = layer.apply(params, state, *inputs, **keywords)
            self.ranks.pop(path, None)
            self.ranks[path] = [jnp.ndim(leaf) for leaf in jax.tree.leaves(output)]
            return output, state

        return wrapper(layer, layer.label, lambda inner: self._recorded(inner, path), apply)

    def outputs(self, state: State) -> Values:
        """The outputs of layers, those of stacked members one after another, in the order they were computed."""
        kept = taps(state)
        order = {path: place for place, path in enumerate(self.ranks) if path in kept}
        members: dict[str, tuple[int, ...]] = {}
        for path in order:
            first = jax.tree.leaves(kept[path])[0]
            members[path] = first.shape[: first.ndim - self.ranks[path][0]]
        found = [
            (_time(path, index, order, members), path, index)
            for path in order
            for index in np.ndindex(members[path])
        ]
        for _, path, index in sorted(found):
            for leaf in jax.tree.leaves(kept[path]):
                yield "output of", _named(path, index), np.asarray(leaf[index])

    def nearness(self, value: tuple[str, str, np.ndarray]) -> int:
        """How far from the loss the layer of a param is: those that were traced last come first."""
        order = list(self.ranks)
        parents = [path for path in order if path and value[1].startswith(f"{path}/")]
        return -order.index(max(parents, key=len)) if parents else 0


def _watch(objective: Objective, *given: Any) -> _Watch:
    """The objective with all layers watched that can be."""
    paths = layer_paths(objective.model) if isinstance(objective, Supervised) else []
    if not _Watch(objective, paths).runs(*given):
        paths = [path for path in paths if _Watch(objective, [path]).runs(*given)]
    return _Watch(objective, paths)


def _named(path: str, index: tuple[int, ...]) -> str:
    return (path or "the model") + (f", member {', '.join(map(str, index))}" if index else "")


def _time(
    path: str, index: tuple[int, ...], order: dict[str, int], members: dict[str, tuple[int, ...]]
) -> list[int]:
    """When a layer of a member was computed: all of the first member come before any of the second."""
    key = []
    for level, number in enumerate(index):
        around = [p for p in order if _holds(p, path) and len(members[p]) <= level]
        stack = max(around, key=len)
        inner = [order[p] for p in order if _holds(stack, p) and len(members[p]) > level]
        key += [min(inner), number]
    return [*key, order[path]]


def _holds(outer: str, inner: str) -> bool:
    return outer == "" or inner == outer or inner.startswith(f"{outer}/")
