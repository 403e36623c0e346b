"""Tables on stdout, as wide as the terminal; nothing is left out or wrapped where there is no terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import click
from mdm.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

UNBOUNDED = 10_000
"""Columns of what is no terminal."""
PROSE = 40
"""Columns that a text has at least before it is wrapped into fewer."""


def share(value: float | None, is_share: bool = True, sign: str = "") -> str:
    """A mean as a table has it: in percent where it is a share, of 0 to 1; nothing where it is unknown."""
    return "" if value is None else f"{value:{sign}.1%}" if is_share else f"{value:{sign}.4g}"


def interval(ends: Sequence[float] | None, is_share: bool = True, sign: str = "") -> str:
    """An interval of a mean."""
    return " to ".join(share(end, is_share, sign) for end in ends or ())


def show(
    headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), *,
    spare: Iterable[str] = (), prose: Sequence[str] = (), width: int | None = None,
) -> None:  # fmt: skip
    """Print a table. Where it is too wide, without columns that it can spare; else one record a block.

    Args:
        right: the columns that are right-aligned.
        spare: the columns that can be left out, in this order; a line below says which are.
        prose: the columns whose text may be wrapped between words.
        width: columns of the terminal; by default those of the one that stdout is, if it is one.
    """
    from rich.console import Console
    from rich.text import Text

    if width is None:
        width = max(20, shutil.get_terminal_size().columns) if sys.stdout.isatty() else UNBOUNDED
    records = [dict(zip(headers, map(printable, row), strict=True)) for row in rows]
    missing: list[str] = []

    def is_too_wide() -> bool:
        return _width([name for name in headers if name not in missing], records, prose) > width

    for name in (name for name in spare if name in headers and is_too_wide()):
        missing.append(name)
    too_wide = is_too_wide()
    for name in reversed(missing):  # a narrow one may fit where a wide one did not
        missing.remove(name)
        if is_too_wide():
            missing.append(name)
    console = Console(width=width, highlight=False)
    with console.capture() as written:
        if not too_wide:
            console.print(_table([name for name in headers if name not in missing], records, right, prose))
            if missing:
                left_out = ", ".join(name for name in headers if name in missing)
                console.print(f"no room for: {left_out}", style="dim", markup=False)
        for record in records if too_wide else ():
            cells = [Text(f"{name}: {cell}", overflow="fold") for name, cell in record.items() if cell]
            console.print(*cells, "", sep="\n")
    # click's way to write: rich ends the process where nobody reads on, and fills lines with blanks.
    for line in written.get().splitlines():
        click.echo(line.rstrip())


def _width(columns: Sequence[str], records: Sequence[dict[str, str]], prose: Sequence[str]) -> int:
    """The columns of the terminal that a table needs: of each of its own what is widest there, and two between them."""
    from rich.cells import cell_len

    def needed(name: str) -> int:
        widest = max(map(cell_len, [name, *(record[name] for record in records)]))
        return min(widest, PROSE) if name in prose else widest

    return sum(map(needed, columns)) + 2 * len(columns)


def _table(
    columns: Sequence[str], records: Sequence[dict[str, str]], right: Sequence[str], prose: Sequence[str]
) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(Text(name), justify=justify, no_wrap=name not in prose, overflow="fold")
    for record in records:
        table.add_row(*(Text(record[name]) for name in columns))
    return table
