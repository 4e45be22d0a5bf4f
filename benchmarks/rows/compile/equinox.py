"""As in the row ``transformer``."""

from benchmarks.rows.transformer.equinox import contestants

__all__ = ["contestants"]
