"""Which dtype everything in a training has, from shapes alone: an audit of mixed precision.

::

    print(dtypes(pn.cast(model, policy), (32, 784), optimizer=pn.optim.adam(1e-3)))

lists the params, the model's state, each layer's output, the gradients and the optimizer's state. What ``cast`` did and
did not reach is then plain, and so are params kept in half precision, whose small updates are lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from purenets.inspect.table import text_table
from purenets.layer import Key, Layer, Params, State
from purenets.paths import flatten, path_of, unflatten
from purenets.surgery import abstract, edit, layer_paths, tap, taps

if TYPE_CHECKING:
    import optax

__all__ = ["DtypeRow", "Dtypes", "dtypes"]


class DtypeRow(NamedTuple):
    """One array."""

    kind: str
    """``input``, ``param``, ``state``, ``activation``, ``gradient`` or ``optimizer``."""
    path: str
    """Of the leaf; of an activation, that of the layer that gives it out, ``""`` for the model itself."""
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Dtypes:
    """What :func:`dtypes` found; ``str`` makes a table of it."""

    rows: tuple[DtypeRow, ...]

    def of(self, kind: str) -> dict[str, str]:
        """Path to dtype, of one kind."""
        return {row.path: row.dtype for row in self.rows if row.kind == kind}

    def bytes(self) -> dict[str, dict[str, int]]:
        """Kind to dtype to how many bytes there are of it."""
        found: dict[str, dict[str, int]] = {}
        for row in self.rows:
            kind = found.setdefault(row.kind, {})
            kind[row.dtype] = kind.get(row.dtype, 0) + row.bytes
        return found

    def __str__(self) -> str:
        cells = [
            (row.kind, row.path or "(the model)", row.dtype, str(list(row.shape)), f"{row.bytes:,}")
            for row in self.rows
        ]
        sums = [
            (kind, "all", dtype, "", f"{size:,}")
            for kind, each in self.bytes().items()
            for dtype, size in each.items()
        ]
        columns = ("kind", "path", "dtype", "shape", "bytes")
        return text_table(columns, [*cells, ("", "", "", "", ""), *sums], right=("bytes",))


def dtypes(
    model: Layer,
    *inputs: Any,
    optimizer: optax.GradientTransformation | None = None,
    train: bool = True,
    **side: Any,
) -> Dtypes:
    """The dtype of every param, state leaf, activation and gradient of a model; nothing is computed.

    An activation is what a layer gives out, under the path of the layer; under ``repeat`` and ``ensemble`` those of all
    members are one array. Gradients are those of a sum of the outputs.

    Args:
        model: the layer to audit.
        inputs: one shape per input, ``(32, 784)`` for float32, or anything with ``shape`` and ``dtype``.
        optimizer: whose state to list as well.
        train: the mode.
        side: side inputs, likewise; any other value is given as it is.

    Raises:
        ValueError: the model refuses the inputs.

    >>> import purenets as pn
    >>> model = pn.serial(hidden=pn.cast(pn.dense(4, 3), pn.Policy(output=jnp.bfloat16)), relu=jax.nn.relu)
    >>> import optax
    >>> found = dtypes(model, (2, 4), optimizer=optax.sgd(0.1, momentum=0.9))
    >>> found.of("activation")
    {'hidden': 'bfloat16', 'relu': 'bfloat16', '': 'bfloat16'}
    >>> found.bytes()["param"], found.of("optimizer")["0/trace/hidden/bias"]
    ({'float32': 60}, 'float32')
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(model.init, key)
    xs = [abstract(x) for x in inputs]
    extra = {name: abstract(value) for name, value in side.items()}
    traced = {name: value for name, value in extra.items() if isinstance(value, jax.ShapeDtypeStruct)}

    def outputs(params: Params, state: State, key: Key, xs: list[Any], traced: dict[str, Any]) -> Any:
        tapped = tap(edit(model, layer_paths(model), tap))
        _, after = tapped.apply(params, state, *xs, key=key, train=train, **{**extra, **traced})
        return taps(after)

    def total(params: Params, *given: Any) -> jax.Array:
        leaves = jax.tree.leaves(outputs(params, *given)[""])
        return sum((jnp.real(leaf).astype(jnp.float32).sum() for leaf in leaves), jnp.float32(0))

    given = (state, key, xs, traced)
    activations = jax.eval_shape(outputs, params, *given)
    trained = {
        path: leaf for path, leaf in flatten(params).items() if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }

    def slope(trained: Params, params: Params, *given: Any) -> Params:
        return jax.grad(lambda flat: total(unflatten({**flatten(params), **flat}), *given))(trained)

    gradients = jax.eval_shape(slope, trained, params, *given)
    order = [path for path in [*layer_paths(model), ""] if path in activations]
    kinds = {
        "input": {"inputs": xs, **traced},
        "param": params,
        "state": state,
        "gradient": gradients,
        "optimizer": None if optimizer is None else jax.eval_shape(optimizer.init, params),
    }
    rows = [row for kind in ("input", "param", "state") for row in _rows(kind, kinds[kind])]
    for path in order:
        rows += [row._replace(path=path) for row in _rows("activation", activations[path])]
    return Dtypes((*rows, *_rows("gradient", kinds["gradient"]), *_rows("optimizer", kinds["optimizer"])))


def _rows(kind: str, tree: Any) -> list[DtypeRow]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [
        DtypeRow(kind, path_of(path), str(leaf.dtype), tuple(leaf.shape), leaf.size * leaf.dtype.itemsize)
        for path, leaf in leaves
    ]
