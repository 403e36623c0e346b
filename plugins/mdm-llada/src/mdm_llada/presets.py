"""The published recipes of LLaDA-8B-Base, LLaDA-8B-Instruct, LLaDA-1.5 and LLaDA-MoE-Instruct. Imports no torch.

Figures and settings are of EVAL.md in ML-GSAI/LLaDA at b7e6c35 (the models: arXiv:2502.09992, arXiv:2505.19223). Where
that document sets ``confidence_eos_eot_inf``, the preset says ``eos_rank last``: end tokens are ranked behind all
others, and are not forbidden. Its ``logits_eos_inf`` forbids the one token <|endoftext|>.
"""

from __future__ import annotations

from typing import Any

from mdm.protocols import Preset, TaskPreset

EVAL = "ML-GSAI/LLaDA@b7e6c35, EVAL.md"
HARNESS = f"{EVAL}: lm-evaluation-harness 0.4.8"
COMPASS = f"{EVAL}: OpenCompass"
OF_MATH = " on MATH, of which MATH-500 is a part"
GREEDY = {"sampler": "confidence", "temperature": 0.0, "schedule": "even", "guidance": 0.0, "cache": "none"}
ENDS_LAST = {"eos_rank": "last"}
ENDOFTEXT = 126081
"""<|endoftext|> of LLaDA's vocabulary."""


def lengths(gen_length: int, block_length: int) -> dict[str, Any]:
    """One token a step, block after block."""
    return {"gen_length": gen_length, "steps": gen_length, "block_length": block_length}


def _base(figure: float, metric: str, source: str = HARNESS) -> TaskPreset:
    return TaskPreset(figure=figure, metric=metric, source=source)


BASE = Preset(
    "LLaDA-8B-Base as its authors evaluate it: one block of 1024 tokens, one token a step, on plain text. The "
    "published shots are the harness's own; ours are others.",
    settings={**GREEDY, **lengths(1024, 1024), "prompt_style": "compact"},
    tasks={
        "gsm8k": _base(70.3, "accuracy"),
        "math500": _base(31.4, "accuracy", HARNESS + OF_MATH),
        "humaneval": _base(35.4, "passed"),
        "mbpp": _base(40.0, "passed"),
    },
    families=("llada",),
    source=EVAL,
)

INSTRUCT = Preset(
    "LLaDA-8B-Instruct, semi-autoregressive: short blocks from left to right, one token a step.",
    settings={**GREEDY},
    tasks={
        "gsm8k": TaskPreset(lengths(256, 8), {"shots": 0}, 78.6, "accuracy", COMPASS),
        "math500": TaskPreset(lengths(512, 64), {"shots": 0}, 42.2, "accuracy", COMPASS + OF_MATH),
    },
    families=("llada",),
    source=EVAL,
)

INSTRUCT_DIFFUSION = Preset(
    "LLaDA-8B-Instruct as one block, one token a step. End tokens are ranked last; on HumanEval <|endoftext|> is "
    "forbidden instead.",
    settings={**GREEDY, "block_length": 512, "eos_rank": "last"},
    tasks={
        "gsm8k": TaskPreset(lengths(512, 512), {"shots": 0}, 69.4, "accuracy", COMPASS),
        "math500": TaskPreset(lengths(512, 512), {"shots": 0}, 31.9, "accuracy", COMPASS + OF_MATH),
        "gpqa": TaskPreset(lengths(64, 64), {}, 33.3, "accuracy", COMPASS),
        "humaneval": TaskPreset(
            {**lengths(512, 512), "eos_rank": "as-scored", "suppressed_tokens": [ENDOFTEXT]},
            {}, 49.4, "passed", COMPASS,
        ),
        "mbpp": TaskPreset(lengths(256, 256), {}, 41.0, "passed", COMPASS),
    },
    families=("llada",),
    source=EVAL,
)  # fmt: skip

LLADA_15 = Preset(
    "LLaDA-1.5, semi-autoregressive, end tokens ranked last in all but GPQA.",
    settings={**GREEDY},
    tasks={
        "gsm8k": TaskPreset({**lengths(256, 16), **ENDS_LAST}, {"shots": 0}, 83.8, "accuracy", COMPASS),
        "math500": TaskPreset({**lengths(1024, 128), **ENDS_LAST}, {"shots": 0}, 42.6, "accuracy", COMPASS + OF_MATH),
        "gpqa": TaskPreset(lengths(256, 16), {}, 36.9, "accuracy", COMPASS),
        "humaneval": TaskPreset({**lengths(512, 32), **ENDS_LAST}, {}, 52.4, "passed", COMPASS),
        "mbpp": TaskPreset({**lengths(512, 32), **ENDS_LAST}, {}, 42.8, "passed", COMPASS),
    },
    families=("llada",),
    source=f"{EVAL} (arXiv:2505.19223)",
)

CARD = "inclusionAI/LLaDA-MoE-7B-A1B-Instruct@e14e154, model card (arXiv:2509.24389)"
BESIDE = "the authors' own evaluation, in the model card of inclusionAI/LLaDA2.0-mini-preview@d61c06e"

MOE_INSTRUCT = Preset(
    "LLaDA-MoE-7B-A1B-Instruct, semi-autoregressive: blocks of 32 from left to right, one token a step, as its model "
    "card decodes 128 tokens. The lengths of the authors' evaluation are not published.",
    settings={**GREEDY, "block_length": 32, "tokens_per_step": 1},
    tasks={
        "gsm8k": TaskPreset(figure=82.41, metric="accuracy", source=BESIDE),
        "math500": TaskPreset(figure=58.68, metric="accuracy", source=BESIDE + OF_MATH),
        "gpqa": TaskPreset(figure=31.09, metric="accuracy", source=BESIDE),
        "humaneval": TaskPreset(figure=61.59, metric="passed", source=BESIDE),
        "mbpp": TaskPreset(figure=70.02, metric="passed", source=BESIDE),
    },
    families=("llada",),
    source=CARD,
)
