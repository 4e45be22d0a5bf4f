"""Weights of torch models in and out, held against torch's layers written in NumPy; torch is not needed."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import purenets as pn
from purenets.interop import from_torch, to_torch
from tests.interop.torch_cases import CASES, arrays_of, input_of, recurrent_shapes
from tests.small import notes_of

FLATTENED = {"dense after flatten": {"head": (3, 3, 2)}}
every = pytest.mark.parametrize("name", CASES)


def given(name):
    case = CASES[name]
    return case, arrays_of(case.shapes), {"flattened": FLATTENED.get(name)}


@every
def test_a_ported_layer_computes_what_torch_computes(name):
    case, arrays, fix = given(name)
    params, state, report = from_torch(arrays, case.model, **fix)
    x = input_of(case)
    wide = {key: value.astype(np.float64) for key, value in arrays.items()}
    got, _ = jax.jit(case.model.apply)(params, state, jnp.asarray(x))
    np.testing.assert_allclose(got, case.compute(wide, x), rtol=1e-5, atol=1e-5)
    assert set(report.loaded.values()) == set(arrays)
    expected, start = case.model.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, (params, state)) == jax.tree.map(jnp.shape, (expected, start))


@every
@pytest.mark.parametrize("by", ["like", "rules"])
def test_there_and_back_is_exact(name, by):
    case, arrays, fix = given(name)
    params, state, _ = from_torch(arrays, case.model, **fix)
    back = to_torch(case.model, params, state, **({"like": arrays} if by == "like" else {}), **fix)
    back.pop("num_batches_tracked", None)
    assert set(back) == set(arrays)
    for key, value in arrays.items():
        if key.startswith("bias_ih") or key.startswith("bias_hh"):
            end = key[len("bias_ih") :]
            value = arrays[f"bias_ih{end}"] + arrays[f"bias_hh{end}"]
            np.testing.assert_array_equal(back[f"bias_ih{end}"] + back[f"bias_hh{end}"], value)
        else:
            np.testing.assert_array_equal(back[key], value, err_msg=key)
            assert back[key].dtype == value.dtype


@every
def test_here_and_there_is_exact(name):
    case, _, fix = given(name)
    params, state = case.model.init(jax.random.key(3))
    state = jax.tree.map(lambda x: x + 0.5, state)
    again = from_torch(to_torch(case.model, params, state, **fix), case.model, **fix)
    jax.tree.map(np.testing.assert_array_equal, again[:2], (params, state))


def test_the_sum_of_two_biases_comes_back_as_one_beside_a_zero():
    arrays = arrays_of(recurrent_shapes(4))
    model = pn.rnn(pn.lstm_cell(3, 4))
    params, state, report = from_torch(arrays, model)
    assert str(report).endswith("rnn(lstm_cell(3, 4)): its two biases were added")
    back = to_torch(model, params, state)
    np.testing.assert_array_equal(back["bias_ih_l0"], arrays["bias_ih_l0"] + arrays["bias_hh_l0"])
    np.testing.assert_array_equal(back["bias_hh_l0"], np.zeros(16))


def test_of_a_gru_the_bias_under_the_reset_gate_stays_by_itself():
    arrays = arrays_of(recurrent_shapes(3))
    model = pn.rnn(pn.gru_cell(3, 4))
    params, state, _ = from_torch(arrays, model)
    back = to_torch(model, params, state)
    np.testing.assert_array_equal(back["bias_ih_l0"][8:], arrays["bias_ih_l0"][8:])
    np.testing.assert_array_equal(back["bias_hh_l0"], [*np.zeros(8), *arrays["bias_hh_l0"][8:]])


def test_the_count_of_batches_is_ignored_named_and_restored():
    model = pn.serial(bn=pn.batch_norm(4))
    arrays = {f"bn.{name}": value for name, value in arrays_of(CASES["batch norm"].shapes).items()}
    arrays["bn.num_batches_tracked"] = np.array(7, np.int64)
    params, state, report = from_torch(arrays, model)
    assert report.ignored == {"bn.num_batches_tracked": "int64[]"}
    assert str(report).endswith("bn.num_batches_tracked: int64[], ignored")
    assert to_torch(model, params, state, like=arrays)["bn.num_batches_tracked"] == 7
    assert to_torch(model, params, state)["bn.num_batches_tracked"] == 0


def test_a_count_of_batches_elsewhere_is_unexpected():
    arrays = arrays_of({"weight": (4, 4), "bias": (4,)}) | {"num_batches_tracked": np.array(7)}
    with pytest.raises(ValueError, match=r"num_batches_tracked: int64\[\] in the file, unexpected"):
        from_torch(arrays, pn.dense(4, 4))


def mlp():
    return pn.serial(up=pn.dense(3, 4), norm=pn.layer_norm(4), down=pn.dense(4, 4))


def mlp_arrays():
    shapes = {"fc1": (4, 3), "fc2": (4, 4), "ln": (4,)}
    return arrays_of(
        {f"net.{name}.weight": shape for name, shape in shapes.items()}
        | {f"net.{name}.bias": (4,) for name in shapes}
    )


NAMES = {"net.fc{1,2}": "{up,down}", "net.ln": "norm"}


def test_rules_name_modules_and_what_is_below_goes_along():
    arrays = mlp_arrays()
    params, _, report = from_torch(arrays, mlp(), rename=NAMES)
    np.testing.assert_array_equal(params["down"]["kernel"], arrays["net.fc2.weight"].T)
    np.testing.assert_array_equal(params["norm"]["scale"], arrays["net.ln.weight"])
    assert report.loaded["down/weight"] == "net.fc2.weight"
    back = to_torch(mlp(), params, rename=NAMES)
    assert set(back) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value)


def test_a_rule_may_take_a_level_off_or_leave_a_module_or_an_array_out():
    arrays = {name.removeprefix("net."): value for name, value in mlp_arrays().items()}
    inner = {"fc{1,2}": "{up,down}", "ln": "norm"}
    whole = {f"model.{name}": value for name, value in arrays.items()}
    whole |= {"mask": np.zeros(3), "old.weight": np.zeros(3), "old.sub.bias": np.zeros(3)}
    rules = {f"model.{old}": new for old, new in inner.items()} | {"old": None, "mask": None}
    got, _, _ = from_torch(whole, mlp(), rename=rules)
    wanted, _, _ = from_torch(arrays, mlp(), rename=inner)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    params, _, _ = from_torch(
        {"m.weight": np.ones((4, 4))}, pn.serial(a=pn.dense(4, 4, bias=False)), rename={"m.**": "a/**"}
    )
    assert params["a"]["kernel"].shape == (4, 4)
    assert set(to_torch(mlp(), got, rename=rules)) == {f"model.{name}" for name in arrays}


def test_members_of_a_repeat_are_numbered_and_stacked():
    case = CASES["repeated blocks"]
    arrays = {name.replace("blocks", "h"): value for name, value in arrays_of(case.shapes).items()}
    params, _, _ = from_torch(arrays, case.model, rename={"h": "blocks"})
    wanted = np.stack([arrays[f"h.{i}.up.weight"].T for i in range(3)])
    np.testing.assert_array_equal(params["blocks"]["up"]["kernel"], wanted)


def test_wrappers_change_no_name_and_nested_members_have_two_numbers():
    model = pn.repeat(pn.remat(pn.repeat(pn.cast(pn.dense(2, 2, bias=False)), 2)), 3)
    arrays = {f"{i}.{j}.weight": np.full((2, 2), 10 * i + j, np.float32) for i in range(3) for j in range(2)}
    params, _, _ = from_torch(arrays, model)
    np.testing.assert_array_equal(params["kernel"][:, :, 0, 0], [[0, 1], [10, 11], [20, 21]])


def test_attention_with_projections_of_their_own_is_told_by_the_names():
    parts = {"query": (6, 4), "key": (6, 4), "value": (6, 4), "out": (4, 6)}
    arrays = arrays_of({f"{name}.weight": shape for name, shape in parts.items()})
    model = pn.attention(4, 2, head_dim=3, bias=False)
    params, _, _ = from_torch(arrays, model)
    np.testing.assert_array_equal(params["query"]["kernel"].reshape(4, 6), arrays["query.weight"].T)
    np.testing.assert_array_equal(params["out"]["kernel"].reshape(6, 4), arrays["out.weight"].T)
    apart = arrays_of({f"{name}.weight": (4, 4) for name in parts})
    model = pn.attention(4, 2, bias=False)
    params, _, _ = from_torch(apart, model)
    back = to_torch(model, params, like=apart)
    assert list(back) == list(apart)
    for name, value in apart.items():
        np.testing.assert_array_equal(back[name], value)


def test_recurrent_layers_that_are_modules_of_their_own_are_told_by_the_names():
    arrays = {
        f"rnn_{i}.{name}": v for i in (1, 2) for name, v in arrays_of(recurrent_shapes(1, n_in=4), i).items()
    }
    model = pn.stacked(pn.elman_cell(4, 4), pn.elman_cell(4, 4))
    params, _, _ = from_torch(arrays, model)
    np.testing.assert_array_equal(params["rnn_2"]["kernel"], arrays["rnn_2.weight_ih_l0"].T)


def test_an_array_that_is_another_again_is_compared_and_comes_back():
    model = pn.serial(embed=pn.embedding(5, 4))
    arrays = arrays_of({"embed.weight": (5, 4)})
    arrays["head.weight"] = arrays["embed.weight"].copy()
    tied = {"head.weight": "embed/weight"}
    params, _, _ = from_torch(arrays, model, tied=tied)
    for back in (to_torch(model, params, tied=tied), to_torch(model, params, tied=tied, like=arrays)):
        np.testing.assert_array_equal(back["head.weight"], arrays["head.weight"])
    arrays["head.weight"] += 1
    with pytest.raises(
        ValueError, match="head/weight differs from embed/weight, which it is tied to, and nothing"
    ):
        from_torch(arrays, model, tied=tied)


def test_a_layer_of_the_users_own_has_the_same_arrays_in_both():
    own = pn.layer(lambda key: {"scale": jnp.ones((2, 2))}, lambda p, x: x @ p["scale"], label="mine")
    array = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    params, _, _ = from_torch({"own.scale": array}, pn.serial(own=own))
    np.testing.assert_array_equal(params["own"]["scale"], array)


def test_dtypes_are_those_of_like_and_conversions_are_told():
    arrays = {"weight": np.ones((2, 2), ml_dtypes.bfloat16), "bias": np.ones(2, np.float64)}
    params, _, report = from_torch(arrays, pn.dense(2, 2))
    assert {leaf.dtype for leaf in params.values()} == {jnp.dtype("float32")}
    assert report.converted["weight"] == ("bfloat16[2, 2]", "float32[2, 2]")
    back = to_torch(pn.dense(2, 2), params, like=arrays)
    assert (back["weight"].dtype, back["bias"].dtype) == (ml_dtypes.bfloat16, np.float64)


def test_a_part_is_loaded_and_the_rest_stays():
    like = mlp().init(jax.random.key(0))
    arrays = mlp_arrays()
    params, _, report = from_torch(arrays, mlp(), like=like, rename=NAMES, where="{up,norm}/*")
    np.testing.assert_array_equal(params["down"]["kernel"], like[0]["down"]["kernel"])
    np.testing.assert_array_equal(params["up"]["kernel"], arrays["net.fc1.weight"].T)
    assert len(report.loaded) == 4
    del arrays["net.fc2.weight"]
    params, _, report = from_torch(arrays, mlp(), like=like, rename=NAMES, strict=False)
    np.testing.assert_array_equal(params["down"]["kernel"], like[0]["down"]["kernel"])
    np.testing.assert_array_equal(params["down"]["bias"], arrays["net.fc2.bias"])
    assert report.missing == {"down/weight": "float32[4, 4]"}


def test_loading_a_part_of_a_recurrent_layer_keeps_the_other_bias():
    model = pn.rnn(pn.gru_cell(3, 4))
    params, _ = model.init(jax.random.key(0))
    params = {**params, "bias": jnp.arange(12.0), "recurrent_bias": jnp.arange(4.0)}
    arrays = arrays_of(recurrent_shapes(3))
    got, _, _ = from_torch({"weight_hh_l0": arrays["weight_hh_l0"]}, model, like=(params, {}), strict=False)
    np.testing.assert_array_equal(got["recurrent_kernel"], arrays["weight_hh_l0"].T)
    for name in ("kernel", "bias", "recurrent_bias"):
        np.testing.assert_array_equal(got[name], params[name])


def test_what_is_not_loaded_needs_a_value_to_keep():
    with pytest.raises(
        ValueError, match="bias is not loaded and has no value to keep: give initialised params as like"
    ):
        from_torch({"weight": np.ones((4, 4))}, pn.dense(4, 4), strict=False)


def test_everything_that_is_not_in_place_is_told_at_once_by_path_and_shape():
    arrays = mlp_arrays()
    arrays["net.fc1.weight"] = np.ones((4, 5), np.float32)
    arrays["net.extra"] = arrays.pop("net.ln.bias")
    with pytest.raises(ValueError) as caught:
        from_torch(arrays, mlp(), rename=NAMES)
    assert str(caught.value).splitlines() == [
        "the weights do not fit, and nothing was loaded:",
        "up/weight: float32[4, 5] in the file, float32[4, 3] wanted",
        "norm/bias: float32[4] wanted, missing",
        "net.extra: float32[4] in the file, unexpected",
    ]


def test_a_kernel_that_is_turned_round_is_said_to_be():
    arrays = arrays_of({"weight": (3, 5), "bias": (5,)})
    with pytest.raises(
        ValueError, match=r"weight: float32\[3, 5\] in the file, float32\[5, 3\] wanted"
    ) as caught:
        from_torch(arrays, pn.dense(3, 5))
    assert "weight is turned round: torch has it as [5, 3], outputs first" in notes_of(caught.value)


def test_a_rule_that_matches_nothing_lists_what_there_is():
    with pytest.raises(
        ValueError, match="pattern 'net/fc3' matches no module or array; there are: net, net/"
    ) as caught:
        from_torch(mlp_arrays(), mlp(), rename={**NAMES, "net.fc3": "up"})
    assert notes_of(caught.value) == ["did you mean 'net/fc2' or 'net/fc1'?"]


def test_rules_that_lead_to_one_name_are_refused():
    with pytest.raises(ValueError, match="both become 'up/"):
        from_torch(mlp_arrays(), mlp(), rename={"net.fc1": "up", "net.fc2": "up"})
    params, _ = mlp().init(jax.random.key(0))
    with pytest.raises(ValueError, match="both lead to 'up'"):
        to_torch(mlp(), params, rename={"net.fc1": "up", "net.fc2": "up"})


def test_a_dense_layer_after_a_flatten_has_to_be_named():
    case = CASES["dense after flatten"]
    arrays = arrays_of(case.shapes)
    with pytest.raises(
        ValueError, match=r"head, dense\(18, 4\), follows a flatten of convolutions.*flattened=\{'head': "
    ):
        from_torch(arrays, case.model)
    with pytest.raises(ValueError, match=r"head is dense\(18, 4\), and \(3, 3, 3\) has 27 features"):
        from_torch(arrays, case.model, flattened={"head": (3, 3, 3)})
    with pytest.raises(ValueError, match="pattern 'tail' matches no dense layer; there are: head"):
        from_torch(arrays, case.model, flattened={"tail": (3, 3, 2)})
    params, _, _ = from_torch(arrays, case.model, flattened={"head": (18,)})
    np.testing.assert_array_equal(params["head"]["kernel"], arrays["head.weight"].T)


def test_a_flatten_of_one_place_in_space_needs_no_fix():
    model = pn.serial(conv=pn.conv(2, 3, 2, padding="VALID"), flatten=pn.flatten(), head=pn.dense(3, 4))
    case = CASES["dense after flatten"]
    arrays = arrays_of({**case.shapes, "head.weight": (4, 3)})
    from_torch(arrays, model)


def test_a_leaf_that_torch_has_not_is_refused():
    peephole = pn.rnn(pn.lstm_cell(3, 4, peephole=True))
    with pytest.raises(ValueError, match="has peephole, which torch's recurrent layers have not"):
        from_torch(arrays_of(recurrent_shapes(4)), peephole)
    with pytest.raises(
        ValueError, match=r"dense\(4, 4\) has kernel_norm, which torch's layer of its kind has not"
    ):
        from_torch({"weight": np.ones((4, 4))}, pn.weight_norm(pn.dense(4, 4, bias=False)))


def test_an_own_layer_with_one_name_in_params_and_state_is_refused():
    def apply(params, state, x):
        return x, state

    own = pn.layer(lambda key: {"a": jnp.ones(1)}, apply, state=lambda key: {"a": jnp.ones(1)}, label="own")
    with pytest.raises(ValueError, match="own has a both in params and in state"):
        from_torch({"own.a": np.ones(1)}, pn.serial(own=own))


def test_the_torch_model_to_fill_has_to_fit():
    params, _ = mlp().init(jax.random.key(0))
    like = mlp_arrays()
    like["net.fc1.weight"] = np.ones((4, 5))
    like["net.extra"] = like.pop("net.ln.bias")
    with pytest.raises(ValueError) as caught:
        to_torch(mlp(), params, like=like, rename=NAMES)
    assert str(caught.value).splitlines() == [
        "the weights do not fit the torch model:",
        "norm/bias: float32[4], not in like",
        "up/weight: float32[4, 3], [4, 5] in like",
        "net/extra: [4] in like, which the model has not",
    ]


def test_a_safetensors_file_is_read_without_torch(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    arrays = mlp_arrays()
    save_file(arrays, tmp_path / "a.safetensors")
    got, _, _ = from_torch(tmp_path / "a.safetensors", mlp(), rename=NAMES)
    wanted, _, _ = from_torch(arrays, mlp(), rename=NAMES)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


@pytest.mark.parametrize(("name", "noted"), [("a.safetensors", False), ("a.pth", True)])
def test_a_file_that_is_not_safetensors_is_named(tmp_path, name, noted):
    pytest.importorskip("safetensors")
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ValueError, match=f"{name} is damaged or no safetensors file") as caught:
        from_torch(tmp_path / name, mlp())
    assert any("from_torch(torch.load(file, weights_only=True)" in n for n in notes_of(caught.value)) == noted
