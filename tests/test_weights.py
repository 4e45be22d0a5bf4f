"""Weights in files: other libraries read ours and we theirs, and what does not fit is told and not loaded."""

import json
import os
import struct
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import purenets as pn
from purenets import models
from purenets.weights import load_weights, save_weights

pytest.importorskip("safetensors")
from safetensors.numpy import load_file, save_file


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def params_of(sizes=(4, 5, 3), seed=0):
    return models.mlp(sizes).init(jax.random.key(seed))[0]


def by_the_format(file):
    """The arrays of a safetensors file by its specification: length, JSON header, bytes."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    kinds = {"F32": "<f4", "I32": "<i4", "BF16": ml_dtypes.bfloat16}
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            out[name] = np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return out, header.get("__metadata__")


def test_the_file_is_that_of_the_format(tmp_path):
    file = tmp_path / "w.safetensors"
    tree = {
        "a": {"kernel": jnp.arange(6.0).reshape(2, 3).T, "half": jnp.ones((2,), jnp.bfloat16)},
        "count": jnp.int32(3),
        "none": jnp.zeros((0, 2)),
    }
    save_weights(file, tree, metadata={"note": "a test"})
    arrays, metadata = by_the_format(file)
    assert metadata == {"note": "a test"}
    assert set(arrays) == {"a/kernel", "a/half", "count", "none"}
    np.testing.assert_array_equal(arrays["a/kernel"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(arrays["a/half"].astype(np.float32), [1, 1])
    assert arrays["count"].shape == ()
    assert arrays["none"].shape == (0, 2)


def test_what_is_saved_comes_back(tmp_path):
    params = params_of()
    params["extra"] = {"half": jnp.ones(3, jnp.bfloat16), "count": jnp.int32(7), "flag": jnp.array([True])}
    save_weights(tmp_path / "w", params)
    empty = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    loaded, report = load_weights(tmp_path / "w", empty)
    same(loaded, params)
    assert str(report) == "7 loaded, 0 missing, 0 unexpected, 0 reshaped, 0 converted"


def test_a_file_of_another_library_is_loaded_by_renaming(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"net.{i}.{name}": rng.normal(size=shape).astype(np.float32)
        for i, shapes in enumerate([((4, 5), (5,)), ((5, 3), (3,))], 1)
        for name, shape in zip(("weight", "bias"), shapes, strict=True)
    }
    save_file({**arrays, "net.mask": np.ones(2, np.float32)}, tmp_path / "theirs")
    rules = {"net.*.{weight,bias}": "dense_*/{kernel,bias}", "net.mask": None}
    loaded, report = load_weights(tmp_path / "theirs", params_of(), rename=rules)
    np.testing.assert_array_equal(loaded["dense_1"]["kernel"], arrays["net.1.weight"])
    np.testing.assert_array_equal(loaded["dense_2"]["bias"], arrays["net.2.bias"])
    assert report.loaded["dense_2/bias"] == "net.2.bias"


def test_several_files_hold_one_model(tmp_path):
    params = params_of()
    save_weights(tmp_path / "1", {"dense_1": params["dense_1"]})
    save_weights(tmp_path / "2", {"dense_2": params["dense_2"]})
    same(load_weights([tmp_path / "1", tmp_path / "2"], params_of(seed=1))[0], params)
    with pytest.raises(ValueError, match=r"dense_1/bias stands in more than one of the files, again in .*/1"):
        load_weights([tmp_path / "1", tmp_path / "1"], params)


def test_strict_loading_names_everything_that_is_not_in_place():
    arrays = {"dense_1/kernel": np.ones((4, 9), np.float32), "dense_1/bias": np.ones(5, np.float32)}
    arrays |= {"dense_2/kernel": np.ones((5, 3), np.float32), "head/bias": np.ones(3, np.float32)}
    with pytest.raises(ValueError) as caught:
        load_weights(arrays, params_of())
    assert str(caught.value).splitlines() == [
        "the weights do not fit, and nothing was loaded:",
        "dense_1/kernel: float32[4, 9] in the file, float32[4, 5] wanted",
        "dense_2/bias: float32[3] wanted, missing",
        "head/bias: float32[3] in the file, unexpected",
    ]
    assert caught.value.__notes__ == [
        "where only names differ, give rename={old pattern: new path}",
        "strict=False loads what fits",
    ]


def test_partial_loading_keeps_what_does_not_fit_and_reports_it():
    like = params_of()
    arrays = {
        "dense_1/kernel": np.ones((4, 9), np.float32),
        "dense_1/bias": np.full(5, 2, np.float32),
        "x": np.ones(1),
    }
    loaded, report = load_weights(arrays, like, strict=False)
    np.testing.assert_array_equal(loaded["dense_1"]["bias"], [2, 2, 2, 2, 2])
    loaded["dense_1"]["bias"] = like["dense_1"]["bias"]
    same(loaded, like)
    assert set(report.loaded) == {"dense_1/bias"}
    assert set(report.missing) == {"dense_2/kernel", "dense_2/bias"}
    assert report.unexpected == {"x": "float64[1]"}
    assert report.reshaped == {"dense_1/kernel": ("float32[4, 9]", "float32[4, 5]")}
    np.testing.assert_array_equal(like["dense_1"]["bias"], np.zeros(5))


def test_chosen_leaves_are_loaded_strictly_and_the_others_passed_over(tmp_path):
    saved, like = params_of(), params_of(seed=1)
    save_weights(tmp_path / "w", saved)
    loaded, report = load_weights(tmp_path / "w", like, where="dense_1/*")
    same(loaded, {"dense_1": saved["dense_1"], "dense_2": like["dense_2"]})
    assert not report.problems()
    with pytest.raises(ValueError, match="pattern 'dense_9/"):
        load_weights(tmp_path / "w", like, where="dense_9/*")


def test_a_new_head_is_kept_while_the_body_is_loaded(tmp_path):
    save_weights(tmp_path / "w", params_of((4, 5, 10)))
    like = params_of((4, 5, 2), seed=1)
    loaded, report = load_weights(tmp_path / "w", like, strict=False)
    same(loaded["dense_1"], params_of((4, 5, 10))["dense_1"])
    same(loaded["dense_2"], like["dense_2"])
    assert report.problems()[0] == "dense_2/bias: float32[10] in the file, float32[2] wanted"


def test_leaves_take_the_dtype_of_the_tree_and_the_report_says_so():
    arrays = {"w": np.array([1.5, 1e-3], ml_dtypes.bfloat16)}
    loaded, report = load_weights(arrays, {"w": jnp.zeros(2)})
    assert loaded["w"].dtype == jnp.float32
    np.testing.assert_array_equal(loaded["w"], np.array([1.5, 1e-3], ml_dtypes.bfloat16).astype(np.float32))
    assert report.converted == {"w": ("bfloat16[2]", "float32[2]")}
    assert str(report).splitlines()[-1] == "w: bfloat16[2] as float32[2]"


def test_integers_are_not_loaded_as_reals():
    with pytest.raises(
        ValueError, match=r"w is int32\[2\] in the file and float32\[2\] is wanted: the kinds differ"
    ):
        load_weights({"w": np.ones(2, np.int32)}, {"w": jnp.zeros(2)})


def test_a_leaf_without_a_value_cannot_stay():
    like = {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": jnp.zeros(2)}
    with pytest.raises(ValueError, match="a is not loaded and has no value to keep"):
        load_weights({"b": np.ones(2, np.float32)}, like, strict=False)


def test_weights_of_which_nothing_fits_are_refused_even_partially():
    with pytest.raises(ValueError, match="no leaf fits, and nothing was loaded; the file has other"):
        load_weights({"other": np.ones(2, np.float32)}, {"w": jnp.zeros(2)}, strict=False)


def test_leaves_are_placed_as_in_the_tree():
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    like = {"w": jax.device_put(jnp.zeros((8, 2)), sharding), "b": jnp.zeros(2)}
    loaded, _ = load_weights({"w": np.ones((8, 2), np.float32), "b": np.ones(2, np.float32)}, like)
    assert loaded["w"].sharding == sharding
    assert not loaded["b"].committed
    assert jax.jit(lambda p: p["w"] + p["b"])(loaded).sum() == 32


@pytest.mark.parametrize("damage", ["truncated", "header", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage):
    file = tmp_path / "w"
    save_weights(file, params_of())
    data = file.read_bytes()
    file.write_bytes({"truncated": data[:-7], "header": b"\xff" * 8 + data[8:], "empty": b""}[damage])
    with pytest.raises(ValueError, match=f"{file} is damaged or no safetensors file"):
        load_weights(file, params_of())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_weights(tmp_path / "nowhere", params_of())


def test_a_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    file = tmp_path / "w"
    save_weights(file, {"w": jnp.ones(2)})
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_weights(file, {"w": jnp.zeros(2)})
    np.testing.assert_array_equal(load_file(file)["w"], [1, 1])
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="w"):
        save_weights(tmp_path / "none" / "w", {"w": jnp.ones(2)})


def test_keys_and_other_things_are_refused(tmp_path):
    with pytest.raises(TypeError, match="rng is a random key: save params or state"):
        save_weights(tmp_path / "w", {"rng": jax.random.key(0)})
    with pytest.raises(TypeError, match="w is str, which a safetensors file cannot hold"):
        save_weights(tmp_path / "w", {"w": "text"})
    assert not list(tmp_path.iterdir())


def test_state_is_saved_like_params(tmp_path):
    model = pn.batch_norm(3)
    _, state = model.init(jax.random.key(0))
    save_weights(tmp_path / "s", state)
    same(load_weights(tmp_path / "s", state)[0], state)


def test_without_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        save_weights(tmp_path / "w", {"w": jnp.ones(2)})
