"""Leaf by leaf: the numbers of an update and its application, in a program with calls for large leaves."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import purenets as pn
import purenets.optim.by_leaf as module
from purenets import losses, optim

LARGE = (320, 128)
OPTIMIZERS = {
    "momentum": optim.sgd(0.1, momentum=0.9),
    "adamw": optim.adamw(0.1),
    "nadam": optim.nadam(optim.cosine_decay_schedule(0.1, 10)),
    "clipped": optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1)),
    "clipped last": optim.chain(optim.trace(0.9), optim.clip_by_global_norm(1.0), optim.scale(-0.1)),
    "lamb": optim.lamb(0.1),
    "lion": optim.lion(0.1),
    "rprop": optim.rprop(0.1),
    "adafactor": optim.adafactor(0.1),
    "muon": optim.contrib.muon(0.1),
    "every second": optim.MultiSteps(optim.adam(0.1), 2).gradient_transformation(),
    "groups": optim.groups({"*/bias": optim.sgd(0.1), "**": optim.adam(0.1)}),
    "unless not finite": optim.apply_if_finite(optim.adam(0.1), 3),
    "noisy": optim.chain(optim.add_noise(0.1, 0.5, 0), optim.sgd(0.1, momentum=0.9)),
    "theirs": optax.adamw(0.1),
}


def tree(seed):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    layers = {name: {"kernel": draw(*LARGE), "bias": draw(128)} for name in ("one", "two")}
    return {**layers, "wide": {"kernel": draw(128, 300)}}


def apart(optimizer):
    def update(grads, state, params):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return update


def by_leaf(optimizer):
    return lambda grads, state, params: optim.update_params(optimizer, grads, state, params)


def calls(program):
    """The large values that each call of a lowered program returns, and the number of called functions."""
    text = program.as_text()
    marked = [line for line in text.splitlines() if 'inlineable = "false"' in line]
    assert all(" call @some_leaves" in line for line in marked)
    returned = [re.sub(r".*-> ", "", line) for line in marked]
    return [re.findall(r"tensor<(\w+)x\w+>", line) for line in returned], text.count(
        "func.func private @some_leaves"
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_updates_are_those_of_update_and_apply_updates(name):
    optimizer = OPTIMIZERS[name]
    params, grads = tree(0), tree(1)
    mine, theirs = ((params, optimizer.init(params)) for _ in range(2))
    here, there = jax.jit(by_leaf(optimizer)), jax.jit(apart(optimizer))
    for _ in range(3):
        mine, theirs = here(grads, mine[1], mine[0]), there(grads, theirs[1], theirs[0])
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["momentum", "adamw", "nadam", "clipped"])
def test_large_leaves_that_are_treated_alike_are_made_in_one_call(name):
    optimizer, params = OPTIMIZERS[name], tree(0)
    state = optimizer.init(params)
    each = 2 if name == "momentum" else 3  # the param and its averages
    returned, functions = calls(jax.jit(by_leaf(optimizer)).lower(params, state, params))
    assert sorted(returned) == sorted([["320x128"] * each * 2, ["128x300"] * each])
    assert functions == 2


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("momentum", 200, [6, 6, 6, 6, 6, 4]),  # at most seven arrays in a call, two for each leaf
        ("adamw", 200, [6, 6, 6, 6, 6, 6, 6, 6, 3]),  # three for each
        ("momentum", 250, [4] * 8 + [2]),  # 3 * 250^2 numbers read for each leaf, and 420,000 in a call
        ("momentum", 700, [2] * 17),  # more than that for one
    ],
)
def test_a_call_makes_no_more_than_stays_in_order_and_in_the_cache(name, side, expected):
    optimizer = OPTIMIZERS[name]
    params = {f"{at:02}": jnp.zeros((side, side)) for at in range(17)}
    program = jax.jit(by_leaf(optimizer)).lower(params, optimizer.init(params), params)
    returned, functions = calls(program)
    assert [len(shapes) for shapes in returned] == expected
    assert functions == len(set(expected))


def test_a_call_is_still_one_in_the_compiled_program_and_gets_what_it_writes_in_place():
    optimizer, params = OPTIMIZERS["adamw"], tree(0)
    step = jax.jit(
        lambda params, state, grads: by_leaf(optimizer)(grads, state, params), donate_argnums=(0, 1)
    )
    text = step.lower(params, optimizer.init(params), tree(1)).compile().as_text()
    assert len(re.findall(r" call\(.*to_apply=%some_leaves", text)) == 2
    assert not re.search(r"f32\[(320,128|128,300)\]\S* copy\(", text)


def test_many_calls_are_put_into_lots_which_compiled_code_has_no_more():
    optimizer = OPTIMIZERS["momentum"]
    params, grads = ({f"{at:02}": tree(seed + at)["one"]["kernel"] for at in range(30)} for seed in (0, 50))
    state = optimizer.init(params)

    def primitives(count):
        p, g = list(params.values())[:count], list(grads.values())[:count]
        (outer,) = jax.make_jaxpr(jax.jit(by_leaf(optimizer)))(g, optimizer.init(p), p).eqns
        return [eqn.primitive for eqn in outer.params["jaxpr"].jaxpr.eqns]

    call, lot = (jax.make_jaxpr(f(jnp.sin))(0.0).eqns[0].primitive for f in (jax.jit, jax.checkpoint))
    assert primitives(24) == [call] * 8
    assert primitives(27) == [lot] * 3
    lowered = jax.jit(by_leaf(optimizer)).lower(grads, state, params)
    returned, functions = calls(lowered)
    assert ([len(shapes) for shapes in returned], functions) == ([6] * 10, 1)
    assert lowered.as_text().count("func.func") == 2
    assert len(re.findall(r" call\(.*to_apply=%some_leaves", lowered.compile().as_text())) == 10

    def slope(update):
        def total(rates):
            after = jax.vmap(lambda rate: update(optim.sgd(rate, momentum=rate))(grads, state, params))(rates)
            return sum(jnp.sum(leaf**2 * leaf.shape[0]) for leaf in jax.tree.leaves(after))

        return jax.jit(jax.grad(total))(jnp.array([0.1, 0.5]))

    np.testing.assert_allclose(slope(by_leaf), slope(apart), rtol=1e-5)


def test_a_norm_of_all_gradients_is_ahead_of_the_calls_and_nothing_large_is_made_before():
    optimizer, params = OPTIMIZERS["clipped"], tree(0)
    program = jax.jit(by_leaf(optimizer)).lower(params, optimizer.init(params), params).as_text()
    main = program[: program.index("func.func private")]
    before = main[: main.index("call @some_leaves")]
    made = set(re.findall(r"stablehlo\.(\w+) .*-> tensor<320x128x", before)) | set(
        re.findall(r"stablehlo\.(\w+) .* : tensor<320x128x\w+>$", before, re.MULTILINE)
    )
    assert made <= {"multiply"}  # the squares under the norm
    assert "stablehlo.reduce" in before


def test_division_by_a_number_for_all_leaves_gets_no_call():
    optimizer, params = OPTIMIZERS["theirs"], tree(0)
    assert calls(jax.jit(by_leaf(optimizer)).lower(params, optimizer.init(params), params)) == ([], 0)


def test_what_is_jitted_inside_is_cut_as_if_it_were_not():
    optimizer, params = OPTIMIZERS["adamw"], tree(0)
    jitted = optimizer._replace(update=jax.jit(optimizer.update))
    returned, functions = calls(jax.jit(by_leaf(jitted)).lower(params, optimizer.init(params), params))
    assert (len(returned), functions) == (2, 2)
    expected, found = (jax.jit(by_leaf(o))(tree(1), o.init(params), params) for o in (optimizer, jitted))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_function_that_is_jitted_with_a_layout_stays_whole():
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    both = jax.jit(lambda x, y: (x + 1, y + 1), out_shardings=here)
    x = jnp.ones(LARGE)
    program = jax.jit(module.leaf_by_leaf(lambda x, y: [*both(x, y), x + y])).lower(x, x)
    assert program.as_text().count("sdy.sharding_constraint") == 2


def test_loops_get_no_call():
    def twice(x):
        x = jax.lax.fori_loop(0, 2, lambda _, x: 2 * x, x)
        return x, x + 1

    x = jnp.ones(LARGE)
    program = jax.jit(module.leaf_by_leaf(twice))
    assert calls(program.lower(x)) == ([], 0)
    assert [float(y[0, 0]) for y in program(x)] == [4, 5]


def test_outside_of_jit_and_on_other_platforms_it_is_the_function_itself(monkeypatch):
    seen = []
    function = lambda x: seen.append(x) or {"y": 2 * x}
    one = jnp.ones(LARGE)
    module.leaf_by_leaf(function)(one)
    assert seen == [one]
    optimizer, params = OPTIMIZERS["adamw"], tree(0)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert calls(jax.jit(by_leaf(optimizer)).lower(params, optimizer.init(params), params)) == ([], 0)


def test_pieces_that_differ_in_a_number_only_are_not_alike():
    def function(tree):
        return {
            name: (x * factor, x + factor) for (name, x), factor in zip(tree.items(), (2.0, 3.0), strict=True)
        }

    x = jnp.full(LARGE, 5.0)
    found = jax.jit(module.leaf_by_leaf(function))({"a": x, "b": x})
    assert [float(leaf[0, 0]) for leaf in jax.tree.leaves(found)] == [10, 7, 15, 8]


def test_numbers_that_some_leaves_share_and_others_do_not_stay_apart():
    x = jnp.full(LARGE, 5.0)

    def function(rates):
        return [(x * rate, x + rate) for rate in (rates[0], rates[0], rates[1], rates[1], rates[2])]

    found = jax.jit(module.leaf_by_leaf(function))(jnp.array([2.0, 3.0, 4.0]))
    assert [float(leaf[0, 0]) for leaf in jax.tree.leaves(found)] == [10, 7, 10, 7, 15, 8, 15, 8, 20, 9]


def test_constants_inputs_handed_on_and_numbers_come_through():
    big = jnp.arange(60_000.0)

    def function(x, n):
        return {"x": x, "n": n, "sum": x + big, "product": x * big, "two": 2, "empty": (), "norm": jnp.sum(x)}

    found = jax.jit(module.leaf_by_leaf(function))(big, 3)
    np.testing.assert_array_equal(found["sum"], 2 * np.arange(60_000.0))
    np.testing.assert_array_equal(found["product"], np.arange(60_000.0, dtype=np.float32) ** 2)
    assert (int(found["n"]), int(found["two"]), found["empty"]) == (3, 2, ())


def test_large_values_may_be_made_of_nothing():
    def function(x):
        steps = jnp.arange(50_000.0)
        return x, steps, steps + 1

    found = jax.jit(module.leaf_by_leaf(function))(jnp.ones(3))
    np.testing.assert_array_equal(found[2] - found[1], np.ones(50_000))


def test_effects_keep_their_place():
    told = []

    def function(x):
        jax.debug.callback(lambda value: told.append(float(value)), x[0])
        return x + 1, x * 2

    jax.block_until_ready(jax.jit(module.leaf_by_leaf(function))(jnp.arange(50_000.0)))
    jax.effects_barrier()
    assert told == [0.0]


def test_it_is_mapped_over_rates_scanned_and_differentiated():
    params, grads = tree(0), tree(1)

    def after(rate, update=by_leaf):
        optimizer = optim.adam(rate)

        def body(carry, _):
            return update(optimizer)(grads, carry[1], carry[0])[::1], None

        (params_, _), _ = jax.lax.scan(body, (params, optimizer.init(params)), length=3)
        return params_

    rates = jnp.array([0.1, 0.01])
    mapped = jax.jit(jax.vmap(after))(rates)
    for i, rate in enumerate(rates):
        for a, b in zip(jax.tree.leaves(mapped), jax.tree.leaves(after(rate, apart)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-6, atol=2e-6)
    total = lambda update: lambda rate: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(after(rate, update)))
    slope, expected = (jax.grad(total(update))(0.1) for update in (by_leaf, apart))
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


def test_over_eight_devices_shards_stay_shards_and_nothing_is_gathered():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    optimizer, params, grads = OPTIMIZERS["adamw"], tree(0), tree(1)
    expected, _ = jax.jit(apart(optimizer))(grads, optimizer.init(params), params)
    put = lambda tree: jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P("data"))), tree)
    state = optimizer.init(put(params))
    step = jax.jit(by_leaf(optimizer)).lower(put(grads), state, put(params)).compile()
    assert not re.search(r"all-gather|all-reduce|all-to-all|collective", step.as_text())
    found, _ = step(put(grads), state, put(params))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.sharding.spec[0] == "data"
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


def test_leaves_that_do_not_fit_are_named():
    optimizer, params = OPTIMIZERS["momentum"], tree(0)
    wrong = {**params, "one": {**params["one"], "kernel": jnp.ones((3, 3))}}
    message = r"trace: 'one/kernel' is float32\[3, 3\] in the updates and float32\[320, 128\] in the state"
    with pytest.raises(ValueError, match=message):
        optim.update_params(optimizer, wrong, optimizer.init(params), params)
    with pytest.raises(ValueError, match=r"apply_updates: 'one/kernel' is float32\[3, 3\]"):
        jax.jit(by_leaf(optim.sgd(0.1)))(wrong, optim.sgd(0.1).init(params), params)


def test_a_training_step_updates_leaf_by_leaf_and_reports_norms_of_the_same_updates():
    model = pn.serial(pn.dense(320, 128), pn.dense(128, 4))
    optimizer = optim.adam(0.1)
    step = pn.make_step(pn.supervised(model, losses.squared_error), optimizer, norms="**")
    ts = pn.start(model, optimizer, jax.random.key(0))
    batch = jnp.ones((2, 320)), jnp.zeros((2, 4))
    returned, _ = calls(jax.jit(step).lower(ts, batch))
    assert [sorted(set(shapes)) for shapes in returned] == [["320x128"]]
    after, metrics = jax.jit(step)(ts, batch)
    params = jax.tree.leaves(ts.params)
    moved = [new - old for new, old in zip(jax.tree.leaves(after.params), params, strict=True)]
    norm = lambda leaves: np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in leaves))
    np.testing.assert_allclose(metrics["update_ratio"], norm(moved) / norm(params), rtol=1e-4)
