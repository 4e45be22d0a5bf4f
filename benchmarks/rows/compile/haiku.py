"""As in the row ``transformer``."""

from benchmarks.rows.transformer.haiku import contestants

__all__ = ["contestants"]
