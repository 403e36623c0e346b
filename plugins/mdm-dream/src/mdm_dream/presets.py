"""The published recipes of Dream-v0 Base and Instruct. Imports no torch.

They are those of the evaluation scripts in DreamLM/Dream at fac0a7f (arXiv:2508.15487): one block, one token a step.
Logits are divided by the temperature and cut to top-p; the tokens and the entropies that rank them are of what is left.
"""

from __future__ import annotations

from typing import Any

from mdm.protocols import Preset, TaskPreset

SCRIPTS = "DreamLM/Dream@fac0a7f, evaluation scripts (arXiv:2508.15487): lm-evaluation-harness"
ORDER = {"sampler": "entropy", "score_after": "tempered", "schedule": "dream", "block_length": 4096, "cache": "none"}
"""Dream knows no blocks: a block holds whatever is generated."""


def length(gen_length: int, **more: Any) -> dict[str, Any]:
    """One token a step, in one block."""
    return {"gen_length": gen_length, "steps": gen_length, "block_length": gen_length, **more}


BASE = Preset(
    "Dream-v0-Base-7B as its authors evaluate it, on plain text. The published shots are the harness's own (8 for "
    "GSM8K, 4 for MATH, 3 for MBPP) and ours are others; the published HumanEval also post-processes what was written.",
    settings={**ORDER, "temperature": 0.0, "top_p": 0.95, "prompt_style": "compact"},
    tasks={
        "gsm8k": TaskPreset(length(256), source=f"{SCRIPTS}, gsm8k_cot"),
        "math500": TaskPreset(length(512), source=f"{SCRIPTS}, minerva_math"),
        "humaneval": TaskPreset(length(512, temperature=0.2), source=f"{SCRIPTS}, humaneval with escape_until"),
        "mbpp": TaskPreset(length(512, temperature=0.2), source=f"{SCRIPTS}, mbpp"),
    },
    families=("dream",),
    source=SCRIPTS,
)

INSTRUCT = Preset(
    "Dream-v0-Instruct-7B as its authors evaluate it. At temperature 0.1 and top-p 0.9 most entropies are exactly 0, "
    "and ties fall to the leftmost position: it decodes nearly from left to right.",
    settings={**ORDER, "temperature": 0.1, "top_p": 0.9},
    tasks={
        "gsm8k": TaskPreset(length(256), {"shots": 0}, 81.8, "accuracy", f"{SCRIPTS}, gsm8k_cot without shots"),
        "math500": TaskPreset(length(512), {"shots": 0}, source=f"{SCRIPTS}, minerva_math"),
        "humaneval": TaskPreset(length(768), source=f"{SCRIPTS}, humaneval_instruct"),
        "mbpp": TaskPreset(length(1024), source=f"{SCRIPTS}, mbpp_instruct"),
    },
    families=("dream",),
    source=SCRIPTS,
)
