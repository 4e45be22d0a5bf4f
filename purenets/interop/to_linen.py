"""A layer as a Flax linen module, for use inside one."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from purenets.errors import describe
from purenets.interop.foreign import library
from purenets.layer import Key, Layer

__all__ = ["to_linen"]


def to_linen(layer: Layer, **fields: Any) -> Any:
    """A layer as a linen module, ``module(*inputs, train=False, **side)``.

    The layer's params are the module's ``params`` and its state is the collection ``state``, both under the names
    they have in the layer. In training ``state`` must be mutable, and masks are drawn from the stream ``dropout``.
    For nnx, wrap what this returns in ``flax.nnx.bridge.ToNNX``.

    Args:
        layer: any layer.
        fields: those of every linen module, such as ``name``.

    Raises:
        ImportError: Flax is not installed.
        TypeError: it is not a layer.

    >>> from purenets.layers import dense
    >>> variables = to_linen(dense(2, 3)).init(jax.random.key(0), jnp.ones((1, 2)))
    >>> jax.tree.map(jnp.shape, variables)
    {'params': {'bias': (3,), 'kernel': (2, 3)}}
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"to_linen needs a layer, got {describe(layer)}")
    return _module_class()(layer, **fields)


def _typed(key: Key) -> Key:
    """Flax also takes keys that are plain words."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


@cache
def _module_class() -> Any:
    nn: Any = library("flax.linen", "flax")

    class PurenetsLayer(nn.Module):  # type: ignore[misc, name-defined]
        layer: Layer

        @nn.compact  # type: ignore[untyped-decorator]
        def __call__(self, *inputs: Any, train: bool = False, **side: Any) -> Any:
            if self.is_initializing():
                start = self.layer.init(_typed(self.make_rng("params")))
            else:
                start = jax.eval_shape(self.layer.init, jax.random.key(0))
            # Of the scope and not of the module, where names such as "name" and "layer" are taken.
            params = {
                name: self.scope.param(name, lambda _, tree=tree: tree) for name, tree in start[0].items()
            }
            kept = {
                name: self.scope.variable("state", name, lambda tree=tree: tree)
                for name, tree in start[1].items()
            }
            state = {name: variable.value for name, variable in kept.items()}
            key = _typed(self.make_rng("dropout")) if train and self.has_rng("dropout") else None
            try:
                output, after = self.layer.apply(params, state, *inputs, key=key, train=train, **side)
            except Exception as error:
                if train and key is None:
                    error.add_note("in linen, a key is given as apply(..., rngs={'dropout': key})")
                raise
            # As elsewhere in Flax, statistics do not move while initialising.
            if train and not self.is_initializing():
                for name, variable in kept.items():
                    variable.value = after[name]
            return output

    return PurenetsLayer
