"""GPT-2 and Llama: published counts, and published weights by their names."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.models.gpt import gpt, gpt2, llama, llama_2_7b, llama_3_8b
from purenets.models.gpt2_weights import from_gpt2, load_gpt2
from tests.layers.peers import assert_trees_close

SIZE, DIM, HEADS, DEPTH, CONTEXT = 11, 8, 2, 3, 6
IDS = jnp.array([[1, 5, 9, 2, 0], [10, 10, 3, 7, 4]])


@pytest.mark.parametrize(
    ("model", "count"),
    [
        # Counted by the published weights.
        (gpt2(), 124_439_808),
        (gpt2("355M"), 354_823_168),
        (gpt2("774M"), 774_030_080),
        (gpt2("1558M"), 1_557_611_200),
        (llama_2_7b(), 6_738_415_616),
        (llama_3_8b(), 8_030_261_248),
    ],
    ids=["GPT-2 124M", "GPT-2 355M", "GPT-2 774M", "GPT-2 1558M", "Llama 2 7B", "Llama 3 8B"],
)
def test_parameters_are_as_many_as_published(model, count):
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    assert state == {}
    assert params["blocks"]["attention"]["query"]["kernel"].ndim == 4


def published(seed=0):
    """Random weights under the names and shapes of the published files."""
    rng = np.random.default_rng(seed)
    shapes = {
        "wte.weight": (SIZE, DIM),
        "wpe.weight": (CONTEXT, DIM),
        "ln_f.weight": (DIM,),
        "ln_f.bias": (DIM,),
    }
    for i in range(DEPTH):
        for name, shape in (("attn.c_attn", (DIM, 3 * DIM)), ("attn.c_proj", (DIM, DIM))):
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
        for name, shape in (("mlp.c_fc", (DIM, 4 * DIM)), ("mlp.c_proj", (4 * DIM, DIM))):
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (DIM,), f"h.{i}.{name}.bias": (DIM,)}
    return {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


def twin(w, ids):
    """GPT-2 straight from its weights, in float64 NumPy (Radford et al. 2019; one layer after another)."""
    w = {name: np.asarray(array, float) for name, array in w.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def affine(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    x = w["wte.weight"][np.asarray(ids)] + w["wpe.weight"][: ids.shape[1]]
    batch, time, dim = x.shape
    for i in range(DEPTH):
        fused = affine(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
        q, k, v = (a.reshape(batch, time, HEADS, -1).swapaxes(1, 2) for a in np.split(fused, 3, -1))
        scores = q @ k.swapaxes(2, 3) / math.sqrt(dim // HEADS)
        weights = np.exp(np.where(np.tri(time, dtype=bool), scores, -np.inf))
        heads = (weights / weights.sum(-1, keepdims=True)) @ v
        x = x + affine(heads.swapaxes(1, 2).reshape(batch, time, dim), f"h.{i}.attn.c_proj")
        x = x + affine(gelu(affine(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")), f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_published_weights_give_the_logits_of_their_twin(prefix):
    weights = published()
    named = {prefix + name: array for name, array in weights.items()}
    named |= {prefix + "h.0.attn.bias": np.tri(CONTEXT), "lm_head.weight": weights["wte.weight"]}
    params = from_gpt2(named, HEADS)
    model = gpt(SIZE, DIM, HEADS, DEPTH, CONTEXT)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.init(jax.random.key(0))[0])
    np.testing.assert_allclose(model.apply(params, {}, IDS)[0], twin(weights, IDS), rtol=1e-4, atol=1e-4)


def test_weights_that_are_missing_are_named():
    weights = published()
    del weights["h.1.mlp.c_fc.bias"]
    with pytest.raises(ValueError, match=r"from_gpt2 needs h.1.mlp.c_fc.bias, which is not among the"):
        from_gpt2(weights, HEADS)
    with pytest.raises(ValueError, match="needs a number of heads that divides 8, got 3"):
        from_gpt2(published(), 3)
    with pytest.raises(ValueError, match=r"needs names such as h.0.attn.c_attn.weight, got \['a'\]"):
        from_gpt2({"a": np.zeros(1)}, 2)


def _loaded(folder, arrays, model=None):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    file = folder / "model.safetensors"
    save_file(arrays, file)
    model = gpt(SIZE, DIM, HEADS, DEPTH, CONTEXT) if model is None else model
    return load_gpt2(file, jax.eval_shape(model.init, jax.random.key(0))[0])


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_a_file_of_published_weights_gives_the_logits_of_their_twin(tmp_path, prefix):
    weights = published()
    named = {prefix + name: array for name, array in weights.items()}
    for i in range(DEPTH):
        named[f"{prefix}h.{i}.attn.bias"] = np.tri(CONTEXT, dtype=np.float32)[None, None]
        named[f"{prefix}h.{i}.attn.masked_bias"] = np.float32([-1e4])
    named["lm_head.weight"] = weights["wte.weight"].copy()
    params = _loaded(tmp_path, named)
    model = gpt(SIZE, DIM, HEADS, DEPTH, CONTEXT)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.init(jax.random.key(0))[0])
    np.testing.assert_allclose(model.apply(params, {}, IDS)[0], twin(weights, IDS), rtol=1e-4, atol=1e-4)
    for leaf, same in zip(jax.tree.leaves(params), jax.tree.leaves(from_gpt2(named, HEADS)), strict=True):
        np.testing.assert_array_equal(leaf, same)


def test_a_file_is_loaded_in_the_dtype_of_the_model(tmp_path):
    halved = {name: array.astype(np.float16) for name, array in published().items()}
    params = _loaded(tmp_path, halved)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(params["embed"]["embedding"], halved["wte.weight"])


def _without(name):
    return {other: array for other, array in published().items() if other != name}


@pytest.mark.parametrize(
    ("arrays", "message", "note"),
    [
        (_without("h.1.mlp.c_fc.bias"), r"h\.1\.mlp\.c_fc\.bias: float32\[32\] wanted, missing", None),
        (
            published() | {"h.0.attn.rotary.weight": np.zeros(3, np.float32)},
            r"h\.0\.attn\.rotary\.weight: float32\[3\] in the file, unexpected",
            None,
        ),
        (
            published() | {"h.2.mlp.c_proj.weight": np.zeros((DIM, 4 * DIM), np.float32)},
            r"h\.2\.mlp\.c_proj\.weight: float32\[8, 32\] in the file, float32\[32, 8\] wanted",
            "h.2.mlp.c_proj.weight is transposed",
        ),
        (
            published() | {"lm_head.weight": np.zeros((SIZE, DIM), np.float32)},
            "lm_head.weight differs from wte.weight, and nothing was loaded",
            None,
        ),
        (
            published() | {"wte.weight": np.zeros((SIZE, DIM), np.int32)},
            r"wte\.weight is int32\[11, 8\] in the file and float32\[11, 8\] is wanted: the kinds differ",
            None,
        ),
    ],
    ids=["missing", "unexpected", "transposed", "a head of its own", "integers"],
)
def test_a_file_that_does_not_fit_is_refused_by_names_and_shapes(tmp_path, arrays, message, note):
    with pytest.raises(ValueError, match=message) as caught:
        _loaded(tmp_path, arrays)
    assert note is None or any(note in line for line in caught.value.__notes__)


def test_a_file_of_a_deeper_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"h\.2\.attn\.c_attn\.bias: float32\[24\] in the file, unexpected"):
        _loaded(tmp_path, published(), gpt(SIZE, DIM, HEADS, DEPTH - 1, CONTEXT))


def test_a_file_of_another_format_and_params_of_another_model_are_refused(tmp_path):
    pytest.importorskip("safetensors")
    like = jax.eval_shape(gpt(SIZE, DIM, HEADS, DEPTH, CONTEXT).init, jax.random.key(0))[0]
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"PK\x03\x04 an archive of pickles")
    with pytest.raises(ValueError, match=r"pytorch_model.bin is damaged or no safetensors file"):
        load_gpt2(file, like)
    with pytest.raises(FileNotFoundError):
        load_gpt2(tmp_path / "nowhere.safetensors", like)
    other = jax.eval_shape(llama(SIZE, DIM, HEADS, 1, 12).init, jax.random.key(0))[0]
    with pytest.raises(
        ValueError, match="load_gpt2 needs the params of gpt, these differ in blocks/attention/key/bias"
    ):
        load_gpt2(published(), other)


def test_the_head_is_the_embedding_used_again():
    model = gpt(SIZE, DIM, HEADS, 1, CONTEXT)
    params, _ = model.init(jax.random.key(0))
    assert "head" not in params
    loss = lambda p: jnp.sum(jnp.sin(model.apply(p, {}, IDS)[0]))
    # Id 6 is in no input: what moves its row is its use as a column of the head.
    assert np.abs(jax.grad(loss)(params)["embed"]["embedding"][6]).max() > 1e-4


def test_initial_values_are_those_of_the_paper():
    model = gpt(2000, 64, 4, 8, 64)
    params, _ = model.init(jax.random.key(0))
    deviation = lambda *path: np.std(params["blocks"][path[0]][path[1]]["kernel"])
    np.testing.assert_allclose(np.std(params["embed"]["embedding"]), 0.02, rtol=0.02)
    np.testing.assert_allclose(deviation("attention", "query"), 0.02, rtol=0.02)
    np.testing.assert_allclose(deviation("attention", "out"), 0.02 / 4, rtol=0.02)
    np.testing.assert_allclose(deviation("feed_forward", "down"), 0.02 / 4, rtol=0.02)


def test_a_sequence_beyond_the_context_and_an_unknown_size_are_refused():
    model = gpt(SIZE, DIM, HEADS, 1, CONTEXT)
    params, state = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"learned_positions\(6, 8\) has 6 positions, got a sequence of 7"):
        model.apply(params, state, jnp.zeros((1, 7), int))
    with pytest.raises(ValueError, match=r"embedding\(11, 8\) has the ids 0 to 10, got 11"):
        model.apply(params, state, jnp.array([[11]]))
    with pytest.raises(ValueError, match="gpt2 has the sizes 124M, 355M, 774M, 1558M, got '125M'"):
        gpt2("125M")


def test_whole_models_stream_in_any_cut():
    for model in (gpt(SIZE, DIM, HEADS, 2, CONTEXT), llama(SIZE, DIM, 4, 2, 12, kv_heads=1)):
        params, _ = model.init(jax.random.key(0))
        params = jax.tree.map(lambda leaf: 10 * leaf, params)
        state, out = pn.open_stream(model, {}, batch=2, length=5), []
        for a, b in ((0, 2), (2, 3), (3, 5)):
            y, state = jax.jit(partial(model.apply, stream=True))(params, state, IDS[:, a:b])
            out.append(y)
        assert_trees_close(jnp.concatenate(out, 1), model.apply(params, {}, IDS)[0], rtol=1e-5, atol=1e-5)
