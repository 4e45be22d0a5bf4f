"""Choosing by path, the table of what happens to each leaf, and the hyperparameters in use."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from purenets import optim, paths
from purenets.optim.explain import LeafRow
from tests.optim import trajectory
from tests.optim.trajectory import assert_same, run

SHAPES = {
    "embed": {"embedding": (5, 3)},
    "blocks": {"up": {"kernel": (2, 3, 2), "bias": (2, 3)}, "down": {"kernel": (3, 2), "bias": (3,)}},
    "head": {"kernel": (2, 2), "bias": (2,)},
    "temperature": (),
    "nothing": (0,),
}
params_of = partial(trajectory.params_of, shapes=SHAPES)
gradients_of = partial(trajectory.gradients_of, shapes=SHAPES)
RATE = optax.exponential_decay(0.3, 20, 0.9)


def clipped_adam(lib):
    return lib.chain(lib.clip_by_global_norm(0.5), lib.adamw(RATE, weight_decay=0.1))


@pytest.mark.parametrize("inside", [optim, optax], ids=["ours", "theirs"])
@pytest.mark.parametrize("where", ["head/**", ["**/bias", "temperature"], "**"])
def test_only_is_the_optimizer_alone_on_the_chosen_leaves_and_zero_elsewhere(where, inside, x64):
    params, gradients = params_of("float64"), gradients_of("float64")
    updates, states, after = run(optim.only(where, clipped_adam(inside)), params, gradients)

    def chosen(tree):
        flat, names = paths.flatten(tree), paths.matching(where, paths.leaf_paths(params))
        return paths.unflatten({name: flat[name] for name in names})

    alone = run(clipped_adam(optax), chosen(params), chosen(gradients))
    assert_same((chosen(updates), states.inner_state, chosen(after)), alone, 1e-12)
    rest = set(paths.leaf_paths(params)) - set(paths.leaf_paths(chosen(params)))
    assert not any(np.any(paths.flatten(updates)[name]) for name in rest)


def test_leaves_that_are_not_chosen_have_no_state_and_no_part_in_a_norm():
    optimizer = optim.only(
        "head/**", optim.chain(optim.clip_by_global_norm(1.0), optim.trace(0.9), optim.scale(-1.0))
    )
    params = params_of("float32")
    state = optimizer.init(params)
    assert paths.leaf_paths(state.inner_state[1].trace) == ["head/bias", "head/kernel"]
    huge = jax.tree.map(lambda p: jnp.full_like(p, 1e6), params)
    small = huge | {"head": jax.tree.map(lambda p: jnp.full_like(p, 0.1), params["head"])}
    updates, _ = optimizer.update(small, state)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1, rtol=1e-6)


RULES = {"embed/**": "still", "**/bias": "biases", "blocks/**": "blocks", "**": "rest"}


def group_optimizers(lib):
    return {
        "still": lib.set_to_zero(),
        "biases": lib.sgd(0.1, 0.9),
        "blocks": lib.chain(lib.clip_by_global_norm(1.0), lib.adam(RATE)),
        "rest": lib.adamw(0.1),
    }


@pytest.mark.parametrize("inside", [optim, optax], ids=["ours", "theirs"])
def test_groups_are_optax_partition_with_the_first_pattern_as_label(inside, x64):
    optimizers = group_optimizers(inside)
    ours = optim.groups({pattern: optimizers[name] for pattern, name in RULES.items()})

    def labels(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: next(
                name
                for pattern, name in RULES.items()
                if paths.path_regex(pattern).fullmatch(paths.path_of(path))
            ),
            tree,
        )

    theirs = optax.partition(group_optimizers(optax), labels)
    params, gradients = params_of("float64"), gradients_of("float64")
    mine, other = run(ours, params, gradients), run(theirs, params, gradients)
    assert_same((mine[0], mine[2]), (other[0], other[2]), 1e-12)
    moment = mine[1].inner_states["blocks/**"][1][0].mu
    assert paths.leaf_paths(moment) == ["blocks/down/kernel", "blocks/up/kernel"]
    theirs_moment = other[1].inner_states["blocks"].inner_state[1][0].mu
    assert_same(moment, _without_placeholders(theirs_moment), 1e-12)


def _without_placeholders(tree):
    return paths.unflatten(dict(zip(paths.leaf_paths(tree), jax.tree.leaves(tree), strict=True)))


def test_decay_by_name_does_not_change_when_layers_are_stacked():
    def decayed(params, optimizer):
        zero = jax.tree.map(jnp.zeros_like, params)
        return optimizer.update(zero, optimizer.init(params), params)[0]

    apart = [{"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)} for _ in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart)
    by_name = decayed({"block": stacked}, optim.decay(0.1))["block"]
    for i, layer in enumerate(apart):
        alone = decayed({"block": layer}, optim.decay(0.1))["block"]
        assert_same(jax.tree.map(lambda x, i=i: x[i], by_name), alone, 0)
    assert not by_name["bias"].any()
    # The negative control: by rank, stacking makes matrices of the biases, which then decay.
    by_rank = optax.add_decayed_weights(0.1, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree))
    assert decayed({"block": stacked}, by_rank)["block"]["bias"].any()


def test_decay_between_direction_and_rate_is_adamw(x64):
    params, gradients = params_of("float64"), gradients_of("float64", 50)
    ours = optim.chain(optim.scale_by_adam(), optim.decay(0.1), optim.scale_by_learning_rate(RATE))
    theirs = optax.adamw(RATE, weight_decay=0.1, mask=optim.path_mask("**/kernel"))
    assert_same(run(ours, params, gradients)[0], run(theirs, params, gradients)[0], 1e-12)


def test_leaves_in_lists_and_tuples_are_chosen_by_their_place():
    params = {"layers": [jnp.ones(2), (jnp.ones(3), {"bias": jnp.ones(1)})], "top": jnp.ones(2)}
    optimizer = optim.groups(
        {"layers/0": optim.sgd(1.0, 0.9), "layers/1/**": optim.sgd(0.1, 0.9), "top": optim.set_to_zero()}
    )
    updates, state = optimizer.update(params, optimizer.init(params))
    assert jax.tree.map(lambda u: float(u[0]), updates) == {
        "layers": [-1.0, (pytest.approx(-0.1), {"bias": pytest.approx(-0.1)})],
        "top": 0.0,
    }
    assert len(jax.tree.leaves(state.inner_states["layers/0"])) == 1
    optimizer.update(params, state, params)


def test_a_single_array_is_all_there_is():
    optimizer = optim.only("**", optim.sgd(1.0))
    np.testing.assert_allclose(optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))[0], -1.0)


def test_extra_arguments_fit_the_chosen_leaves():
    seen = {}

    def look(updates, state, params=None, *, grad, value, value_fn, **extra):
        seen.update(grad=grad, value=value, at=value_fn(jax.tree.map(lambda p: 2 * p, params)))
        return updates, state

    spy = optim.GradientTransformationExtraArgs(lambda params: (), look)
    params = {"a": jnp.float32(1.0), "b": jnp.float32(10.0)}
    optimizer = optim.only("a", spy)
    optimizer.update(
        params, optimizer.init(params), params, grad=params, value=3.0, value_fn=lambda p: p["a"] + p["b"]
    )
    assert seen == {"grad": {"a": 1.0}, "value": 3.0, "at": 12.0}


def test_a_line_search_works_on_the_chosen_leaves():
    def loss(p):
        return jnp.sum((p["a"] - p["b"]) ** 2)

    params = {"a": jnp.zeros(3), "b": jnp.arange(3.0)}
    optimizer = optim.only("a", optax.lbfgs())
    state = optimizer.init(params)
    for _ in range(5):
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        params = optim.apply_updates(params, updates)
    np.testing.assert_allclose(params["a"], np.arange(3.0), atol=1e-5)
    np.testing.assert_array_equal(params["b"], np.arange(3.0))


def mixed(lib):
    moving = {"temperature": False, "blocks": True, "head": True, "nothing": True}
    return optim.groups(
        {
            "embed/**": optim.set_to_zero(),
            "**/kernel": optim.chain(lib.clip_by_global_norm(1.0), lib.adamw(RATE, weight_decay=0.01)),
            "**": lib.masked(lib.sgd(0.5, 0.9), moving),
        }
    )


MAKERS = {"only": lambda: optim.only("head/**", optim.adam(0.1)), "groups": lambda: mixed(optim)}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_choosing_works_from_shapes_under_jit_in_a_scan_and_sharded(make):
    optimizer, params = make(), params_of("float32")
    abstract = optimizer.init(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params))
    state = optimizer.init(params)
    assert_same(abstract, state, 0)
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)
    traces = []

    @jax.jit
    def update(g, state, params):
        traces.append(1)
        return optimizer.update(g, state, params)

    for _ in range(3):
        _, state = update(params, state, params)
    assert len(traces) == 1
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state) == kinds
    mapped = optax.tree_map_params(optimizer, lambda x: x + 1, optimizer.init(params))
    assert jax.tree.structure(mapped) == jax.tree.structure(state)


def test_the_state_of_a_sharded_leaf_is_sharded():
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("model"))
    params = {"a": jax.device_put(jnp.ones(16), sharding), "b": jnp.ones(3)}
    optimizer = optim.only("a", optim.adam(0.1))
    updates, state = jax.jit(optimizer.update)(params, jax.jit(optimizer.init)(params), params)
    assert updates["a"].sharding.is_equivalent_to(sharding, 1)
    assert state.inner_state[0].mu["a"].sharding.is_equivalent_to(sharding, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p: optim.only("**/kernels", optim.sgd(0.1)).init(p), r"'\*\*/kernels' matches no leaf"),
        (lambda p: optim.decay(0.1, "**/gamma").init(p), r"'\*\*/gamma' matches no leaf; there are: blocks"),
        (lambda p: optim.groups({}), "groups needs at least one pattern"),
        (
            lambda p: optim.groups({"**/kernel": optim.sgd(0.1), "**/bias": optim.sgd(0.1)}).init(p),
            "groups: no pattern takes 'embed/embedding', 'nothing', 'temperature'; to leave",
        ),
        (
            lambda p: optim.groups({"**": optim.sgd(0.1), "**/biases": optim.sgd(0.1)}).init(p),
            r"'\*\*/biases' matches no leaf; there are",
        ),
        (
            lambda p: optim.groups({"**": optim.sgd(0.1), "**/bias": optim.sgd(0.1)}).init(p),
            r"groups: pattern '\*\*/bias' takes nothing, because those before it take all that it matches",
        ),
        (
            lambda p: optim.only("head/**", optim.sgd(0.1)).update({"head": p["head"]}, (), p),
            "only: updates and parameters are different trees: 'blocks/down/bias' is in the parameters only",
        ),
        (
            lambda p: optim.groups({"**": optim.sgd(0.1)}).update(p | {"new": p["nothing"]}, (), p),
            "groups: updates and parameters are different trees: 'new' is in the updates only",
        ),
        (
            lambda p: optim.only("**", optim.sgd(0.1)).init({"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}),
            "two leaves have the path 'a/b'",
        ),
    ],
    ids=["only", "decay", "empty", "left over", "no match", "shadowed", "short", "long", "twice"],
)  # fmt: skip
def test_a_pattern_that_does_not_fit_is_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(params_of("float32"))


EXPECTED = {
    "embed/embedding": LeafRow("embed/embedding", "embed/**", None, None, None, True, 0),
    "head/kernel": LeafRow("head/kernel", "**/kernel", 0.3, 0.01, "norm 1", False, 32),
    "blocks/up/bias": LeafRow("blocks/up/bias", "**", 0.5, None, None, False, 24),
    "temperature": LeafRow("temperature", "**", None, None, None, False, 0),
}  # fmt: skip


@pytest.mark.parametrize("lib", [optim, optax], ids=["ours", "theirs"])
def test_explain_tells_group_rate_decay_clip_frozen_and_state_of_every_leaf(lib):
    params = params_of("float32")
    table = optim.explain(mixed(lib), params)
    assert [row.path for row in table] == paths.leaf_paths(params)
    rows = {row.path: row for row in table}
    for path, expected in EXPECTED.items():
        row = rows[path]
        for field in dataclasses.fields(LeafRow):
            value = getattr(expected, field.name)
            wanted = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            assert getattr(row, field.name) == wanted, (path, field.name)
    state = mixed(lib).init(params)
    assert sum(row.state_bytes for row in table) + table.shared_bytes == sum(
        leaf.nbytes for leaf in jax.tree.leaves(state)
    )


def test_explain_prints_a_table():
    params = {"head": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}, "embed": jnp.zeros((10, 4))}
    optimizer = optim.chain(
        optim.clip_by_global_norm(1.0),
        optim.only("head/**", optim.adamw(1e-3, mask=optim.path_mask("**/kernel"))),
    )
    assert str(optim.explain(optimizer, params)).splitlines() == [
        "path         group    learning rate  decay   clip    frozen  state",
        "embed        -        -              -       norm 1  yes     0 B",
        "head/bias    head/**  0.001          -       norm 1  no      16 B",
        "head/kernel  head/**  0.001          0.0001  norm 1  no      64 B",
        "state 84 B, of which 4 B belong to no leaf",
    ]


def test_state_that_is_a_structure_for_each_leaf_belongs_to_the_leaf():
    rows = optim.explain(optim.contrib.soap(), {"mu": {"k": jnp.zeros((4, 3))}, "count": jnp.zeros(2)})
    # Two averages of 12 numbers, and two matrices each for the axes of 4 and of 3.
    assert {row.path: row.state_bytes for row in rows} == {"mu/k": 4 * (24 + 2 * (16 + 9)), "count": 16}


PLAIN = {
    "chain": lambda lib: lib.chain(lib.add_decayed_weights(0.02), lib.scale(0.5), lib.scale(-0.2)),
    "adamw": lambda lib: lib.adamw(0.1, weight_decay=0.02),
    "accumulated": lambda lib: lib.MultiSteps(lib.adamw(0.1, weight_decay=0.02), 4),
    "finite": lambda lib: lib.apply_if_finite(lib.adamw(0.1, weight_decay=0.02), 3),
    "injected": lambda lib: lib.inject_hyperparams(lib.adamw)(0.1, weight_decay=0.02),
    "partition": lambda lib: lib.partition({"a": lib.adamw(0.1, weight_decay=0.02)}, {"w": "a"}),
    "lookahead": lambda lib: lib.lookahead(lib.adamw(0.1, weight_decay=0.02), 5, 0.5),
    "named": lambda lib: lib.named_chain(("a", lib.add_decayed_weights(0.02)), ("b", lib.scale(0.1))),
    "scheduled decay": lambda lib: lib.chain(lib.add_decayed_weights(lambda t: 0.02), lib.sgd(0.1)),
    "lion": lambda lib: lib.lion(0.1, weight_decay=0.02),
    "lamb": lambda lib: lib.lamb(0.1, weight_decay=0.02),
    "novograd": lambda lib: lib.novograd(0.1, weight_decay=0.02),
}  # fmt: skip


@pytest.mark.parametrize("lib", [optim, optax], ids=["ours", "theirs"])
@pytest.mark.parametrize("case", PLAIN)
def test_explain_reads_rate_and_decay_through_every_wrapper(case, lib):
    (row,) = optim.explain(PLAIN[case](lib), {"w": jnp.zeros(3)})
    assert row.learning_rate == pytest.approx(0.1, rel=1e-6)
    assert row.decay == pytest.approx(0.02, rel=1e-6)
    assert not row.frozen


def test_explain_says_what_it_cannot_read():
    foreign = optax.GradientTransformation(lambda p: (), len)
    (row,) = optim.explain(foreign, {"w": jnp.zeros(3)})
    assert row == LeafRow("w", None, None, None, None, False, 0)


def test_explain_allocates_nothing():
    huge = {"w": {"kernel": jax.ShapeDtypeStruct((10**6, 10**6), jnp.float32)}}
    (row,) = optim.explain(optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1)), huge)
    assert row.state_bytes == 8 * 10**12
    assert "8e+03 GB" in str(optim.explain(optim.adam(0.1), huge))


@pytest.mark.parametrize("lib", [optim, optax], ids=["ours", "theirs"])
def test_what_explain_calls_frozen_does_not_move_and_the_rest_does(lib):
    params = params_of("float32")
    optimizer = mixed(lib)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    for row in optim.explain(optimizer, params):
        assert row.frozen == (row.path != "nothing" and not np.any(paths.flatten(updates)[row.path]))


def test_the_rate_in_use_is_the_one_that_the_last_update_used():
    optimizer = optim.chain(optim.clip(1.0), optax.sgd(RATE))

    @jax.jit
    def step(state):
        updates, state = optimizer.update(jnp.ones(1), state)
        return updates, state, optim.hyperparameters(state, optimizer)

    state = optimizer.init(jnp.ones(1))
    assert float(optim.hyperparameters(state, optimizer)["learning_rate"]) == pytest.approx(0.3)
    for t in range(4):
        updates, state, used = step(state)
        assert -float(updates[0]) == pytest.approx(float(used["learning_rate"]), rel=1e-6)
        assert float(used["learning_rate"]) == pytest.approx(float(RATE(t)), rel=1e-6)


@pytest.mark.parametrize("lib", [optim, optax], ids=["ours", "theirs"])
def test_injected_hyperparameters_are_found_anywhere_in_a_state(lib):
    inner = lib.inject_hyperparams(lib.adam)(RATE, b1=0.5)
    wrapped = optim.chain(
        optim.clip(1.0), lib.MultiSteps(optim.only("head/**", lib.apply_if_finite(inner, 2)), 3)
    )
    params = params_of("float32")
    state = wrapped.init(params)
    for source in (optim.hyperparameters(state), optim.hyperparameters(state, wrapped)):
        assert float(source["learning_rate"]) == pytest.approx(0.3)
        assert float(source["b1"]) == 0.5


def test_hyperparameters_of_one_name_are_told_apart_by_their_group():
    injected = optim.inject_hyperparams(optim.sgd)
    optimizer = optim.groups(
        {"head/**": injected(0.5), "embed/**": optim.sgd(0.25), "**": injected(0.125, momentum=0.9)}
    )
    state = optimizer.init(params_of("float32"))
    assert {k: float(v) for k, v in optim.hyperparameters(state).items()} == {
        "head/**/learning_rate": 0.5, "**/learning_rate": 0.125, "momentum": pytest.approx(0.9),
    }  # fmt: skip
    assert {k: float(v) for k, v in optim.hyperparameters(state, optimizer).items()} == {
        "head/**/learning_rate": 0.5,
        "embed/**/learning_rate": 0.25,
        "**/learning_rate": 0.125,
        "momentum": pytest.approx(0.9),
    }


def test_a_wrapper_that_keeps_its_state_in_its_own_way_hides_schedules_and_breaks_nothing():
    inner = optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(lambda count: 0.1 / (1 + count)))
    hidden = optax.GradientTransformation(
        lambda params: {"mine": inner.init(params)},
        lambda grads, state, params=None: (lambda u, s: (u, {"mine": s}))(
            *inner.update(grads, state["mine"], params)
        ),
    )
    params = jnp.ones(2)
    _, state = jax.jit(hidden.update)(params, hidden.init(params))
    assert optim.hyperparameters(state, hidden) == {}
    assert float(optim.hyperparameters(inner.init(params), inner)["learning_rate"]) == pytest.approx(0.1)
