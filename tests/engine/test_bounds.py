"""Sizes have bounds that follow from memory and canvas, said at once; arguments of wrong types are named."""

from __future__ import annotations

import mdm
import pytest
from mdm.engine import memory
from mdm.runs.config import RunConfig, build
from mdm_testing.toy import MASK, toy_model

HUGE = 10**12

REFUSED = [
    ({"gen_length": HUGE}, "gen_length or prompt too long"),
    ({"gen_length": HUGE, "allowed_tokens": [(0, 9)]}, "gen_length or prompt too long"),
    ({"gen_length": 10**30}, "gen_length=.*64 bits"),
    ({"gen_length": [HUGE]}, "gen_length or prompt too long"),
    ({"steps": HUGE}, "steps 1,000,000,000,000 are too many: 6 tokens take at most 65,536"),
    ({"steps": HUGE, "schedule": "dream"}, "steps 1,000,000,000,000 are too many"),
    ({"steps": HUGE, "schedule": "maskgit"}, "steps 1,000,000,000,000 are too many"),
    ({"steps": 10**19}, "steps=.*64 bits"),
    ({"sampler": "info-gain", "sampler_options": {"candidates": 10**9}}, r"InfoGain\(candidates=1000000000\) takes"),
    ({"sampler": "lookum", "sampler_options": {"candidates": 10**6}}, r"LookUM\(candidates=1000000\) takes"),
    ({"sampler": "beam", "sampler_options": {"beam_size": 10**9}}, r"Beam\(beam_size=1000000000\) takes"),
    ({"sampler": "beam", "sampler_options": {"candidates": "all", "beam_size": 10**9}}, "beam_size=1000000000"),
    ({"sampler": "info-gain", "sampler_options": {"candidates": 10**30}}, "64 bits"),
    ({"sampler": "remdm", "sampler_options": {"loop_steps": 10**9}}, "loop_steps=1000000000: should be less"),
    ({"sampler": "klass", "sampler_options": {"history": 10**30}}, "history=.*64 bits"),
    ({"batch_size": 10**30}, "batch_size=.*64 bits"),
    ({"max_rows": 0}, "max_rows=0"),
    ({"seed": 2**63}, "seed=.*64 bits"),
    ({"suppressed_tokens": [10**9]}, "suppressed_tokens: token id 1000000000"),
    ({"suppressed_tokens": [10**30]}, "suppressed_tokens"),
    ({"allowed_tokens": [(0, 10**12)]}, "allowed_tokens 0:1000000000000"),
    ({"eos_token_id": 10**12}, "eos_token_id: token id"),
    ({"suffix": [10**6]}, "suffix: token id 1000000 is outside"),
    ({"suffix": [-1]}, "suffix: token id -1"),
    ({"suffix": [MASK]}, "suffix: token id 256 is the mask"),
    ({"row_ids": [2**63]}, "64 bits"),
]
"""What is refused, and the words of it."""

HARMLESS = [
    {"block_length": HUGE}, {"block_length": 2**63 - 1}, {"tokens_per_step": 2**63 - 1}, {"batch_size": HUGE},
    {"max_rows": HUGE}, {"top_k": 2**63 - 1, "temperature": 1.0}, {"steps": 65_000},
    {"stop": [f"no such text {i}" for i in range(10**4)]}, {"suppressed_tokens": [3] * 10**4},
    {"sampler": "remdm", "sampler_options": {"unmask_k": 2**62}},
    {"sampler": "klass", "sampler_options": {"history": 2**63 - 1}}, {"seed": -(2**63)},
]  # fmt: skip

WRONG = {
    "suffix": [5, "ab", [1.5], object()],
    "sampler": [5, ["eb"], object(), 1.5],
    "sampler_options": [[1], "x", 5, {5: 1}],
    "cache": [5, object()],
    "cache_options": [4, "x"],
    "logits_processors": [5, [5], print, "abc"],
    "row_ids": [5, ["a"], [0.5], "ab"],
    "on_finish": [5, "f"],
    "on_step": [5, "f"],
    "trace": [5, None, "FULL"],
    "gen_length": [object(), "abc", -1, [4, 4], 1.5],
    "stop": [5, [5], [""]],
    "allowed_tokens": [5, [(5, 3)], ["x"], []],
    "steps": ["x", 0, -1, [4], 1.5],
    "seed": ["x", 1.5],
    "compile": ["x", 5],
    "prompts": [5, "text", {"a": 1}, [object()], [[1.5]], [[-1]], [[10**30]], [["a", 5]]],
    "model": [5, None, "tiny", object()],
}


def said(**how):
    how = {"model": toy_model(), "prompts": ["hi"], "sampler": "confidence", "gen_length": 4} | how
    with pytest.raises(mdm.MdmError) as error:
        mdm.decode(how.pop("model"), how.pop("prompts"), **how)
    assert "\n" not in str(error.value)
    return error


@pytest.mark.attack("numbers: sizes without bound")
@pytest.mark.parametrize(("how", "words"), REFUSED)
def test_sizes_that_cannot_be_are_refused(how, words):
    assert said(**how).match(words)


@pytest.mark.attack("numbers: sizes without bound")
@pytest.mark.parametrize("how", HARMLESS)
def test_sizes_beyond_what_there_is_are_harmless(how):
    [result] = mdm.decode(toy_model(), ["hi"], **{"sampler": "confidence", "gen_length": 4} | how)
    assert MASK not in result.tokens


@pytest.mark.attack("numbers: sizes without bound")
@pytest.mark.parametrize("how", [{"block_length": HUGE}, {"block_length": 2**62}, {"gen_length": HUGE}])
def test_grids_are_bounded(how):
    said(model=toy_model("block-causal"), **how).match("gen_length or prompt too long: a canvas has .* in whole blocks")


@pytest.mark.attack("numbers: sizes without bound")
def test_rows_of_a_batch_are_bounded(monkeypatch):
    monkeypatch.setattr(memory.placement, "free_bytes", lambda device: 10**6)
    said(prompts=["hi"] * 10, gen_length=500, cache="dual").match("batch_size too large: 10 canvases of 502 tokens")
    mdm.decode(toy_model(), ["hi"] * 2, "confidence", gen_length=8, batch_size=1)
    with pytest.raises(mdm.MdmError, match=r"repeats: 10,000 are too many: the 0.0 GB that are free hold 1,953"):
        memory.check_many("repeats", 10_000, 512)


@pytest.mark.attack("numbers: arguments of wrong types")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_arguments_of_wrong_types(name, value):
    said(**{name: value})


LOADING = [
    *[(name, value) for name in ("name", "device", "dtype") for value in (5, None, ["a"])],
    *[(n, 5) for n in ("adapter", "quantization", "attn_implementation", "revision", "adapter_weights", "device_map")],
    *[("offline", "x"), ("merge_adapter", 5), ("image_tokenizer", 5), ("image_size", "a"), ("image_size", -1)],
]


@pytest.mark.attack("numbers: arguments of wrong types")
@pytest.mark.parametrize(("name", "value"), LOADING)
def test_arguments_of_load_model(name, value):
    with pytest.raises(mdm.MdmError, match=name):
        mdm.load_model(**{"name": "tiny"} | {name: value})


@pytest.mark.attack("numbers: options of runs")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2**63), ("limit", 10**30), ("repeats", 10**30), ("batch_size", 10**30), ("tokens_per_step", [10**30]),
        ("guidance", float("nan")), ("temperature", float("inf")), ("eos_penalty", 1e300),
        ("options", {"info-gain": {"threshold": float("nan")}}), ("options", {"info-gain": {"candidates": 10**30}}),
    ],
)  # fmt: skip
def test_runs_take_numbers_to_compute_with(name, value):
    with pytest.raises(mdm.MdmError):
        build(RunConfig, None, {"task": "equations", name: value} if name != "options" else {"task": "equations"},
              [f"{key}={number}".replace("nan", ".nan") for key, number in value["info-gain"].items()]
              if name == "options" else ())  # fmt: skip
