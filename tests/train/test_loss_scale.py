"""Loss scaling: the same training where nothing overflows, and a training that goes on where something does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets import losses, models
from purenets.train.loss_scale import loss_scaled
from purenets.train.step import make_step, start

HALF = pn.Policy(compute=jnp.float16)


def problem(examples=32):
    x = jax.random.normal(jax.random.key(0), (examples, 4))
    return x, jnp.argmax(x[:, :3], -1)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def make(optimizer, model=None, scaled=None, **settings):
    model = model or models.mlp((4, 8, 3), activation=jnp.tanh)
    step = make_step(pn.supervised(model, losses.softmax_cross_entropy), optimizer, **settings)
    if scaled is not None:
        step = loss_scaled(step, **scaled)
    return step, start(model, step.optimizer, jax.random.key(1), trainable=step.trainable)


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (optax.sgd(0.1, momentum=0.9), {}),
        (optax.adam(1e-2), {"accumulate": 4}),
        (optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-2)), {"trainable": "dense_2/*"}),
    ],
    ids=["sgd", "accumulated", "clipped"],
)
def test_without_overflow_it_is_the_unscaled_step(optimizer, settings):
    plain, ts = make(optimizer, norms="**", **settings)
    scaled, scaled_ts = make(optimizer, scaled={"initial": 2.0**10}, norms="**", **settings)
    for _ in range(4):
        ts, metrics = jax.jit(plain)(ts, problem())
        scaled_ts, scaled_metrics = jax.jit(scaled)(scaled_ts, problem())
        assert scaled_metrics.pop("loss_scale") == 2.0**10
        assert metrics.keys() == scaled_metrics.keys()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), metrics, scaled_metrics)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ts.params, scaled_ts.params)
    assert scaled_ts.opt_state.good_steps == 4
    assert scaled_ts.opt_state.skipped == 0


@pytest.mark.covers("G15")
def test_an_overflow_in_float16_is_recovered():
    model = pn.cast(models.mlp((4, 8, 3), activation=jnp.tanh), HALF)
    step, ts = make(optax.adam(1e-2), model, scaled={"initial": 2.0**24})
    jitted = jax.jit(step)
    scales, skipped = [], []
    for _ in range(60):
        before = ts
        ts, metrics = jitted(ts, problem())
        scales.append(float(metrics["loss_scale"]))
        skipped.append(int(ts.opt_state.skipped) > int(before.opt_state.skipped))
        if skipped[-1]:
            same(ts.params, before.params)
            same(ts.opt_state.inner, before.opt_state.inner)
            assert ts.opt_state.scale == before.opt_state.scale / 2
        assert ts.step == before.step + 1
        assert jnp.isfinite(metrics["loss"])
    assert skipped[0]
    count = sum(skipped)
    # float16 ends at 65504 and gradients here are between 1/32 and 1: the first scale is too large by far.
    assert 6 <= count <= 14
    assert scales[: count + 1] == [2.0 ** (24 - i) for i in range(count + 1)]
    assert metrics["loss"] < 0.8 * float(np.log(3))


def test_gradients_below_float16_are_kept_by_the_scale():
    def multiply(params, x):
        return x @ params["w"] * jnp.asarray(2.0**-13, x.dtype)

    model = pn.cast(pn.layer(lambda key: {"w": jnp.ones(4)}, multiply), HALF)
    # The gradient is 2^-13 of the target, 2^-27 in all, and the smallest float16 is 2^-24.
    batch = (jnp.ones((1, 4)), jnp.full((1,), 2.0**-14))
    plain = make_step(pn.supervised(model, lambda out, y: out * y), optax.trace(0.9))
    lost, _ = plain(start(model, plain.optimizer, jax.random.key(0)), batch)
    np.testing.assert_array_equal(lost.opt_state.trace["w"], np.zeros(4))
    step = loss_scaled(plain, initial=2.0**12)
    kept, _ = step(start(model, step.optimizer, jax.random.key(0)), batch)
    np.testing.assert_array_equal(kept.opt_state.inner.trace["w"], np.full(4, 2.0**-27))


def poisoned(step, ts, bad):
    x, y = problem()
    return jax.jit(step)(ts, (x.at[0, 0].set(jnp.inf) if bad else x, y))


def test_the_scale_grows_after_good_steps_in_a_row_only():
    step, ts = make(optax.sgd(0.1), scaled={"initial": 2.0**4, "interval": 3})
    scales = []
    for bad in [False, False, True, False, False, False, False, False, False]:
        ts, _ = poisoned(step, ts, bad)
        scales.append(float(ts.opt_state.scale))
    assert scales == [16, 16, 8, 8, 8, 16, 16, 16, 32]


def test_the_scale_stays_at_least_one_and_finite():
    step, ts = make(optax.sgd(0.0), scaled={"initial": 1.0})
    assert poisoned(step, ts, True)[0].opt_state.scale == 1
    zero = make_step(lambda params, state, batch, key, train: (params["w"] * 0, (state, {})), optax.sgd(0.1))
    step = loss_scaled(zero, initial=2.0**127, interval=1)
    ts = start(pn.layer(lambda key: {"w": jnp.ones(())}, lambda p, x: x), step.optimizer, jax.random.key(0))
    for _ in range(3):
        ts, _ = step(ts, None)
    assert ts.opt_state.scale == 2.0**127
    assert ts.opt_state.skipped == 0


def test_an_overflow_leaves_running_statistics():
    model = pn.serial(pn.batch_norm(4), pn.dense(4, 3))
    step, ts = make(optax.sgd(0.1), model, scaled={})
    after, _ = poisoned(step, ts, True)
    same(after.state, ts.state)
    after, _ = poisoned(step, ts, False)
    assert not np.array_equal(*(jax.tree.leaves(tree)[0] for tree in (after.state, ts.state)))


def test_the_optimizer_is_told_of_the_loss_that_is_not_scaled():
    told = {}

    def update(grads, state, params, *, value, grad, value_fn):
        told.update(value=value, grad=grad, again=value_fn(params))
        return grads, state

    spy = optax.GradientTransformationExtraArgs(lambda params: (), update)
    step, ts = make(spy, scaled={})
    _, metrics = step(ts, problem())
    np.testing.assert_allclose([told["value"], told["again"]], metrics["loss"], rtol=1e-6)
    plain, plain_ts = make(spy)
    scaled_grad = told["grad"]
    plain(plain_ts, problem())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), scaled_grad, told["grad"])


def test_fit_trains_with_it_and_a_checkpoint_holds_the_scale(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    model = pn.cast(models.mlp((4, 8, 3), activation=jnp.tanh), HALF)

    def run(epochs, folder, resume=False):
        step, ts = make(optax.adam(1e-2), model, scaled={"initial": 2.0**18, "interval": 5})
        saved = pn.Checkpoints(folder)
        return pn.fit(
            step, ts, problem(), epochs=epochs, batch_size=8, progress=False, checkpoints=saved, resume=resume
        )

    whole, history = run(4, tmp_path / "whole")
    assert whole.opt_state.skipped > 0
    assert np.isfinite(history["loss"]).all()
    run(2, tmp_path / "cut")
    resumed, _ = run(4, tmp_path / "cut", resume=True)
    same(whole._replace(key=0), resumed._replace(key=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initial": 1000.0}, "a power of two of at least 1 as initial, got 1000"),
        ({"initial": 0.5}, "a power of two of at least 1 as initial, got 0.5"),
        ({"interval": 0}, "an interval of at least 1 step, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(optax.sgd(0.1), scaled=settings)


def test_a_step_is_not_scaled_twice():
    step, _ = make(optax.sgd(0.1), scaled={})
    with pytest.raises(TypeError, match="needs a step of make_step, got LossScaled"):
        loss_scaled(step)


@pytest.mark.parametrize("fully", [None, "data"], ids=["data parallel", "fully sharded"])
def test_over_a_mesh_it_is_the_scaled_step_of_one_device(fully):
    step, ts = make(optax.adam(1e-2), scaled={"initial": 2.0**10})
    mesh = pn.parallel.mesh(jax.devices()[:4], data=4)
    spread = pn.parallel.on_mesh(step, mesh, fully=fully)
    there = spread.start(step.objective.model, jax.random.key(1))
    for bad in (False, True, False):
        ts, metrics = poisoned(step, ts, bad)
        there, spread_metrics = poisoned(spread, there, bad)
        assert metrics["loss_scale"] == spread_metrics["loss_scale"]
    assert there.opt_state.skipped == ts.opt_state.skipped == 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), ts.params, there.params)
