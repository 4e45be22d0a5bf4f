"""A TrainState, its batches and its step over a mesh.

::

    mesh = parallel.mesh(data=4, model=2)
    step = parallel.on_mesh(pn.make_step(objective, optimizer), mesh, parallel.TRANSFORMER_RULES, fully="data")
    ts = step.start(model, jax.random.key(0))          # drawn where it will lie
    ts, history = pn.fit(step, ts, data, epochs=20, batch_size=128)

The step stays a step, so whatever takes a step takes it, and the numbers are those of one device up to the
order of sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from purenets.errors import describe
from purenets.layer import Key, Layer
from purenets.parallel.gathering import gathering
from purenets.parallel.rules import DATA_PARALLEL, Rules, shardings
from purenets.paths import Where
from purenets.train.objective import Metrics, Objective
from purenets.train.step import Step, TrainState, start

if TYPE_CHECKING:
    import optax

__all__ = ["Placement", "on_mesh", "place", "start_on"]


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a TrainState and its batches lie."""

    mesh: Mesh | AbstractMesh
    rules: Rules = DATA_PARALLEL
    fully: str | None = None
    batch: str | tuple[str, ...] = "data"
    """The axes of the mesh that the first axis of every batch is spread over."""

    def of(self, ts: TrainState) -> TrainState:
        """The sharding of each leaf of a TrainState, of arrays or shapes.

        Raises:
            ValueError: as :func:`shardings`, of the params.
        """
        whole = NamedSharding(self.mesh, PartitionSpec())
        params = shardings(ts.params, self.mesh, self.rules, fully=self.fully)
        opt_state = shardings(ts.opt_state, self.mesh, self.rules, fully=self.fully, averages_of=ts.params)
        return TrainState._make([whole, params, jax.tree.map(lambda _: whole, ts.state), opt_state, whole])

    @property
    def parts(self) -> int:
        """Into how many parts the examples of a batch are spread."""
        names = (self.batch,) if isinstance(self.batch, str) else self.batch
        return math.prod(self.mesh.shape[name] for name in names)

    def of_batch(self, batch: Any) -> Any:
        """The sharding of each leaf of a batch ``[examples, ...]``.

        Raises:
            ValueError: the examples do not divide by the devices along the batch axes.
        """
        sharding = NamedSharding(self.mesh, PartitionSpec(self.batch))
        parts = self.parts
        for leaf in jax.tree.leaves(batch):
            if leaf.shape[0] % parts:
                raise ValueError(
                    f"a batch over {parts} devices along {self.batch!r} needs a multiple of {parts} examples, "
                    f"got {describe(leaf)}"
                )
        return jax.tree.map(lambda _: sharding, batch)


@dataclass(frozen=True, eq=False)
class MeshStep:
    """A step over a mesh; see :func:`on_mesh`."""

    step: Step
    placement: Placement

    @property
    def objective(self) -> Objective:
        """That of the step inside."""
        return self.step.objective

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """That of the step inside."""
        return self.step.optimizer

    @property
    def trainable(self) -> Where:
        """That of the step inside."""
        return self.step.trainable

    def start(self, model: Layer, key: Key) -> TrainState:
        """A fresh TrainState, each part drawn where it will lie."""
        return start_on(self.placement, model, self.optimizer, key, trainable=self.trainable)

    def __call__(self, ts: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """Take one step."""
        where = self.placement.of(ts)
        batch = jax.lax.with_sharding_constraint(batch, self.placement.of_batch(batch))
        step = self.step
        own = self.placement
        if own.fully is not None:
            # Without this the partitioner may exchange activations instead, to save gathering the weights.
            step = replace(step, objective=gathering(self.objective, own.mesh, own.rules, own.fully))
        after, metrics = step(jax.lax.with_sharding_constraint(ts, where), batch)
        return jax.lax.with_sharding_constraint(after, where), metrics


def on_mesh(
    step: Step,
    mesh: Mesh,
    rules: Rules = DATA_PARALLEL,
    *,
    fully: str | None = None,
    batch: str | tuple[str, ...] = "data",
) -> MeshStep:
    """The same step over a mesh.

    Args:
        step: of :func:`purenets.make_step`.
        mesh: of :func:`mesh`; its axes are of the kind that JAX shards by itself.
        rules: which params are spread how; none for data parallel.
        fully: an axis to spread every large param and its averages over as well, usually that of the batch.
        batch: the axes that the examples are spread over; all that the mesh has, if it has only one.

    Raises:
        ValueError: the mesh lacks an axis that is named; when called, as :class:`Placement`.
    """
    names = (batch,) if isinstance(batch, str) else batch
    if missing := [name for name in names if name not in mesh.axis_names]:
        raise ValueError(f"the batch is spread over {missing}, the mesh has {list(mesh.axis_names)}")
    return MeshStep(step, Placement(mesh, tuple(rules), fully, batch))


def place(ts: TrainState, placement: Placement) -> TrainState:
    """A TrainState moved to where the placement says, from wherever it lies."""
    return jax.device_put(ts, placement.of(ts))


def start_on(
    placement: Placement,
    model: Layer,
    optimizer: optax.GradientTransformation,
    key: Key,
    *,
    trainable: Where = "**",
) -> TrainState:
    """As :func:`purenets.start`, with every leaf born where it will lie: no device ever holds all of it."""

    def born(key: Key) -> TrainState:
        return start(model, optimizer, key, trainable=trainable)

    return jax.jit(born, out_shardings=placement.of(jax.eval_shape(born, key)))(key)
