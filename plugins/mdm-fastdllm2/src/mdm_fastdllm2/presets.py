"""The published recipes of Fast-dLLM v2, 7B and 1.5B. Imports no torch.

The card decodes at a threshold of 0.9. The figures are the README's. The evaluation script gives the settings of GSM8K
and MATH (a threshold of 1, which commits a token a step; no shots) and of GPQA, each with up to 2048 new tokens; it and
``eval.py`` were read in the forks shuyingte/DCD@a4376ef and Teddygat0r/Fast-dLLM@17f2351. Their questions of GSM8K and
MATH end by asking for reasoning and a boxed answer; ours are the tasks' own.
"""

from __future__ import annotations

from typing import Any

from mdm.protocols import Preset, TaskPreset

CARD = "the card of Efficient-Large-Model/Fast_dLLM_v2_7B (arXiv:2509.26328)"
README = "NVlabs/Fast-dLLM, v2/README.md (arXiv:2509.26328)"
SCRIPT = f"{README}; settings of v2/eval_script.sh: lm-evaluation-harness"


def _options(threshold: float) -> dict[str, Any]:
    return {"options": {"fastdllm-v2": {"threshold": threshold, "sub_block": 8}}}


SETTINGS = {
    "sampler": "fastdllm-v2", "temperature": 0.0, "gen_length": 512, "block_length": 32, "cache": "block",
    "stop_at_eos": True, **_options(0.9),
}  # fmt: skip
ONE_BY_ONE = {"gen_length": 2048, **_options(1.0)}


def _preset(size: str, gsm8k: float, math: float, humaneval: float, mbpp: float, gpqa: float) -> Preset:
    return Preset(
        f"Fast-dLLM v2 {size} as its card decodes: greedy, blocks of 32 tokens in sub-blocks of 8, all tokens above "
        "0.9 at once. The figures of GSM8K and MATH are at a threshold of 1.",
        settings=SETTINGS,
        tasks={
            "gsm8k": TaskPreset(ONE_BY_ONE, {"shots": 0}, gsm8k, "accuracy", SCRIPT),
            "math500": TaskPreset(
                ONE_BY_ONE, {"shots": 0}, math, "accuracy", f"{SCRIPT} on MATH, of which MATH-500 is a part"
            ),
            "humaneval": TaskPreset({}, {}, humaneval, "passed", f"{README}, HumanEval-Base; settings not published"),
            "mbpp": TaskPreset({}, {}, mbpp, "passed", f"{README}, MBPP-Base; settings not published"),
            "gpqa": TaskPreset(
                {"gen_length": 2048}, {"subset": "main"}, gpqa, "accuracy", f"{SCRIPT}, gpqa_main_n_shot"
            ),
        },
        families=("fastdllm2",),
        source=CARD,
    )


CHAT_7B = _preset("7B", 83.7, 61.6, 63.4, 63.0, 31.9)
CHAT_1_5B = _preset("1.5B", 62.0, 38.1, 43.9, 50.0, 27.7)
