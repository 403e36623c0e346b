"""The traces of runs as one HTML page that needs nothing else, or as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from math import isfinite
from typing import Any


def page(data: Mapping[str, Any]) -> str:
    """What ``mdm_report.view.data.load`` returns, as one HTML file that fetches nothing."""
    here = files(__name__)
    embedded = json.dumps(_finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    embedded = embedded.replace("<", "\\u003c")  # inside a script element only "<" could end the data early
    parts = {
        "title": escape(data["title"]),
        "style": here.joinpath("trace.css").read_text(encoding="utf-8"),
        "script": here.joinpath("trace.js").read_text(encoding="utf-8"),
        "data": embedded,
    }
    head, *rest = here.joinpath("trace.html").read_text(encoding="utf-8").split("{{")
    out = [head]
    for piece in rest:  # one pass, so that nothing inside a part is replaced again
        name, _, tail = piece.partition("}}")
        out += [parts[name], tail]
    return "".join(out)


def _finite(value: Any) -> Any:
    """``value`` with None for the numbers that are not finite: JSON has none, and browsers refuse NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
