"""Two real processes over loopback equal one, and how a process finds the others."""

import json
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from purenets.parallel.hosts import Cluster, find_cluster

PROGRAM = """
import json, sys
import jax
index, count, port = map(int, sys.argv[1:4])
jax.config.update("jax_num_cpu_devices", 2 // count)
import purenets as pn
from purenets import losses, optim, parallel
if count > 1:
    assert parallel.connect(f"127.0.0.1:{port}", count, index) == index
model = pn.serial(pn.dense(3, 16), jax.nn.relu, pn.batch_norm(16), pn.dense(16, 2))
step = parallel.on_mesh(
    pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adam(0.01)), parallel.mesh(data=-1)
)
ts = step.start(model, jax.random.key(0))
go = jax.jit(step)
rows = 8 // count
seen = []
for i in range(5):
    x = jax.random.normal(jax.random.key(i), (8, 3))
    y = (x[:, 0] > 0).astype("int32")
    own = jax.device_get((x, y))
    own = jax.tree.map(lambda leaf: leaf[index * rows : (index + 1) * rows], own)
    ts, metrics = go(ts, parallel.from_processes(own, step.placement))
    seen.append(float(metrics["loss"]))
total = jax.jit(lambda p: sum(abs(leaf).sum() for leaf in jax.tree.leaves(p)))(ts.params)
print(json.dumps({"losses": seen, "params": float(total), "devices": jax.device_count()}))
"""


STREAMED = """
import json, sys
import jax
index, count, port = map(int, sys.argv[1:4])
folder, epochs = sys.argv[4], int(sys.argv[5])
jax.config.update("jax_num_cpu_devices", 2 // count)
import numpy as np
import purenets as pn
from purenets import data, losses, optim, parallel
if count > 1:
    parallel.connect(f"127.0.0.1:{port}", count, index)
x = np.random.default_rng(0).normal(size=(43, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int32)
asked = []
class Source:
    def __len__(self):
        return 43
    def __getitem__(self, i):
        asked.append(i)
        return x[i], y[i]
model = pn.serial(pn.dense(3, 16), jax.nn.relu, pn.batch_norm(16), pn.dropout(0.1), head=pn.dense(16, 2))
step = parallel.on_mesh(
    pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adam(0.01)), parallel.mesh(data=-1)
)
stream = data.stream(Source(), threads=1, steps_per_call=2)
list(stream.stacks(jax.random.key(0), 8, [2, 2, 1], placement=step.placement))
read = asked[-40 // count :]
def fit(epochs):
    return pn.fit(step, step.start(model, jax.random.key(0)), stream, epochs=epochs, batch_size=8, progress=False,
                  validation=data.stream((x, y)), checkpoints=pn.Checkpoints(folder), resume=True,
                  callbacks=[lambda epoch: print(epoch.number, flush=True)])
ts, first = fit(epochs // 2)
ts, rest = fit(epochs) if epochs < 10 else (ts, first)
total = jax.jit(lambda p: sum(abs(leaf).sum() for leaf in jax.tree.leaves(p)))(ts.params)
losses = [*first["loss"].tolist(), *rest["loss"].tolist(), *rest["validation/loss"].tolist()]
print(json.dumps({"losses": losses, "params": float(total), "read": read, "steps": int(ts.step)}))
"""


def _start(count, program=PROGRAM, folder="", epochs=0):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, str(i), str(count), str(port), str(folder), str(epochs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def _results(started):
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_two_processes_equal_one():
    (alone,), (first, second) = _results(_start(1)), _results(_start(2))
    assert first == second
    assert alone["devices"] == first["devices"] == 2
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-6)
    assert first["params"] == pytest.approx(alone["params"], rel=1e-6)


def test_two_processes_that_stream_read_rows_of_their_own_and_equal_one(tmp_path):
    """With a checkpoint that both write and go on from."""
    pytest.importorskip("grain")
    started = _start(1, STREAMED, tmp_path / "one", 3), _start(2, STREAMED, tmp_path / "two", 3)
    (alone,), (first, second) = map(_results, started)
    read = first.pop("read"), second.pop("read")
    assert sorted(read[0] + read[1]) == sorted(alone.pop("read"))
    assert not set(read[0]) & set(read[1])
    assert len(read[0]) == len(read[1]) == 20
    assert first == second
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-6)
    assert first["params"] == pytest.approx(alone["params"], rel=1e-6)
    assert first["steps"] == 15


def test_when_one_of_two_processes_is_asked_to_stop_both_save_the_same_epoch_and_return(tmp_path):
    pytest.importorskip("grain")
    started = _start(2, STREAMED, tmp_path, 100_000)
    for process in started:
        process.stdout.readline()
        process.stdout.readline()
    started[1].send_signal(signal.SIGTERM)
    first, second = _results(started)
    assert first["steps"] == second["steps"]
    assert 0 < first["steps"] < 5 * 100_000
    assert (tmp_path / "manifests" / f"{first['steps'] // 5}.json").is_file()


def test_a_process_finds_the_others_by_flags_then_by_the_environment():
    torchrun = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500", "WORLD_SIZE": "4", "RANK": "3"}
    assert find_cluster("a:1", 2, 0, torchrun) == Cluster("a:1", 2, 0)
    assert find_cluster(environment=torchrun) == Cluster("node0:29500", 4, 3)
    assert find_cluster(environment={"SLURM_STEP_NUM_TASKS": "2"}) == Cluster(None, None, None)
    assert find_cluster(environment={}) is None


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (("a:1", None, 0), {}, "missing: processes"),
        (("a:1", 2, 2), {}, "process 2 is not one of 0 .. 1"),
        ((), {"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT not: a cluster needs all four"),
    ],
    ids=["flags", "number", "environment"],
)
def test_a_cluster_that_is_half_given_is_refused(given, environment, message):
    with pytest.raises(ValueError, match=message):
        find_cluster(*given, environment=environment)
