"""The published recipes of SDAR's chat models, which are one; their figures are not. Imports no torch."""

from __future__ import annotations

from mdm.protocols import Preset, TaskPreset

README = "JetAstra/SDAR@036303e, README (arXiv:2510.06303)"
DARE = "DARE@83ae8a3, OpenCompass: an independent reproduction with SDAR-8B, under settings of its own"

TABLE = "JetAstra/SDAR, README while its table was text (before 036303e): OpenCompass, no shots"

GREEDY = {"sampler": "sdar-static", "temperature": 0.0, "block_length": 4, "tokens_per_step": 1, "cache": "block"}

CHAT = Preset(
    "SDAR-Chat: greedy, blocks of four tokens, four steps a block. The authors' figures are in a picture, without the "
    "length of the generation.",
    settings=GREEDY,
    tasks={
        "gsm8k": TaskPreset(options={"shots": 0}, figure=91.4, metric="accuracy", source=DARE),
        "math500": TaskPreset(options={"shots": 0}, figure=78.4, metric="accuracy", source=f"{DARE}, on MATH"),
    },
    families=("sdar",),
    source=README,
)  # fmt: skip

CHAT_30B_A3B = Preset(
    "SDAR-30B-A3B-Chat: greedy, blocks of four tokens, four steps a block. The generation's length is not published.",
    settings=GREEDY,
    tasks={
        "gsm8k": TaskPreset(options={"shots": 0}, figure=91.36, metric="accuracy", source=TABLE),
        "math500": TaskPreset(options={"shots": 0}, figure=77.8, metric="accuracy", source=TABLE),
        "humaneval": TaskPreset(figure=87.2, metric="passed", source=TABLE),
        "mbpp": TaskPreset(figure=71.6, metric="passed", source=f"{TABLE}, on the sanitized half"),
    },
    families=("sdar",),
    source=README,
)
