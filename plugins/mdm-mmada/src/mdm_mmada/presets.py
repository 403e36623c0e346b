"""MMaDA's published settings for pictures. Imports no torch."""

from __future__ import annotations

from mdm.protocols import Preset, TaskPreset

README = "Gen-Verse/MMaDA@3cdb870, README and t2i_generate (arXiv:2505.15809)"
PACE = {"steps": 15}

T2I = Preset(
    "Text to image as MMaDA's README runs it: MaskGIT over 15 steps, codes drawn at temperature 1. Its evaluation "
    "scripts' own settings are not published, so no figure stands beside it.",
    settings={
        "sampler": "maskgit", "temperature": 1.0, "guidance": 3.5, "schedule": "maskgit", "cache": "none",
        "options": {"maskgit": {"rank_temperature": 1.0, "anneal": "published"}}, **PACE,
    },
    tasks={"geneval": TaskPreset(PACE, source=README), "prompts": TaskPreset(PACE, source=README)},
    families=("mmada",),
    source=README,
)  # fmt: skip
