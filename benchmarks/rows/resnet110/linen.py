"""As in the row `resnet`."""

from benchmarks.rows.resnet.linen import contestants

__all__ = ["contestants"]
