"""The plan of a step, held against what XLA says of the compiled step on eight virtual devices."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

import purenets as pn
from purenets import losses, models, optim, parallel

BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}
TOKENS = jax.ShapeDtypeStruct((32, 64), jnp.int32)
PICTURES = (jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((64,), jnp.int32))
GPT = models.gpt(256, 128, 8, 1, 64)


def stepped(model, optimizer=None):
    return pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optimizer or optim.adam(1e-3))


def compiled(model, batch, mesh, rules, fully):
    on = parallel.on_mesh(stepped(model), parallel.mesh(**mesh), rules, fully=fully)
    ts = jax.eval_shape(lambda key: pn.start(model, on.optimizer, key), jax.random.key(0))
    lie = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    ts = jax.tree.map(lie, ts, on.placement.of(ts))
    batch = jax.tree.map(lie, batch, on.placement.of_batch(batch))
    return jax.jit(on, donate_argnums=0).lower(ts, batch).compile()


def summed(text):
    """The bytes of all results of sums over devices in a program."""
    found = re.findall(r"= (\(?[^=]*?\)?) all-reduce(?:-start)?\(", re.sub(r"/\*.*?\*/", "", text))
    arrays = [shape for result in found for shape in re.findall(r"(\w+)\[([\d,]*)\]", result)]
    return sum(BYTES[dtype] * math.prod(int(n) for n in sizes.split(",") if n) for dtype, sizes in arrays)


@pytest.mark.parametrize(
    ("model", "batch", "mesh", "rules", "fully"),
    [
        (GPT, (TOKENS, TOKENS), {"data": 8}, (), None),
        (GPT, (TOKENS, TOKENS), {"data": 8}, (), "data"),
        (GPT, (TOKENS, TOKENS), {"data": 1, "model": 8}, parallel.TRANSFORMER_RULES, None),
        (GPT, (TOKENS, TOKENS), {"data": 2, "model": 4}, parallel.TRANSFORMER_RULES, None),
        (models.resnet_cifar(8, scan=False), PICTURES, {"data": 8}, (), None),
    ],
    ids=["data", "fully sharded", "tensor", "both", "ResNet"],
)
def test_bytes_operations_and_sums_are_those_of_the_compiled_step(model, batch, mesh, rules, fully):
    plan = parallel.plan(stepped(model), model, batch, mesh, rules=rules, fully=fully)
    program = compiled(model, batch, mesh, rules, fully)
    inputs = sum(x.size * x.dtype.itemsize for x in batch) / mesh["data"]
    arguments = program.memory_analysis().argument_size_in_bytes
    assert plan.params + plan.optimizer + plan.state + inputs == pytest.approx(arguments, rel=0.01)
    assert plan.flops == pytest.approx(program.cost_analysis()["flops"], rel=0.03)
    if not fully:  # where a gather and a scattered sum come in, in forms that differ by backend
        n, others = mesh["data"], mesh.get("model", 1)
        sizes = plan.sums_of_gradients / max(2 * (n - 1) / n, 1e-9)
        sizes += plan.sums_of_activations / max(2 * (others - 1) / others, 1e-9)
        # A tied embedding's gradient is summed in two parts.
        assert summed(program.as_text()) == pytest.approx(sizes, rel=0.16)


def test_what_is_kept_for_the_backward_pass_is_less_under_remat():
    batch = (TOKENS, TOKENS)
    plain, again = (
        parallel.plan(stepped(model), model, batch, {"data": 1})
        for model in (models.gpt(256, 128, 8, 6, 64), models.gpt(256, 128, 8, 6, 64, remat=True))
    )
    assert again.activations < plain.activations / 3
    assert again.flops > 1.15 * plain.flops


def test_kept_activations_of_a_stack_of_layers_are_counted_by_hand():
    model = pn.serial(first=pn.dense(8, 32), tanh=jnp.tanh, second=pn.dense(32, 4))
    step = pn.make_step(pn.supervised(model, losses.squared_error), optim.sgd(0.1))
    batch = (jax.ShapeDtypeStruct((16, 8), jnp.float32), jax.ShapeDtypeStruct((16, 4), jnp.float32))
    plan = parallel.plan(step, model, batch, {"data": 4})
    # The output of tanh for the second kernel's gradient (and tanh's own), and the errors of the loss.
    per_example = plan.activations * 4 / (16 * 4)
    assert 32 + 4 <= per_example <= 2 * 32 + 8
    assert plan.params == 4 * (8 * 32 + 32 + 32 * 4 + 4)
    assert plan.optimizer == 0


def test_a_model_of_seven_billion_parameters_fits_256_devices_only_if_it_is_spread():
    model = pn.cast(models.llama_2_7b())
    tokens = jax.ShapeDtypeStruct((1024, 4096), jnp.int32)
    step = stepped(model, optim.adamw(1e-4))
    whole = parallel.plan(step, model, (tokens, tokens), {"data": 256})
    # Four bytes for a parameter, eight for Adam's two averages of it.
    assert whole.params == pytest.approx(4 * 6_738_415_616)
    assert whole.optimizer == pytest.approx(8 * 6_738_415_616, rel=1e-6)
    assert not whole.fits
    assert "DOES NOT FIT" in str(whole)
    remat = pn.cast(models.llama_2_7b(remat=True))
    spread = parallel.plan(
        stepped(remat, optim.adamw(1e-4)),
        remat,
        (tokens, tokens),
        {"data": 32, "model": 8},
        rules=parallel.LLAMA_RULES,
        fully="data",
    )
    assert spread.fits
    # Gathered at once: an embedding and a head of 32,000 x 4,096 and one block of 32, seven eighths spread once more.
    blocks = 6_738_415_616 - 2 * 32000 * 4096
    assert spread.gathered == pytest.approx(4 * (2 * 32000 * 4096 + blocks / 32 / 8), rel=1e-3)
    assert spread.weights == pytest.approx(4 * (2 * 32000 * 4096 + blocks / 8), rel=1e-3)
    # Six operations for each parameter and token, eight with the forward pass again, and attention's own.
    useful = 6 * 6_738_415_616 * 1024 * 4096 / 256
    assert useful < spread.flops < 1.7 * useful
    low, high = spread.utilisation
    assert 0 < low < high <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rules": parallel.TRANSFORMER_RULES}, "the rules spread over model, the mesh has data"),
        ({"batch": (jax.ShapeDtypeStruct((30, 64), jnp.int32),) * 2}, "needs a multiple of 8 examples"),
    ],
    ids=["axis", "batch"],
)
def test_plans_that_cannot_be_are_refused(change, message):
    given = {"batch": (TOKENS, TOKENS), "rules": (), **change}
    with pytest.raises(ValueError, match=message):
        parallel.plan(stepped(GPT), GPT, given["batch"], {"data": 8}, rules=given["rules"])


def test_rules_for_transformers_without_biases_fit_them():
    params, _ = jax.eval_shape(models.llama(64, 32, 8, 2, 32, kv_heads=8).init, jax.random.key(0))
    lie = parallel.shardings(params, parallel.mesh(model=8), parallel.LLAMA_RULES)
    assert lie["blocks"]["feed_forward"]["down"]["kernel"].spec == jax.sharding.PartitionSpec(None, "model")
