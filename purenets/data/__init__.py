"""Data: sets of arrays, readers of their files, synthetic problems, and the batches of an epoch."""

from typing import TYPE_CHECKING

from purenets.data.batches import (
    batches,
    count_examples,
    epoch_order,
    find_nonfinite,
    padded_batches,
    sample_batch,
    scan_batches,
)
from purenets.data.streams import Stream, stream
from purenets.later import loaders

if TYPE_CHECKING:
    from purenets.data import augment, sequence_tasks
    from purenets.data.arrays import Split, data_folder, digits, mnist, train_test_split
    from purenets.data.cifar import CIFAR10_CLASSES, cifar10
    from purenets.data.images import PictureFolder
    from purenets.data.readers import read_idx
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

_LATER = {
    "augment": "augment",
    "sequence_tasks": "sequence_tasks",
    "Split": "arrays",
    "data_folder": "arrays",
    "digits": "arrays",
    "mnist": "arrays",
    "train_test_split": "arrays",
    "CIFAR10_CLASSES": "cifar",
    "cifar10": "cifar",
    "PictureFolder": "images",
    "read_idx": "readers",
    "blobs": "synthetic",
    "circles": "synthetic",
    "linear_regression": "synthetic",
    "moons": "synthetic",
    "spirals": "synthetic",
    "xor": "synthetic",
    "Bytes": "text",
    "Characters": "text",
    "default_text": "text",
    "draw_windows": "text",
    "split_text": "text",
    "tinyshakespeare": "text",
    "tracks": "text",
    "windows": "text",
}
__getattr__, __dir__ = loaders(globals(), _LATER)
