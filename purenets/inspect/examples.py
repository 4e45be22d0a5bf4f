"""What single examples ask of the params: the gradient of each, and how alike those of two are.

The *tangent kernel* of a model (Jacot et al. 2018) is, for two inputs and two outputs, the inner product of the two
gradients with respect to the params. A small step of gradient descent on one example changes the output for another
by the kernel between them; in the limit of great width the kernel does not change during training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purenets.gradients import jacobian_vector, vector_jacobian
from purenets.layer import Layer, Params, State, describe

__all__ = ["neural_tangent_kernel", "per_example_gradients", "per_example_norms"]


def per_example_gradients(loss: Callable[[Params, Any], jax.Array], params: Params, batch: Any) -> Params:
    """The gradient of the loss of each example, all in one program.

    Their mean is the gradient of the loss of the batch, if that is the mean over its examples, which it is not for
    a model that normalises over the batch.

    Args:
        loss: ``loss(params, batch) -> scalar``. It is given batches of one: every leaf keeps its first axis.
        params: where.
        batch: a tree of arrays ``[batch, ...]``.

    Returns:
        A tree like ``params`` with an axis ``[batch]`` in front of every leaf.

    Raises:
        ValueError: the leaves of the batch have not one first axis in common.

    >>> loss = lambda p, batch: jnp.mean((batch[0] * p["w"] - batch[1]) ** 2)
    >>> per_example_gradients(loss, {"w": jnp.array(1.0)}, (jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0])))["w"].tolist()
    [2.0, 8.0]
    """
    _check_batch("per_example_gradients", batch)

    def of_one(example: Any) -> Params:
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        slope: Params = jax.grad(lambda p: loss(p, alone))(params)
        return slope

    return jax.vmap(of_one)(jax.tree.map(jnp.asarray, batch))


def per_example_norms(gradients: Params) -> jax.Array:
    """The length of each example's gradient over all leaves, ``[batch]``, in float32 at least.

    Large ones are examples that the model gets wrong or that are mislabelled; a bound for clipping is read off
    their quantiles.

    Args:
        gradients: of :func:`per_example_gradients`.

    Raises:
        ValueError: there are no leaves, or they have not one first axis in common.

    >>> per_example_norms({"a": jnp.array([[3.0], [0.0]]), "b": jnp.array([4.0, 2.0])}).tolist()
    [5.0, 2.0]
    """
    _check_batch("per_example_norms", gradients)
    leaves = [jnp.abs(leaf) for leaf in jax.tree.leaves(gradients)]
    wide = [leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in leaves]
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.reshape(len(leaf), -1)), 1) for leaf in wide))


def _check_batch(name: str, batch: Any) -> None:
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            f"{name} needs leaves [batch, ...] with one first axis in common, got {describe(batch)}"
        )


def neural_tangent_kernel(
    model: Layer, params: Params, state: State, x1: jax.Array, x2: jax.Array | None = None
) -> jax.Array:
    """The tangent kernel of a model at ``params``, in evaluation: how alike two inputs are to its gradient.

    No Jacobian is held: for each input of ``x2`` and each output, one gradient and its product with the Jacobian of
    all of ``x1`` (Novak et al. 2022), so that it costs ``batch2 * outputs`` evaluations of ``x1``.

    Args:
        model: a layer of one input ``[batch, ...]`` and one output ``[batch, ...]``.
        params: where.
        state: the model's.
        x1: inputs ``[batch1, ...]``.
        x2: inputs ``[batch2, ...]``, ``x1`` by default.

    Returns:
        ``[batch1, batch2, *output, *output]``, where ``output`` is the shape of the output for one input. For a
        matrix of examples alone sum over equal outputs: ``jnp.trace(kernel, axis1=2, axis2=3)``.

    Raises:
        ValueError: the output is not one real floating point array with an entry for each input.

    >>> import purenets as pn
    >>> model = pn.dense(2, 1, bias=False)
    >>> params, state = model.init(jax.random.key(0))
    >>> x = jnp.array([[1.0, 0.0], [1.0, 2.0]])
    >>> neural_tangent_kernel(model, params, state, x)[..., 0, 0].tolist()
    [[1.0, 1.0], [1.0, 5.0]]
    """
    x2 = x1 if x2 is None else x2

    def outputs(params: Params, x: jax.Array) -> jax.Array:
        out: jax.Array = model.apply(params, state, x)[0]
        return out

    out = jax.eval_shape(outputs, params, x1)
    if (
        not isinstance(out, jax.ShapeDtypeStruct)
        or out.shape[:1] != jnp.shape(x1)[:1]
        or not jnp.issubdtype(out.dtype, jnp.floating)
    ):
        raise ValueError(
            f"neural_tangent_kernel needs a model with one real output [batch, ...]: {model.label} gives "
            f"{describe(out)} for an input {describe(x1)}"
        )
    each = out.shape[1:]
    units = jnp.eye(math.prod(each), dtype=out.dtype).reshape(-1, 1, *each)

    def column(x: jax.Array) -> jax.Array:
        """With one input of ``x2``: ``[output2, batch1, *output]``."""

        def of_output(unit: jax.Array) -> jax.Array:
            slope = vector_jacobian(lambda p: outputs(p, x[None]), params, unit)
            product: jax.Array = jacobian_vector(lambda p: outputs(p, x1), params, slope)
            return product

        return jax.vmap(of_output)(units)

    kernel = jax.lax.map(column, x2)  # [batch2, output2, batch1, *output]
    kernel = jnp.moveaxis(kernel, (0, 1), (1, -1))
    return kernel.reshape(*kernel.shape[:-1], *each)
