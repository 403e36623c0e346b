"""The published recipe of Stable-DiffCoder-8B-Instruct. Imports no torch."""

from __future__ import annotations

from mdm.protocols import Preset, TaskPreset

CARD = "ByteDance-Seed/Stable-DiffCoder@201bfd6, README (arXiv:2601.15892)"

INSTRUCT = Preset(
    "Stable-DiffCoder-8B-Instruct as its card decodes: greedy, blocks of four tokens on the grid, a token a step. The "
    "card gives no figures as text, and the report does not say with what lengths its own were measured.",
    settings={
        "sampler": "confidence", "temperature": 0.0, "block_length": 4, "tokens_per_step": 1, "stop_at_eos": True,
        "cache": "block",
    },
    tasks={
        "humaneval": TaskPreset({"gen_length": 512}, source=f"{CARD}: steps 512, gen_length 512"),
        "mbpp": TaskPreset({"gen_length": 512}, source=f"{CARD}: steps 512, gen_length 512"),
    },
    families=("diffcoder",),
    source=CARD,
)  # fmt: skip
