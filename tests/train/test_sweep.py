"""Sweeps and training that keeps its best: many runs in one program equal the runs apart."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import losses, models, optim
from purenets.train import sweep, train_best

X = jax.random.normal(jax.random.key(5), (24, 3))
DATA = (X, (X[:, 0] * X[:, 1] > 0).astype(jnp.int32))
HELD_OUT = (-X[:8], DATA[1][:8])
MODEL = models.mlp([3, 6, 2])


def run(key, rate=0.1, decay=0.0):
    """A whole training: own weights, own order, own rates."""
    optimizer = optim.adamw(rate, weight_decay=decay)
    step = pn.make_step(pn.supervised(MODEL, losses.softmax_cross_entropy), optimizer)
    ts = pn.start(MODEL, optimizer, key)
    ts, metrics = pn.train(step, ts, DATA, epochs=2, batch_size=6, ahead=0)
    return {"loss": metrics["loss"], "params": ts.params}


OVER = {"rate": [0.01, 0.1, 0.3], "decay": [0.0, 0.2]}


@pytest.mark.parametrize("options", [{}, {"chunk": 5}, {"devices": 4}, {"devices": 2, "chunk": 2}], ids=str)
def test_a_sweep_equals_its_runs_apart(options):
    if "devices" in options:
        options = options | {"devices": jax.devices()[: options["devices"]]}
    found = sweep(run, OVER, seeds=2, key=jax.random.key(3), **options)
    apart = jax.jit(run)
    order = [(rate, decay, seed) for rate in OVER["rate"] for decay in OVER["decay"] for seed in (0, 1)]
    assert len(order) == len(found.seed)
    for i, (rate, decay, seed) in enumerate(order):
        told = (found.settings["rate"][i], found.settings["decay"][i], found.seed[i])
        assert told == (rate, decay, seed)
        wanted = apart(
            jax.random.split(jax.random.key(3), 2)[seed], rate=jnp.float32(rate), decay=jnp.float32(decay)
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6), found.member(i), wanted)


def test_paired_settings_are_run_together_and_a_sweep_without_settings_varies_the_seed():
    both = sweep(lambda key, a, b: a * 10 + b, {"a": [1, 2, 3], "b": [4, 5, 6]}, paired=True)
    assert both.results.tolist() == [14, 25, 36]
    alone = sweep(lambda key: jax.random.uniform(key), seeds=3, key=jax.random.key(1))
    wanted = [float(jax.random.uniform(key)) for key in jax.random.split(jax.random.key(1), 3)]
    np.testing.assert_allclose(alone.results, wanted, rtol=1e-6)


def test_rows_have_mean_and_deviation_over_the_seeds_and_the_best_is_never_nan():
    values = {0.0: [1.0, 3.0], 1.0: [jnp.nan, 0.0], 2.0: [5.0, 5.0]}
    table = jnp.array(list(values.values()))
    keys = jax.random.split(jax.random.key(0), 2)

    def run(key, place):
        seed = jnp.argmax(jnp.all(jax.random.key_data(keys) == jax.random.key_data(key), -1))
        return table[place.astype(int), seed]

    found = sweep(run, {"place": list(values)}, seeds=2)
    first = found.rows(lambda x: x)[0]
    assert first == {"place": 0.0, "mean": 2.0, "deviation": pytest.approx(2**0.5), "min": 1.0, "max": 3.0}
    assert found.best(lambda x: x)["place"] == 0.0
    assert found.best(lambda x: x, "max")["place"] == 2.0
    assert found.table(lambda x: x).splitlines()[-1] == "| 2 | 5 | 0 | 5 | 5 |"
    with pytest.raises(ValueError, match="one number for each of 6 members"):
        found.rows(lambda x: x[:3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sweep(run, {"rate": []}), "setting 'rate' of a sweep needs a list of values"),
        (lambda: sweep(run, {"rate": [1, 2], "decay": [1]}, paired=True), "paired settings need one number"),
        (lambda: sweep(run, seeds=0), "needs 1 seed"),
        (
            lambda: sweep(run, {"rate": [0.1]}, devices=jax.devices()[:2]),
            "2 devices do not divide the 1 members",
        ),
    ],
    ids=["empty", "paired", "seeds", "devices"],
)
def test_bad_sweeps_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _objective(values):
    """A training whose held-out loss after epoch i is ``values[i - 1]``, whatever the data."""

    def objective(params, state, batch, key, train):
        loss = jnp.asarray(values)[jnp.int32(params["epoch"]) - 1]
        return (-params["epoch"] if train else loss), (state, {"loss": loss})

    return objective


def _counting(values, **options):
    """Params that count the epochs: gradient descent of rate 1 on ``-epoch``, one step an epoch."""
    optimizer = optim.sgd(1.0)
    step = pn.make_step(_objective(values), optimizer)
    params = {"epoch": jnp.float32(0)}
    ts = pn.TrainState(jnp.int32(0), params, {}, optimizer.init(params), jax.random.key(0))
    data = jnp.zeros(4)
    go = jax.jit(partial(train_best, step, epochs=len(values), batch_size=4, **options))
    return go(ts, data, data)


@pytest.mark.covers("T12")
def test_the_best_state_is_kept_and_training_ends_when_it_is_patience_epochs_old():
    best, rows = _counting([5.0, 3.0, 4.0, 3.5, 1.0], patience=2)
    assert float(best.params["epoch"]) == 2
    assert rows["best"].tolist() == [1, 2, 2, 2, 2]
    assert rows["trained"].tolist() == [True, True, True, True, False]
    assert rows["loss"].tolist() == [5.0, 3.0, 4.0, 3.5, 3.5]


def test_without_patience_all_epochs_run_and_nan_is_never_best():
    best, rows = _counting([5.0, jnp.nan, 4.0, 6.0])
    assert float(best.params["epoch"]) == 3
    assert all(rows["trained"].tolist())
    best, _ = _counting([2.0, 7.0, 4.0], mode="max")
    assert float(best.params["epoch"]) == 2


def test_members_of_a_sweep_stop_by_themselves():
    def run(key, rate):
        optimizer = optim.sgd(rate)
        step = pn.make_step(pn.supervised(MODEL, losses.softmax_cross_entropy), optimizer)
        ts = pn.start(MODEL, optimizer, key)
        return train_best(step, ts, DATA, HELD_OUT, epochs=6, batch_size=6, patience=1, ahead=0)

    found = sweep(run, {"rate": [0.05, 3.0]}, seeds=2)
    _, rows = found.results
    assert len(set(rows["trained"].sum(1).tolist())) > 1
    for i in range(4):
        best, own = jax.jit(run)(jax.random.split(jax.random.key(0), 2)[i % 2], found.settings["rate"][i])
        np.testing.assert_array_equal(own["trained"], rows["trained"][i])
        np.testing.assert_allclose(own["loss"], rows["loss"][i], rtol=1e-4)
        kept = float(rows["loss"][i, rows["best"][i, -1] - 1])
        again = pn.evaluate(
            pn.make_step(pn.supervised(MODEL, losses.softmax_cross_entropy), optim.sgd(0.1)), best, HELD_OUT
        )
        assert again["loss"] == pytest.approx(kept, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "needs a patience of at least 1"),
        ({"metric": "accuracy"}, "no metric 'accuracy' to choose by; there are loss"),
        ({"mode": "least"}, "needs mode='min' or 'max'"),
    ],
    ids=["patience", "metric", "mode"],
)
def test_bad_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _counting([1.0], **options)


def test_shares_of_unequal_size_give_every_member_once_with_its_key():
    found = sweep(
        lambda key, rate: (jax.random.fold_in(key, 1), rate), {"rate": range(7)}, key=jax.random.key(4)
    )
    keys, rates = found.results
    assert rates.tolist() == list(range(7))
    wanted = jax.random.key_data(jax.random.fold_in(jax.random.split(jax.random.key(4), 1)[0], 1))
    np.testing.assert_array_equal(jax.random.key_data(keys), np.tile(wanted, (7, 1)))


def test_a_batched_run_keeps_its_program_from_sweep_to_sweep():
    traces = []

    def counted(key, rate):
        traces.append(rate)
        return rate + jax.random.uniform(key)

    runs = pn.batch_runs(counted)
    first, second = (sweep(runs, {"rate": rates}, seeds=2).results for rates in ([1.0, 2.0], [5.0, 7.0]))
    assert len(traces) == 1
    noise = jnp.array([jax.random.uniform(k) for k in jax.random.split(jax.random.key(0), 2)])
    np.testing.assert_allclose(first, jnp.concatenate([1 + noise, 2 + noise]), rtol=1e-6)
    np.testing.assert_allclose(second, jnp.concatenate([5 + noise, 7 + noise]), rtol=1e-6)
    assert sweep(runs, {"rate": [1.0]}).results.shape == (1,)
    assert len(traces) == 2


def test_a_batched_run_has_its_chunk_already():
    with pytest.raises(
        ValueError, match="a batched run has its chunk and devices already: give them to batch_runs"
    ):
        sweep(pn.batch_runs(lambda key: 0.0), chunk=2)
