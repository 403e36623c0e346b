"""Pictures with matplotlib, an extra that is imported when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs import files

KINDS = (".png", ".svg", ".pdf")


def figure(path: Path, **options: Any) -> Any:
    """An empty matplotlib ``Figure`` for ``path``; worth calling before long work that ends in a picture.

    Raises:
        MdmError: matplotlib is missing, or ``path`` is no picture.
    """
    if path.suffix.lower() not in KINDS:
        raise MdmError(f"{path}: a picture is one of {', '.join(KINDS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MdmError("a picture needs matplotlib: pip install matplotlib") from error
    return Figure(layout="constrained", **options)


def save(drawn: Any, path: Path, dpi: int = 150) -> None:
    """Write a figure, whole or not at all."""
    with files.atomic_file(path) as part:
        drawn.savefig(part, format=path.suffix[1:].lower(), dpi=dpi)
