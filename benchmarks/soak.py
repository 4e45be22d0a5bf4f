"""Kill a training at random moments, many times, and see that it ends bit for bit where it would have ended.

``python -m benchmarks.soak --kills 50``: each attempt resumes from the newest whole checkpoint and is killed, without
warning, while it trains or while it saves; then a last one ends the training, and its params, statistics, optimizer
state and key are held against those of a training that was never killed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import purenets as pn
from purenets import losses, optim


def _train(epochs: int, folder: str | None) -> Any:
    model = pn.serial(pn.dense(4, 64), pn.batch_norm(64), jax.nn.relu, pn.dropout(0.2), head=pn.dense(64, 2))
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adam(0.01))
    x = jax.random.normal(jax.random.key(5), (64, 4))
    data = (x, (x[:, 0] * x[:, 1] > 0).astype(jnp.int32))
    ts = pn.start(model, step.optimizer, jax.random.key(0))
    checkpoints = None if folder is None else pn.Checkpoints(folder, keep=2)

    def tell(epoch: Any) -> None:
        print(epoch.number + 1, flush=True)

    return pn.fit(
        step,
        ts,
        data,
        epochs=epochs,
        batch_size=8,
        progress=False,
        checkpoints=checkpoints,
        resume=folder is not None,
        callbacks=[tell] if folder else [],
    )[0]


def main(kills: int, epochs: int) -> int:
    """0 where all is as it should be."""
    whole = _train(epochs, None)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        reached = 0
        for number in range(kills):
            code = f"from benchmarks.soak import _train; _train({epochs}, {folder!r})"
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            process.wait()
            there = [int(path.stem) for path in (Path(folder) / "manifests").glob("*.json")]
            reached = max([reached, *there])
            print(f"kill {number + 1}: {reached} of {epochs} epochs are safe", flush=True)
        after = _train(epochs, folder)
    bare = [jax.tree.map(np.asarray, (*ts[:4], jax.random.key_data(ts.key))) for ts in (after, whole)]
    same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, bare), strict=True))
    print(f"{kills} kills, then to the end: {'bit for bit the same' if same else 'DIFFERENT'}")
    return int(not same)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=2000)
    given = parser.parse_args()
    sys.exit(main(given.kills, given.epochs))
