"""Writes docs/samplers.md from the samplers' own docstrings and options: ``python docs/samplers.py``."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

from mdm import registry
from mdm.cli.plugins import options_table

PAGE = Path(__file__).with_suffix(".md")
OURS = [
    "mdm-greedy", "mdm-infogain", "mdm-beam", "mdm-pc", "mdm-eb", "mdm-fastdllm", "mdm-remdm", "mdm-jointthreshold",
    "mdm-klass", "mdm-wino", "mdm-core-revise", "mdm-saber", "mdm-p2", "mdm-credit", "mdm-soar", "mdm-prophet",
    "mdm-freedave", "mdm-slowfast", "mdm-dcd", "mdm-localleap", "mdm-dus", "mdm-particles",
]  # fmt: skip


def page() -> str:
    """The page's text."""
    parts = [
        "<!-- Written by `python docs/samplers.py` from the packages; do not edit. -->\n\n# Samplers\n\n"
        "Options are given as `-o name=value`, or `-o sampler.name=value` where several samplers run."
    ]
    entries = registry.entries("sampler")
    for package in OURS:
        found = [entry for entry in entries if entry.dist == package]
        module = import_module(found[0].value.split(":")[0].split(".")[0])
        parts.append(f"## {package}\n\n{inspect.getdoc(module)}")
        for entry in found:
            plugin = registry.load(entry)
            parts.append(f"### `{entry.name}`\n\n{inspect.getdoc(plugin)}")
            options = options_table(plugin.Options)
            if options:
                rows = [
                    "| `{name}` | {type} | {default} | {description} |".format(
                        **option | {"type": option["type"].replace("|", "or")}
                    )
                    for option in options
                ]
                parts.append("\n".join(["| option | type | default | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
