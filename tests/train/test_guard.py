"""A training that goes wrong stops and names the place: step, stage and path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets import losses, models
from purenets.data.batches import epoch_order
from purenets.layer import fold_name
from purenets.train.guard import NonFiniteError, guard_fit, guarded
from purenets.train.loss_scale import loss_scaled
from purenets.train.nonfinite import locate_nonfinite


def squared(out, y):
    return jnp.sum((out - y) ** 2, -1)


BATCH = (jnp.ones((4, 3)), jnp.zeros((4, 2)))
EXP = pn.layer(lambda key: {"rate": jnp.ones(())}, lambda p, x: jnp.exp(x * x * p["rate"]), label="exp")


def problem(model, optimizer=None, loss=squared, **settings):
    step = pn.make_step(pn.supervised(model, loss), optimizer or optax.sgd(0.01), **settings)
    return step, pn.start(model, step.optimizer, jax.random.key(0), trainable=step.trainable)


def with_leaf(ts, path, value):
    *parents, name = path.split("/")
    params = jax.tree.map(lambda leaf: leaf, ts.params)
    node = params
    for parent in parents:
        node = node[parent]
    node[name] = jnp.asarray(value, node[name].dtype)
    return ts._replace(params=params)


def place(step, ts, batch=BATCH):
    found = locate_nonfinite(step, ts, batch)
    return found and (found.stage, found.path)


def test_a_sound_step_has_no_such_place():
    step, ts = problem(models.mlp((3, 5, 2)))
    assert locate_nonfinite(step, ts, BATCH) is None


def test_a_batch_and_params_are_looked_at_first():
    step, ts = problem(models.mlp((3, 5, 2)))
    found = locate_nonfinite(step, ts, (BATCH[0].at[2, 1].set(jnp.nan), BATCH[1]))
    assert str(found) == "not finite in step 0: batch 0, float32[4, 3] has 1 NaN of 12, the first at [2, 1]"
    assert place(step, with_leaf(ts, "dense_1/bias", np.full(5, np.inf))) == ("params", "dense_1/bias")


def test_the_layer_that_overflows_is_named_though_the_next_hides_it():
    model = pn.serial(first=pn.dense(3, 3), grow=EXP, squash=jnp.tanh, last=pn.dense(3, 2))
    step, ts = problem(model)
    ts = with_leaf(ts, "grow/rate", 1e6)
    assert np.isfinite(model.apply(ts.params, {}, BATCH[0])[0]).all()
    found = locate_nonfinite(step, ts, BATCH)
    assert (found.stage, found.path) == ("output of", "grow")
    assert "float32[4, 3] has 12 infinite of 12, the first at [0, 0]" in found.detail


@pytest.mark.parametrize(
    ("lift", "shape", "path"),
    [
        (lambda block: pn.repeat(block, 3), (3,), "blocks/grow, member 1"),
        (lambda block: pn.repeat(block, 3, remat=True), (3,), "blocks/grow, member 1"),
        (
            lambda block: pn.repeat(pn.serial(inner=pn.repeat(block, 3)), 2),
            (2, 3),
            "blocks/inner/grow, member 0, 1",
        ),
        (
            lambda block: pn.serial(a=pn.ensemble(block, 3), mean=lambda x: x.mean(0)),
            (3,),
            "blocks/a/grow, member 1",
        ),
    ],
    ids=["repeat", "remat", "nested", "ensemble"],
)
def test_the_member_of_a_stack_is_named(lift, shape, path):
    block = pn.serial(dense=pn.dense(3, 3), grow=EXP, squash=jnp.tanh)
    step, ts = problem(pn.serial(blocks=lift(block), last=pn.dense(3, 2)))
    rates = np.ones(shape)
    rates[..., 1] = 1e6
    leaf = path.partition(",")[0] + "/rate"
    assert place(step, with_leaf(ts, leaf, rates)) == ("output of", path)


def test_layers_that_cannot_be_watched_are_located_by_what_they_are_in():
    @pn.compose(dense=pn.dense(3, 3))
    def loop(m, x):
        return jax.lax.scan(lambda x, _: (jnp.exp(3 * m.dense(x)), None), x, None, length=4)[0]

    step, ts = problem(pn.serial(first=pn.dense(3, 3), loop=loop, last=pn.dense(3, 2)))
    ts = with_leaf(ts, "loop/dense/kernel", np.eye(3))
    assert place(step, ts) == ("output of", "loop")


def test_in_a_stack_an_earlier_member_comes_before_an_earlier_layer():
    block = pn.serial(first=EXP, squash=jnp.tanh, second=EXP, again=jnp.tanh)
    step, ts = problem(pn.serial(blocks=pn.repeat(block, 3), last=pn.dense(3, 2)))
    ts = with_leaf(ts, "blocks/first/rate", [1, 1, 1e6])
    ts = with_leaf(ts, "blocks/second/rate", [1, 1e6, 1])
    assert place(step, ts) == ("output of", "blocks/second, member 1")


def test_the_loss_and_the_state_have_their_own_stage():
    step, ts = problem(models.mlp((3, 2)), loss=lambda out, y: jnp.log(-jnp.sum(out**2, -1)))
    assert place(step, ts) == ("loss", "")
    count = pn.layer(
        None, lambda p, s, x: (x, {"seen": s["seen"] * 1e30}), state=lambda key: {"seen": jnp.float32(1e30)}
    )
    step, ts = problem(pn.serial(count=count, dense=pn.dense(3, 2)))
    assert place(step, ts) == ("new state", "count/seen")


def test_of_gradients_the_one_nearest_to_the_loss_is_named():
    root = pn.function(lambda x: jnp.sqrt(jnp.abs(x)) * 0 + x)
    model = pn.serial(a=pn.dense(3, 3), b=pn.dense(3, 3), root=root, c=pn.dense(3, 2))
    step, ts = problem(model)
    ts = with_leaf(with_leaf(ts, "b/kernel", np.zeros((3, 3))), "b/bias", np.zeros(3))
    assert place(step, ts) == ("gradient", "b/bias")


def test_what_an_optimizer_makes_of_finite_gradients_is_looked_at():
    bad = optax.GradientTransformation(
        lambda p: (), lambda g, s, p=None: (jax.tree.map(lambda x: x / 0, g), s)
    )
    step, ts = problem(models.mlp((3, 2)), bad)
    assert place(step, ts)[0] == "new params"
    step, ts = problem(models.mlp((3, 2)), optax.adam(1e-3), loss=lambda out, y: 1e21 * jnp.sum(out, -1))
    # Gradients of 1e21 are finite, their squares are not.
    assert place(step, ts) == ("optimizer state", "0/nu/dense_1/bias")


def test_micro_batches_are_looked_at_one_by_one():
    step, ts = problem(models.mlp((3, 2)), accumulate=2, loss=lambda out, y: squared(out, y) / y[:, 0])
    batch = (BATCH[0], jnp.ones((4, 2)).at[3].set(0))
    assert place(step, ts, batch) == ("loss", "")


def test_an_objective_of_ones_own_is_located_by_its_gradients():
    def objective(params, state, batch, key, train):
        return jnp.sum(jnp.sqrt(params["w"] * batch)), (state, {})

    model = pn.layer(lambda key: {"w": jnp.ones(3)}, lambda p, x: p["w"] * x, label="scale")
    step = pn.make_step(objective, optax.sgd(0.1))
    ts = pn.start(model, step.optimizer, jax.random.key(0))
    assert place(step, ts, jnp.zeros(3)) == ("gradient", "w")


def fading(rate=3.0):
    """A training that grows beyond float32 after some steps."""
    step, ts = problem(pn.serial(dense=pn.dense(3, 2)), optax.sgd(rate))
    return step, ts


@pytest.mark.covers("X06", "G15")
@pytest.mark.parametrize("every", [1, 4, 1000])
def test_a_loop_stops_and_names_the_step_that_failed_however_seldom_it_looks(every):
    step, ts = fading()
    plain, states = jax.jit(step), [ts]
    while np.isfinite(states[-1].params["dense"]["kernel"]).all():
        states.append(plain(states[-1], BATCH)[0])
    failed = len(states) - 2
    careful, now, error = guarded(step, every=every), ts, None
    for taken in range(failed + 10):
        try:
            now, _ = careful(now, BATCH)
        except NonFiniteError as raised:
            error = raised
            break
    if error is None:
        with pytest.raises(NonFiniteError) as caught:
            careful.finish()
        error = caught.value
    assert str(error).startswith(f"not finite in step {failed}: ")
    # The steps up to the next look, and one more, which runs while the answer is read.
    assert taken == min((failed // every + 1) * every, failed + 9)
    assert error.report.step == failed
    jax.tree.map(np.testing.assert_array_equal, error.ts.params, states[failed].params)
    assert error.batch is BATCH
    careful.finish()


def test_the_guarded_step_is_the_step():
    step, ts = problem(models.mlp((3, 5, 2)), optax.adam(1e-2))
    careful, plain = guarded(step), jax.jit(step)
    a, b = ts, ts
    for _ in range(3):
        a, metrics = careful(a, BATCH)
        b, expected = plain(b, BATCH)
        np.testing.assert_array_equal(metrics["loss"], expected["loss"])
    careful.finish()
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_infinities_that_were_there_before_and_overflows_of_a_scaled_step_are_no_failure():
    start = optax.GradientTransformation(lambda p: jnp.array(jnp.inf), lambda g, s, p=None: (g, s))
    step, ts = problem(models.mlp((3, 2)), optax.chain(start, optax.sgd(0.1)))
    careful = guarded(step)
    careful(ts, BATCH)
    careful.finish()
    step = loss_scaled(problem(models.mlp((3, 2)))[0])
    ts = pn.start(models.mlp((3, 2)), step.optimizer, jax.random.key(0))
    careful = guarded(step)
    after, _ = careful(ts, (BATCH[0] * jnp.inf, BATCH[1]))
    careful.finish()
    assert after.opt_state.skipped == 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_stops_where_a_value_first_is_not_finite(shuffle):
    x = jax.random.normal(jax.random.key(1), (12, 3))
    data = (x.at[7].set(1e25), jnp.zeros((12, 2)))
    step, ts = problem(pn.serial(dense=pn.dense(3, 2)))
    guard = guard_fit(step, ts, data, batch_size=3, shuffle=shuffle)
    with pytest.raises(NonFiniteError, match=r"loss, float32\[\] has 1 infinite of 1") as caught:
        pn.fit(step, ts, data, epochs=3, batch_size=3, shuffle=shuffle, callbacks=[guard], progress=False)
    error = caught.value
    assert 1e25 in np.asarray(error.batch[0])
    assert error.report.step == int(error.ts.step) < 4
    assert shuffle or error.report.step == 2
    # The TrainState it holds is that of the steps before.
    now = ts
    rows = epoch_order(fold_name(ts.key, "order"), 0, 12) if shuffle else jnp.arange(12)
    for number in range(error.report.step):
        now, _ = jax.jit(step)(now, jax.tree.map(lambda leaf: leaf[rows[number * 3 : number * 3 + 3]], data))
    jax.tree.map(np.testing.assert_array_equal, now.params, error.ts.params)


def test_fit_goes_on_where_all_is_finite():
    data = (jax.random.normal(jax.random.key(1), (12, 3)), jnp.zeros((12, 2)))
    step, ts = problem(models.mlp((3, 2)))
    guard = guard_fit(step, ts, data, batch_size=4)
    end, _ = pn.fit(step, ts, data, epochs=3, batch_size=4, callbacks=[guard], progress=False)
    expected, _ = pn.fit(step, ts, data, epochs=3, batch_size=4, progress=False)
    jax.tree.map(np.testing.assert_array_equal, end.params, expected.params)


def test_what_is_no_step_is_refused_and_to_look_never_makes_no_sense():
    with pytest.raises(ValueError, match="look after 1 step at least, got every=0"):
        guarded(problem(models.mlp((3, 2)))[0], every=0)
    with pytest.raises(TypeError, match="guarded needs a step of make_step, got function"):
        guarded(lambda ts, batch: (ts, {}))


def test_a_classifier_with_labels_and_dropout_is_located():
    model = pn.serial(hidden=pn.dense(3, 8), grow=EXP, drop=pn.dropout(0.5), last=pn.dense(8, 2))
    step, ts = problem(model, loss=losses.softmax_cross_entropy)
    batch = (BATCH[0], jnp.array([0, 1, 0, 1]))
    assert place(step, ts, batch) is None
    assert place(step, with_leaf(ts, "grow/rate", 1e9), batch) == ("output of", "grow")


def test_a_step_over_a_mesh_is_guarded_too():
    step, ts = problem(pn.serial(first=pn.dense(3, 3), grow=EXP, last=pn.dense(3, 2)))
    spread = pn.parallel.on_mesh(step, pn.parallel.mesh(jax.devices()[:4], data=4))
    careful = guarded(spread)
    careful(with_leaf(ts, "grow/rate", 1e6), BATCH)
    with pytest.raises(NonFiniteError, match="step 0: output of grow, float32"):
        careful.finish()
