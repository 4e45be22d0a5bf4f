"""The first layer of a ported model that differs, and why; mistakes are made on purpose, one at a time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

import purenets as pn
from purenets.interop import from_torch, port_check
from purenets.interop.observed import observe
from purenets.paths import flatten, unflatten
from tests.interop.torch_cases import CASES, arrays_of, input_of, lstm, over_time, recurrent_shapes


def started(model, seed=0):
    """Params and state in which nothing is zero or one."""
    params, state = model.init(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    other = lambda leaf: (
        jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype) if leaf.ndim == 1 else leaf
    )
    return jax.tree.map(other, params), jax.tree.map(other, state)


def outputs(model, params, state, *inputs, **side):
    """What every layer gives out, by name, channels first where there are any, as torch would."""
    found = {}
    for one in observe(model, params, state, *inputs, **side):
        output = np.asarray(one.output)
        found[one.name.replace("/", ".")] = np.moveaxis(output, -1, 1) if output.ndim == 4 else output
    return found


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mlp(activation=jax.nn.gelu, eps=1e-6):
    return pn.serial(up=pn.dense(4, 4), act=activation, norm=pn.layer_norm(4, eps=eps), down=pn.dense(4, 4))


def changed(params, path, fn):
    leaves = flatten(params)
    return unflatten({**leaves, path: fn(leaves[path])})


def test_where_nothing_differs_all_layers_agree_in_the_order_in_which_they_ran():
    model = mlp()
    params, state = started(model)
    x = normal(3, 4)
    found = port_check(model, params, state, outputs(model, params, state, x), x)
    assert [one.path for one in found.layers] == ["up", "act", "norm", "down", ""]
    assert found.first is None
    assert found.causes == ()
    assert all(one.agrees and one.difference == 0 for one in found.layers)
    assert str(found).endswith("all 5 agree")


def test_a_square_kernel_that_was_not_transposed_is_found():
    """The reference is torch's Linear in NumPy; the port forgets the transposition."""
    weights = [normal(4, 4, seed=i) for i in range(3)]
    model = pn.serial(
        a=pn.dense(4, 4, bias=False), b=pn.dense(4, 4, bias=False), c=pn.dense(4, 4, bias=False)
    )
    x = normal(3, 4)
    reference, y = {}, x
    for name, weight in zip("abc", weights, strict=True):
        reference[name] = y = y @ weight.T
    params = {name: {"kernel": weight.T} for name, weight in zip("abc", weights, strict=True)}
    params["b"]["kernel"] = weights[1]
    found = port_check(model, params, {}, reference, x)
    assert [one.agrees for one in found.layers] == [True, False, False]
    assert found.first.path == "b"
    assert found.causes == ("its kernel is transposed",)
    assert str(found).endswith("the first that differs is b, dense(4, 4)\nlikely: its kernel is transposed")


def test_the_report_has_shapes_and_sizes_of_the_difference():
    model = pn.serial(a=pn.dense(2, 2, bias=False))
    params = {"a": {"kernel": jnp.eye(2)}}
    x = np.array([[1.0, 2.0]], np.float32)
    found = port_check(model, params, {}, {"a": np.array([[1.0, 8.0]])}, x)
    one = found.first
    assert (one.shape, one.reference_shape, one.name, one.label) == ((1, 2), (1, 2), "a", "dense(2, 2)")
    assert one.difference == 6
    assert one.relative == 6 / 8
    assert found.causes == ()
    assert str(found).endswith(f"none of {found.tried} known causes makes it agree")


def test_the_other_gelu_is_found_against_the_error_function():
    model = mlp()
    params, state = started(model)
    x = normal(3, 4)
    reference = outputs(model, params, state, x)
    up = reference["up"].astype(np.float64)
    exact = {"up": up, "act": up * (1 + erf(up / np.sqrt(2))) / 2}
    found = port_check(model, params, state, exact, x)
    assert found.first.path == "act"
    assert found.causes == ("its activation is gelu, exact (approximate=False) in the reference",)


@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_the_epsilon_of_a_norm_is_found(eps):
    model = pn.serial(norm=pn.layer_norm(4))
    params, state = started(model)
    x = normal(3, 4) * 0.1
    wide = x.astype(np.float64)
    mean, var = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    reference = (wide - mean) / np.sqrt(var + eps) * np.asarray(params["norm"]["scale"]) + params["norm"][
        "bias"
    ]
    found = port_check(model, params, state, {"norm": np.asarray(reference)}, x)
    assert found.causes == (f"its epsilon is {eps:g} in the reference",)


def test_gates_in_another_order_are_found_against_a_loop_in_numpy():
    """Weights saved with gates i, f, o, g and read as if they were torch's."""
    arrays = arrays_of(recurrent_shapes(4))
    model = pn.serial(lstm=pn.rnn(pn.lstm_cell(3, 4)))
    x = normal(2, 5, 3)
    wide = {name: value.astype(np.float64) for name, value in arrays.items()}
    reference = {"lstm": over_time(lstm, wide, x, 4, "_l0")}
    saved = {
        f"lstm.{n}": np.concatenate([np.split(v, 4)[i] for i in (0, 1, 3, 2)]) for n, v in arrays.items()
    }
    params, state, _ = from_torch(saved, model)
    found = port_check(model, params, state, reference, x)
    assert found.first.path == "lstm"
    assert found.causes == ("its gates stand in the order i, f, o, g",)


@pytest.mark.parametrize("name", ["dense after flatten", "lstm", "attention", "repeated blocks", "conv"])
def test_a_right_port_agrees_with_torchs_layers_in_numpy(name):
    case = CASES[name]
    arrays = arrays_of(case.shapes)
    fix = {"flattened": {"head": (3, 3, 2)}} if "flatten" in name else {}
    params, state, _ = from_torch(arrays, case.model, **fix)
    x = input_of(case)
    wide = {key: value.astype(np.float64) for key, value in arrays.items()}
    found = port_check(case.model, params, state, {"": case.compute(wide, x)}, x)
    assert found.first is None
    assert len(found.layers) == 1


def test_features_in_the_order_of_a_flatten_with_channels_first_are_found():
    case = CASES["dense after flatten"]
    arrays = arrays_of(case.shapes)
    params, state, _ = from_torch(arrays, case.model, flattened={"head": (18,)})
    x = input_of(case)
    wide = {key: value.astype(np.float64) for key, value in arrays.items()}
    found = port_check(case.model, params, state, {"": case.compute(wide, x)}, x)
    assert found.causes == (
        "head: its features are those of a flatten with channels first: flattened=(3, 3, 2)",
    )


def test_a_flatten_in_the_other_order_is_no_difference_by_itself():
    model = CASES["dense after flatten"].model
    params, state = started(model)
    x = input_of(CASES["dense after flatten"])
    conv = outputs(model, params, state, x)["conv"]
    found = port_check(model, params, state, {"conv": conv, "flatten": conv.reshape(2, -1)}, x)
    assert found.first is None


def test_statistics_of_the_batch_are_told_from_running_ones():
    model = pn.serial(norm=pn.batch_norm(4))
    params, state = started(model)
    x = normal(6, 4)
    wide = x.astype(np.float64)
    batch = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    reference = np.asarray(batch * params["norm"]["scale"] + params["norm"]["bias"])
    found = port_check(model, params, state, {"norm": reference}, x)
    assert found.causes == ("the reference ran in training mode: it used the statistics of the batch",)


def test_dropout_that_was_active_is_found():
    model = pn.serial(drop=pn.dropout(0.5))
    x = normal(6, 4)
    kept = np.random.default_rng(0).random(x.shape) < 0.5
    found = port_check(model, {}, {}, {"drop": np.where(kept, 2 * x, 0)}, x)
    assert found.causes == ("the reference ran in training mode: dropout was active",)


def test_a_bias_that_is_missing_on_either_side_is_found():
    with_bias, without = pn.serial(a=pn.dense(3, 4)), pn.serial(a=pn.dense(3, 4, bias=False))
    params, _ = started(with_bias)
    bare = {"a": {"kernel": params["a"]["kernel"]}}
    x = normal(5, 3)
    product = x @ np.asarray(params["a"]["kernel"])
    found = port_check(without, bare, {}, {"a": product + np.asarray(params["a"]["bias"])}, x)
    assert found.causes == ("the reference adds a constant to each feature: a bias is missing here",)
    found = port_check(with_bias, params, {}, {"a": product}, x)
    assert "its bias is not there in the reference" in found.causes


def test_a_constant_factor_is_found():
    model = pn.serial(embed=pn.embedding(5, 4))
    params, _ = started(model)
    ids = np.array([[1, 2, 4]])
    found = port_check(model, params, {}, {"embed": 2 * np.asarray(params["embed"]["embedding"])[ids]}, ids)
    assert found.causes == ("the reference is 2 times ours",)


def test_time_ahead_of_the_batch_is_found():
    model = pn.serial(a=pn.dense(3, 4))
    params, _ = started(model)
    x = normal(2, 5, 3)
    y = outputs(model, params, {}, x)["a"]
    found = port_check(model, params, {}, {"a": y.swapaxes(0, 1)}, x)
    assert found.causes == ("the reference has time ahead of the batch: [time, batch, features]",)


def test_the_other_direction_of_time_is_found():
    model = pn.serial(r=pn.rnn(pn.elman_cell(3, 4)))
    params, _ = started(model)
    x = normal(2, 5, 3)
    y = outputs(pn.serial(r=pn.rnn(pn.elman_cell(3, 4), reverse=True)), params, {}, x)["r"]
    found = port_check(model, params, {}, {"r": y}, x)
    assert found.causes == ("it runs in the other direction of time in the reference",)


def test_padding_on_both_sides_is_told_from_same():
    ours, theirs = (pn.serial(c=pn.conv(2, 3, 3, stride=2, padding=p)) for p in ("SAME", 1))
    params, _ = started(ours)
    x = normal(2, 6, 6, 2)
    found = port_check(ours, params, {}, outputs(theirs, params, {}, x), x)
    assert found.first.path == "c"
    assert found.causes == (
        "its padding is [(1, 1), (1, 1)], as torch's 1 and its stride 2 in the reference",
    )


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda x: np.moveaxis(x.reshape(2, 2, 6, 6), 1, -1),
            "the reference's input was reshaped to channels first",
        ),
        (lambda x: x.swapaxes(1, 2), "the reference's input has height and width exchanged"),
    ],
    ids=["reshaped", "turned"],
)
def test_an_input_with_its_axes_mixed_up_is_found(spoil, says):
    model = pn.serial(c=pn.conv(2, 3, 3))
    params, _ = started(model)
    x = normal(2, 6, 6, 2)
    reference = outputs(model, params, {}, spoil(x))["c"]
    found = port_check(model, params, {}, {"c": reference}, x)
    assert [cause.startswith(says) for cause in found.causes] == [True]


def block():
    @pn.compose(norm=pn.layer_norm(4), up=pn.dense(4, 4))
    def block(m, x):
        return x + m.up(m.norm(x))

    return block


def test_members_of_a_repeat_are_told_apart_and_compared_one_after_another():
    model = pn.serial(
        stem=pn.dense(3, 4), tanh=jnp.tanh, blocks=pn.repeat(pn.remat(block()), 3), head=pn.dense(4, 2)
    )
    params, state = started(model)
    x = normal(3, 3)
    reference = outputs(model, params, state, x)
    wrong = changed(params, "blocks/up/kernel", lambda kernel: kernel.at[1].set(kernel[1].T))
    found = port_check(model, wrong, state, reference, x)
    inside = [f"blocks/{i}{end}" for i in range(3) for end in ("/norm", "/up", "")]
    assert [one.path for one in found.layers] == ["stem", "tanh", *inside, "blocks", "head", ""]
    assert found.first.path == "blocks/1/up"
    assert found.causes == ("its kernel is transposed",)


def test_a_mistake_inside_a_layer_that_is_compared_as_a_whole_is_found_with_its_path():
    model = pn.serial(stem=pn.dense(3, 4), block=block())
    params, state = started(model)
    x = normal(3, 3)
    reference = {"block": outputs(model, params, state, x)["block"]}
    wrong = changed(params, "block/up/kernel", lambda kernel: kernel.T)
    found = port_check(model, wrong, state, reference, x)
    assert found.causes == ("up: its kernel is transposed",)


def test_a_mistake_that_all_layers_have_is_found_where_only_the_last_output_is_known():
    model = pn.serial(a=pn.dense(4, 4), b=pn.dense(4, 4), c=pn.dense(4, 2))
    params, state = started(model)
    x = normal(3, 4)
    reference = {"": outputs(model, params, state, x)[""]}
    wrong = params
    for path in ("a/kernel", "b/kernel"):
        wrong = changed(wrong, path, lambda kernel: kernel.T)
    assert port_check(model, wrong, state, reference, x).causes == ("a, b: its kernel is transposed",)


def test_heads_side_by_side_are_the_same_as_apart():
    model = pn.attention(4, 2)
    params, state = started(model)
    x = normal(2, 5, 4)
    kernel, bias = (np.asarray(params["query"][name]) for name in ("kernel", "bias"))
    reference = {"query": x @ kernel.reshape(4, 4) + bias.reshape(4)}
    assert port_check(model, params, state, reference, x).first is None


def test_names_are_those_of_the_other_framework_and_rules_of_arrays_are_passed_over():
    model = mlp()
    params, state = started(model)
    x = normal(3, 4)
    mine = outputs(model, params, state, x)
    reference = {"net.fc1": mine["up"], "net.fc2": mine["down"], "net.pool": x, "": mine[""]}
    rename = {"net.fc{1,2}": "{up,down}", "net.ln.weight": "norm/weight"}
    found = port_check(model, params, state, lambda x: reference, x, rename=rename)
    assert [(one.path, one.name) for one in found.layers] == [
        ("up", "net.fc1"),
        ("down", "net.fc2"),
        ("", ""),
    ]
    assert found.unmatched == ("net.pool",)
    assert "no layer for: net.pool" in str(found)


def test_a_reference_without_a_known_name_lists_both_sides():
    model = mlp()
    params, state = started(model)
    with pytest.raises(
        ValueError, match=r"the reference has \['fc1'\], the layers are \['up', 'act', 'norm', 'down', ''\]"
    ):
        port_check(model, params, state, {"fc1": np.ones((3, 4))}, normal(3, 4))


def test_shapes_that_do_not_fit_and_values_that_are_no_numbers_differ():
    model = mlp()
    params, state = started(model)
    x = normal(3, 4)
    for wrong in (np.ones((3, 5)), np.full((3, 4), np.nan)):
        found = port_check(model, params, state, {"up": wrong}, x)
        assert found.first.difference == np.inf
        assert found.causes == ()


def test_side_inputs_reach_the_model():
    model = pn.serial(a=pn.attention(4, 2))
    params, state = started(model)
    x, lengths = normal(2, 5, 4), jnp.array([3, 5])
    reference = outputs(model, params, state, x, lengths=lengths)
    assert port_check(model, params, state, reference, x, lengths=lengths).first is None
    assert port_check(model, params, state, reference, x).first is not None


def test_a_tolerance_can_be_given():
    model = pn.serial(a=partial(jnp.multiply, 1.0))
    x = np.ones((1, 2), np.float32)
    reference = {"a": np.array([[1.0, 1.001]])}
    assert port_check(model, {}, {}, reference, x).first is not None
    assert port_check(model, {}, {}, reference, x, tolerance=1e-2).first is None
