"""The laws of a layer, each a function of a :class:`~purenets.conform.case.Case` that raises where it is broken.

Those of its numbers are in :mod:`purenets.conform.value_laws`, those of wrapping a layer in
:mod:`purenets.conform.wrapper_laws`; :data:`LAYER_LAWS` has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenets.conform import value_laws, wrapper_laws
from purenets.conform.case import Case
from purenets.conform.derivatives import gradients_agree
from purenets.conform.protocol import same_form
from purenets.conform.report import Fail, Skip
from purenets.conform.runs import fast_jit, take
from purenets.conform.transforms import agree

__all__ = ["LAYER_LAWS"]


def plain_trees(case: Case) -> None:
    """Params and state are nested plain dicts of arrays, without None, without empty dicts."""
    made = case.layer.init(case.key())
    if not isinstance(made, tuple) or len(made) != 2:
        raise Fail(f"init must return (params, state), got {type(made).__name__}")
    for kind, tree in zip(("params", "state"), made, strict=True):
        if not isinstance(tree, dict):
            raise Fail(f"{kind} is {type(tree).__name__} and not a dict")
        _plain(tree, kind)


def _plain(tree: Mapping[Any, Any], path: str) -> None:
    for name, value in tree.items():
        here = f"{path}/{name}"
        if not isinstance(name, str) or "/" in name:
            raise Fail(f"{path} has the entry {name!r}, which is no plain name")
        if type(value) is dict:
            if not value:
                raise Fail(f"{here} is an empty dict")
            _plain(value, here)
        elif not isinstance(value, jax.Array):
            raise Fail(f"{here} is {type(value).__name__} and not an array")
        elif getattr(value, "weak_type", False):
            raise Fail(f"{here} is weakly typed")


def init_is_pure(case: Case) -> None:
    """One key gives one set of params: twice, compiled, and as shapes without any array."""
    first = case.layer.init(case.key())
    same = "the second init"
    agree(same, case.layer.init(case.key()), first, 0.0)
    compiled = jax.jit(case.layer.init)(case.key())
    same_form("jit(init)", first, compiled)
    agree("jit(init)", compiled, first, 1e-5)
    same_form("eval_shape(init)", first, jax.eval_shape(case.layer.init, case.key()))


def init_many(case: Case) -> None:
    """``vmap(init)`` over keys is init of each."""
    keys = jax.random.split(case.key(), 2)
    stacked = fast_jit(jax.vmap(case.layer.init))(keys)
    again = jax.random.split(case.key(), 2)
    for i in range(2):
        agree(f"vmap(init), key {i}", take(stacked, i), case.layer.init(again[i]), 1e-5)


def state_keeps_form(case: Case) -> None:
    """The state that comes out is like the one that went in, in both modes and twice over."""
    params, state = case.variables
    for train in (False, True):
        out = jax.eval_shape(
            lambda p, s, x, train=train: case.call(p, s, *x, train=train), params, state, case.inputs
        )
        if not isinstance(out, tuple) or len(out) != 2:
            raise Fail(f"apply must return (output, state), got {type(out).__name__}")
        mode = "training" if train else "evaluation"
        same_form(f"the state after {mode}", state, out[1])
        for path, x in jax.tree_util.tree_flatten_with_path(out[1])[0]:
            if getattr(x, "weak_type", False):
                raise Fail(f"the state after {mode} is weakly typed at {jax.tree_util.keystr(path)}")


def evaluation_is_pure(case: Case) -> None:
    """``train=False`` ignores the key and returns the state unchanged."""
    params, state = case.variables
    base, after = case.layer.apply(params, state, *case.inputs, train=False, **case.side)
    for number in (1, 2):
        other = case.layer.apply(params, state, *case.inputs, key=case.key(number), train=False, **case.side)[
            0
        ]
        agree("evaluation with another key", other, base, 0.0)
    agree("the state after evaluation", after, state, 0.0)


def training_follows_the_key(case: Case) -> None:
    """Training twice with one key is the same twice; the inputs and params are left alone."""
    before = jax.tree.map(
        lambda x: np.array(x, copy=True) if _plain_array(x) else None, (case.variables, case.inputs)
    )
    agree("training again with the same key", case.run(train=True), case.run(train=True), 0.0)
    after = jax.tree.map(lambda x: np.array(x) if _plain_array(x) else None, (case.variables, case.inputs))
    agree("what was given to apply", after, before, 0.0)


def _plain_array(x: Any) -> bool:
    return hasattr(x, "dtype") and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def eager_is_jit(case: Case) -> None:
    """Compiled or not, in both modes."""
    params, state = case.variables
    for train in (False, True):
        compiled = jax.jit(lambda p, s, x, train=train: case.call(p, s, *x, train=train))
        mode = "training" if train else "evaluation"
        agree(f"compiled {mode}", compiled(params, state, case.inputs), case.run(train=train), 2e-4)


def vmap_over_params(case: Case) -> None:
    """A vmap over params and state is each of them for itself."""
    one, two = case.layer.init(case.key(3)), case.layer.init(case.key(4))
    if not jax.tree.leaves(one):
        raise Skip("there are neither params nor state")
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), one, two)
    out = fast_jit(jax.vmap(lambda p, s, x: case.call(p, s, *x, train=True), (0, 0, None)))(
        *both, case.inputs
    )
    for i, variables in enumerate((one, two)):
        agree(f"vmapped, member {i}", take(out, i), case.run(train=True, variables=variables), 2e-4)


def gradients_are_right(case: Case) -> str:
    """Reverse and forward mode against central differences, in float64 and evaluation; larger inputs too."""
    params, state = case.variables
    fn = lambda p, x: case.call(p, _wide(state), *x)[0]
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    for scale in (4.0, 3.7) if any(is_float(x) for x in jax.tree.leaves(case.inputs)) else ():
        large = jax.tree.map(lambda x, scale=scale: scale * x if is_float(x) else x, case.inputs)
        try:
            gradients_agree(lambda x: fn(_wide(params), x), large, relative=1e-5, single=False)
        except Fail:  # a kink that happens to lie between the two differences lies at one scale alone
            if scale != 4.0:
                raise
        else:
            break
    return gradients_agree(fn, params, case.inputs)


def training_gradients_are_right(case: Case) -> str:
    """The same in training, under one key."""
    params, state = case.variables
    return gradients_agree(
        lambda p, x: case.call(p, _wide(state), *x, train=True)[0], params, case.inputs, single=False
    )


def _wide(tree: Any) -> Any:
    wide = lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jax.tree.map(wide, tree)


def two_modes_two_traces(case: Case) -> None:
    """However often the modes alternate, each is traced once."""
    traces = []

    def apply(params: Any, state: Any, inputs: Any, train: bool) -> Any:
        traces.append(train)
        return case.call(params, state, *inputs, train=train)

    compiled = jax.jit(apply, static_argnums=3)
    params, state = case.variables
    for train in (True, False, True, False, True):
        _, state = compiled(params, state, case.inputs, train)
    if len(traces) != 2:
        raise Fail(f"five calls in two modes were traced {len(traces)} times")


def unknown_arguments_fail(case: Case) -> None:
    """A keyword that the layer does not declare is a TypeError and not swallowed."""
    try:
        case.layer.apply(*case.variables, *case.inputs, unheard_of_argument=1, **case.side)
    except TypeError:
        return
    raise Fail("apply swallows a keyword argument that nobody declared")


def needs_its_key(case: Case) -> str:
    """Training without a key works, or the error says that a key is needed."""
    try:
        case.layer.apply(*case.variables, *case.inputs, train=True, **case.side)
    except Exception as error:
        if "key" not in str(error):
            raise Fail(f"training without a key fails with {type(error).__name__}: {error}") from None
        return "needs a key, and says so"
    return "needs none"


LAYER_LAWS: dict[str, Callable[[Case], str | None]] = {
    law.__name__: law
    for law in (
        plain_trees,
        init_is_pure,
        init_many,
        state_keeps_form,
        evaluation_is_pure,
        training_follows_the_key,
        eager_is_jit,
        two_modes_two_traces,
        vmap_over_params,
        gradients_are_right,
        training_gradients_are_right,
        unknown_arguments_fail,
        needs_its_key,
        value_laws.examples_are_apart,
        value_laws.keys_matter,
        value_laws.params_matter,
        value_laws.keys_are_used_once,
        value_laws.precision_is_kept,
        value_laws.bfloat16_is_close,
        value_laws.no_host_callbacks,
        wrapper_laws.remat_is_plain,
        wrapper_laws.repeat_is_loop,
        wrapper_laws.ensemble_is_apart,
        wrapper_laws.sibling_changes_nothing,
        wrapper_laws.remake_changes_nothing,
        wrapper_laws.identity_edit_changes_nothing,
        wrapper_laws.tap_changes_no_output,
        wrapper_laws.stream_in_any_cut,
    )
}
"""All laws of a layer, by name."""
