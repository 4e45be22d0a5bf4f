"""One training step: ``(TrainState, batch) -> (TrainState, metrics)``, which is a ``lax.scan`` body.

A :class:`TrainState` is all that changes while training; with the data it determines everything that
follows. The key of a step is ``fold_in(ts.key, ts.step)``, so a resumed run draws what the run never stopped
would have drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.layer import Key, Layer, Params, State, describe, fold_name
from purenets.paths import Where, flatten, leaf_paths, matching, merge, split
from purenets.train.objective import Metrics, Objective

if TYPE_CHECKING:
    import optax

__all__ = ["Step", "TrainState", "make_step", "start"]


class TrainState(NamedTuple):
    """Everything that changes while training, as one pytree."""

    step: jax.Array
    """int32 scalar: how many steps were taken."""
    params: Params
    state: State
    opt_state: Any
    key: Key


@dataclass(frozen=True, eq=False)
class Step:
    """``step(ts, batch) -> (ts, metrics)``: gradient, optimizer update, new state. See :func:`make_step`."""

    objective: Objective
    optimizer: optax.GradientTransformation
    trainable: Where = "**"
    accumulate: int = 1
    norms: Where = ()

    def __call__(self, ts: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """Take one step."""
        # Here and not above, so that importing purenets does not take the time of importing optax.
        from optax import GradientTransformationExtraArgs

        from purenets.optim.apply import apply_updates
        from purenets.optim.by_leaf import leaf_by_leaf
        from purenets.optim.explain import hyperparameters

        trained, fixed = _divide(ts.params, self.trainable)
        key = jax.random.fold_in(ts.key, ts.step)

        def loss_of(trained: Params, state: State, batch: Any, key: Key) -> Any:
            return self.objective(merge(trained, fixed), state, batch, key, True)

        gradient = jax.value_and_grad(loss_of, has_aux=True)
        if self.accumulate == 1:
            (loss, (state, metrics)), grads = gradient(trained, ts.state, batch, key)
        else:
            parts = _micro_batches(batch, self.accumulate)
            loss, grads, state, metrics = _accumulated(gradient, trained, ts.state, parts, key)
        extra = {}
        if isinstance(self.optimizer, GradientTransformationExtraArgs):
            extra = {"value": loss, "grad": grads, "value_fn": lambda p: loss_of(p, ts.state, batch, key)[0]}

        def advance(grads: Params, opt_state: Any, params: Params) -> Any:
            updates, opt_state = self.optimizer.update(grads, opt_state, params, **extra)
            return apply_updates(params, updates), opt_state, _norms(self.norms, grads, updates, params)

        trained, opt_state, norms = leaf_by_leaf(advance)(grads, ts.opt_state, trained)
        metrics = {**hyperparameters(opt_state, self.optimizer), **metrics, **norms}
        return TrainState(ts.step + 1, merge(trained, fixed), state, opt_state, ts.key), metrics


def _divide(params: Params, trainable: Where) -> tuple[Params, Params]:
    return (params, {}) if trainable == "**" else split(params, trainable)


def _micro_batches(batch: Any, parts: int) -> Any:
    def cut(path: Any, leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] % parts:
            raise ValueError(
                f"accumulate={parts} does not divide the batch of {leaf.shape[0]} examples, "
                f"batch{jax.tree_util.keystr(path)} is {describe(leaf)}"
            )
        return leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:])

    return jax.tree_util.tree_map_with_path(cut, batch)


def _accumulated(gradient: Any, trained: Params, state: State, parts: Any, key: Key) -> Any:
    """Loss, gradient, state and metrics of the whole batch as means over its parts, one part at a time."""

    def body(carry: tuple[State, Any], xs: tuple[jax.Array, Any]) -> tuple[tuple[State, Any], None]:
        state, total = carry
        index, batch = xs
        (loss, (state, metrics)), grads = gradient(trained, state, batch, jax.random.fold_in(key, index))
        return (state, jax.tree.map(jnp.add, total, (loss, grads, metrics))), None

    count = len(jax.tree.leaves(parts)[0])
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    shapes = jax.eval_shape(
        lambda: (lambda out, grads: (out[0], grads, out[1][1]))(*gradient(trained, state, first, key))
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (state, total), _ = jax.lax.scan(body, (state, zeros), (jnp.arange(count), parts))
    loss, grads, metrics = jax.tree.map(lambda leaf: leaf / count, total)
    return loss, grads, state, metrics


def _norms(where: Where, grads: Params, updates: Params, params: Params) -> Metrics:
    """For each pattern the norm of its gradients, and that of its updates over that of its params."""
    found: Metrics = {}
    for pattern in (where,) if isinstance(where, str) else where:
        chosen = matching(pattern, leaf_paths(params), kind="trained param")
        name = "" if pattern == "**" else f"/{pattern}"
        grad, update, param = (_norm(tree, chosen) for tree in (grads, updates, params))
        found |= {f"gradient_norm{name}": grad, f"update_ratio{name}": update / param}
    return found


def _norm(tree: Params, paths: list[str]) -> jax.Array:
    flat = flatten(tree)
    return jnp.sqrt(sum(jnp.sum(jnp.square(flat[path].astype(jnp.float32))) for path in paths))


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    trainable: Where = "**",
    accumulate: int = 1,
    norms: Where = (),
) -> Step:
    """The training step of an objective and an optimizer.

    Its metrics are the loss, those of the objective, and the hyperparameters that the update used, as far as they
    can be read: ``learning_rate``, one for each group where there are several, and whatever is injected.

    Args:
        objective: ``(params, state, batch, key, train) -> (loss, (state, metrics))``.
        optimizer: any ``(init, update)`` of optax's protocol, ours or optax's.
        trainable: which params to train; the others get no gradient, no optimizer state and no share in
            any norm.
        accumulate: into how many equal parts to cut each batch; the gradient is the mean over them, one
            part in memory at a time.
        norms: patterns of params whose norms to put into the metrics: ``gradient_norm/PATTERN``, and
            ``update_ratio/PATTERN``, the norm of the updates over that of the params, often near 1e-3 in
            healthy training. Those of ``"**"``, of all together, are without the pattern.

    Raises:
        TypeError: the optimizer has no ``init`` and ``update``.
        ValueError: ``accumulate`` is less than 1, or (when called) does not divide the batch; a pattern of
            ``trainable`` or ``norms`` matches nothing.
    """
    if not callable(getattr(optimizer, "update", None)) or not callable(getattr(optimizer, "init", None)):
        raise TypeError(f"make_step needs an optimizer with init and update, got {describe(optimizer)}")
    if accumulate < 1:
        raise ValueError(f"accumulate needs to be at least 1, got {accumulate}")
    return Step(objective, optimizer, trainable, accumulate, norms)


def start(
    model: Layer,
    optimizer: optax.GradientTransformation,
    key: Key,
    *,
    trainable: Where = "**",
    params: Params | None = None,
    state: State | None = None,
) -> TrainState:
    """A fresh TrainState: params and state drawn or given, optimizer state made, step 0.

    Args:
        model: what to train.
        optimizer: makes its state of the params that training starts from. (Some keep a copy of them, so
            putting other params into a TrainState afterwards would leave the old ones there.)
        key: params, state and all randomness of the training come from it.
        trainable: that of :func:`make_step`: the optimizer holds state for those params only.
        params: to start from, such as loaded ones; drawn by default. Dtypes may be others than drawn ones have.
        state: likewise; it may also hold the memory of a stream.

    Raises:
        TypeError: the key is not a typed key.
        ValueError: a pattern of ``trainable`` matches nothing; or params or state are given that are not the
            model's, by paths and shapes.
    """
    own = fold_name(key, "init")
    if params is None and state is None:
        params, state = model.init(own)
    else:
        params, state = _completed(model, own, params, state)
    trained, _ = _divide(params, trainable)
    return TrainState(jnp.int32(0), params, state, optimizer.init(trained), fold_name(key, "train"))


def _completed(model: Layer, key: Key, params: Params | None, state: State | None) -> tuple[Params, State]:
    """Params and state, of which one at least is given and checked, and the other is drawn if it is not."""
    wanted = jax.eval_shape(model.init, key)
    if params is not None:
        _check_given(model.label, "params", params, wanted[0])
    if state is not None:
        _check_given(model.label, "state", state, wanted[1], more=True)
    if params is not None and not wanted[1]:
        return params, state or {}
    drawn = model.init(key)
    return drawn[0] if params is None else params, drawn[1] if state is None else state


def _check_given(label: str, kind: str, given: Any, wanted: Any, more: bool = False) -> None:
    """Refuse a tree that lacks a leaf of the one wanted, has one in another shape, or without ``more`` others."""
    here, there = (
        {path: jnp.shape(leaf) for path, leaf in flatten(tree).items()} for tree in (given, wanted)
    )
    wrong = [path for path in there if here.get(path) != there[path]]
    wrong += [] if more else [path for path in here if path not in there]
    if wrong:
        raise ValueError(
            f"start got {kind} that are not those of {label}, they differ in {', '.join(wrong[:4])}: "
            f"expected {describe(wanted)}, got {describe(given)}"
        )


def check_fit(step: Step, ts: TrainState) -> None:
    """Refuse a TrainState that was started for other trainable params than the step trains.

    Raises:
        ValueError: the optimizer state is not that of the step's optimizer on its trainable params.
    """
    trained, _ = _divide(ts.params, step.trainable)
    expected = jax.eval_shape(step.optimizer.init, trained)
    if leaf_paths(expected) != leaf_paths(ts.opt_state):
        missing = sorted(set(leaf_paths(expected)) ^ set(leaf_paths(ts.opt_state)))[:4]
        raise ValueError(
            f"the optimizer state does not belong to this step, it differs in {', '.join(missing)}: "
            "give start and make_step the same optimizer and the same trainable="
        )
