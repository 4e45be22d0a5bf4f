"""Data: sets of arrays, readers of their files, synthetic problems, and the batches of an epoch."""

from purenets.data import augment, sequence_tasks
from purenets.data.arrays import Split, data_folder, digits, mnist, train_test_split
from purenets.data.batches import (
    batches,
    count_examples,
    epoch_order,
    find_nonfinite,
    padded_batches,
    sample_batch,
    scan_batches,
)
from purenets.data.cifar import CIFAR10_CLASSES, cifar10
from purenets.data.images import PictureFolder
from purenets.data.readers import read_idx
from purenets.data.streams import Stream, stream
from purenets.data.synthetic import blobs, circles, linear_regression, moons, spirals, xor
from purenets.data.text import (
    Bytes,
    Characters,
    default_text,
    draw_windows,
    split_text,
    tinyshakespeare,
    tracks,
    windows,
)

__all__ = [
    "CIFAR10_CLASSES",
    "Bytes",
    "Characters",
    "PictureFolder",
    "Split",
    "Stream",
    "augment",
    "batches",
    "blobs",
    "cifar10",
    "circles",
    "count_examples",
    "data_folder",
    "default_text",
    "digits",
    "draw_windows",
    "epoch_order",
    "find_nonfinite",
    "linear_regression",
    "mnist",
    "moons",
    "padded_batches",
    "read_idx",
    "sample_batch",
    "scan_batches",
    "sequence_tasks",
    "spirals",
    "split_text",
    "stream",
    "tinyshakespeare",
    "tracks",
    "train_test_split",
    "windows",
    "xor",
]
