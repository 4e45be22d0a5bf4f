"""Checkpoints: resumed equals never stopped, damage is named, nothing saved is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purenets as pn
from purenets import losses, models, optim, parallel

pytest.importorskip("orbax.checkpoint")

X = jax.random.normal(jax.random.key(5), (24, 4))
DATA = (X, (X[:, 0] * X[:, 1] > 0).astype(jnp.int32))


def _training(rate=0.01):
    model = pn.serial(pn.dense(4, 8), pn.batch_norm(8), jax.nn.relu, pn.dropout(0.2), head=pn.dense(8, 2))
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adam(rate))
    return step, pn.start(model, step.optimizer, jax.random.key(0))


def _fit(step, ts, epochs, **options):
    return pn.fit(step, ts, DATA, epochs=epochs, batch_size=6, progress=False, **options)


def _same(a, b):
    def leaf(x, y):
        x, y = (jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z for z in (x, y))
        np.testing.assert_array_equal(x, y)

    jax.tree.map(leaf, a, b)


def test_resumed_is_never_stopped_bit_for_bit(tmp_path):
    """Params, statistics, optimizer state, key, dropout masks and the order of the data."""
    step, ts = _training()
    whole, history = _fit(step, ts, 5)
    _fit(step, ts, 2, checkpoints=pn.Checkpoints(tmp_path))
    after, rest = _fit(step, ts, 5, checkpoints=pn.Checkpoints(tmp_path), resume=True)
    _same(after, whole)
    np.testing.assert_array_equal(rest["loss"], history["loss"][2:])
    again, nothing = _fit(step, ts, 5, checkpoints=pn.Checkpoints(tmp_path), resume=True)
    _same(again, whole)
    assert nothing == {}


def test_the_last_few_and_the_best_are_kept(tmp_path):
    step, ts = _training(rate=0.3)
    kept = pn.Checkpoints(tmp_path, keep=2, best="loss", every=1)
    _, history = _fit(step, ts, 6, checkpoints=kept)
    best = int(np.argmin(history["loss"])) + 1
    assert kept.epochs() == sorted({best, 5, 6})
    assert {int(path.stem) for path in (tmp_path / "manifests").glob("*.json")} == set(kept.epochs())


def test_it_is_saved_every_so_many_epochs_and_at_the_end(tmp_path):
    step, ts = _training()
    kept = pn.Checkpoints(tmp_path, keep=9, every=2)
    _fit(step, ts, 5, checkpoints=kept)
    assert kept.epochs() == [2, 4, 5]


def test_a_state_is_restored_onto_a_mesh(tmp_path):
    step, ts = _training()
    kept = pn.Checkpoints(tmp_path)
    after, _ = _fit(step, ts, 1, checkpoints=kept)
    over = parallel.on_mesh(step, parallel.mesh(data=8))
    placed = parallel.place(jax.tree.map(jnp.copy, ts), over.placement)
    found = kept.restore(placed)
    _same(found, after)
    assert len(found.params["head"]["kernel"].sharding.device_set) == 8


def test_a_state_is_restored_from_one_mesh_onto_another(tmp_path):
    """From eight parts of every large leaf to four parts and two, by other rules."""
    model = models.gpt(32, 64, 4, 2, 8)
    step = pn.make_step(pn.supervised(model, losses.softmax_cross_entropy), optim.adam(1e-3))
    spread = parallel.on_mesh(step, parallel.mesh(data=8), fully="data")
    other = parallel.on_mesh(step, parallel.mesh(data=4, model=2), parallel.TRANSFORMER_RULES, fully="data")
    kept, saved = pn.Checkpoints(tmp_path), spread.start(model, jax.random.key(0))
    kept.save(1, saved, {"loss": 1.0})
    kept.wait()
    found = kept.restore(other.start(model, jax.random.key(1)))
    _same(found, saved)
    where = other.placement.of(found)
    assert all(
        leaf.sharding == there for leaf, there in zip(*map(jax.tree.leaves, (found, where)), strict=True)
    )
    assert found.params["blocks"]["feed_forward"]["up"]["kernel"].addressable_shards[0].data.shape == (
        2,
        16,
        128,
    )


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_checkpoint_is_named_and_an_older_one_still_there(tmp_path, damage):
    step, ts = _training()
    kept = pn.Checkpoints(tmp_path)
    _fit(step, ts, 2, checkpoints=kept)
    victim = max(
        (p for p in (tmp_path / "epochs" / "2").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(victim.read_bytes())
    if damage == "missing":
        victim.unlink()
    else:
        content[len(content) // 2] ^= 1
        victim.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"is not whole: .*{victim.name} is") as caught:
        kept.restore(ts)
    assert "others there are: [1]" in caught.value.__notes__[0]
    assert int(kept.restore(ts, epochs=1).step) == 4
    # What the second note says to do, and the training goes on to where it would have ended.
    assert caught.value.__notes__[1].endswith(f"delete {tmp_path / 'epochs' / '2'}")
    shutil.rmtree(tmp_path / "epochs" / "2")
    again = pn.Checkpoints(tmp_path)
    assert again.epochs() == [1]
    _same(_fit(step, ts, 2, checkpoints=again, resume=True)[0], _fit(step, ts, 2)[0])


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_manifest_is_named(tmp_path, damage):
    step, ts = _training()
    kept = pn.Checkpoints(tmp_path)
    _fit(step, ts, 2, checkpoints=kept)
    manifest = tmp_path / "manifests" / "2.json"
    content = bytearray(manifest.read_bytes())
    content[0] ^= 1
    manifest.write_bytes({"flipped": content, "truncated": manifest.read_bytes()[:-40], "empty": b""}[damage])
    with pytest.raises(
        ValueError, match=r"after 2 epochs in .* is not whole: its manifest 2\.json is damaged"
    ):
        kept.restore(ts)
    assert int(kept.restore(ts, epochs=1).step) == 4


def test_the_checkpoint_of_another_training_is_refused_with_the_paths(tmp_path):
    step, ts = _training()
    kept = pn.Checkpoints(tmp_path)
    _fit(step, ts, 1, checkpoints=kept)
    half = ts._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), ts.params))
    with pytest.raises(ValueError, match=r"params/dense_1/bias is float32\[8\], wanted bfloat16\[8\]"):
        kept.restore(half)
    other = models.mlp((4, 3, 2))
    started = pn.start(other, optim.sgd(0.1), jax.random.key(0))
    with pytest.raises(ValueError, match=r"is of another training: .*params/dense_2/bias is missing"):
        kept.restore(started)


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path):
    step, ts = _training()
    with pytest.raises(ValueError, match="fit can resume only with checkpoints="):
        _fit(step, ts, 1, resume=True)
    with pytest.raises(FileNotFoundError, match=r"no whole checkpoint in .*; there are none"):
        pn.Checkpoints(tmp_path).restore(ts)
    with pytest.raises(ValueError, match="every and keep of at least 1"):
        pn.Checkpoints(tmp_path, keep=0)
    with pytest.raises(
        ValueError, match=r"keeps the best 'accuracy', but the metrics are \['learning_rate', 'loss'\]"
    ):
        _fit(step, ts, 1, checkpoints=pn.Checkpoints(tmp_path / "b", best="accuracy"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        pn.Checkpoints(tmp_path / "file" / "folder")


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import jax
from tests.train import test_checkpoint as t
import purenets as pn
step, ts = t._training()
def tell(epoch):
    print(epoch.number + 1, flush=True)
ts, _ = t._fit(step, ts, {epochs}, checkpoints=pn.Checkpoints({folder!r}), resume=True, callbacks=[tell])
print("done", float(sum(abs(leaf).sum() for leaf in jax.tree.leaves(ts.params))), int(ts.step), flush=True)
"""


def _start(folder, epochs):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = PROGRAM.format(root=root, folder=str(folder), epochs=epochs)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_killed_at_any_moment_and_resumed_it_ends_where_it_would_have(tmp_path):
    step, ts = _training()
    epochs = 12
    whole, _ = _fit(step, ts, epochs)
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = _start(tmp_path, epochs)
        process.stdout.readline()  # the first epoch of this attempt is told of, and being saved
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
    after, _ = _fit(step, ts, epochs, checkpoints=pn.Checkpoints(tmp_path), resume=True)
    _same(after, whole)


def test_asked_to_stop_it_saves_and_returns(tmp_path):
    process = _start(tmp_path, 100_000)
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said = process.stdout.read().splitlines()
    assert process.wait() == 0
    assert said[-1].startswith("done")
    steps = int(said[-1].split()[-1])
    kept = pn.Checkpoints(tmp_path)
    assert kept.epochs()[-1] * 4 == steps < 100_000 * 4
    record = json.loads((tmp_path / "manifests" / f"{kept.epochs()[-1]}.json").read_text())
    assert record["versions"]["jax"] == jax.__version__
    assert record["versions"]["purenets"] == pn.__version__


@pytest.fixture
def small_disk(tmp_path):
    """A file system of three million bytes, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_folder_that_cannot_be_written_is_told_before_training_and_can_be_read(small_disk):
    step, ts = _training()
    kept = pn.Checkpoints(small_disk / "run")
    after, _ = _fit(step, ts, 1, checkpoints=kept)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    told = []
    with pytest.raises(OSError, match="Read-only file system"):
        _fit(step, ts, 2, checkpoints=kept, resume=True, callbacks=[told.append])
    assert told == []
    with pytest.raises(OSError, match="Read-only file system"):
        pn.Checkpoints(small_disk / "other")
    with pytest.raises(OSError, match=r"Read-only file system.*there after \[1\]: .*make it writable"):
        kept.save(2, ts, {"loss": 1.0})
    _same(pn.Checkpoints(small_disk / "run").restore(ts), after)


def test_a_full_disk_loses_nothing_that_was_saved_and_says_what_happened(small_disk):
    model, optimizer = pn.dense(500, 500), optim.sgd(1e-3)
    ts = pn.start(model, optimizer, jax.random.key(0))
    checkpoints = pn.Checkpoints(small_disk / "run", keep=9)

    def fill():
        for epochs in range(1, 9):
            params = jax.tree.map(lambda leaf, e=epochs: leaf * e, ts.params)
            checkpoints.save(epochs, ts._replace(params=params, step=ts.step + epochs), {"loss": 1.0})
            checkpoints.wait()

    with pytest.raises(OSError, match=r"not be written to .*run: .*[Nn]o space left .*make room") as failure:
        fill()
    whole = checkpoints.epochs()
    assert 1 in whole
    assert f"whole ones are there after {whole}" in str(failure.value)
    # Whoever comes next finds them as they were.
    restored = pn.Checkpoints(small_disk / "run", keep=9).restore(ts)
    assert int(restored.step) == whole[-1]
    np.testing.assert_array_equal(restored.params["kernel"], ts.params["kernel"] * whole[-1])
