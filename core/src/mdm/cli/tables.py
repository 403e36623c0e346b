"""Tables on stdout, as wide as the terminal; lines are not wrapped where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mdm.errors import printable


def show(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table. The columns named in ``right`` are right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 1000, highlight=False).print(table)
