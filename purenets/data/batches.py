"""From arrays on the device to the batches of an epoch, inside the program that trains on them.

*Data* are any pytree of arrays ``[examples, ...]`` with one number of examples. An *order* is a permutation
of the examples, one for each epoch, a function of the key and the epoch's number alone. A *batch* is the
pytree of ``[batch, ...]`` that a step takes.

:func:`scan_batches` runs a step over the batches of an order. Gathering an epoch's examples one step at a
time pays for a kernel and for memory out of reach at each step, gathering them all at once for memory as
large as the data; it gathers the examples of some steps at a time, which stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from purenets.errors import describe
from purenets.layer import Key
from purenets.paths import path_of

__all__ = [
    "batches",
    "block_size",
    "count_examples",
    "epoch_order",
    "find_nonfinite",
    "padded_batches",
    "sample_batch",
    "scan_batches",
]

Carry = TypeVar("Carry")


def count_examples(data: Any, batch_size: int = 1) -> int:
    """The number of examples of the data.

    Raises:
        ValueError: there are none, a leaf has another number of them or no axis at all, or they do not fill
            one batch of ``batch_size``, or that is not positive.

    >>> count_examples({"image": jnp.zeros((7, 28, 28)), "label": jnp.zeros(7)})
    7
    """
    leaves = [(path_of(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]]
    if not leaves:
        raise ValueError("the data hold no arrays")
    for path, leaf in leaves:
        if jnp.ndim(leaf) == 0:
            raise ValueError(f"data need arrays [examples, ...], but {path!r} is a scalar, {describe(leaf)}")
    first, count = leaves[0][0], len(leaves[0][1])
    for path, leaf in leaves:
        if len(leaf) != count:
            raise ValueError(
                f"data need one number of examples, but {path!r} has {len(leaf)} and {first!r} has {count}: "
                f"{describe(leaf)}"
            )
    if batch_size < 1:
        raise ValueError(f"a batch needs 1 example at least, got batch_size={batch_size}")
    if count == 0:
        raise ValueError(f"the data are empty: {first!r} is {describe(leaves[0][1])}")
    if count < batch_size:
        raise ValueError(f"a batch of {batch_size} needs as many examples, the data have {count}")
    return count


def epoch_order(key: Key, epoch: int | Array, n: int) -> Array:
    """A permutation of ``0 .. n - 1``, int32 ``[n]``, that depends on the key and the epoch's number alone.

    Uniform over all permutations, up to ties among random numbers of 48 bits and more, which come up in less
    than one epoch of 65,000. Random bits with the index below them are sorted as one number of 64 bits, which
    on a processor is two to six times as fast as ``jax.random.permutation``: that sorts twice, by keys apart
    from the index, and was half the cost of shuffling.

    Raises:
        ValueError: ``n`` is not positive, or more than int32 can count.
    """
    if not 0 < n < 2**31:
        raise ValueError(f"an order needs from 1 to 2**31 - 1 examples, got {n}")
    index_bits = (n - 1).bit_length()
    # Sorting again by new bits, with the place so far below them, is sorting once by both. Of n (n - 1) / 2
    # pairs less than 2**-16 shall tie.
    rounds = -(-(2 * index_bits + 15) // (64 - index_bits))
    bits = jax.random.bits(jax.random.fold_in(key, epoch), (rounds, n, 2), jnp.uint32)
    order = _sorted_places(bits[0], index_bits)
    for again in bits[1:]:
        order = order[_sorted_places(again, index_bits)]
    return order


def _sorted_places(bits: Array, index_bits: int) -> Array:
    n = len(bits)
    # The second word of a pair is the high one.
    low = (bits[:, 0] << index_bits) | lax.iota(jnp.uint32, n)
    pairs = jnp.stack([low, bits[:, 1]], 1)
    # XLA has a fast sort for one array without payload; 64 bits hold both key and payload.
    with jax.enable_x64(True):
        ordered = lax.sort(lax.bitcast_convert_type(pairs, jnp.uint64), is_stable=False)
        words = lax.bitcast_convert_type(ordered, jnp.uint32)
    return (words[:, 0] & ((1 << index_bits) - 1)).astype(jnp.int32)


def batches(data: Any, order: Array | None, batch_size: int) -> Any:
    """All batches of an epoch at once: the data in the order, each leaf ``[steps, batch, ...]``.

    The examples that do not fill a last batch, ``n % batch_size`` of them at the end of the order, are left
    out of this epoch; under another order others will be.

    Args:
        data: a pytree of arrays ``[examples, ...]``.
        order: indices ``[n]``, as of :func:`epoch_order`, or None for the order of the data. An index out of
            range gives NaN, and in integers the smallest, which no loss takes for a label.
        batch_size: examples a batch.

    Raises:
        ValueError: as :func:`count_examples` does, or the order is not of indices or shorter than a batch.
    """
    shape = (_steps(data, order, batch_size), batch_size)
    if order is None:
        return jax.tree.map(
            lambda leaf: jnp.asarray(leaf)[: shape[0] * shape[1]].reshape(*shape, *jnp.shape(leaf)[1:]), data
        )
    return _gathered(data, order[: shape[0] * shape[1]], shape)


def scan_batches(
    step: Callable[[Carry, Any], tuple[Carry, Any]],
    carry: Carry,
    data: Any,
    order: Array | None,
    batch_size: int,
    *,
    ahead: int = 2**22,
) -> tuple[Carry, Any]:
    """``lax.scan(step, carry, batches(data, order, batch_size))``, in less time and memory.

    Args:
        step: ``(carry, batch) -> (carry, output)``.
        carry: what the first step is given.
        data: a pytree of arrays ``[examples, ...]``.
        order: indices ``[n]``, or None for the order of the data, which needs no gather.
        batch_size: examples a step; those that do not fill a last batch are left out.
        ahead: bytes to gather ahead of the steps that use them, rounded to whole batches, one at least. The
            default suits a processor's cache. Under ``vmap`` over orders each of them gathers as much: divide
            it by their number.

    Returns:
        The last carry, and the outputs stacked, ``[steps, ...]``.

    Raises:
        ValueError: as :func:`batches` does.
    """
    steps = _steps(data, order, batch_size)
    rows = jax.tree.map(_rows, data)

    def take(carry: Carry, batch: Any) -> tuple[Carry, Any]:
        shaped = jax.tree.map(lambda flat, leaf: flat.reshape(batch_size, *jnp.shape(leaf)[1:]), batch, data)
        return step(carry, shaped)

    def sliced(carry: Carry, start: Array) -> tuple[Carry, Any]:
        cut = partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=batch_size)
        return take(carry, jax.tree.map(cut, rows))

    def gathered(carry: Carry, indices: Array) -> tuple[Carry, Any]:
        return lax.scan(take, carry, _gathered(rows, indices, (len(indices) // batch_size, batch_size)))

    if order is None:
        return lax.scan(sliced, carry, jnp.arange(steps) * batch_size)
    batch_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(rows)) // count_examples(rows) * batch_size
    block = block_size(steps, max(1, ahead // max(1, batch_bytes)))
    whole = steps // block * block * batch_size
    carry, outputs = lax.scan(gathered, carry, order[:whole].reshape(-1, block * batch_size))
    outputs = jax.tree.map(lambda leaf: leaf.reshape(whole // batch_size, *leaf.shape[2:]), outputs)
    if whole < steps * batch_size:
        carry, last = gathered(carry, order[whole : steps * batch_size])
        outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, last)
    return carry, outputs


def block_size(steps: int, most: int) -> int:
    """How many steps to take at once: if it can be a divisor of all, since a rest compiles the step again."""
    most = min(steps, most)
    divisor = max(block for block in range(1, most + 1) if steps % block == 0)
    return divisor if divisor * 4 >= most else most


def _steps(data: Any, order: Array | None, batch_size: int) -> int:
    count = count_examples(data, batch_size)
    if order is None:
        return count // batch_size
    if jnp.ndim(order) != 1 or not jnp.issubdtype(order.dtype, jnp.integer) or len(order) < batch_size:
        raise ValueError(f"an order needs to be {batch_size} or more indices, got {describe(order)}")
    return len(order) // batch_size


def _rows(leaf: Array) -> Array:
    """The leaf with one flat row an example: gathers move whole rows then, whatever an example's axes are."""
    array = jnp.asarray(leaf)
    return array if array.ndim < 3 else array.reshape(len(array), math.prod(array.shape[1:]))


def _gathered(data: Any, indices: Array, shape: tuple[int, ...]) -> Any:
    def gather(leaf: Array) -> Array:
        found = _rows(leaf).at[indices].get(mode="fill", wrap_negative_indices=False)
        return found.reshape(*shape, *jnp.shape(leaf)[1:])

    return jax.tree.map(gather, data)


def sample_batch(key: Key, data: Any, batch_size: int) -> Any:
    """A batch drawn uniformly with replacement: unlike an epoch's, independent of all others.

    Raises:
        ValueError: as :func:`count_examples` does, though the batch may be larger than the data.
    """
    count = count_examples(data, min(batch_size, 1))
    return _gathered(data, jax.random.randint(key, (batch_size,), 0, count), (batch_size,))


def padded_batches(data: Any, batch_size: int) -> tuple[Any, Array]:
    """All of the data in their order as whole batches, and which examples are real, to evaluate on.

    Args:
        data: a pytree of arrays ``[examples, ...]``.
        batch_size: examples a batch; the last one is filled up with the last example.

    Returns:
        The batches, each leaf ``[steps, batch, ...]``, and a mask ``[steps, batch]``, False for the filling.

    Raises:
        ValueError: as :func:`count_examples` does, though the batch may be larger than the data.
    """
    count = count_examples(data, min(batch_size, 1))
    shape = (-(-count // batch_size), batch_size)
    places = jnp.arange(shape[0] * batch_size)
    filled = _gathered(data, jnp.minimum(places, count - 1), shape)
    return filled, (places < count).reshape(shape)


def find_nonfinite(data: Any) -> None:
    """Make sure that all floating point numbers of the data are finite, before training on them.

    Raises:
        ValueError: one is not; the message has its leaf, its index and its value.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]:
        array = jnp.asarray(leaf)
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            continue
        bad = ~jnp.isfinite(array).ravel()
        if count := int(jnp.sum(bad)):
            index = [int(i) for i in np.unravel_index(int(jnp.argmax(bad)), array.shape)]
            name = path_of(path) or "the array"
            raise ValueError(
                f"the data are not finite: {name}{index} is {array[tuple(index)]} "
                f"({count} such in {describe(array)})"
            )
