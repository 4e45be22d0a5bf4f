"""Rows as a table: of plain text, drawn by rich, and of HTML for notebooks."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence

__all__ = ["html_table", "text_table"]


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


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """The same as HTML; spaces are kept, so that indents show.

    >>> html_table(["bytes"], [["<24"]], right=["bytes"]).partition("<tbody>")[2]
    '<tr><td style="text-align:right">&lt;24</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    sides = ["text-align:right" if name in right else "text-align:left;white-space:pre" for name in columns]
    body = ""
    for row in rows:
        cells = (
            f'<td style="{side}">{html.escape(cell)}</td>' for side, cell in zip(sides, row, strict=True)
        )
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
