"""Meshes and rules: where each leaf lies, and what is refused."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import purenets as pn
from purenets import parallel
from purenets.models.transformer import encoder


@pytest.fixture
def mesh():
    return parallel.mesh(data=4, model=2)


def _specs(tree, mesh, rules=(), **options):
    return jax.tree.map(lambda s: s.spec, parallel.shardings(tree, mesh, rules, **options))


def test_a_mesh_has_the_named_axes_and_fills_the_open_one():
    assert dict(parallel.mesh(data=-1, model=2).shape) == {"data": 4, "model": 2}
    assert dict(parallel.mesh(devices=jax.devices()[:2], data=2).shape) == {"data": 2}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "a mesh needs axes"),
        ({"data": 3}, "a mesh of {'data': 3} does not fit 8 devices"),
        ({"data": -1, "model": 3}, "does not fit 8 devices"),
        ({"data": -1, "model": -1}, "one of which may be -1"),
        ({"data": 0}, "positive sizes"),
    ],
    ids=["none", "too few", "no divisor", "two open", "zero"],
)
def test_a_mesh_that_does_not_fit_is_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        parallel.mesh(**axes)


def test_a_rule_names_the_last_axes_so_it_serves_a_layer_and_a_stack_of_them(mesh):
    tree = {"one": {"up": {"kernel": jnp.zeros((4, 6))}}, "many": {"up": {"kernel": jnp.zeros((3, 4, 6))}}}
    specs = _specs(tree, mesh, [("**/up/kernel", P(None, "model"))])
    assert specs["one"]["up"]["kernel"] == P(None, "model")
    assert specs["many"]["up"]["kernel"] == P(None, None, "model")


def test_the_first_rule_counts_and_what_none_names_is_whole(mesh):
    tree = {"a": jnp.zeros(4), "b": jnp.zeros(4), "c": jnp.zeros(4)}
    assert _specs(tree, mesh, [("a", P("data")), ("{a,b}", P("model"))]) == {
        "a": P("data"),
        "b": P("model"),
        "c": P(),
    }


def test_fully_sharded_spreads_the_longest_free_axis_of_large_leaves(mesh):
    tree = {
        "wide": jnp.zeros((3, 96, 64)),
        "ruled": jnp.zeros((128, 128)),
        "odd": jnp.zeros((99, 99)),
        "small": jnp.zeros(64),
    }
    specs = _specs(tree, mesh, [("ruled", P(None, "model"))], fully="data")
    assert specs == {"wide": P(None, "data"), "ruled": P("data", "model"), "odd": P(), "small": P()}


def test_the_rules_for_transformers_cut_heads_and_hidden_units(mesh):
    params = jax.eval_shape(encoder(50, 16, 4, depth=2).init, jax.random.key(0))[0]
    specs = _specs(params, mesh, parallel.TRANSFORMER_RULES)["blocks"]
    assert specs["attention"]["query"] == {"kernel": P(None, None, "model"), "bias": P(None, "model")}
    assert specs["attention"]["out"] == {"kernel": P(None, "model"), "bias": P()}
    assert specs["feed_forward"]["up"] == {"kernel": P(None, None, "model"), "bias": P(None, "model")}
    assert specs["feed_forward"]["down"] == {"kernel": P(None, "model"), "bias": P()}


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        ([("dense/kernle", P("model"))], {}, "kernle"),
        ([("dense/kernel", P("tensor"))], {}, "spread over tensor, the mesh has data, model"),
        ([], {"fully": "batch"}, "spread over batch, the mesh has data, model"),
        ([("dense/bias", P("data", "model"))], {}, "the rule for 'dense/bias' names 2 axes"),
        ([("dense/kernel", P("data", None))], {}, r"cuts axis 0 of float32\[6, 8\] into 4 parts"),
    ],
    ids=["no match", "no axis", "no axis for fully", "too many axes", "no divisor"],
)
def test_rules_that_do_not_fit_are_refused(mesh, rules, options, message):
    params = {"dense": {"kernel": jnp.zeros((6, 8)), "bias": jnp.zeros(8)}}
    with pytest.raises(ValueError, match=message):
        parallel.shardings(params, mesh, rules, **options)


@pytest.mark.parametrize("pattern", ["up/kernel", "**/up/kernel", "up/*"])
def test_averages_follow_their_params_however_the_rule_is_written(mesh, pattern):
    params = {"up": {"kernel": jnp.zeros((4, 8))}, "inner": {"up": {"kernel": jnp.zeros((4, 8))}}}
    place = parallel.Placement(mesh, ((pattern, P(None, "model")),))
    optimizer = pn.optim.groups({"up/**": pn.optim.adam(0.1), "**": pn.optim.sgd(0.1, momentum=0.9)})
    ts = pn.TrainState(jnp.int32(0), params, {}, optimizer.init(params), jax.random.key(0))
    placed = place.of(ts)
    wanted = {path: s.spec for path, s in pn.paths.flatten(placed.params).items()}
    averages = dict(zip(pn.paths.leaf_paths(ts.opt_state), jax.tree.leaves(placed.opt_state), strict=True))
    for path in ("up/kernel", "inner/up/kernel"):
        found = [
            s.spec
            for name, s in averages.items()
            if name.endswith(f"mu/{path}") or name.endswith(f"trace/{path}")
        ]
        assert found == [wanted[path]], path


def test_averages_follow_their_params_and_factored_ones_stay_whole(mesh):
    """Adam's have the params' shapes, Adafactor's have their paths and fewer axes."""
    params = {"up": {"kernel": jnp.zeros((256, 256))}}
    place = parallel.Placement(mesh, (("**/up/kernel", P(None, "model")),))
    for optimizer, spread in ((pn.optim.adam(0.1), 2), (pn.optim.adafactor(0.1), 0)):
        ts = pn.TrainState(jnp.int32(0), params, {}, optimizer.init(params), jax.random.key(0))
        specs = [s.spec for s in jax.tree.leaves(place.of(ts).opt_state)]
        assert sum(spec == P(None, "model") for spec in specs) == spread
        assert all(spec in (P(), P(None, "model")) for spec in specs)
