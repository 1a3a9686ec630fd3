"""Two-column tables for a terminal. Only commands that print to one import this: rich takes a while to load."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["print_pairs"]


def print_pairs(rows: Iterable[tuple[str, str]], styles: dict[str, str] | None = None) -> None:
    """Print label and value per row, long values wrapped inside their column.

    `styles` gives a rich style to labels; markup in the texts themselves is shown, not obeyed.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label, style=(styles or {}).get(label, "cyan")), Text(value))
    Console(highlight=False).print(table)
