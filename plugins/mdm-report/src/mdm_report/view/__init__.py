"""The traces of runs as one HTML page that needs nothing else, or as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Any

from mdm.runs import files

SCRIPTS = ("boards", "text", "share", "trace")
"""``trace`` is the last: it starts the page."""


def page(data: Mapping[str, Any]) -> str:
    """What ``mdm_report.view.data.load`` returns, as one HTML file that fetches nothing."""
    here = resources.files(__name__)
    # Inside a script element only "<" could end the data early.
    embedded = files.to_json(data, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "title": escape(data["title"]),
        "style": here.joinpath("trace.css").read_text(encoding="utf-8"),
        **{name: here.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS},
        "data": embedded,
    }
    head, *rest = here.joinpath("trace.html").read_text(encoding="utf-8").split("{{")
    out = [head]
    for piece in rest:  # one pass, so that nothing inside a part is replaced again
        name, _, tail = piece.partition("}}")
        out += [parts[name], tail]
    return "".join(out)
