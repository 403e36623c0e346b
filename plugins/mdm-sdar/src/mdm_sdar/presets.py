"""The published recipe of SDAR's chat models. Imports no torch."""

from __future__ import annotations

from mdm.protocols import Preset, TaskPreset

README = "JetAstra/SDAR@036303e, README (arXiv:2510.06303)"
DARE = "DARE@83ae8a3, OpenCompass: an independent reproduction with SDAR-8B, under settings of its own"

CHAT = Preset(
    "SDAR-Chat: greedy, blocks of four tokens, four steps a block. The authors' figures are in a picture, without the "
    "length of the generation.",
    settings={
        "sampler": "sdar-static", "temperature": 0.0, "block_length": 4, "tokens_per_step": 1, "cache": "block",
    },
    tasks={
        "gsm8k": TaskPreset(options={"shots": 0}, figure=91.4, metric="accuracy", source=DARE),
        "math500": TaskPreset(options={"shots": 0}, figure=78.4, metric="accuracy", source=f"{DARE}, on MATH"),
    },
    families=("sdar",),
    source=README,
)  # fmt: skip
