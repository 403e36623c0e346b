"""The tables of keys in docs/configuration.md, from the fields of ``RunConfig``.

    python docs/site/keys.py

writes them anew (into another file if one is named); tests/test_front_page.py fails where they are stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mdm.runs.config import RECORDED, DecodeConfig, LoadingConfig, PolicyConfig, PromptConfig, RunConfig
from options import default_of
from pydantic import BaseModel

PAGE = Path(__file__).parents[1] / "configuration.md"
BEGIN, END = "<!-- keys: begin (python docs/site/keys.py) -->\n", "<!-- keys: end -->"
HEAD = "| key | default | what it is |\n|---|---|---|\n"
SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "What is run": (PolicyConfig, RunConfig),
    "How it is decoded": (DecodeConfig, PromptConfig),
    "How models are loaded": (LoadingConfig,),
}
"""The models whose own fields a table has."""
FURTHER = {"How it is decoded": "All [decoding options](reference.md#options), and these:\n\n"}


def table(names: list[str]) -> str:
    fields = {name: RunConfig.model_fields[name] for name in names}
    return HEAD + "".join(
        f"| `{name}` | {default_of(field)} | {field.description} |\n" for name, field in fields.items()
    )


def page() -> str:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = [
        f"### {title}\n\n{FURTHER.get(title, '')}"
        + table([name for model in models for name in model.__annotations__ if name not in RECORDED])
        for title, models in SECTIONS.items()
    ]
    recorded = ", ".join(f"`{name}`" for name in RECORDED if name != "options")
    tables.append(f"### What a run records\n\n{recorded}: written when a run begins, and read when it goes on.\n")
    return f"{before}{BEGIN}\n" + "\n".join(tables) + f"\n{END}{after}"


if __name__ == "__main__":
    Path(*sys.argv[1:2] or [PAGE]).write_text(page(), encoding="utf-8")
