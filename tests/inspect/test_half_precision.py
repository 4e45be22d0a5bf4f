"""What runs in 16 bits: found where it is, and absent from norms, softmax and losses of this library."""

import jax
import jax.numpy as jnp
import pytest

import purenets as pn
from purenets import losses
from purenets.inspect.half_precision import half_precision_by_scope

HALVES = [jnp.bfloat16, jnp.float16]
SEQUENCE, PICTURE = (2, 5, 8), (2, 6, 6, 8)


def of(model, shape):
    def call(params, state, x):
        return model.apply(params, state, x, key=jax.random.key(0), train=True)[0]

    params, state = jax.eval_shape(model.init, jax.random.key(0))
    return half_precision_by_scope(call, params, state, jax.ShapeDtypeStruct(shape, jnp.float32))


def softmax(x):
    return jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (pn.layer_norm(8), SEQUENCE),
        (pn.rms_norm(8), SEQUENCE),
        (pn.batch_norm(8), PICTURE),
        (pn.group_norm(8, 2), PICTURE),
        (pn.instance_norm(8), PICTURE),
        (pn.attention(8, 2), SEQUENCE),
    ],
    ids=lambda value: getattr(value, "label", ""),
)
def test_norms_and_attention_compute_in_float32_inside_of_a_cast(layer, shape, half):
    model = pn.cast(layer, pn.Policy(compute=half))
    assert of(model, shape) == {}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (losses.softmax_cross_entropy, jnp.zeros(4, int)),
        (losses.sigmoid_binary_cross_entropy, jnp.ones((4, 3))),
        (losses.squared_error, jnp.ones((4, 3))),
    ],
    ids=["softmax", "sigmoid", "squared"],
)
def test_losses_of_outputs_in_half_precision_compute_in_float32(loss, y, half):
    assert half_precision_by_scope(loss, jnp.ones((4, 3), half), y) == {}


@pytest.mark.parametrize("remat", [False, True], ids=["plain", "remat"])
def test_a_layer_of_half_precision_is_named_by_its_path(remat):
    block = pn.serial(dense=pn.dense(8, 8), soft=softmax)
    body = pn.cast(pn.repeat(block, 3, remat=remat), pn.Policy())
    model = pn.serial(body=body, head=pn.serial(soft=softmax))
    assert of(model, SEQUENCE) == {"body/soft": {"exp": "bfloat16"}}


def test_the_backward_pass_is_looked_at_too():
    def loss(x):
        return jnp.sum(x.astype(jnp.float32) ** 2)

    def scaled(x):
        return jax.grad(lambda s: loss(x * s))(jnp.ones((), jnp.bfloat16))

    x = jnp.ones((4, 3), jnp.bfloat16)
    assert half_precision_by_scope(loss, x) == {}
    # The gradient of a scalar that multiplies all is a sum over all.
    assert half_precision_by_scope(scaled, x) == {"": {"reduce_sum": "bfloat16"}}
