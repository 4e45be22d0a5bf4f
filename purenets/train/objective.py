"""An objective is what training makes small.

::

    objective(params, state, batch, key, train) -> (loss, (state, metrics))

*loss* is a scalar, *metrics* a flat dict of scalars, each a mean over the batch. Any function of this form
will do; :func:`supervised` writes it for a model and a loss per example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from purenets.layer import Key, Layer, Params, State, describe
from purenets.paths import leaf_paths

__all__ = ["Metrics", "Objective", "Supervised", "supervised"]

Metrics: TypeAlias = dict[str, jax.Array]
"""Scalars by name."""
Objective: TypeAlias = Callable[
    [Params, State, Any, Key | None, bool], tuple[jax.Array, tuple[State, Metrics]]
]
"""``(params, state, batch, key, train) -> (loss, (state, metrics))``."""
PerExample: TypeAlias = Callable[[Any, Any], jax.Array]
"""``(output, target) -> [batch]``, or ``[batch, ...]``, unreduced."""


@dataclass(frozen=True, eq=False)
class Supervised:
    """The objective of a model, a loss and metrics per example on batches ``(x, y)``."""

    model: Layer
    loss: PerExample
    metrics: Mapping[str, PerExample] = field(default_factory=dict)

    def __call__(
        self, params: Params, state: State, batch: Any, key: Key | None, train: bool
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """The mean loss of the batch, the new state and the metrics."""
        x, y = _pair(batch)
        output, state = self.model.apply(params, state, x, key=key, train=train)
        loss = jnp.mean(self.loss(output, y))
        values = {name: jnp.mean(metric(output, y)) for name, metric in self.metrics.items()}
        return loss, (state, {"loss": loss, **values})

    def validate(self, params: Params, state: State, data: Any) -> None:
        """Hold whole data against model and loss before training: shapes, dtypes and the range of labels.

        Raises:
            ValueError: what the model or the loss says of the data.
        """
        x, y = _pair(data)
        output, _ = jax.eval_shape(lambda *given: self.model.apply(*given), params, state, x)
        count = len(jax.tree.leaves(y)[0])
        for start in range(0, count, 1024):
            rows = slice(start, min(start + 1024, count))
            try:
                self._try_loss(output, y, rows)
            except ValueError as error:
                error.add_note(f"in the targets of examples {rows.start} to {rows.stop - 1}")
                raise

    def _try_loss(self, output: Any, y: Any, rows: slice) -> None:
        """The loss on concrete targets and an output of zeros, for the errors it raises."""
        size = rows.stop - rows.start
        zeros = jax.tree.map(lambda leaf: np.zeros((size, *leaf.shape[1:]), leaf.dtype), output)
        self.loss(zeros, jax.tree.map(lambda leaf: np.asarray(leaf)[rows], y))


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        names = leaf_paths(batch)
        raise ValueError(
            f"supervised needs data of the form (x, y), got {type(batch).__name__} with leaves {names}: "
            f"{describe(batch)}"
        )
    return batch[0], batch[1]


def supervised(
    model: Layer, loss: PerExample, *, metrics: Mapping[str, PerExample] | None = None
) -> Supervised:
    """The mean of ``loss(model(x), y)`` over batches ``(x, y)``.

    Args:
        model: applied to ``x`` as its one input.
        loss: ``loss(output, y)``, per example and unreduced, as all of ``purenets.losses`` are.
        metrics: more of the same form, by name; their means come back beside ``loss``.

    Raises:
        ValueError: (when called) a batch is not a pair.

    >>> import purenets as pn
    >>> objective = supervised(pn.dense(2, 1), lambda out, y: jnp.sum((out - y) ** 2, -1))
    >>> params, state = objective.model.init(jax.random.key(0))
    >>> batch = (jnp.zeros((4, 2)), jnp.ones((4, 1)))
    >>> objective(params, state, batch, None, False)[0].item()
    1.0
    """
    return Supervised(model, loss, dict(metrics or {}))
