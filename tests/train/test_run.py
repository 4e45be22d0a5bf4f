"""Runs: a scan of scans whose data order depends on key, epoch and step alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets import losses, models, optim


def collect(params, state, batch, key, train):
    """An objective that reports the batch it saw."""
    return params["w"] * 0.0, (state, {"seen": batch})


def recorder(examples, key=0):
    step = pn.make_step(collect, optax.sgd(0.1))
    params = {"w": jnp.float32(0)}
    ts = pn.TrainState(jnp.int32(0), params, {}, optax.sgd(0.1).init(params), jax.random.key(key))
    return step, ts, jnp.arange(examples)


@pytest.mark.covers("T03", "T04", "W23")
def test_an_epoch_sees_each_example_once_in_an_order_of_its_own():
    step, ts, data = recorder(20)
    _, metrics = pn.train(step, ts, data, epochs=3, batch_size=4)
    seen = np.asarray(metrics["seen"])
    assert seen.shape == (3, 5, 4)
    for epoch in seen:
        assert sorted(epoch.ravel()) == list(range(20))
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[1], seen[2])


@pytest.mark.covers("T03", "W23", "O01", "O02", "O03")
@pytest.mark.parametrize(("batch_size", "updates"), [(20, 1), (1, 20), (8, 2)])
def test_updates_in_an_epoch_are_the_whole_batches_in_the_data(batch_size, updates):
    step, ts, data = recorder(20)
    ts, _ = pn.train(step, ts, data, epochs=1, batch_size=batch_size)
    assert int(ts.step) == updates


@pytest.mark.covers("T04")
def test_the_order_is_reproduced_by_the_key_and_changes_with_it():
    orders = []
    for key in (0, 0, 1):
        step, ts, data = recorder(20, key)
        orders.append(np.asarray(pn.train(step, ts, data, epochs=1, batch_size=4)[1]["seen"]))
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_going_on_equals_never_having_stopped():
    step, ts, data = recorder(20)
    _, whole = pn.train(step, ts, data, epochs=4, batch_size=4)
    middle, first = pn.train(step, ts, data, epochs=1, batch_size=4)
    _, rest = pn.train(step, middle, data, epochs=3, batch_size=4)
    np.testing.assert_array_equal(whole["seen"], jnp.concatenate([first["seen"], rest["seen"]]))


def test_without_shuffling_the_order_is_that_of_the_data():
    step, ts, data = recorder(6)
    _, metrics = pn.train(step, ts, data, epochs=1, batch_size=2, shuffle=False)
    np.testing.assert_array_equal(metrics["seen"][0], [[0, 1], [2, 3], [4, 5]])


def noisy_model():
    model = models.mlp((3, 8, 2), rate=0.5)
    objective = pn.supervised(model, losses.softmax_cross_entropy)
    x = jax.random.normal(jax.random.key(1), (16, 3))
    return model, objective, (x, (x[:, 0] > 0).astype(jnp.int32))


def test_a_sweep_over_rates_and_seeds_is_a_vmap_and_equals_separate_runs():
    model, objective, data = noisy_model()

    def run(rate, key):
        optimizer = optax.sgd(rate, momentum=0.9)
        step = pn.make_step(objective, optimizer)
        return pn.train(step, pn.start(model, optimizer, key), data, epochs=2, batch_size=4)

    rates, keys = jnp.array([0.01, 0.1, 1.0]), jax.random.split(jax.random.key(9), 3)
    swept, metrics = jax.jit(jax.vmap(run))(rates, keys)
    for i in range(3):
        ts, alone = jax.jit(run)(rates[i], keys[i])
        np.testing.assert_allclose(metrics["loss"][i], alone["loss"], rtol=1e-4)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5),
            swept.params,
            ts.params,
        )


def test_a_whole_training_compiles_as_one_program_and_traces_once():
    model, objective, data = noisy_model()
    traces = []

    def counted(*arguments):
        traces.append(1)
        return objective(*arguments)

    optimizer = optax.sgd(0.1)
    step = pn.make_step(counted, optimizer)
    run = jax.jit(partial(pn.train, step, epochs=3, batch_size=4))
    ts = pn.start(model, optimizer, jax.random.key(0))
    ts, _ = run(ts, data)
    once = len(traces)
    ts, _ = run(ts, data)
    assert len(traces) == once
    assert once <= 2


@pytest.mark.parametrize("batch_size", [1, 5, 16, 64])
def test_evaluation_counts_every_example_once_whatever_the_batch_size(batch_size):
    model, objective, data = noisy_model()
    optimizer = optax.sgd(0.1)
    step, ts = pn.make_step(objective, optimizer), pn.start(model, optimizer, jax.random.key(0))
    logits = np.maximum(data[0] @ ts.params["dense_1"]["kernel"], 0) @ ts.params["dense_2"]["kernel"]
    expected = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), data[1]).mean()
    np.testing.assert_allclose(
        pn.evaluate(step, ts, data, batch_size=batch_size)["loss"], expected, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("data", "batch_size", "text"),
    [
        (np.zeros((0, 3)), 1, r"empty|no examples"),
        ((np.zeros((4, 3)), np.zeros(5)), 2, r"4.*5|5.*4"),
        (np.zeros((4, 3)), 5, r"5.*4|4.*5"),
        (np.zeros((4, 3)), 0, r"batch_size|batch size"),
    ],
)
def test_data_that_make_no_batch_are_refused(data, batch_size, text):
    step, ts, _ = recorder(4)
    with pytest.raises(ValueError, match=text):
        pn.train(step, ts, data, epochs=1, batch_size=batch_size)


@pytest.mark.covers("T21")
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="there is no accelerator")
def test_training_on_an_accelerator_is_training_on_the_cpu():
    model = pn.serial(pn.dense(4, 16), jnp.tanh, pn.dense(16, 1))
    step = pn.make_step(pn.supervised(model, losses.squared_error), optim.adam(1e-2))
    x = jax.random.normal(jax.random.key(0), (64, 4))
    found = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device):
            ts = pn.start(model, step.optimizer, jax.random.key(1))
            data = jax.device_put((x, x.sum(1, keepdims=True)), device)
            found.append(pn.train(step, ts, data, epochs=5, batch_size=16)[1]["loss"])
    np.testing.assert_allclose(found[0], jax.device_put(found[1], jax.devices()[0]), rtol=1e-3)
