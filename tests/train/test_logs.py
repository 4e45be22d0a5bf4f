"""Logs: what fit measured is what is read back, by us and by the tools themselves."""

import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purenets as pn
from purenets import models
from purenets.train.logs import jsonl_log, read_jsonl, run_log, tensorboard_log

DATA = (jnp.ones((8, 3)), jnp.zeros((8, 2)))


def train(*callbacks, epochs=3, **settings):
    model = models.mlp((3, 2))
    step = pn.make_step(pn.supervised(model, lambda out, y: jnp.sum((out - y) ** 2, -1)), optax.sgd(0.05))
    ts = pn.start(model, step.optimizer, jax.random.key(0))
    settings = {"validation": DATA, **settings}
    return pn.fit(
        step, ts, DATA, epochs=epochs, batch_size=4, progress=False, callbacks=callbacks, **settings
    )[1]


def epoch_of(number, **metrics):
    ts = pn.TrainState(jnp.int32(10 * number), {}, {}, (), jax.random.key(0))
    return pn.Epoch(number, ts, metrics)


def test_a_line_of_json_for_every_epoch(tmp_path):
    file = tmp_path / "runs" / "log.jsonl"
    history = train(jsonl_log(file))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["step"] for row in rows] == [2, 4, 6]
    for name in ("loss", "validation/loss"):
        np.testing.assert_array_equal([row[name] for row in rows], history[name])
    assert rows == read_jsonl(file)
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)


def test_numbers_that_are_not_finite_stay_json_and_come_back(tmp_path):
    file = tmp_path / "log"
    jsonl_log(file)(epoch_of(0, a=math.nan, b=math.inf, c=-math.inf, d=1.5))

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(file.read_text(), parse_constant=refuse)["b"] == "Infinity"
    (row,) = read_jsonl(file)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"], row["d"]) == (math.inf, -math.inf, 1.5)


def test_of_an_epoch_that_was_done_again_the_last_counts_and_a_torn_line_does_not(tmp_path):
    file = tmp_path / "log"
    log = jsonl_log(file)
    for number, loss in [(0, 3.0), (1, 2.0), (1, 2.5), (2, 1.0)]:
        log(epoch_of(number, loss=loss))
    whole = file.read_text()
    file.write_text(whole + '{"epoch": 3, "lo')
    assert [row["loss"] for row in read_jsonl(file)] == [3.0, 2.5, 1.0]
    file.write_text("no json\n" + whole)
    with pytest.raises(ValueError, match=r"line 1 of .*log is no JSON: 'no json'"):
        read_jsonl(file)


def test_a_resumed_training_goes_on_in_its_file(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    for epochs in (2, 4):
        saved = pn.Checkpoints(tmp_path / "saved")
        train(jsonl_log(tmp_path / "log"), epochs=epochs, checkpoints=saved, resume=True)
    rows = read_jsonl(tmp_path / "log")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]


def test_one_training_after_another_may_share_a_file(tmp_path):
    log = jsonl_log(tmp_path / "log")
    log(epoch_of(0, loss=2.0))
    late = epoch_of(0, loss=1.0)
    late.ts = late.ts._replace(step=jnp.int32(50))
    log(late)
    assert [(row["epoch"], row["step"], row["loss"]) for row in read_jsonl(tmp_path / "log")] == [
        (0, 0, 2),
        (0, 50, 1),
    ]


def test_a_file_that_cannot_be_written_is_an_error_before_any_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        jsonl_log(tmp_path / "file" / "log")


def test_tensorboard_reads_the_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    history = train(tensorboard_log(tmp_path))
    (file,) = tmp_path.glob("events*")
    found = {}
    data, at = file.read_bytes(), 0
    # A record of the format: length, checksum of it, the event, checksum of that.
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        at += 16 + length
    assert found.keys() == history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(found[name], list(zip([2, 4, 6], values, strict=True)), rtol=1e-6)


def test_a_run_that_logs_like_wandb_gets_the_metrics_with_their_steps():
    class Run:
        def __init__(self):
            self.calls = []

        def log(self, data, step=None):
            self.calls.append((data, step))

    run = Run()
    history = train(run_log(run))
    assert [step for _, step in run.calls] == [2, 4, 6]
    assert [data["loss"] for data, _ in run.calls] == history["loss"].tolist()
    assert [data["epoch"] for data, _ in run.calls] == [0, 1, 2]
    assert all(type(value) in (int, float) for data, _ in run.calls for value in data.values())


def test_several_logs_go_together_and_leave_the_training_as_it_is(tmp_path):
    pytest.importorskip("tensorboardX")
    logged = train(jsonl_log(tmp_path / "log"), tensorboard_log(tmp_path / "board"))
    np.testing.assert_array_equal(logged["loss"], train()["loss"])


def test_what_is_no_run_is_refused():
    with pytest.raises(
        TypeError, match=r"run_log needs a run with a log, such as wandb.init\(\) gives, got str"
    ):
        run_log("wandb")


def test_without_tensorboardx_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        tensorboard_log(tmp_path)
