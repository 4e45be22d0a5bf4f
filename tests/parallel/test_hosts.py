"""Two real processes over loopback equal one, and how a process finds the others."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from purenets.parallel.hosts import Cluster, find_cluster

PROGRAM = """
import json, sys
import jax
index, count, port = map(int, sys.argv[1:])
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


def _run(count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(i), str(count), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    outputs = [process.communicate(timeout=120) for process in started]
    assert all(process.returncode == 0 for process in started), outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def test_two_processes_equal_one():
    (alone,), (first, second) = _run(1), _run(2)
    assert first == second
    assert alone["devices"] == first["devices"] == 2
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-6)
    assert first["params"] == pytest.approx(alone["params"], rel=1e-6)


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
