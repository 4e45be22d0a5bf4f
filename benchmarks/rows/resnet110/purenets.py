"""As in the row `resnet`."""

from benchmarks.rows.resnet.purenets import contestants

__all__ = ["contestants"]
