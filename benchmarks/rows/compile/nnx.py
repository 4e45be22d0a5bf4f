"""As in the row ``transformer``."""

from benchmarks.rows.transformer.nnx import contestants

__all__ = ["contestants"]
