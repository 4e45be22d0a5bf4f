"""The audit of dtypes: it says of every array what the arrays themselves say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets.inspect.dtypes import dtypes
from purenets.paths import flatten

BF16 = pn.Policy(compute=jnp.bfloat16, output=jnp.bfloat16)


def mixed():
    body = pn.serial(dense=pn.dense(4, 4), norm=pn.batch_norm(4), blocks=pn.repeat(pn.layer_norm(4), 3))
    return pn.serial(body=pn.cast(body, BF16), head=pn.cast(pn.dense(4, 2)))


def test_a_cast_layer_keeps_its_params_and_gradients_and_gives_out_what_its_policy_says():
    found = dtypes(mixed(), (2, 4))
    assert found.of("activation") == {
        "body": "bfloat16",
        "body/dense": "bfloat16",
        "body/norm": "bfloat16",
        "body/blocks": "bfloat16",
        "head": "float32",
        "": "float32",
    }
    for kind, count in (("param", 8), ("gradient", 8), ("state", 2)):
        assert list(found.of(kind).values()) == ["float32"] * count


def test_params_kept_in_half_precision_show_with_their_gradients_and_averages():
    model = pn.cast(pn.dense(3, 2), pn.Policy(param=jnp.float16, compute=jnp.float16))
    found = dtypes(model, (2, 3), optimizer=optax.adam(1e-3))
    assert set(found.of("gradient").values()) == {"float16"}
    assert found.of("optimizer") == {
        "0/count": "int32",
        **{f"0/{name}/{leaf}": "float16" for name in ("mu", "nu") for leaf in ("bias", "kernel")},
    }


def test_the_audit_says_what_the_arrays_say():
    model, optimizer = mixed(), optax.adam(1e-3)
    params, state = model.init(jax.random.key(0))
    x = jnp.ones((2, 4))
    grads = jax.grad(lambda p: model.apply(p, state, x, train=True)[0].sum())(params)
    _, after = pn.tap(pn.edit(model, "**", pn.tap)).apply(params, state, x, train=True)
    found = dtypes(model, (2, 4), optimizer=optimizer)
    trees = {"param": params, "gradient": grads, "activation": pn.taps(after)}
    for kind, tree in trees.items():
        assert found.of(kind) == {path: str(leaf.dtype) for path, leaf in flatten(tree).items()}
        size = sum(found.bytes()[kind].values())
        assert size == sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))
    rows = {row.path: row.shape for row in found.rows if row.kind == "activation"}
    assert rows == {path: leaf.shape for path, leaf in pn.taps(after).items()}


def test_keys_modes_and_side_inputs_are_those_of_the_model():
    model = pn.serial(pn.dropout(0.5), pn.attention(4, 2))
    found = dtypes(model, jax.ShapeDtypeStruct((1, 3, 4), jnp.bfloat16), mask=jnp.ones((1, 1, 3, 3), bool))
    assert found.of("input") == {"inputs/0": "bfloat16", "mask": "bool"}


def test_integer_params_have_no_gradient():
    table = pn.layer(lambda key: {"ids": jnp.arange(3), "w": jnp.ones(3)}, lambda p, x: x[p["ids"]] * p["w"])
    assert set(dtypes(table, (3,)).of("gradient")) == {"w"}


def test_the_table_has_a_row_for_each_array_and_the_sums():
    text = str(dtypes(pn.serial(head=pn.dense(3, 2)), (5, 3)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "kind path dtype shape bytes"
    assert "param head/kernel float32 [3, 2] 24" in lines
    assert "activation (the model) float32 [5, 2] 40" in lines
    assert "param all float32 32" in lines


def test_inputs_that_do_not_fit_are_refused_with_the_path():
    with pytest.raises(ValueError, match="needs a last axis of 4") as caught:
        dtypes(mixed(), (2, 5))
    assert caught.value.__notes__[0].startswith("at body/dense")
