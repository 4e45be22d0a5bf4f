"""The operations of a program are those that XLA counts, by layer, and nothing is computed for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import models
from purenets.inspect import flops, flops_by_scope


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def compilers(fn, *args):
    return jax.jit(fn).lower(*args).cost_analysis()["flops"]


def programs(model, x):
    """The application, and the gradient of a sum of squared outputs on the parameters."""
    params, state = jax.eval_shape(model.init, jax.random.key(0))

    def output(params, state, x):
        return model.apply(params, state, x)[0]

    def slope(params, state, x):
        def loss(params):
            y = output(params, state, x)
            return jnp.vdot(y, y)

        return jax.value_and_grad(loss)(params)

    return [output, slope], (params, state, x)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID", 2])
@pytest.mark.parametrize(("dilation", "groups"), [(1, 1), (2, 1), (1, 3)])
def test_a_convolution_counts_where_its_kernel_lies_on_the_picture(stride, padding, dilation, groups):
    layer = pn.conv(6, 12, 3, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=False)
    for program, args in [(p, a) for ps, a in [programs(layer, shape(2, 11, 9, 6))] for p in ps]:
        assert flops(program, *args) == pytest.approx(compilers(program, *args), rel=0.01)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (models.mlp((784, 256, 10)), shape(32, 784)),
        (models.lenet(), shape(8, 28, 28, 1)),
        (models.resnet_cifar(8, scan=False), shape(4, 32, 32, 3)),
        (pn.conv_transpose(4, 8, 3, stride=2), shape(2, 7, 7, 4)),
        (models.gpt(500, 64, 4, 1, 48), shape(2, 32, dtype=jnp.int32)),
    ],
    ids=["dense", "LeNet", "ResNet-8", "transposed convolution", "one block of a GPT"],
)
def test_models_count_within_2_percent_of_the_compiler_forward_and_backward(model, x):
    fns, args = programs(model, x)
    for fn in fns:
        assert flops(fn, *args) == pytest.approx(compilers(fn, *args), rel=0.02)


def test_a_loop_counts_as_often_as_it_runs_and_a_condition_by_its_dearest_branch():
    w, x = shape(8, 8), shape(4, 8)
    once = flops(lambda w, x: x @ w, w, x)
    assert once == 2 * 4 * 8 * 8
    assert flops(lambda w, x: jax.lax.scan(lambda h, _: (h @ w, None), x, length=7)[0], w, x) == 7 * once
    dear = lambda w, x: jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x)
    assert flops(dear, w, x) == pytest.approx(2 * once, abs=2)


def test_the_scopes_of_a_model_are_the_paths_of_its_layers_also_backward():
    model = pn.serial(stem=pn.dense(3, 4), blocks=pn.repeat(pn.serial(mix=pn.dense(4, 4)), 5))
    (output, slope), args = programs(model, shape(2, 3))
    forward, both = flops_by_scope(output, *args), flops_by_scope(slope, *args)
    assert forward["stem"] == 2 * 2 * 3 * 4 + 2 * 4
    assert forward["blocks/mix"] == 5 * (2 * 2 * 4 * 4 + 2 * 4)
    # The gradient of the kernel is one more product of the same size, that of the input another.
    assert both["stem"] >= forward["stem"] + 2 * 2 * 3 * 4
    assert both["blocks/mix"] >= forward["blocks/mix"] + 5 * 2 * (2 * 2 * 4 * 4)


def test_what_is_computed_again_counts_for_the_layer_whose_it_is():
    block = pn.serial(up=pn.dense(4, 8), tanh=jnp.tanh, down=pn.dense(8, 4))
    again, plain = (
        flops_by_scope(fns[1], *args)
        for fns, args in (programs(pn.serial(block=b), shape(2, 4)) for b in (pn.remat(block), block))
    )
    assert set(again) == {"", "block/up", "block/tanh", "block/down"}
    # A product of a second forward pass, and nothing for the last product, which no gradient needs.
    assert again["block/up"] >= plain["block/up"] + 2 * 2 * 4 * 8


def test_depth_adds_the_same_operations_for_each_block():
    one, two, six = (
        flops(
            *(lambda fns, args: (fns[1], *args))(
                *programs(models.gpt(50, 16, 2, d, 32), shape(1, 8, dtype=jnp.int32))
            )
        )
        for d in (1, 2, 6)
    )
    np.testing.assert_allclose(six, one + 5 * (two - one), rtol=0.02)
