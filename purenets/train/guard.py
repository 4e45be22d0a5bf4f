"""A training that stops where it first went wrong, and says where.

To watch every value would slow a step down. A guarded step returns one boolean more than the step itself, which is read
while the next one runs. Only where it tells that something became infinite or NaN is the step run once more, in pieces
(``nonfinite.py``).
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp

from purenets.data.batches import count_examples, epoch_order
from purenets.errors import describe
from purenets.layer import fold_name
from purenets.train.fit import Callback, Epoch
from purenets.train.nonfinite import NonFinite, locate_nonfinite
from purenets.train.objective import Metrics
from purenets.train.step import Step, TrainState

__all__ = ["Guarded", "NonFiniteError", "guard_fit", "guarded"]


class NonFiniteError(FloatingPointError):
    """A step gave a value that is not finite. It holds what the step was given, so that it can be run again."""

    def __init__(self, report: NonFinite | None, ts: TrainState, batch: Any) -> None:
        number = int(ts.step)
        super().__init__(str(report or f"not finite after step {number}, but not when that is run in pieces"))
        self.report = report
        self.ts = ts
        self.batch = batch


class Guarded:
    """A step for a loop of your own, that raises where it gives a value that is not finite; see :func:`guarded`."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self._run = jax.jit(lambda ts, batch: _checked(step, ts, batch))
        self._waiting: tuple[jax.Array, TrainState, Any] | None = None

    def __call__(self, ts: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """Take one step, compiled, and look at the one before.

        Raises:
            NonFiniteError: the step before gave a value that is not finite.
        """
        after, metrics, bad = self._run(ts, batch)
        before, self._waiting = self._waiting, (bad, ts, batch)
        self._look(before)
        return after, metrics

    def finish(self) -> None:
        """Look at the last step as well.

        Raises:
            NonFiniteError: it gave a value that is not finite.
        """
        before, self._waiting = self._waiting, None
        self._look(before)

    def _look(self, taken: tuple[jax.Array, TrainState, Any] | None) -> None:
        if taken is not None and bool(taken[0]):
            self._waiting = None
            _, ts, batch = taken
            raise NonFiniteError(locate_nonfinite(self.step, ts, batch), ts, batch)


def guarded(step: Step) -> Guarded:
    """The step, compiled, which stops a loop where it first gives a value that is not finite, and says where.

    It does not wait for the step: each call looks at the one before, so call ``finish()`` after the last. The
    TrainState and batch of one step are kept meanwhile. What counts is the TrainState that comes out:
    infinities that were there before are left alone, such as a best loss to start from, and a scaled step that
    overflows is no failure.

    Raises:
        TypeError: it is no step of :func:`~purenets.train.step.make_step`, which can be run in pieces.
        NonFiniteError: (when called) the step before gave a value that is not finite.

    >>> import optax, purenets as pn
    >>> model = pn.dense(2, 1)
    >>> objective = pn.supervised(model, lambda out, y: jnp.sqrt(jnp.sum(jnp.abs(out - y), -1)))
    >>> step = pn.make_step(objective, optax.sgd(0.1))
    >>> ts, batch = pn.start(model, step.optimizer, jax.random.key(0)), (jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    >>> careful = guarded(step)
    >>> _ = careful(ts, batch)
    >>> careful.finish()
    Traceback (most recent call last):
    purenets.train.guard.NonFiniteError: not finite in step 0: gradient bias, float32[1] has 1 infinite of 1, ...
    """
    if not callable(getattr(step, "objective", None)):
        raise TypeError(f"guarded needs a step of make_step, got {describe(step)}")
    return Guarded(step)


def guard_fit(step: Step, ts: TrainState, data: Any, *, batch_size: int, shuffle: bool = True) -> Callback:
    """A callback for :func:`~purenets.train.fit.fit` that stops where a value first is not finite, and says where.

    After an epoch that ended so, it is run again, step by step, from the last TrainState that was finite. Give
    it what ``fit`` is given; it goes before callbacks that save anything.

    Raises:
        TypeError: as :func:`guarded`.
        NonFiniteError: (when called) the epoch ended with a value that is not finite.
    """
    last = [ts]
    careful = guarded(step)

    def callback(epoch: Epoch) -> None:
        if not bool(_became_nonfinite(last[0], epoch.ts)):
            last[0] = epoch.ts
            return
        now, examples = last[0], count_examples(data, batch_size)
        steps = examples // batch_size
        while int(now.step) < int(epoch.ts.step):
            order = jnp.arange(examples)
            if shuffle:
                order = epoch_order(fold_name(now.key, "order"), now.step // steps, examples)
            for rows in order[: steps * batch_size].reshape(steps, batch_size):
                now, _ = careful(now, jax.tree.map(itemgetter(rows), data))
        careful.finish()
        raise NonFiniteError(None, last[0], data)

    return callback


def _checked(step: Step, ts: TrainState, batch: Any) -> tuple[TrainState, Metrics, jax.Array]:
    after, metrics = step(ts, batch)
    return after, metrics, _became_nonfinite(ts, after)


@jax.jit
def _became_nonfinite(before: TrainState, after: TrainState) -> jax.Array:
    """Whether any value is not finite that was."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    real = [(old, new) for old, new in pairs if jnp.issubdtype(new.dtype, jnp.inexact)]
    bad = [jnp.any(jnp.isfinite(old) & ~jnp.isfinite(new)) for old, new in real]
    return jnp.any(jnp.array(bad))
