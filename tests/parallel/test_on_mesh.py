"""One device = many: losses, gradients and states of steps over eight virtual devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import purenets as pn
from purenets import losses, models, optim, parallel
from purenets.models.gpt import gpt

LAYOUTS = {
    "data parallel": ({"data": 8}, {}),
    "fully sharded": ({"data": 8}, {"fully": "data"}),
    "tensor parallel": ({"model": 4}, {"rules": True, "batch": ()}),
    "data and tensor": ({"data": 4, "model": 2}, {"rules": True}),
    "fully sharded and tensor": ({"data": 4, "model": 2}, {"rules": True, "fully": "data"}),
}


def _tokens():
    x = jax.random.randint(jax.random.key(1), (16, 8), 0, 32)
    return x, jnp.roll(x, -1, 1)


def _images():
    x = jax.random.normal(jax.random.key(2), (16, 8, 8, 3))
    return x, jax.random.randint(jax.random.key(3), (16,), 0, 4)


MODELS = {
    "mlp": (
        lambda: pn.serial(up=pn.dense(48, 256), relu=jax.nn.relu, down=pn.dense(256, 4)),
        lambda: (_images()[0].reshape(16, -1)[:, :48], _images()[1]),
        (("up/kernel", P(None, "model")), ("down/kernel", P("model", None))),
    ),
    "resnet": (lambda: models.resnet_cifar(8, 4, width=8), _images, parallel.RESNET_RULES),
    "transformer": (lambda: gpt(32, 64, 4, 2, 8, rate=0.1), _tokens, parallel.TRANSFORMER_RULES),
}


@pytest.fixture(scope="module")
def single():
    """For each model: step, batch, TrainState, and the two steps that follow on one device."""
    made = {}

    def get(name):
        if name not in made:
            model, batch = MODELS[name][0](), MODELS[name][1]()
            step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.trace(0.9))
            ts = jax.jit(lambda key: pn.start(model, step.optimizer, key))(jax.random.key(0))
            first, m1 = jax.jit(step)(ts, batch)
            made[name] = model, step, batch, ts, first, (m1, jax.jit(step)(first, batch)[1])
        return made[name]

    return get


def _close(found, wanted, rtol=1e-6):
    """To a part of the largest number of each leaf, as sums in another order are."""

    def leaf(a, b):
        a, b = (
            np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
            for x in (a, b)
        )
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(1.0, float(np.abs(b).max(initial=0.0))))

    jax.tree.map(leaf, found, wanted)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_over_a_mesh_losses_gradients_and_statistics_are_those_of_one_device(single, name, layout):
    """The optimizer is bare momentum, so that its state after one step is the gradient."""
    _, step, batch, ts, first, (m1, m2) = single(name)
    axes, options = LAYOUTS[layout]
    options = options | {"rules": MODELS[name][2] if options.get("rules") else ()}
    mesh = parallel.mesh(devices=jax.devices()[: int(np.prod(list(axes.values())))], **axes)
    over = parallel.on_mesh(step, mesh, **options)
    moved = parallel.place(jax.tree.map(jnp.copy, ts), over.placement)
    go = jax.jit(over)
    after, found = go(moved, batch)
    _close(after.opt_state, first.opt_state)
    _close(after.state, first.state)
    _close(found, m1)
    _, again = go(after, batch)
    _close(again, m2)
    assert go._cache_size() == 1
    spread = [leaf for leaf in jax.tree.leaves(after.params) if not leaf.sharding.is_fully_replicated]
    assert bool(spread) == (layout != "data parallel")


@pytest.mark.parametrize("layout", ["fully sharded", "data and tensor"])
def test_params_are_born_where_they_lie_with_the_values_of_one_device(single, layout):
    model, step, _, ts, *_ = single("transformer")
    axes, options = LAYOUTS[layout]
    options = options | {"rules": parallel.TRANSFORMER_RULES if options.get("rules") else ()}
    over = parallel.on_mesh(step, parallel.mesh(**axes), **options)
    born = over.start(model, jax.random.key(0))
    _close(born, ts)
    kernel = born.params["blocks"]["feed_forward"]["up"]["kernel"]
    part = kernel.addressable_shards[0].data.size
    assert part * {"fully sharded": 8, "data and tensor": 2}[layout] == kernel.size


def _collectives(step, ts, batch):
    """The shapes that are exchanged, by kind, read from the compiled program."""
    text = jax.jit(step).lower(ts, batch).compile().as_text()
    found = {}
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    for shapes, kind in re.findall(rf"= (.+?) ({kinds})\(", text):
        found.setdefault(kind, []).extend(
            tuple(map(int, dims.split(","))) for dims in re.findall(r"\[([\d,]+)\]", shapes)
        )
    return found


def test_a_tensor_parallel_transformer_sums_activations_and_gathers_none(single):
    """Shoeybi et al. 2019: one sum after attention and one after the feed-forward network, forward and back."""
    model, step, batch, *_ = single("transformer")
    over = parallel.on_mesh(step, parallel.mesh(data=4, model=2), parallel.TRANSFORMER_RULES)
    found = _collectives(over, over.start(model, jax.random.key(0)), batch)
    activations = (4, 8, 64)
    assert activations in found["all-reduce"]
    assert not {"all-gather", "all-to-all", "collective-permute"} & set(found)


def test_fully_sharded_exchanges_weights_and_not_activations(single):
    model, step, batch, ts, *_ = single("transformer")
    over = parallel.on_mesh(step, parallel.mesh(data=8), fully="data")
    found = _collectives(over, over.start(model, jax.random.key(0)), batch)
    weights = {leaf.shape for leaf in jax.tree.leaves(ts.params)}
    weights |= {leaf.shape[1:] for leaf in jax.tree.leaves(ts.params["blocks"])}
    assert found["all-gather"]
    assert set(found["all-gather"]) <= weights
    assert not {"all-to-all", "collective-permute"} & set(found)


def _computations(text):
    """The text of each computation of a compiled program by name, and the names of the bodies of its loops."""
    found, name = {}, ""
    for line in text.splitlines():
        if start := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = start[1]
        found[name] = found.get(name, "") + line + "\n"
    return found, set(re.findall(r"body=%?([\w.\-]+)", text))


@pytest.mark.parametrize("kind", ["plain", "remat", "cast and penalty", "and tensor"])
def test_fully_sharded_layers_under_repeat_are_gathered_one_at_a_time_in_both_passes(kind):
    """Each loop gathers the six kernels of one block; no program has a buffer of a stack gathered whole."""
    model = gpt(32, 64, 4, 3, 8, remat=kind == "remat")
    if kind == "cast and penalty":
        model = pn.edit(model, "blocks", pn.inside(pn.cast))
    objective = pn.supervised(model, losses.softmax_cross_entropy)
    if kind == "cast and penalty":
        objective = pn.regularizers.regularized(objective, pn.regularizers.l2, 1e-4)
    step = pn.make_step(objective, optim.sgd(0.1))
    rules = parallel.TRANSFORMER_RULES if kind == "and tensor" else ()
    axes = {"data": 4, "model": 2} if rules else {"data": 8}
    over = parallel.on_mesh(step, parallel.mesh(**axes), rules, fully="data")
    ts = over.start(model, jax.random.key(0))
    text = jax.jit(over).lower(ts, _tokens()).compile().as_text()
    inside, loops = _computations(text)
    gathered = {name: body.count(" all-gather(") for name, body in inside.items() if " all-gather(" in body}
    assert len(gathered) == 2, "forward and backward"
    assert set(gathered) <= loops
    assert set(gathered.values()) == {6}
    kernels = [leaf.shape for leaf in jax.tree.leaves(ts.params["blocks"]) if leaf.size > 2**13 and not rules]
    for shape in kernels:
        assert f"[{','.join(map(str, shape))}]" not in text


def test_what_cannot_be_gathered_by_layer_is_gathered_whole_and_gives_the_same_numbers(single):
    """An objective that shows no model, and a stack that only its first axis divides."""
    _, step, batch, ts, first, _ = single("transformer")
    hidden = pn.make_step(lambda *given: step.objective(*given), step.optimizer)
    over = parallel.on_mesh(hidden, parallel.mesh(data=8), fully="data")
    after, _ = jax.jit(over)(parallel.place(jax.tree.map(jnp.copy, ts), over.placement), batch)
    _close(after.opt_state, first.opt_state)
    odd = pn.repeat(pn.dense(33, 33), 16)
    lies = parallel.shardings(
        jax.eval_shape(odd.init, jax.random.key(0))[0], parallel.mesh(data=8), fully="data"
    )
    assert lies["kernel"].spec == P("data")
    x = jax.random.normal(jax.random.key(1), (16, 33))
    step = pn.make_step(pn.supervised(odd, losses.squared_error), optim.trace(0.9))
    ts = pn.start(odd, step.optimizer, jax.random.key(0))
    over = parallel.on_mesh(step, parallel.mesh(data=8), fully="data")
    wanted, _ = jax.jit(step)(ts, (x, x))
    found, _ = jax.jit(over)(parallel.place(jax.tree.map(jnp.copy, ts), over.placement), (x, x))
    _close(found.opt_state, wanted.opt_state)


def test_fit_and_train_take_a_step_over_a_mesh_and_accumulation_stays_exact(single):
    model, step, batch, ts, *_ = single("mlp")
    halves = pn.make_step(step.objective, step.optimizer, accumulate=2)
    over = parallel.on_mesh(halves, parallel.mesh(data=8), fully="data")
    start = over.start(model, jax.random.key(0))
    wanted, _ = pn.fit(step, ts, batch, epochs=2, batch_size=16, progress=False)
    found, _ = pn.fit(over, start, batch, epochs=2, batch_size=16, progress=False)
    _close(found.params, wanted.params, 1e-5)


def test_a_batch_that_does_not_divide_and_an_axis_that_is_not_there_are_refused(single):
    model, step, (x, y), *_ = single("mlp")
    over = parallel.on_mesh(step, parallel.mesh(data=8))
    with pytest.raises(ValueError, match=r"a multiple of 8 examples, got float32\[12, 48\]"):
        jax.jit(over)(over.start(model, jax.random.key(0)), (x[:12], y[:12]))
    with pytest.raises(ValueError, match=r"the batch is spread over \['data'\], the mesh has \['model'\]"):
        parallel.on_mesh(step, parallel.mesh(model=8))
