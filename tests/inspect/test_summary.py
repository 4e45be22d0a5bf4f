"""The table of a model: every number from shapes alone, the totals those of the papers and of the compiler."""

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import purenets as pn
from purenets import models
from purenets.inspect import summary

TOKENS = jax.ShapeDtypeStruct((1, 256), jnp.int32)


def rows(*args, **keywords):
    return {row.path: row for row in summary(*args, **keywords).rows}


@pytest.mark.parametrize(
    ("model", "x", "count"),
    [
        (models.gpt2("124M"), TOKENS, 124_439_808),
        (models.resnet((3, 4, 6, 3)), (1, 224, 224, 3), 25_557_032),
        (models.mlp((784, 16, 16, 10)), (1, 784), 13_002),
    ],
    ids=["GPT-2 124M", "ResNet-50", "13,002"],
)
def test_the_parameters_are_the_published_ones_and_nothing_is_allocated(model, x, count):
    before = len(jax.live_arrays())
    total = summary(model, x).total
    assert total.parameters == count
    assert total.bytes == 4 * count
    assert len(jax.live_arrays()) == before


def test_forward_operations_of_resnet_50_are_the_compilers():
    model = models.resnet((3, 4, 6, 3), scan=False)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    lowered = jax.jit(lambda p, s, x: model.apply(p, s, x, train=True)[0]).lower(params, state, x)
    assert summary(model, x).total.forward == pytest.approx(lowered.cost_analysis()["flops"], rel=0.02)


def test_every_layer_has_its_shape_its_parameters_and_its_costs():
    model = pn.serial(
        block=pn.serial(conv=pn.conv(3, 8, 3), relu=jax.nn.relu),
        pool=pn.global_average_pool(),
        head=pn.dense(8, 5),
    )
    of = rows(model, (2, 6, 6, 3))
    assert list(of) == ["", "block", "block/conv", "block/relu", "pool", "head"]
    assert of["block/conv"].output == of["block"].output == "[2, 6, 6, 8]"
    assert of["block/conv"].parameters == of["block"].parameters == 3 * 3 * 3 * 8 + 8
    assert of["head"].forward == 2 * 2 * 8 * 5 + 2 * 5
    assert of[""].forward >= sum(of[path].forward for path in ("block", "pool", "head"))
    assert of["pool"].parameters == of["pool"].bytes == 0


def test_layers_under_repeat_are_counted_as_often_as_they_run():
    block = pn.serial(dense=pn.dense(4, 4))
    once, often = rows(pn.repeat(block, 1), (2, 4)), rows(pn.repeat(block, 6), (2, 4))
    assert often["dense"].forward == 6 * once["dense"].forward
    assert often["dense"].parameters == 6 * once["dense"].parameters
    assert often["dense"].output == "[6, 2, 4]"


def test_what_is_trained_and_decayed_is_counted_where_it_is_asked_for():
    model = models.mlp((4, 3, 2))
    of = rows(model, (1, 4), trainable="dense_2/*", decayed="**/kernel")
    assert (of[""].trainable, of["dense_1"].trainable, of["dense_2"].trainable) == (8, 0, 8)
    assert (of[""].decayed, of["dense_1"].decayed) == (18, 12)
    plain = str(summary(model, (1, 4))).splitlines()[0]
    both = str(summary(model, (1, 4), trainable="dense_2/*", decayed="**/kernel")).splitlines()[0]
    assert "trainable" not in plain
    assert both.split()[-2:] == ["trainable", "decayed"]


def test_the_table_comes_as_text_with_rich_and_as_html():
    table = summary(pn.serial(first=pn.dense(2, 3), odd=pn.layer(None, lambda p, x: x, label="a<b")), (1, 2))
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(table)
    for text in (str(table), captured.get()):
        assert "dense(2, 3)" in text
        assert "parameters" in text
    assert "a&lt;b" in table._repr_html_()
    assert table._repr_html_().count("<tr>") == 4


def test_side_inputs_and_shapes_that_do_not_fit():
    @pn.compose(inner=pn.dense(2, 2))
    def scaled(m, x, *, by):
        return m.inner(x) * by

    assert rows(scaled, (1, 2), by=(1, 2))[""].output == "[1, 2]"
    with pytest.raises(ValueError, match="dense"):
        summary(pn.dense(4, 2), (1, 3))
    with pytest.raises(ValueError, match="no leaf"):
        summary(pn.dense(4, 2), (1, 4), decayed="kernels")
