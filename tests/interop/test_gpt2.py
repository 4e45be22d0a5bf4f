"""GPT-2's published names there and back."""

import jax
import numpy as np
import pytest

import purenets as pn
from purenets.interop import to_gpt2
from purenets.models import gpt, load_gpt2
from tests.interop.torch_cases import arrays_of


def published(size=7, dim=4, context=5, depth=2):
    """The shapes of the published files, which hold kernels as [in, out]."""
    shapes = {
        "wte.weight": (size, dim),
        "wpe.weight": (context, dim),
        "ln_f.weight": (dim,),
        "ln_f.bias": (dim,),
    }
    layers = {
        "attn.c_attn": (dim, 3 * dim),
        "attn.c_proj": (dim, dim),
        "mlp.c_fc": (dim, 4 * dim),
        "mlp.c_proj": (4 * dim, dim),
    }
    for i in range(depth):
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (dim,), f"h.{i}.{name}.bias": (dim,)}
        for name, shape in layers.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
    return arrays_of(shapes)


def test_there_and_back_is_exact():
    arrays = published()
    model = gpt(7, 4, 2, depth=2, context=5)
    params = load_gpt2(arrays, jax.eval_shape(model.init, jax.random.key(0))[0])
    back = to_gpt2(params)
    assert set(back) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_params_of_another_model_are_refused():
    params, _ = pn.dense(2, 2).init(jax.random.key(0))
    with pytest.raises(
        ValueError, match="to_gpt2 needs the params of gpt, these differ in bias, blocks/attention/key"
    ):
        to_gpt2(params)
