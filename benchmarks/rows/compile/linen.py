"""As in the row ``transformer``."""

from benchmarks.rows.transformer.linen import contestants

__all__ = ["contestants"]
