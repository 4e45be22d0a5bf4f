"""fit over a stream is fit over the arrays: bits, history, callbacks, checkpoints, resume."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import data, losses, metrics, optim, parallel
from purenets.layer import fold_name

pytest.importorskip("grain")

X = np.random.default_rng(0).normal(size=(67, 6, 6, 2)).astype(np.float32)
DATA = (X, (X.sum((1, 2, 3)) > 0).astype(np.int32))


def training(rate=0.01):
    """Convolution, statistics, masks and an optimizer with state."""
    model = pn.serial(
        pn.conv(2, 4, (3, 3)),
        pn.batch_norm(4),
        jax.nn.relu,
        pn.dropout(0.2),
        pn.flatten(),
        head=pn.dense(144, 2),
    )
    objective = pn.supervised(model, losses.softmax_cross_entropy, metrics={"accuracy": metrics.accuracy})
    step = pn.make_step(objective, optim.adam(rate), norms="**")
    return step, pn.start(model, step.optimizer, jax.random.key(0))


STEP, TS = training()


def fit(source, epochs=3, **options):
    options = {"batch_size": 6, "progress": False, **options}
    return pn.fit(options.pop("step", STEP), options.pop("ts", TS), source, epochs=epochs, **options)


def same(a, b):
    def leaf(x, y):
        x, y = (jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z for z in (x, y))
        np.testing.assert_array_equal(x, y)

    jax.tree.map(leaf, a, b)


@pytest.fixture(scope="module")
def in_memory():
    """The training over arrays that all the others are held against: 3 epochs of 11 steps."""
    return fit(DATA, validation=DATA)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_a_streamed_training_is_that_over_arrays_bit_for_bit(in_memory, steps):
    """One step a program, 4 with a rest of 3, and all 11 of an epoch."""
    ts, history = in_memory
    source = data.stream(DATA, steps_per_call=steps)
    streamed, told = fit(source, validation=source)
    same(streamed, ts)
    assert told.keys() == history.keys()
    for name, values in history.items():
        if name.startswith("validation/"):
            np.testing.assert_allclose(told[name], values, rtol=1e-6)
        else:
            np.testing.assert_array_equal(told[name], values)


def test_without_shuffling_and_over_a_mesh_too():
    over = parallel.on_mesh(STEP, parallel.mesh(data=2, model=4))
    ts = parallel.place(jax.tree.map(jnp.copy, TS), over.placement)
    options = {"step": over, "ts": ts, "shuffle": False, "validation": DATA}
    wanted, history = fit(DATA, 2, **options)
    source = data.stream(DATA)
    found, told = fit(source, 2, **{**options, "validation": source})
    same(found, wanted)
    np.testing.assert_array_equal(told["loss"], history["loss"])
    np.testing.assert_allclose(told["validation/loss"], history["validation/loss"], rtol=1e-5)


def test_an_epoch_of_so_many_steps_goes_on_where_the_last_one_ended(in_memory):
    """33 steps are 3 passes of 11, cut into 4 epochs of 7 and 5 steps more."""
    seen = []
    source = data.stream(DATA, steps_per_epoch=7)
    ts, history = fit(source, 4, callbacks=[lambda epoch: seen.append((int(epoch.ts.step), epoch.ts))])
    assert [step for step, _ in seen] == [7, 14, 21, 28]
    assert len(history["loss"]) == 4
    end, _ = fit(data.stream(DATA, steps_per_epoch=5), 1, ts=ts)
    same(end, in_memory[0])
    again, _ = fit(data.stream(DATA, steps_per_epoch=19), 1, ts=seen[1][1])
    same(again, in_memory[0])


def test_a_stream_is_evaluated_as_arrays_are():
    wanted = pn.evaluate(STEP, TS, DATA, batch_size=10)
    found = pn.evaluate(STEP, TS, data.stream(DATA), batch_size=10)
    assert found == pytest.approx(wanted, rel=1e-6)


def test_a_guard_over_a_stream_finds_the_step_that_failed():
    x = X.copy()
    x[40] = np.nan
    order = data.epoch_order(fold_name(TS.key, "order"), 0, 67).tolist()
    source = data.stream((x, DATA[1]), steps_per_call=3)
    with pytest.raises(pn.NonFiniteError) as caught:
        fit(source, callbacks=[pn.guard_fit(STEP, TS, source, batch_size=6)])
    assert caught.value.report.stage == "batch"
    assert caught.value.report.step == order.index(40) // 6


def test_resumed_from_arrays_or_a_stream_it_is_never_stopped(tmp_path, in_memory):
    source = data.stream(DATA, steps_per_call=4)
    fit(source, 1, checkpoints=pn.Checkpoints(tmp_path))
    fit(DATA, 2, checkpoints=pn.Checkpoints(tmp_path), resume=True)
    after, history = fit(source, 3, checkpoints=pn.Checkpoints(tmp_path), resume=True)
    same(after, in_memory[0])
    np.testing.assert_array_equal(history["loss"], in_memory[1]["loss"][2:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"source": data.stream((X[:60], DATA[1][:60]))},
            r"examples 67 there and 60 here, steps of an epoch 11 there",
        ),
        ({"batch_size": 7}, "batch_size 6 there and 7 here"),
        ({"shuffle": False}, "shuffle True there and False here"),
        ({"ts": TS._replace(key=jax.random.key(5))}, r"key \[.*\] there and \[0, 5\] here"),
        ({"source": data.stream(DATA, steps_per_epoch=4)}, "steps of an epoch 11 there and 4 here"),
    ],
    ids=["length", "batch", "order", "seed", "epoch"],
)
def test_a_checkpoint_of_another_order_of_the_data_is_refused_with_both_named(tmp_path, change, message):
    checkpoints = pn.Checkpoints(tmp_path)
    ts = TS._replace(step=TS.step + 11)
    order = {"examples": 67, "batch_size": 6, "shuffle": True, "steps of an epoch": 11}
    order["key"] = jax.random.key_data(TS.key).tolist()
    checkpoints.save(1, ts, {"loss": 1.0}, order=order)
    checkpoints.wait()
    options = {"source": data.stream(DATA), **change}
    with pytest.raises(
        ValueError, match=f"of a training with another order of the data: .*{message}"
    ) as caught:
        fit(options.pop("source"), 2, checkpoints=checkpoints, resume=True, **options)
    assert "restore the state by Checkpoints.restore" in caught.value.__notes__[0]


def test_mistakes_are_found_in_the_first_batch_before_anything_runs():
    with pytest.raises(ValueError, match="2") as caught:
        fit(data.stream((X, np.full(67, 2))))
    assert "found in data before anything ran" in caught.value.__notes__
    with pytest.raises(ValueError, match="a batch of 68 needs as many examples, the data have 67"):
        fit(data.stream(DATA), batch_size=68)
    with pytest.raises(TypeError, match="give a stream to fit"):
        pn.train(STEP, TS, data.stream(DATA), epochs=1, batch_size=6)


class Failing:
    """The examples until one of them cannot be read."""

    def __len__(self):
        return 67

    def __getitem__(self, index):
        if index == 40:
            raise OSError("the disk is gone")
        return X[index], DATA[1][index]


def test_a_source_that_fails_later_ends_the_training_with_what_was_saved(tmp_path):
    checkpoints = pn.Checkpoints(tmp_path)
    source = data.stream(Failing(), steps_per_epoch=2)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        fit(source, 99, checkpoints=checkpoints, shuffle=False)
    assert "while reading example 40 of the source of a stream" in caught.value.__notes__
    assert checkpoints.epochs() == [1, 2]  # 6 steps of 6 could be read, and an epoch is saved one late


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from tests.train import test_streamed as t
from purenets import data
import purenets as pn
x = np.load({folder!r} + "/x.npy", mmap_mode="r")
stream = data.stream((x, np.load({folder!r} + "/y.npy")), steps_per_epoch=5, steps_per_call=2)
t.fit(stream, {epochs}, checkpoints=pn.Checkpoints({folder!r} + "/run"), resume=True,
      callbacks=[lambda epoch: print(epoch.number + 1, flush=True)])
"""


def test_killed_at_any_moment_and_resumed_a_streamed_training_ends_where_it_would_have(tmp_path):
    """In epochs of 5 steps, which end within passes of 11."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", DATA[1])
    epochs, rng = 40, np.random.default_rng(0)
    code = PROGRAM.format(root=root, folder=str(tmp_path), epochs=epochs)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(4):  # by then the first checkpoint is whole
        process.stdout.readline()
    time.sleep(rng.uniform(0, 0.15))
    process.send_signal(signal.SIGKILL)
    process.wait()
    checkpoints = pn.Checkpoints(tmp_path / "run")
    assert 0 < checkpoints.epochs()[-1] < epochs
    source = data.stream(DATA, steps_per_epoch=5)
    after, _ = fit(source, epochs, checkpoints=checkpoints, resume=True)
    whole, _ = fit(DATA, 18)  # 198 of the 200 steps
    whole, _ = fit(data.stream(DATA, steps_per_epoch=2), 1, ts=whole)
    same(after, whole)
