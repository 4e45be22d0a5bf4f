"""Models as serialized programs: loaded again they are the model, also where no code of it is."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets.interop import export, load_program
from purenets.models import mlp
from tests.layers.peers import normal

pytest.importorskip("flatbuffers")


def _image_net():
    return pn.serial(
        conv=pn.conv(1, 4, 3),
        norm=pn.batch_norm(4),
        act=jax.nn.relu,
        pool=pn.max_pool(2),
        flat=lambda x: x.reshape(x.shape[0], -1),
        drop=pn.dropout(0.5),
        out=pn.dense(4 * 9, 3),
    )


MODELS = {
    "mlp": (lambda: mlp([3, 8, 2]), (3,), jnp.float32),
    "image net": (_image_net, (6, 6, 1), jnp.float32),
    "causal attention": (lambda: pn.attention(8, 2, causal=True), (5, 8), jnp.float32),
    "lstm": (lambda: pn.rnn(pn.lstm_cell(3, 4)), (5, 3), jnp.float32),
    "embedding": (lambda: pn.embedding(7, 4), (5,), jnp.int32),
}


def _batch(n, shape, dtype):
    x = normal(n, *shape)
    return x if dtype == jnp.float32 else jnp.abs(x).astype(dtype)


@pytest.mark.parametrize("name", MODELS)
def test_a_program_is_the_model_for_any_size_of_batch(name):
    make, shape, dtype = MODELS[name]
    model = make()
    params, state = model.init(jax.random.key(0))
    data = export(model, params, state, jax.ShapeDtypeStruct(("batch", *shape), dtype))
    assert isinstance(data, bytes)
    program = load_program(data)
    for n in (1, 4):
        x = _batch(n, shape, dtype)
        np.testing.assert_allclose(program(x), model.apply(params, state, x)[0], rtol=1e-5, atol=1e-6)


def test_it_has_the_params_and_the_statistics_that_it_was_given(tmp_path):
    model = pn.batch_norm(3)
    params, state = (
        {"scale": jnp.full(3, 2.0), "bias": jnp.ones(3)},
        {"mean": jnp.ones(3), "var": jnp.full(3, 4.0)},
    )
    file = tmp_path / "norm.jax"
    file.write_bytes(export(model, params, state, (2, 3)))
    np.testing.assert_allclose(load_program(file)(jnp.full((2, 3), 5.0)), np.full((2, 3), 5.0), rtol=1e-5)


def test_one_name_is_one_size():
    model = pn.function(lambda a, b: a @ b)
    program = load_program(export(model, {}, {}, (2, "inner"), ("inner", 3)))
    np.testing.assert_allclose(program(jnp.ones((2, 4)), jnp.ones((4, 3))), np.full((2, 3), 4.0))
    with pytest.raises(ValueError, match="inner"):
        program(jnp.ones((2, 4)), jnp.ones((5, 3)))


def test_it_runs_where_only_jax_is(tmp_path):
    model = pn.dense(2, 1)
    params = {"kernel": jnp.array([[2.0], [3.0]]), "bias": jnp.array([1.0])}
    file = tmp_path / "dense.jax"
    file.write_bytes(export(model, params, {}, ("batch", 2)))
    code = (
        "import sys, jax, pathlib; from jax import export; import jax.numpy as jnp;"
        f"f = export.deserialize(bytearray(pathlib.Path({str(file)!r}).read_bytes()));"
        "print(f.call(jnp.ones((2, 2))).tolist(), 'purenets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[6.0], [6.0]] False"


def test_it_may_be_made_for_several_platforms():
    model = pn.dense(2, 1)
    data = export(model, *model.init(jax.random.key(0)), (1, 2), platforms=("cpu", "cuda", "tpu"))
    assert jax.export.deserialize(bytearray(data)).platforms == ("cpu", "cuda", "tpu")


def test_a_shape_that_is_not_the_programs_is_refused():
    model = pn.dense(2, 1)
    program = load_program(export(model, *model.init(jax.random.key(0)), (4, 2)))
    with pytest.raises(ValueError, match=r"expected \(4, 2\) and called with \(5, 2\)"):
        program(jnp.ones((5, 2)))


def test_a_scalar_input_has_no_sizes():
    program = load_program(export(pn.function(lambda x, rate: x * rate), {}, {}, ("n",), ()))
    np.testing.assert_array_equal(program(jnp.ones(3), jnp.float32(2)), np.full(3, 2.0))


def test_a_program_for_another_platform_is_refused():
    model = pn.dense(2, 1)
    data = export(model, *model.init(jax.random.key(0)), (4, 2), platforms=("rocm",))
    with pytest.raises(ValueError, match=r"exported for platforms '\('rocm',\)' but it is used on"):
        load_program(data)(jnp.ones((4, 2)))


def test_a_model_that_must_know_an_open_size_says_what_to_give():
    model = pn.function(lambda x: x[: int(x.shape[0])])
    with pytest.raises(jax.errors.InconclusiveDimensionOperation, match="'batch'") as caught:
        export(model, {}, {}, ("batch", 3))
    assert "a size of the inputs is open, and the model needs to know it: give it as a number" in (
        caught.value.__notes__
    )


def test_a_wrong_number_of_inputs_is_refused():
    model = pn.dense(2, 1)
    program = load_program(export(model, *model.init(jax.random.key(0)), (4, 2)))
    with pytest.raises(ValueError, match=r"the program takes \(float32\[4, 2\]\), got \(\)"):
        program()


def test_bytes_that_are_no_program_are_refused():
    with pytest.raises(ValueError, match="these 5 bytes are no program of export"):
        load_program(b"hello")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_program(tmp_path / "none.jax")


def test_params_without_state_are_refused():
    with pytest.raises(TypeError, match="needs its state as a plain dict"):
        export(pn.dense(2, 1), {}, (4, 2), (4, 2))
