"""Tables on stdout, as wide as the terminal; lines are not wrapped where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mdm.errors import printable


def share(value: float | None, is_share: bool = True, sign: str = "") -> str:
    """A mean as a table has it: in percent where it is a share, of 0 to 1; nothing where it is unknown."""
    return "" if value is None else f"{value:{sign}.1%}" if is_share else f"{value:{sign}.4g}"


def interval(ends: Sequence[float] | None, is_share: bool = True, sign: str = "") -> str:
    """An interval of a mean."""
    return " to ".join(share(end, is_share, sign) for end in ends or ())


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
