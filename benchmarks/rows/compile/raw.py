"""As in the row ``transformer``."""

from benchmarks.rows.transformer.raw import contestants

__all__ = ["contestants"]
