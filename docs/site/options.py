"""The table of decoding options in docs/reference.md, from the fields of ``Settings``.

    python docs/site/options.py

writes it anew (into another file if one is named); tests/test_docs.py fails where it is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mdm.protocols.settings import DIFFUSION_ONLY, Settings, default_text, noted
from pydantic.fields import FieldInfo

PAGE = Path(__file__).parents[1] / "reference.md"
BEGIN, END = "<!-- options: begin (python docs/site/options.py) -->\n", "<!-- options: end -->"
HEAD = "| option | default | may differ between rows | what it does |\n|---|---|---|---|\n"
NOT_AUTOREGRESSIVE = " Not for autoregressive models."


def table() -> str:
    lines = []
    for name, field in Settings.model_fields.items():
        text = (field.description or "") + (NOT_AUTOREGRESSIVE if name in DIFFUSION_ONLY else "")
        scope = "yes" if noted(field)["scope"] == "row" else "no"
        lines.append(f"| `{name}` | {default_of(field)} | {scope} | {text} |\n")
    return HEAD + "".join(lines)


def default_of(field: FieldInfo) -> str:
    """A field's default as a table shows it."""
    switch = "on" if field.default is True else "off" if field.default is False else "none"
    return default_text(field) or switch


def page() -> str:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    Path(*sys.argv[1:2] or [PAGE]).write_text(page(), encoding="utf-8")
