"""Names of torch as paths, and the ready-made maps, against the names as they are published."""

import jax
import numpy as np
import pytest

import purenets as pn
from purenets.interop import LLAMA_NAMES, from_torch, names_below, resnet_names, to_torch
from purenets.interop.torch_names import paths_of_names, torch_names
from purenets.models import llama, resnet, resnet_cifar
from tests.interop import llama_oracle
from tests.interop.torch_cases import arrays_of


def published(blocks, *, bottleneck, width, classes=5):
    """Names and shapes of torchvision's ResNets, written from its ``resnet.py``."""
    shapes = {"conv1.weight": (width, 3, 7, 7)}

    def norm(name, size):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{leaf}"] = (size,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", width)
    n_in, expansion = width, 4 if bottleneck else 1
    for i, count in enumerate(blocks):
        planes = width * 2**i
        n_out = planes * expansion
        for j in range(count):
            name = f"layer{i + 1}.{j}"
            kernels = [(planes, n_in, 1), (planes, planes, 3), (n_out, planes, 1)]
            if not bottleneck:
                kernels = [(planes, n_in, 3), (planes, planes, 3)]
            for k, (out, into, window) in enumerate(kernels, 1):
                shapes[f"{name}.conv{k}.weight"] = (out, into, window, window)
                norm(f"{name}.bn{k}", out)
            if j == 0 and (i > 0 or n_in != n_out):
                shapes[f"{name}.downsample.0.weight"] = (n_out, n_in, 1, 1)
                norm(f"{name}.downsample.1", n_out)
            n_in = n_out
    return {**shapes, "fc.weight": (classes, n_in), "fc.bias": (classes,)}


@pytest.mark.parametrize(
    ("blocks", "bottleneck", "count"),
    [((2, 2, 2, 2), False, 122), ((3, 4, 6, 3), True, 320), ((1, 7), True, None)],
    ids=["ResNet-18", "ResNet-50", "a loop"],
)
@pytest.mark.parametrize("scan", [None, False, True], ids=["by default", "apart", "scanned"])
def test_the_published_names_of_a_resnet_are_loaded_whole_and_come_back(blocks, bottleneck, count, scan):
    model = resnet(blocks, 5, bottleneck=bottleneck, width=4, scan=scan)
    shapes = published(blocks, bottleneck=bottleneck, width=4)
    assert count is None or len(shapes) == count
    arrays = arrays_of(shapes)
    names = resnet_names(model)
    params, state, report = from_torch(arrays, model, rename=names)
    assert len(report.loaded) + len(report.ignored) == len(arrays)
    np.testing.assert_array_equal(params["head"]["kernel"], arrays["fc.weight"].T)
    np.testing.assert_array_equal(params["stem"]["kernel"][0, 1], arrays["conv1.weight"][:, :, 0, 1].T)
    np.testing.assert_array_equal(
        params["stage_2"]["first"]["joined"]["skip"]["conv"]["kernel"][0, 0],
        arrays["layer2.0.downsample.0.weight"][:, :, 0, 0].T,
    )
    last = f"layer2.{blocks[1] - 1}.bn1.running_var"
    stage = state["stage_2"]
    block = jax.tree.map(lambda x: x[-1], stage["rest"]) if "rest" in stage else stage[f"block_{blocks[1]}"]
    np.testing.assert_array_equal(block["joined"]["body"]["norm_1"]["var"], arrays[last])
    like = to_torch(model, params, state, rename=names, like=arrays)
    plain = to_torch(model, params, state, rename=names)
    assert list(like) == list(arrays)
    assert set(plain) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(like[name], value)
        if name not in report.ignored:
            np.testing.assert_array_equal(plain[name], value)


def test_the_names_of_a_resnet_need_a_resnet():
    with pytest.raises(
        ValueError, match=r"needs a model of resnet, with parts stage_1, ..., got \['dense_1'\]"
    ):
        resnet_names(pn.serial(pn.dense(2, 2)))
    assert resnet_names(resnet_cifar(8))["fc"] == "head"


def test_a_star_is_one_segment_between_dots():
    names = ["h.0.up.weight", "h.1.up.weight", "h.1.inner.up.weight"]
    assert paths_of_names({"h.*.up": "blocks/*/first"}, names) == {
        "h.0.up.weight": "blocks/0/first/weight",
        "h.1.up.weight": "blocks/1/first/weight",
        "h.1.inner.up.weight": "h/1/inner/up/weight",
    }


def test_the_first_rule_that_matches_counts():
    rules = {"a.bias": "offset/bias", "a": "first"}
    assert paths_of_names(rules, ["a.weight", "a.bias"]) == {
        "a.weight": "first/weight",
        "a.bias": "offset/bias",
    }


def test_the_way_back_leaves_out_what_was_left_out():
    rules = {"old": None, "h.*.up": "blocks/*/first"}
    assert torch_names(rules, ["blocks/3/first/weight", "norm/bias"]) == {
        "blocks/3/first/weight": "h.3.up.weight",
        "norm/bias": "norm.bias",
    }


def test_a_map_for_a_module_inside_another_keeps_what_is_left_out():
    assert names_below({"a": "b", "c": None}, "net", "body") == {"net.a": "body/b", "net.c": None}
    assert names_below({"a": "b"}, "net", "") == {"net.a": "b"}


@pytest.mark.parametrize("kv_heads", [2, 4], ids=["grouped keys", "keys as many as queries"])
def test_weights_of_llama_compute_what_they_are_meant_to_and_come_back(kv_heads):
    model = llama(11, 16, 4, depth=2, hidden=12, kv_heads=kv_heads)
    arrays = {n: 0.3 * v for n, v in arrays_of(llama_oracle.shapes(11, 16, 4, kv_heads, 2, 12)).items()}
    params, state, _ = from_torch(arrays, model, rename=LLAMA_NAMES)
    ids = np.array([3, 1, 4, 1, 5])
    wide = {name: value.astype(np.float64) for name, value in arrays.items()}
    wanted = llama_oracle.llama(wide, ids, 4, kv_heads, 2)
    got, _ = jax.jit(model.apply)(params, state, ids[None])
    np.testing.assert_allclose(got[0], wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    for back in (
        to_torch(model, params, rename=LLAMA_NAMES),
        to_torch(model, params, rename=LLAMA_NAMES, like=arrays),
    ):
        assert set(back) == set(arrays)
        for name, value in arrays.items():
            np.testing.assert_array_equal(back[name], value)


def test_recurrent_layers_of_their_own_are_told_by_the_rules_on_the_way_back():
    model = pn.stacked(pn.elman_cell(4, 4), pn.elman_cell(4, 4))
    params, _ = model.init(jax.random.key(0))
    back = to_torch(model, params, rename={"below": "rnn_1", "above": "rnn_2"})
    np.testing.assert_array_equal(back["above.weight_hh_l0"], params["rnn_2"]["recurrent_kernel"].T)
    assert "weight_hh_l1" in to_torch(model, params)
