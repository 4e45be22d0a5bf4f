"""Rows as a table of plain text, drawn by rich."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

__all__ = ["text_table"]


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """The rows under the names of their columns; those in ``right`` stand flush right.

    >>> print(text_table(["path", "bytes"], [["dense/kernel", "24"]], right=["bytes"]))
     path           bytes
    ──────────────────────
     dense/kernel      24
    """
    # Imported where it is used, so that importing purenets costs no more than importing jax.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # As wide as it needs, whatever the terminal: a text that is cut off says less than one that wraps.
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
