"""A trained model as one file: its program, as StableHLO, with the weights in it.

The file needs JAX to run, and neither purenets nor the code of the model. It is made for the platform it is made on,
or for those that are named. JAX promises to run it for six months of versions at least (``jax.export``'s compatibility
guarantee).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export as jax_export

from purenets.errors import check_call, describe
from purenets.interop.foreign import Shape, library, shape_of
from purenets.layer import Layer, Params, State

__all__ = ["export", "load_program"]


def export(
    model: Layer, params: Params, state: State, *shapes: Shape, platforms: Sequence[str] | None = None
) -> bytes:
    """The model in evaluation, with these params and state, as a serialized program.

    Args:
        model: any layer.
        params: its params.
        state: its state.
        shapes: of its inputs, each a tuple of sizes (float32) or something that has a shape and a dtype. A size
            that is a name, ``("batch", 784)``, is open: the program takes any, the same wherever the name is the
            same.
        platforms: those it is to run on, such as ``("cpu", "cuda", "tpu")``; by default the one it is made on.

    Raises:
        ImportError: flatbuffers is not installed, in which JAX serializes.
        TypeError: a shape is none, or params or state are not dicts.
        jax.errors.InconclusiveDimensionOperation: the model needs to know a size that is open.
        ValueError: a name is none.

    ::

        Path("digits.jax").write_bytes(export(model, params, state, ("batch", 784)))
        program = load_program("digits.jax")
    """
    library("flatbuffers", "flatbuffers")
    check_call(model.label, params, state)

    def evaluate(*inputs: Any) -> Any:
        return model.apply(params, state, *inputs)[0]

    scope = jax_export.SymbolicScope()
    specs = [_opened(shape_of(shape), scope) for shape in shapes]
    try:
        exported = jax_export.export(jax.jit(evaluate), platforms=platforms)(*specs)
    except jax.errors.InconclusiveDimensionOperation as error:
        error.add_note("a size of the inputs is open, and the model needs to know it: give it as a number")
        raise
    return bytes(exported.serialize())


def _opened(spec: jax.ShapeDtypeStruct, scope: jax_export.SymbolicScope) -> jax.ShapeDtypeStruct:
    """Names among the sizes as sizes that are open."""
    sizes = jax_export.symbolic_shape(", ".join(map(str, spec.shape)), scope=scope)
    return jax.ShapeDtypeStruct(sizes, spec.dtype)


def load_program(program: bytes | str | Path) -> Callable[..., Any]:
    """The function ``f(*inputs) -> output`` of a serialized program, or of a file that holds one.

    Raises:
        ImportError: flatbuffers is not installed.
        ValueError: it is not a program of :func:`export`. When called, an input has another shape or dtype, or the
            platform is one it was not made for.
        FileNotFoundError: there is no such file.
    """
    library("flatbuffers", "flatbuffers")
    data = program if isinstance(program, bytes) else Path(program).read_bytes()
    try:
        loaded = jax_export.deserialize(bytearray(data))
    except Exception as error:
        raise ValueError(f"these {len(data)} bytes are no program of export: {error}") from error

    run = jax.jit(loaded.call)

    def call(*inputs: Any) -> Any:
        if len(inputs) != len(loaded.in_avals):
            raise ValueError(f"the program takes {describe(list(loaded.in_avals))}, got {describe(inputs)}")
        return run(*inputs)

    return call
