"""Streams: the batches of arrays in memory from whatever reads them, and errors that name the example."""

import sys
import threading
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenets import data, parallel
from purenets.layer import fold_name

grain = pytest.importorskip("grain")

KEY = jax.random.key(7)
X = np.arange(23 * 3, dtype=np.float32).reshape(23, 3)
Y = np.arange(23)


class Records:
    """Examples that are made as they are asked for; ``asked`` has their numbers."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 23

    def __getitem__(self, index):
        self.asked.append(index)
        return {"x": X[index], "y": int(Y[index])}


def taken(stream, steps, **options):
    batches = islice(stream.batches(KEY, 5, **options), steps)
    return [jax.tree.map(np.asarray, batch) for batch in batches]


def in_memory(epoch, shuffle=True):
    """What arrays on the device give in an epoch: 4 batches of 5 of 23."""
    order = data.epoch_order(fold_name(KEY, "order"), epoch, 23) if shuffle else None
    return data.batches({"x": jnp.asarray(X), "y": jnp.asarray(Y, jnp.int32)}, order, 5)


@pytest.fixture
def mapped(tmp_path):
    """The same examples in files, of which only those asked for are read."""
    np.save(tmp_path / "x.npy", X)
    return {"x": np.load(tmp_path / "x.npy", mmap_mode="r"), "y": Y}


@pytest.fixture
def sources(mapped, tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(tmp_path / "all.array_record"), "group_size:1")
    for x, y in zip(X, Y, strict=True):
        writer.write(x.tobytes() + y.tobytes())
    writer.close()
    records = grain.MapDataset.source(
        grain.sources.ArrayRecordDataSource(str(tmp_path / "all.array_record"))
    ).map(lambda raw: {"x": np.frombuffer(raw[:12], np.float32), "y": np.frombuffer(raw[12:], np.int64)[0]})
    return {
        "mapped": mapped,
        "records": Records(),
        "list": [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)],
        "array records": records,
    }


@pytest.mark.parametrize("kind", ["mapped", "records", "list", "array records"])
@pytest.mark.parametrize("options", [{}, {"threads": 1, "ahead": 1}], ids=["threads", "thread"])
def test_batches_are_those_of_arrays_in_memory_whatever_the_source(sources, kind, options):
    found = taken(data.stream(sources[kind], **options), 12)
    for epoch in range(3):
        wanted = in_memory(epoch)
        for place in range(4):
            batch = found[4 * epoch + place]
            assert batch["x"].dtype == np.float32
            assert batch["y"].dtype == np.int32
            np.testing.assert_array_equal(batch["x"], wanted["x"][place])
            np.testing.assert_array_equal(batch["y"], wanted["y"][place])


def test_without_shuffling_the_order_is_that_of_the_source(mapped):
    found = taken(data.stream(mapped), 5, shuffle=False)
    np.testing.assert_array_equal(np.concatenate([batch["y"] for batch in found]), [*range(20), *range(5)])


@pytest.mark.parametrize("start", [1, 4, 11])
def test_a_stream_begun_at_any_step_goes_on_as_one_from_the_first(mapped, start):
    stream = data.stream(mapped)
    whole, rest = taken(stream, 14), taken(stream, 14 - start, start=start)
    jax.tree.map(np.testing.assert_array_equal, rest, whole[start:])


def test_another_key_gives_another_order(mapped):
    stream = data.stream(mapped)
    other = next(stream.batches(jax.random.key(8), 5))
    assert not np.array_equal(other["y"], taken(stream, 1)[0]["y"])


def test_stacks_hold_the_batches_in_their_sizes_and_no_more_is_read():
    source = Records()
    stream = data.stream(source, threads=1)
    source.asked.clear()
    stacks = list(stream.stacks(KEY, 5, [2, 1]))
    assert [stack["x"].shape for stack in stacks] == [(2, 5, 3), (1, 5, 3)]
    np.testing.assert_array_equal(np.concatenate([stack["y"] for stack in stacks]), in_memory(0)["y"][:3])
    assert len(source.asked) == 3 * 5 + 1  # and the first, for its form


def test_each_pass_over_a_grain_dataset_draws_its_random_transformations_anew():
    dataset = grain.MapDataset.range(20).seed(3)
    dataset = dataset.random_map(lambda n, rng: (np.float32(n), np.float32(rng.random())))
    stream = data.stream(dataset)
    first, second = (dict(map(tuple, np.concatenate(pass_))) for pass_ in np.split(pairs(stream), 2))
    assert first.keys() == second.keys()
    assert all(first[n] != second[n] for n in first)
    np.testing.assert_array_equal(pairs(stream), pairs(data.stream(dataset, threads=1)))


def pairs(stream):
    """Two passes of 4 batches, ``[8, 5, 2]``."""
    return np.array([np.stack(batch, -1) for batch in taken(stream, 8)])


def test_over_a_mesh_each_device_gets_its_rows(mapped):
    placement = parallel.Placement(parallel.mesh(data=4, model=2))
    stream = data.stream(mapped)
    batch = next(stream.batches(KEY, 8, placement=placement))
    wanted = data.batches(jnp.asarray(Y, jnp.int32), data.epoch_order(fold_name(KEY, "order"), 0, 23), 8)[0]
    np.testing.assert_array_equal(batch["y"], wanted)
    assert {shard.data.shape for shard in batch["y"].addressable_shards} == {(2,)}
    with pytest.raises(ValueError, match=r"a batch over 4 devices .* multiple of 4 examples, got .*\[6"):
        next(stream.batches(KEY, 6, placement=placement))


class Watched(Records):
    """Calls ``met(index)`` with each number before it gives the example."""

    def __init__(self, met):
        super().__init__()
        self.met = met

    def __getitem__(self, index):
        self.met(index)
        return super().__getitem__(index)


def test_threads_read_batches_at_the_same_time():
    """Nobody gets past the first example of a batch before another thread is there too."""
    together = threading.Barrier(2, timeout=30)
    stream = data.stream(Watched(lambda index: index and index % 5 == 0 and together.wait()), threads=2)
    assert len(list(stream.stacks(KEY, 5, [1, 1], start=1, shuffle=False))) == 2  # batches from 5 and from 10


def test_batches_are_read_while_the_one_before_is_used():
    last = threading.Event()
    stream = data.stream(Watched(lambda index: index == 19 and last.set()), threads=1, ahead=2)
    stacks = stream.stacks(KEY, 5, [1, 1, 1, 1], shuffle=False)
    next(stacks)
    assert last.wait(30)
    assert len(list(stacks)) == 3


def test_worker_processes_read_the_same_batches():
    stream = data.stream(Records(), workers=2, threads=1)
    jax.tree.map(np.testing.assert_array_equal, taken(stream, 6), taken(data.stream(Records()), 6))


class Spoilt(Records):
    def __init__(self, record):
        super().__init__()
        self.record = record

    def __getitem__(self, index):
        if index == 17 and isinstance(self.record, Exception):
            raise self.record
        return self.record if index == 17 else super().__getitem__(index)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"x": X[0, :2], "y": 1},
            r"example 17 of the source is \{x: float32\[2\], y: int32\[\]\}, and example 0 is",
        ),
        ({"x": X[0], "y": 1.0}, r"example 17 of the source is \{x: float32\[3\], y: float32\[\]\}, and"),
        ({"x": X[0]}, r"example 17 of the source is \{x: float32\[3\]\}, and example 0"),
        (None, r"example 17 of the source is None, and"),
    ],
    ids=["shape", "dtype", "leaves", "left out"],
)
def test_an_example_unlike_the_others_is_named(record, message):
    with pytest.raises(ValueError, match=message):
        taken(data.stream(Spoilt(record)), 5, shuffle=False)


def test_an_example_that_cannot_be_read_is_named():
    with pytest.raises(OSError, match="the disk is gone") as caught:
        taken(data.stream(Spoilt(OSError("the disk is gone"))), 5, shuffle=False)
    assert "while reading example 17 of the source of a stream" in caught.value.__notes__


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: data.stream(iter([1])),
            TypeError,
            r"needs a source with len\(source\) and source\[i\], got list_iterator",
        ),
        (lambda: data.stream([]), ValueError, "is empty: len of list is 0"),
        (lambda: data.stream((X, Y[:4])), ValueError, "one number of examples"),
        (
            lambda: data.stream([b"raw"]),
            TypeError,
            "a stream needs numbers, got bytes: decode it in the source",
        ),
        (lambda: data.stream((X, Y), workers=2), ValueError, "arrays are read by threads as fast"),
        (lambda: data.stream((X, Y), steps_per_call=0), ValueError, "steps_per_call of at least 1, got 0"),
        (lambda: data.stream((X, Y)).batches(KEY, 24), ValueError, "a batch of 24 .* the stream has 23"),
    ],
    ids=["iterator", "empty", "lengths", "bytes", "workers", "steps", "batch"],
)
def test_what_cannot_be_a_stream_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_pictures_of_a_folder_are_decoded_as_they_are_asked_for(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for kind, level in (("cat", 10), ("dog", 200)):
        (tmp_path / kind).mkdir()
        for number in range(3):
            image.new("RGB", (4, 2), (level, number, 0)).save(tmp_path / kind / f"{number}.png")
    folder = data.PictureFolder(tmp_path)
    assert folder.classes == ("cat", "dog")
    images, labels = taken(data.stream(folder), 1, shuffle=False)[0]
    assert images.shape == (5, 2, 4, 3)
    assert images[:, 0, 0].tolist() == [[10, 0, 0], [10, 1, 0], [10, 2, 0], [200, 0, 0], [200, 1, 0]]
    assert labels.tolist() == [0, 0, 0, 1, 1]
    assert [int(label) for _, label in data.PictureFolder(tmp_path, ["dog"])] == [0, 0, 0]
    image.new("RGB", (5, 2)).save(tmp_path / "cat" / "1.png")
    with pytest.raises(
        ValueError, match=r"example 1 of the source is \(uint8\[2, 5, 3\], int32\[\]\), and example 0"
    ):
        taken(data.stream(folder), 1, shuffle=False)
    (tmp_path / "cat" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cat/2\.png is damaged or no picture"):
        folder[2]
    (tmp_path / "empty" / "0").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds no pictures called class/name\.jpg of 0"):
        data.PictureFolder(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        data.PictureFolder(tmp_path / "nowhere")


def test_without_grain_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"pip install purenets\[stream\]"):
        data.stream((X, Y))
