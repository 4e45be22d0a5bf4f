"""The laws of wrapping a layer: repeated, side by side, recomputed, edited, tapped, streamed.

They are asked of purenets' own layers, whose wrappers they are about; of another layer they are skipped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purenets.conform.case import Case
from purenets.conform.report import Skip
from purenets.conform.runs import fast_jit, take
from purenets.conform.transforms import agree

__all__ = [
    "ensemble_is_apart",
    "identity_edit_changes_nothing",
    "remake_changes_nothing",
    "remat_is_plain",
    "repeat_is_loop",
    "sibling_changes_nothing",
    "stream_in_any_cut",
    "tap_changes_no_output",
]


def repeat_is_loop(case: Case) -> None:
    """``repeat(layer, 3)`` is a loop over its members, gradients too."""
    from purenets.lift import repeat

    if len(case.inputs) != 1:
        raise Skip("repeat takes layers of one input")
    shape = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    at = case.variables  # made here, where nothing is traced
    if shape(jax.eval_shape(lambda: case.run(variables=at))[0]) != shape(case.inputs[0]):
        raise Skip("the output is not like the input")
    model = repeat(case.own, 3)
    variables = model.init(case.key(5))

    def lifted(params: Any, state: Any) -> Any:
        return case.call(params, state, *case.inputs, train=True, layer=model)

    def loop(params: Any, state: Any) -> Any:
        x, states = case.inputs[0], []
        for i in range(3):
            key = jax.random.fold_in(case.key(1), i)
            x, new = case.own.apply(take(params, i), take(state, i), x, key=key, train=True, **case.side)
            states.append(new)
        return x, jax.tree.map(lambda *xs: jnp.stack(xs), *states)

    _same_with_gradients("repeated", lifted, loop, variables)


def ensemble_is_apart(case: Case) -> None:
    """``ensemble(layer, 3)`` is three layers apart."""
    from purenets.lift import ensemble

    model = ensemble(case.own, 3)
    params, state = model.init(case.key(5))
    out, after = case.call(params, state, *case.inputs, train=True, layer=model)
    for i in range(3):
        key = jax.random.fold_in(case.key(1), i)
        alone = case.own.apply(
            take(params, i), take(state, i), *case.inputs, key=key, train=True, **case.side
        )
        agree(f"member {i} of the ensemble", (take(out, i), take(after, i)), alone, 2e-4)
        start = case.own.init(jax.random.fold_in(case.key(5), i))
        agree(f"the params of member {i}", (take(params, i), take(state, i)), start, 1e-5)


def remat_is_plain(case: Case) -> None:
    """Recomputing changes nothing, gradients and masks included."""
    from purenets.lift import remat

    model = remat(case.own)
    agree("init under remat", model.init(case.key()), case.variables, 0.0)
    plain = lambda p, s: case.call(p, s, *case.inputs, train=True)
    again = lambda p, s: case.call(p, s, *case.inputs, train=True, layer=model)
    _same_with_gradients("recomputed", again, plain, case.variables)


def _same_with_gradients(
    what: str, ours: Callable[..., Any], theirs: Callable[..., Any], variables: tuple[Any, Any]
) -> None:
    params, state = variables
    agree(what, ours(params, state), theirs(params, state), 2e-4)
    floats = lambda tree: [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    if not floats(params):
        return

    def total(fn: Callable[..., Any]) -> Any:
        return lambda p: sum((jnp.sum(jnp.sin(y)) for y in floats(fn(p, state)[0])), start=jnp.zeros(()))

    agree(
        f"gradients, {what}",
        fast_jit(jax.grad(total(ours)))(params),
        fast_jit(jax.grad(total(theirs)))(params),
        2e-3,
        floor=1e-5,
    )


def sibling_changes_nothing(case: Case) -> None:
    """A part beside the layer changes neither its initial params nor its masks."""
    from purenets.compose import compose
    from purenets.layer import layer as make

    other = make(lambda key: {"w": jax.random.normal(key, (2,))}, lambda p, x: x, label="sibling")
    side = dict(case.side)

    def body(m: Any, *inputs: Any) -> Any:
        return m.part(*inputs, **side)

    alone = compose(part=case.own)(body)
    beside = compose(sibling=other, part=case.own)(body)
    one, two = alone.init(case.key()), beside.init(case.key())
    for kind, a, b in zip(("params", "state"), one, two, strict=True):
        if a:
            agree(f"{kind} beside a sibling", b["part"], a["part"], 0.0)
    call = lambda layer, variables: layer.apply(*variables, *case.inputs, key=case.key(1), train=True)[0]
    agree("the output beside a sibling", call(beside, two), call(alone, one), 0.0)


def identity_edit_changes_nothing(case: Case) -> None:
    """Editing every part by what returns it changes nothing."""
    from purenets.surgery import edit, layer_paths

    if not layer_paths(case.own):
        raise Skip("the layer has no parts")
    seen: list[Any] = []
    model = edit(case.own, "**", lambda part: seen.append(part) or part)  # type: ignore[func-returns-value]
    agree("init after the edit", model.init(case.key()), case.variables, 0.0)
    agree("the output after the edit", case.run(train=True, layer=model), case.run(train=True), 0.0)


def remake_changes_nothing(case: Case) -> None:
    """A layer made again of its own parts is the same."""
    model = case.own.remake(dict(case.own.parts))
    agree("init of the layer made again", model.init(case.key()), case.variables, 0.0)
    agree("the output of the layer made again", case.run(train=True, layer=model), case.run(train=True), 0.0)


def tap_changes_no_output(case: Case) -> None:
    """A tap keeps the output in the state and changes nothing else."""
    from purenets.surgery import tap

    model = tap(case.own)
    output, state = case.run(train=True, layer=model)
    plain, expected = case.run(train=True)
    agree("the tapped output", output, plain, 0.0)
    agree("the state beside the tap", {k: x for k, x in state.items() if k != "tap"}, expected, 0.0)
    agree("what was tapped", state["tap"], plain, 0.0)


def stream_in_any_cut(case: Case) -> str:
    """A sequence in stretches of any length gives what the whole gives."""
    from purenets.layer import open_stream

    if "stream" not in inspect.signature(case.own.apply).parameters or not case.own.memory(1, 1):
        raise Skip("the layer keeps no memory over time")
    x = case.inputs[0]
    batch, time = x.shape[:2]
    params, state = case.variables
    whole = case.own.apply(params, state, *case.inputs, **case.side)[0]
    cuts = ([1], [time // 2], [time - 1], range(1, time), [2, 3])
    for cut in sorted({tuple(c for c in cut if 0 < c < time) for cut in cuts}):
        memory = open_stream(case.own, state, batch=batch, length=time)
        pieces = []
        for part in jnp.split(x, list(cut), axis=1):
            out, memory = case.own.apply(params, memory, part, *case.inputs[1:], stream=True, **case.side)
            pieces.append(out)
        agree(
            f"cut after {', '.join(map(str, cut)) or 'nothing'}", jnp.concatenate(pieces, axis=1), whole, 1e-3
        )
    return f"{time} steps"
