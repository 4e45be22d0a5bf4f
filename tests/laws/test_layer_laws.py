"""The laws that every layer keeps, over :mod:`tests.laws.cases`: those of the public kit, and stricter ones."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import purenets as pn
from purenets.conform import check_layer
from tests.laws.cases import CASES

every = pytest.mark.parametrize("case", CASES, ids=str)
MODES = (True, False)


def key():
    """A new object each time: a key may be used up only once."""
    return jax.random.key(7)


class Drawn:
    """A case made concrete: the model, params that are not those it begins with, state and inputs."""

    def __init__(self, case):
        rng = np.random.default_rng(0)

        def draw(given):
            return jnp.asarray(given(rng) if callable(given) else rng.normal(size=given).astype(np.float32))

        def moved(leaf):
            return leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32)

        self.model = case.layer()
        self.init = self.model.init(jax.random.key(1))
        self.params = jax.tree.map(moved, self.init[0])
        self.state = jax.tree.map(lambda leaf: leaf + 0.5, self.init[1])
        self.inputs = tuple(map(draw, case.given))
        self.side = {name: draw(given) for name, given in case.side.items()}
        self.traces = []
        self.jitted = jax.jit(self._traced, static_argnums=0)
        self.eager = {train: self.apply(train) for train in MODES}
        trained, evaluated = map(jax.tree.leaves, self.eager.values())
        differ = any((a != b).any() for a, b in zip(trained, evaluated, strict=True))
        self.modes = MODES if differ else (True,)

    def _traced(self, train, params, state, inputs, key, side):
        self.traces.append(train)
        return self.model.apply(params, state, *inputs, train=train, key=key, **side)

    def apply(self, train, model=None, params=None, state=None):
        model, params = model or self.model, self.params if params is None else params
        state = self.state if state is None else state
        return model.apply(params, state, *self.inputs, train=train, key=key(), **self.side)

    def compiled(self, train, params, state, inputs=None, key_=None):
        """One program for each mode, which all laws share."""
        inputs, key_ = self.inputs if inputs is None else inputs, key() if key_ is None else key_
        return self.jitted(train, params, state, inputs, key_, self.side)

    def floats(self):
        """The inputs that have gradients, by their position."""
        return {i: x for i, x in enumerate(self.inputs) if jnp.issubdtype(x.dtype, jnp.floating)}

    def weighted(self, model, train, params, floats):
        """A number that depends on all of the output, then output and state."""
        inputs = [floats.get(i, x) for i, x in enumerate(self.inputs)]
        out, state = model.apply(params, self.state, *inputs, key=key(), train=train, **self.side)
        return jnp.sum(jnp.sin(out)), (out, state)

    def slopes(self, model, train, *arguments):
        """Gradients with respect to params and inputs, then output and state."""
        return jax.grad(lambda *args: self.weighted(model, train, *args), (0, 1), has_aux=True)(*arguments)


@cache
def drawn(case):
    return Drawn(case)


def output_is_like_the_only_input(case):
    def run(key):
        rng, model = np.random.default_rng(0), case.layer()
        side = {name: jnp.zeros(given) for name, given in case.side.items()}
        xs = [jnp.asarray(given(rng)) if callable(given) else jnp.zeros(given) for given in case.given]
        return xs, model.apply(*model.init(key), *xs, **side)[0]

    inputs, out = jax.eval_shape(run, jax.random.key(0))
    return [(x.shape, x.dtype) for x in inputs] == [(out.shape, out.dtype)]


def assert_same(found, expected):
    """The same trees, bit for bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), found, expected)


def assert_close(found, expected, tolerance=1e-5):
    """The same trees up to the rounding of another order of operations."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, strict=True)

    jax.tree.map(close, found, expected)


def form(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


# The other tests here hold every law to every layer; what is asked of the kit is that it raises no alarm.
@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_the_public_kit_finds_it_lawful_and_has_no_false_alarm(case):
    d = drawn(case)
    # What stops or rounds its gradient on purpose has none that differences could measure.
    measured = () if case.differentiable else ("gradients_are_right", "training_gradients_are_right")
    below = ("remat_is_plain", "repeat_is_loop")
    check_layer(d.model, *d.inputs, side=d.side, skip=(*measured, *below))


@every
def test_params_and_state_are_nested_plain_dicts_of_arrays_and_check_passes(case):
    d = drawn(case)

    def plain(tree):
        return all(
            isinstance(name, str)
            and (value and plain(value) if type(value) is dict else isinstance(value, jax.Array))
            for name, value in tree.items()
        )

    for tree in d.init:
        assert type(tree) is dict
        assert plain(tree)
    assert form(pn.check(d.model, *d.inputs, **d.side)) == form(d.eager[False][0])


@every
def test_initialising_under_jit_into_shards_gives_the_same_values(case):
    d = drawn(case)
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:8]), ("model",))

    def spread(leaf):
        split = leaf.ndim and leaf.shape[-1] % 8 == 0
        return NamedSharding(
            mesh, PartitionSpec(*[None] * (leaf.ndim - 1), "model") if split else PartitionSpec()
        )

    wanted = jax.tree.map(spread, d.init)
    born = jax.jit(d.model.init, out_shardings=wanted)(jax.random.key(1))
    assert jax.tree.map(lambda leaf: leaf.sharding, born) == wanted
    assert_close(jax.device_get(born), jax.device_get(d.init), 1e-6)


@every
def test_two_modes_are_two_traces_whose_state_keeps_its_form(case):
    d = drawn(case)
    state = d.state
    for train in MODES * 3:
        _, state = d.compiled(train, d.params, state)
        assert form(state) == form(d.state)
    assert sorted(d.traces) == [False, True]


@every
def test_eager_is_jit_is_vmap_over_stacked_params(case):
    d = drawn(case)
    trees = d.params, d.state
    other = jax.tree.map(lambda leaf: 0.5 * leaf + 0.1, trees)
    for train in d.modes:
        assert_close(d.compiled(train, *trees), d.eager[train], case.tolerance)
        together = jax.vmap(lambda _, own: d.apply(train, None, *own))(jnp.arange(2), stacked([trees, other]))
        assert_close(together, stacked([d.eager[train], d.compiled(train, *other)]), case.tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if output_is_like_the_only_input(case)], ids=str)
def test_repeat_is_the_loop_over_its_members(case):
    d, n = drawn(case), 3
    model = pn.repeat(d.model, n)
    params, state = model.init(jax.random.key(3))
    for train in d.modes:
        found = d.apply(train, model, params, state)
        x, states = d.inputs[0], []
        for i in range(n):
            own = jax.tree.map(lambda leaf: leaf[i], (params, state))
            x, after = d.compiled(train, *own, (x,), jax.random.fold_in(key(), i))
            states.append(after)
        assert_close(found, (x, stacked(states)), n * case.tolerance)


@every
def test_remat_changes_no_bit_of_output_or_state_and_no_gradient(case):
    d = drawn(case)
    model = pn.remat(d.model)

    @jax.jit
    def both(*arguments):
        return d.slopes(model, True, *arguments), d.slopes(d.model, True, *arguments)

    (found, aux), (expected, plain_aux) = both(d.params, d.floats())
    if case.rounds_alike:
        assert_same(aux, plain_aux)
    assert_close(aux, plain_aux, case.tolerance)
    # XLA may fuse, and so round, the recomputed values otherwise; what a mask drops is exactly zero in both.
    assert_close(found, expected, case.tolerance)
    assert_same(jax.tree.map(jnp.any, found), jax.tree.map(jnp.any, expected))


@every
def test_frozen_has_no_gradient_and_is_evaluation(case):
    d = drawn(case)
    model = pn.frozen(d.model)

    @jax.jit
    def both(*arguments):
        return d.slopes(model, True, *arguments), d.slopes(d.model, False, *arguments)

    ((to_params, to_inputs), (out, state)), ((_, through), (evaluated, _)) = both(d.params, d.floats())
    assert not any(leaf.any() for leaf in jax.tree.leaves(to_params))
    assert_close((to_inputs, out), (through, evaluated), case.tolerance)
    assert_same(state, d.state)


@every
def test_cast_keeps_params_and_state_in_float32_and_gives_the_output_asked_for(case):
    d = drawn(case)
    model, half = pn.cast(d.model), pn.cast(d.model, pn.Policy(output=jnp.bfloat16))
    assert form(model.init(jax.random.key(0))) == form(d.init)
    assert jax.eval_shape(lambda: d.apply(True, half)[0]).dtype == jnp.bfloat16
    for train in d.modes:
        found, expected = d.apply(train, model), d.eager[train]
        assert form(found) == form(expected)
        # bfloat16 has two to three digits, and the layers are a few operations deep; the masks are the same.
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert np.linalg.norm(a - b) <= 0.05 * np.linalg.norm(b)


@every
def test_an_edit_that_changes_nothing_changes_nothing(case):
    d = drawn(case)
    model = pn.edit(d.model, "**", dataclasses.replace)
    assert model is not d.model or not d.model.parts
    assert pn.layer_paths(model) == pn.layer_paths(d.model)
    assert_same(model.init(jax.random.key(1)), d.init)
    assert_same(d.apply(True, model), d.eager[True])


@every
def test_taps_change_no_output_and_keep_that_of_every_layer(case):
    d = drawn(case)
    plain, _ = d.eager[True]
    tapped = pn.tap(pn.edit(d.model, "**", pn.tap))
    out, state = d.apply(True, tapped)
    assert_same((out, pn.taps(state)[""]), (plain, plain))
    assert set(pn.taps(state)) == {"", *pn.layer_paths(d.model)}
    _, again = d.apply(True, tapped, state=state)
    assert form(again) == form(state)


@every
def test_split_then_merge_is_the_identity_on_params(case):
    params = drawn(case).params
    for path in pn.paths.leaf_paths(params):
        for pattern in (path, "**/" + path.split("/")[-1], "**"):
            inside, outside = pn.paths.split(params, pattern)
            assert path in pn.paths.leaf_paths(inside)
            assert path not in pn.paths.leaf_paths(outside)
            assert_same(pn.paths.merge(inside, outside), params)


@every
def test_it_may_stand_in_a_scan_and_in_a_cond(case):
    d = drawn(case)

    def run(params, state, inputs, side):
        def step(state, i):
            def branch(train):
                own = jax.random.fold_in(key(), i)
                return lambda: d.model.apply(params, state, *inputs, key=own, train=train, **side)

            output, state = jax.lax.cond(i % 2 == 0, branch(True), branch(False))
            return state, output

        return jax.lax.scan(step, state, jnp.arange(3))

    state, outputs = jax.eval_shape(run, d.params, d.state, d.inputs, d.side)
    assert form(state) == form(d.state)
    assert outputs.shape == (3, *d.eager[False][0].shape)
