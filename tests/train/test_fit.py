"""fit: history, validation, stopping, donation, and the mistakes it finds before anything runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets import losses, models


@pytest.fixture(scope="module")
def setting():
    model = models.mlp((3, 8, 2))
    optimizer = optax.adam(0.05)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optimizer)
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    data = (x, (x.sum(-1) > 0).astype(np.int32))
    return step, pn.start(model, optimizer, jax.random.key(0)), data


def fit(setting, **settings):
    step, ts, data = setting
    settings = {"epochs": 3, "batch_size": 8, "progress": False, **settings}
    return pn.fit(step, ts, settings.pop("data", data), **settings)


def test_fit_is_train_epoch_by_epoch(setting):
    step, ts, data = setting
    expected, metrics = pn.train(step, ts, data, epochs=3, batch_size=8)
    fitted, history = fit(setting)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), fitted.params, expected.params
    )
    assert int(fitted.step) == 12
    np.testing.assert_allclose(history["loss"], metrics["loss"].mean(-1), rtol=1e-5)


def test_the_state_given_stays_usable(setting):
    _, ts, _ = setting
    before = jax.tree.map(np.asarray, ts.params)
    fit(setting)
    jax.tree.map(np.testing.assert_array_equal, before, ts.params)


def test_history_has_validation_of_every_epoch(setting):
    step, _, data = setting
    fitted, history = fit(setting, validation=data)
    assert history.keys() == {"learning_rate", "loss", "validation/loss"}
    assert all(values.shape == (3,) for values in history.values())
    np.testing.assert_allclose(
        history["validation/loss"][-1], pn.evaluate(step, fitted, data)["loss"], rtol=1e-6
    )


def test_callbacks_see_every_epoch_in_order_with_its_own_state(setting):
    seen = []
    fit(
        setting,
        callbacks=[lambda epoch: seen.append((epoch.number, int(epoch.ts.step), epoch.metrics["loss"]))],
    )
    assert [(number, step) for number, step, _ in seen] == [(0, 4), (1, 8), (2, 12)]
    assert all(isinstance(loss, float) for *_, loss in seen)


def test_a_callback_stops_the_training_with_the_state_of_its_epoch(setting):
    fitted, history = fit(
        setting, epochs=10, callbacks=[lambda epoch: epoch.stop() if epoch.number == 3 else None]
    )
    assert int(fitted.step) == 16
    assert len(history["loss"]) == 4


@pytest.mark.covers("T07")
def test_early_stopping_goes_back_to_the_best_epoch():
    """The metric is a known function of the step: it falls until step 3 and rises after."""

    def objective(params, state, batch, key, train):
        value = (params["w"] - 3.0) ** 2
        return params["w"] * -1.0, (state, {"loss": value})

    optimizer = optax.sgd(1.0)  # w moves by +1 a step
    step = pn.make_step(objective, optimizer)
    params = {"w": jnp.float32(0)}
    ts = pn.TrainState(jnp.int32(0), params, {}, optimizer.init(params), jax.random.key(0))
    data = jnp.zeros(1)
    stopper = pn.early_stopping("validation/loss", patience=2)
    fitted, history = pn.fit(
        step, ts, data, epochs=20, batch_size=1, validation=data, callbacks=[stopper], progress=False
    )
    np.testing.assert_allclose(history["validation/loss"], [4, 1, 0, 1, 4])
    assert fitted.params["w"] == 3.0


@pytest.mark.covers("T07")
def test_early_stopping_never_counts_nan_as_an_improvement():
    stopper = pn.early_stopping("loss", patience=2)
    states = ["a", "b", "c", "d"]
    stopped = None
    for number, (ts, loss) in enumerate(zip(states, [2.0, 1.0, float("nan"), float("nan")], strict=True)):
        epoch = pn.Epoch(number, ts, {"loss": loss})
        stopper(epoch)
        stopped = epoch.stopped_with
    assert stopped == "b"


def test_early_stopping_names_the_metrics_there_are(setting):
    with pytest.raises(
        ValueError, match=r"watches 'validation/loss', but the metrics are \['learning_rate', 'loss'\]"
    ):
        fit(setting, callbacks=[pn.early_stopping()])


def test_a_second_fit_compiles_nothing(setting, caplog):
    fit(setting)
    with jax.log_compiles():
        fit(setting)
    assert not [record for record in caplog.records if "Compiling _epoch" in record.getMessage()]


def test_progress_is_shown_on_standard_error(setting, capsys):
    fit(setting, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "loss" in err


def test_nan_in_the_data_is_located(setting):
    _, _, (x, y) = setting
    x = x.copy()
    x[5, 2] = np.nan
    with pytest.raises(ValueError, match=r"nan") as caught:
        fit(setting, data=(x, y))
    assert "5" in str(caught.value)
    assert "2" in str(caught.value)
    assert "found in data before anything ran" in caught.value.__notes__


def test_labels_out_of_range_are_refused(setting):
    _, _, (x, y) = setting
    with pytest.raises(ValueError, match="2") as caught:
        fit(setting, data=(x, np.where(y == 1, 2, 0)))
    assert any("targets of examples 0 to 31" in note for note in caught.value.__notes__)


def test_a_wrong_last_axis_is_refused_with_the_path_of_the_layer(setting):
    _, _, (x, y) = setting
    with pytest.raises(
        ValueError, match=r"dense\(3, 8\) needs a last axis of 3, got float32\[32, 2\]"
    ) as caught:
        fit(setting, data=(x[:, :2], y))
    assert any(note.startswith("at dense_1 (dense(3, 8))") for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epochs": 0}, "at least 1 epoch, got 0"),
        ({"batch_size": 33}, "33"),
        ({"data": (np.zeros((0, 3), np.float32), np.zeros(0, np.int32))}, "empty|no examples"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, change, text):
    with pytest.raises(ValueError, match=text):
        fit(setting, **change)


def test_a_state_started_for_other_params_is_refused(setting):
    step, ts, data = setting
    partly = pn.make_step(step.objective, step.optimizer, trainable="dense_2/*")
    with pytest.raises(ValueError, match=r"does not belong to this step.*same trainable="):
        pn.fit(partly, ts, data, epochs=1, batch_size=8, progress=False)
