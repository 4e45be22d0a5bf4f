"""As in the row ``transformer``."""

from benchmarks.rows.transformer.purenets import contestants

__all__ = ["contestants"]
