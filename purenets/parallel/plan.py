"""What a training step would cost on a mesh, computed from shapes, before there is a mesh.

Bytes and operations are those of one device. Counted are

- *memory*: params, optimizer state and model state as the rules spread them; gradients like the params; under
  ``fully`` what is gathered at once, of ``repeat`` one layer; and what the forward pass keeps for the backward pass,
  which is read off the traced program, ``remat`` included;
- *operations*: those of the traced step (:mod:`purenets.inspect.cost`), divided by the parts of the batch, and in the
  layers that a rule spreads by the parts of the model;
- *exchange*, for a ring of n devices, in which a sum over devices moves ``2 (n - 1) / n`` times its size and a gather
  or a scattered sum half of that: sums of gradients over the batch axes, or under ``fully`` a gather of params (of
  ``repeat`` two) and a scattered sum; and within the model, forward, a sum of the output of each layer whose *inputs* a
  rule spreads, and backward one of the gradient on the input of each layer whose *outputs* it spreads.

Not counted are the buffers that a program needs in passing, which can be as much memory again.

The seconds follow from what a chip can do at most. Real programs reach less of it, and overlap exchange with work to
some degree: both ends of that are given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh

from purenets.inspect.cost import scopes_of
from purenets.layer import Layer
from purenets.parallel.gathering import slices
from purenets.parallel.placement import Placement
from purenets.parallel.rules import DATA_PARALLEL, Rules, names_in
from purenets.paths import flatten, merge, split
from purenets.surgery import edit, layers_by_path, tap, taps
from purenets.train.step import Step, start

__all__ = ["H100", "TPU_V5P", "Chip", "Plan", "plan"]


@dataclass(frozen=True)
class Chip:
    """The most that one device can do, by its data sheet."""

    name: str
    flops: float
    """Operations a second, dense."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second from and to its memory."""
    link: float
    """Bytes a second to its neighbours, in one direction."""


H100 = Chip("H100 SXM, bfloat16", 989e12, 80e9, 3.35e12, 450e9)
"""NVIDIA's data sheet of the H100; the link is NVLink, among the devices of one host."""
TPU_V5P = Chip("TPU v5p, bfloat16", 459e12, 95e9, 2.765e12, 600e9)
"""Google Cloud's description of the TPU v5p."""


@dataclass(frozen=True)
class Plan:
    """The cost of a step, of one device. Sizes are in bytes, times in seconds."""

    chip: Chip
    devices: int
    params: float
    optimizer: float
    state: float
    gradients: float
    gathered: float
    """The most params that are gathered at once under ``fully``, one layer of those under ``repeat``; otherwise 0."""
    weights: float
    """Params as the layers read them."""
    activations: float
    """What the forward pass keeps."""
    flops: float
    sums_of_gradients: float
    """Sent and received for gradients, and for the gathering of params."""
    sums_of_activations: float
    """Sent and received within the layers that are spread."""

    @property
    def memory(self) -> float:
        """All of it together."""
        kept = self.params + self.optimizer + self.state
        return kept + self.gradients + self.gathered + self.activations

    @property
    def fits(self) -> bool:
        """Whether that is at most nine tenths of the chip's memory."""
        return self.memory <= 0.9 * self.chip.memory

    @property
    def compute_seconds(self) -> float:
        """At the chip's full rate."""
        return self.flops / self.chip.flops

    @property
    def memory_seconds(self) -> float:
        """Weights are read forward and backward, gradients, optimizer state and what is kept written and read."""
        moved = 2 * (self.weights + self.params + self.optimizer + self.gradients + self.activations)
        return moved / self.chip.bandwidth

    @property
    def link_seconds(self) -> float:
        """All exchange, at the link's full rate."""
        return (self.sums_of_gradients + self.sums_of_activations) / self.chip.link

    @property
    def utilisation(self) -> tuple[float, float]:
        """The share of the chip's rate that is used, without any overlap and with all of it."""
        compute = self.compute_seconds
        apart = max(compute, self.memory_seconds) + self.link_seconds
        return compute / apart, compute / max(compute, self.memory_seconds, self.link_seconds)

    def __str__(self) -> str:
        low, high = self.utilisation
        memory = [
            f"{name} {getattr(self, name) / 1e9:.2f}"
            for name in ("params", "optimizer", "gradients", "gathered", "activations")
        ]
        return "\n".join(
            [
                f"{self.devices} x {self.chip.name}",
                f"memory   {self.memory / 1e9:.2f} GB of {self.chip.memory / 1e9:.0f}: {', '.join(memory)}"
                + ("" if self.fits else "  DOES NOT FIT"),
                f"compute  {self.flops / 1e12:.1f} TFLOP, {1e3 * self.compute_seconds:.1f} ms",
                f"memory   {1e3 * self.memory_seconds:.1f} ms",
                f"exchange {self.sums_of_gradients / 1e9:.2f} GB for gradients and params, "
                f"{self.sums_of_activations / 1e9:.2f} GB in layers, {1e3 * self.link_seconds:.1f} ms",
                f"used     {low:.0%} without overlap, {high:.0%} with all of it",
            ]
        )


def plan(
    step: Step,
    model: Layer,
    batch: Any,
    mesh: Mapping[str, int],
    *,
    rules: Rules = DATA_PARALLEL,
    fully: str | None = None,
    data: str | tuple[str, ...] = "data",
    chip: Chip = H100,
) -> Plan:
    """Compute what a step would cost on a mesh.

    Args:
        step: of ``make_step``.
        model: the layer that it trains.
        batch: the whole batch over all devices, as shapes or arrays.
        mesh: the axes and how many devices lie along each, ``{"data": 32, "model": 8}``.
        rules: which leaf lies where.
        fully: the axis that all large leaves are spread over as well.
        data: the axes that the batch is spread over.
        chip: what each device can do.

    Raises:
        ValueError: the rules do not fit the model or the mesh, or the batch does not divide.

    A model of seven billion parameters, 256 devices, four million tokens a step:

    >>> import purenets as pn
    >>> from purenets import losses, models, optim, parallel
    >>> model = pn.cast(models.llama_2_7b(remat=True))
    >>> step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adamw(1e-4))
    >>> tokens = jax.ShapeDtypeStruct((1024, 4096), "int32")
    >>> costs = plan(step, model, (tokens, tokens), {"data": 32, "model": 8},
    ...              rules=parallel.LLAMA_RULES, fully="data")
    >>> costs.fits
    True
    """
    placement = Placement(AbstractMesh(tuple(mesh.values()), tuple(mesh)), rules, fully, data)
    key = jax.eval_shape(lambda: jax.random.key(0))
    ts = jax.eval_shape(lambda key: start(model, step.optimizer, key, trainable=step.trainable), key)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    placement.of_batch(batch)
    spread = placement.of(ts)
    whole = Placement(placement.mesh, rules, None, data).of(ts).params
    axes, parts = (data,) if isinstance(data, str) else data, placement.parts
    trained, _ = split(ts.params, step.trainable)
    gradients = _bytes(trained, split(spread.params, step.trainable)[0])
    kinds = {path: layer.label for path, layer in layers_by_path(model).items()}
    rows, columns = _spread_layers(ts.params, whole, axes, kinds)
    within = rows | set(columns)
    outputs = _outputs(model, ts, batch, key)
    of_spread = sum(size for path, size in outputs.items() if _inside(path, within))
    parallel = math.prod(size for axis, size in mesh.items() if axis not in axes)
    part_spread = of_spread / max(sum(outputs.values()), 1)
    counts = scopes_of(jax.make_jaxpr(lambda ts, b: step(ts, b))(ts, batch))
    operations = sum(n / (parallel if _inside(scope, within) else 1) for scope, n in counts.items()) / parts
    summed = sum(size for path, size in outputs.items() if path in rows)
    summed += sum(share * outputs.get(path, 0.0) for path, share in columns.items())
    local = _bytes(trained, split(whole, step.trainable)[0])
    exchanged = _ring(parts) * local
    at_once = 0.0
    if fully:
        sizes = flatten(jax.tree.map(_bytes_of, ts.params, whole))
        parted = slices(step.objective, ts.params, placement.mesh, rules, fully)
        at_once = sum(sizes[path] / count for path, count in parted.items())
        moved = sum(sizes[path] * (2 if count > 1 else 1) for path, count in parted.items())
        exchanged = _ring(mesh[fully]) * (moved + local) / 2
        others = parts // mesh[fully]
        exchanged += _ring(others) * gradients
    return Plan(
        chip=chip,
        devices=math.prod(mesh.values()),
        params=_bytes(ts.params, spread.params),
        optimizer=_bytes(ts.opt_state, spread.opt_state),
        state=_bytes(ts.state, spread.state),
        gradients=gradients,
        gathered=at_once,
        weights=_bytes(ts.params, whole),
        activations=_kept(step, ts, batch, key) / parts * (part_spread / parallel + 1 - part_spread),
        flops=operations,
        sums_of_gradients=exchanged,
        sums_of_activations=_ring(parallel) * summed / parts,
    )


def _ring(n: int) -> float:
    """What a device sends to sum over n, as a multiple of the size."""
    return 2 * (n - 1) / n


def _bytes(tree: Any, placed: Any) -> float:
    """The bytes on one device."""
    return float(sum(jax.tree.leaves(jax.tree.map(_bytes_of, tree, placed))))


def _bytes_of(leaf: Any, sharding: Any) -> float:
    names = [name for entry in sharding.spec for name in names_in(entry)]
    return leaf.size * leaf.dtype.itemsize / math.prod(sharding.mesh.shape[name] for name in names)


def _spread_layers(
    params: Any, placed: Any, data: tuple[str, ...], kinds: dict[str, str]
) -> tuple[set[str], dict[str, float]]:
    """The layers whose inputs a rule spreads, and those whose outputs, with the size of their input over that."""
    rows, columns = set(), {}
    leaves = flatten(params)
    for path, sharding in flatten(placed).items():
        layer, _, name = path.rpartition("/")
        entries = [*sharding.spec, *[None] * (leaves[path].ndim - len(sharding.spec))]
        over = [i for i, entry in enumerate(entries) if entry and not set(names_in(entry)) <= set(data)]
        if name != "kernel" or not over:
            continue
        # The inputs of a kernel are its first axis behind those of repetition; of a convolution the last but one.
        conv = kinds.get(layer, "").startswith("conv")
        shape, inputs = leaves[path].shape, leaves[path].ndim - 2 if conv else _repeated(layer, kinds)
        if over[0] == inputs:
            rows.add(layer)
        else:
            columns[layer] = shape[inputs] / math.prod(shape[inputs + 1 :])
    return rows, columns


def _repeated(layer: str, kinds: dict[str, str]) -> int:
    """How many axes of repetition a layer's params have in front."""
    parents = ["/".join(layer.split("/")[:i]) for i in range(1, layer.count("/") + 1)]
    return sum(kinds.get(parent, "").startswith(("repeat", "ensemble")) for parent in [*parents, layer])


def _inside(scope: str, layers: set[str]) -> bool:
    """Whether an operation works on a spread array: in such a layer, or beside one below the same parent."""
    parents = {layer.rpartition("/")[0] for layer in layers} - {""}
    return any(scope == at or scope.startswith(at + "/") for at in layers | parents)


def _outputs(model: Layer, ts: Any, batch: Any, key: Any) -> dict[str, float]:
    """The bytes that each layer gives out over the whole batch; under ``repeat`` those of all members."""
    inputs = batch[0] if isinstance(batch, tuple) else batch
    tapped = edit(model, "**", tap)
    _, state = jax.eval_shape(
        lambda p, s, x, k: tapped.apply(p, s, x, key=k, train=True), ts.params, ts.state, inputs, key
    )
    size = lambda tree: float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))
    return {path: size(output) for path, output in taps(state).items()}


def _kept(step: Step, ts: Any, batch: Any, key: Any) -> float:
    """The bytes that the forward pass keeps for the backward pass, over the whole batch; not the params."""
    trained, fixed = split(ts.params, step.trainable)

    def backward(trained: Any, fixed: Any, state: Any, batch: Any, key: Any) -> Any:
        objective = lambda p: step.objective(merge(p, fixed), state, batch, key, True)[0]
        return jax.vjp(objective, trained)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, trained, fixed, ts.state, batch, key))
    form = lambda leaf: (leaf.shape, leaf.dtype)
    own = Counter(form(leaf) for leaf in jax.tree.leaves((ts.params, batch)))
    left = Counter(form(leaf) for leaf in leaves) - own
    return float(sum(n * math.prod(shape) * dtype.itemsize for (shape, dtype), n in left.items()))
