"""Presets on tiny weights: each decodes in the published order of operations, written here from the formulas.

The loops below are plain and slow: one canvas, no cache, all logits of each step. Lengths are cut to what is tested.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import mdm
import pytest
import tiny_families
import torch
from click.testing import CliRunner
from goldens import committed
from mdm import registry
from mdm.cli import cli
from mdm.errors import MdmError
from mdm.models import Model
from mdm.protocols import Draws
from mdm.protocols.draws import token_gumbel
from mdm.runs import config as configs, run as runs
from mdm.runs.config import RunConfig
from mdm.runs.decode_args import decode_settings
from mdm.runs.watch import RunObserver

PROMPT = [5, 6, 7, 8]
LENGTH = 16
ENDS = tuple(range(0, 250, 3))
"""End tokens enough that a random model chooses some."""


def needs(kind, *names):
    for name in names:
        if name not in registry.names(kind):
            pytest.skip(f"the {kind} {name} is not installed")


@pytest.fixture(scope="module")
def tiny():
    """A tiny random model of a family, whose end tokens are ``ENDS``."""
    models = {}

    def get(family):
        needs("model", family)
        if family not in models:
            folder = tiny_families.save(tiny_families.SCRATCH / f"presets-{family}", family)
            model = mdm.load_model(folder, device="cpu", dtype="float32")
            models[family] = Model(replace(model.spec, eos_ids=ENDS), model.body, model.lm_head)
        return models[family]

    return get


def decode(model, preset, task, **flags):
    """What a run of the preset decodes, as steps of (positions, tokens)."""
    needs("preset", preset)
    needs("task", task)
    built = configs.build(RunConfig, None, {"preset": preset, "task": task, **flags})
    needs("sampler", *built.sampler)
    settings = decode_settings(built, model, built.sampler[0])
    [result] = mdm.decode(model, [PROMPT], gen_length=built.gen_length or LENGTH, **settings)
    return committed(result.trace)


@torch.no_grad()
def logits_of(model, canvas, block=None):
    """Logits ``[L, V]`` that predict each position of a canvas; with ``block``, of a block-causal forward."""
    at = torch.arange(len(canvas))
    mask = None
    if block:
        mask = torch.where(at[:, None] // block >= at // block, 0.0, -torch.inf)[None, None]
    logits = model.head(model.hidden(torch.tensor([canvas]), at[None], mask=mask))[0].double()
    return (torch.cat([logits[:1], logits[:-1]]) if model.spec.shift else logits).clone()


def llada(model, length, block_length, *, ends_last=False, forbidden=()):
    """LLaDA's loop at temperature 0 and a token a step: the token of an argmax, the position of most confidence."""
    canvas, steps = [*PROMPT, *[model.spec.mask_id] * length], []
    for start in range(len(PROMPT), len(canvas), block_length):
        for _ in range(block_length):
            logits = logits_of(model, canvas)
            logits[:, list(forbidden)] = -torch.inf
            chosen = logits.index_fill(1, torch.tensor(model.spec.mask_id), -torch.inf).argmax(-1)
            if ends_last:
                logits[:, list(ENDS)] = -torch.inf  # after the choice, before the confidence
            confidence = logits.softmax(-1).gather(1, chosen[:, None])[:, 0]
            open_ = [p for p in range(start, start + block_length) if canvas[p] == model.spec.mask_id]
            at = max(open_, key=lambda p: (float(confidence[p]), -p))
            canvas[at] = int(chosen[at])
            steps.append(([at], [canvas[at]]))
    return steps


def dream(model, length, temperature, top_p):
    """Dream's loop: of softmax(top-p(logits / T)) both the token and the entropy that ranks its position."""
    spec, canvas, steps = model.spec, [*PROMPT, *[model.spec.mask_id] * length], []
    times = torch.linspace(1, 1e-3, length + 1, dtype=torch.float64).tolist()
    for step, (now, then) in enumerate(pairwise(times)):
        open_ = torch.tensor([p for p, token in enumerate(canvas) if token == spec.mask_id])
        count = len(open_) if step == length - 1 else int(len(open_) * (1 - then / now))
        logits = logits_of(model, canvas)[open_] / (temperature or 1.0)
        ordered, order = logits.sort(descending=True, dim=-1)
        before = ordered.softmax(-1).cumsum(-1).roll(1, -1).index_fill(-1, torch.tensor(0), 0.0)
        cut = ordered.masked_fill(before > top_p, -torch.inf).gather(-1, order.argsort(-1))
        p = cut.softmax(-1)
        entropy = -(p * p.log().nan_to_num(neginf=0.0)).sum(-1)
        cut[:, spec.mask_id] = -torch.inf
        if temperature:
            draws = Draws(0, torch.zeros_like(open_), torch.full_like(open_, step))
            cut = cut + token_gumbel(draws.token_keys(open_[:, None]), torch.arange(spec.vocab_size))
        best = sorted(range(len(open_)), key=lambda i: (round(float(entropy[i]), 6), i))[:count]
        chosen = sorted((int(open_[i]), int(cut[i].argmax())) for i in best)
        for at, token in chosen:
            canvas[at] = token
        if chosen:
            steps.append(([at for at, _ in chosen], [token for _, token in chosen]))
    return steps


def sdar(model, length, block):
    """SDAR's static loop: block after block on a grid, each seeing itself and what lies before, a token a step."""
    canvas, steps = [*PROMPT, *[model.spec.mask_id] * length], []
    for start in range(len(PROMPT) // block * block, len(canvas), block):
        while model.spec.mask_id in canvas[start : start + block]:
            logits = logits_of(model, canvas[: start + block], block)
            chosen = logits.index_fill(1, torch.tensor(model.spec.mask_id), -torch.inf).argmax(-1)
            confidence = logits.softmax(-1).gather(1, chosen[:, None])[:, 0]
            open_ = [p for p in range(start, start + block) if canvas[p] == model.spec.mask_id]
            at = max(open_, key=lambda p: (float(confidence[p]), -p))
            canvas[at] = int(chosen[at])
            steps.append(([at], [canvas[at]]))
    return steps


SHORT = {"gen_length": LENGTH, "steps": LENGTH}
ONE_BLOCK = {**SHORT, "block_length": LENGTH}


@pytest.mark.parametrize(
    ("preset", "task", "flags", "published"),
    [
        ("llada-base", "gsm8k", ONE_BLOCK, {"block_length": LENGTH}),
        ("llada-instruct", "gsm8k", SHORT, {"block_length": 8}),
        ("llada-instruct", "math500", SHORT, {"block_length": LENGTH}),
        ("llada-instruct-diffusion", "gsm8k", ONE_BLOCK, {"block_length": LENGTH, "ends_last": True}),
        ("llada-instruct-diffusion", "sudoku", SHORT, {"block_length": LENGTH, "ends_last": True}),
        ("llada-1.5", "gsm8k", SHORT, {"block_length": 16, "ends_last": True}),
        ("llada-1.5", "gpqa", SHORT, {"block_length": 16}),
        (
            "llada-instruct-diffusion", "humaneval", {**ONE_BLOCK, "suppressed_tokens": [9, 11]},
            {"block_length": LENGTH, "forbidden": (9, 11)},
        ),
    ],
)  # fmt: skip
def test_lladas_order(tiny, preset, task, flags, published):
    model = tiny("llada")
    expected = llada(model, flags["gen_length"], **published)
    assert decode(model, preset, task, **flags) == expected
    if published.get("ends_last"):
        assert {token for _, [token] in expected} & set(ENDS), "no end token was chosen: the rule was not seen"
        assert expected != llada(model, flags["gen_length"], published["block_length"])


@pytest.mark.parametrize(
    ("preset", "task", "temperature", "top_p"),
    [
        ("dream-instruct", "gsm8k", 0.1, 0.9), ("dream-instruct", "sudoku", 0.1, 0.9),
        ("dream-base", "gsm8k", 0.0, 0.95), ("dream-base", "mbpp", 0.2, 0.95),
    ],
)  # fmt: skip
def test_dreams_order(tiny, preset, task, temperature, top_p):
    model = tiny("dream")
    assert decode(model, preset, task, **ONE_BLOCK) == dream(model, LENGTH, temperature, top_p)


def test_sdars_order(tiny):
    assert decode(tiny("sdar"), "sdar-chat", "gsm8k", gen_length=LENGTH) == sdar(tiny("sdar"), LENGTH, 4)


def test_stable_diffcoders_order(tiny):
    flags = {"gen_length": LENGTH, "stop_at_eos": False}
    assert decode(tiny("diffcoder"), "diffcoder-instruct", "humaneval", **flags) == sdar(tiny("diffcoder"), LENGTH, 4)


@pytest.mark.parametrize(
    ("preset", "task", "threshold"), [("fastdllm2-7b", None, 0.9), ("fastdllm2-1.5b", "gsm8k", 1.0)]
)
def test_fast_dllm_2s_settings_reach_the_sampler(tiny, preset, task, threshold):
    """The sampler's own tests hold that it keeps to the published rule."""
    needs("preset", preset)
    built = configs.build(RunConfig, None, {"preset": preset, "task": task or "sudoku"})
    needs("sampler", *built.sampler)
    settings = decode_settings(built, tiny("fastdllm2"), "fastdllm-v2")
    assert settings["sampler_options"] == {"threshold": threshold, "sub_block": 8}
    assert (settings["block_length"], settings["cache"], settings["stop_at_eos"]) == (32, "block", True)
    assert built.gen_length == (2048 if task else None)


@pytest.mark.parametrize(
    ("preset", "sampler", "options"),
    [
        ("llada2.0", "sdar-dynamic", {"threshold": 0.95}),
        ("llada2.1-quality", "joint-threshold", {"threshold": 0.7, "edit_threshold": 0.5, "max_post_steps": 16}),
        ("llada2.1-speed", "joint-threshold", {"threshold": 0.5, "edit_threshold": 0.0, "max_post_steps": 16}),
    ],
)
def test_llada2s_settings_reach_the_samplers(tiny, preset, sampler, options):
    """The goldens hold that these keep to the published rules. A step of 2.0 commits one of the block's 32 at least."""
    needs("sampler", sampler)
    steps = decode(tiny("llada2"), preset, "sudoku", gen_length=LENGTH, stop_at_eos=False)
    settings = {"block_length": 32, "cache": "block", "gen_length": LENGTH, "tokens_per_step": 1}
    [plain] = mdm.decode(tiny("llada2"), [PROMPT], sampler, options, **settings)
    assert steps == committed(plain.trace)


def test_info_gains_settings_reach_the_sampler(tiny):
    model, options = tiny("llada"), {"candidates": 8, "position_temperature": 0.2, "threshold": 0.8}
    needs("sampler", "info-gain")
    [plain] = mdm.decode(model, [PROMPT], "info-gain", options, gen_length=LENGTH, steps=8, block_length=LENGTH)
    flags = {"gen_length": LENGTH, "steps": 8, "block_length": LENGTH}
    assert decode(model, "infogain-paper", "math500", **flags) == committed(plain.trace)


ROWS = [{"question": "1+1?", "answer": "2\n#### 2"}, {"question": "2+2?", "answer": "4\n#### 4"}]


@pytest.fixture
def gsm8k(tmp_path):
    needs("task", "gsm8k")
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def checkpoint(folder, family):
    """A tiny checkpoint that reads text and has a chat."""
    folder.mkdir()
    added, chat = ["<|endoftext|>", "<|mask|>"], "{{ messages[0]['content'] }}="
    first = tiny_families.save_bpe(folder, added, whole=family == "llada", chat_template=chat)
    ids = {"eos_token_id": first, "pad_token_id": first, "mask_token_id": first + 1}
    return tiny_families.save(folder, family, **ids, vocab_size=320, embedding_size=320)


def mdm_command(*args):
    """A command in this process: its output."""
    done = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


class Notes(RunObserver):
    def __init__(self):
        self.warnings = []

    def on_warning(self, text):
        self.warnings.append(text)


def test_a_run_under_a_preset_shows_all_of_it(tmp_path, gsm8k):
    needs("preset", "dream-instruct")
    folder = checkpoint(tmp_path / "dream", "dream")
    done = mdm_command(
        "run", "--preset", "dream-instruct", "--task", "gsm8k", "--limit", "2", "--data", str(gsm8k),
        "--model", str(folder), "--out", str(tmp_path / "run"), "--gen-length", "16", "--steps", "16",
    )  # fmt: skip
    assert "preset dream-instruct: 81.8 accuracy for gsm8k (DreamLM/Dream@fac0a7f" in done.stdout
    written = configs.parse(RunConfig, tmp_path / "run" / "config.yaml")
    assert (written.preset, written.sampler, written.temperature, written.top_p, written.score_after) == (
        "dream-instruct", ["entropy"], 0.1, 0.9, "tempered",
    )  # fmt: skip
    assert (written.gen_length, written.steps, written.block_length, written.schedule) == (16, 16, 256, "dream")
    assert written.options["gsm8k"]["shots"] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["runs"][0]["preset"], summary["runs"][0]["published"]) == ("dream-instruct", 81.8)
    assert (summary["runs"][0]["family"], summary["runs"][0]["device"], summary["runs"][0]["dtype"]) == (
        "dream",
        "cpu",
        "float32",
    )
    assert (summary["runs"][0]["prompt_style"], summary["runs"][0]["cache"], summary["runs"][0]["cuda"]) == (
        "chat",
        "none",
        None,
    )
    assert (
        summary["runs"][0]["task_options"]["shots"] == 0 and summary["runs"][0]["eos_rule"]["eos_rank"] == "as-scored"
    )
    assert {"mdm-core", "torch", "transformers"} <= summary["runs"][0]["versions"].keys()
    assert summary["runs"][0]["steps_per_block"]["counts"] == {"16": 2} and summary["runs"][0][
        "tokens_per_forward"
    ] == pytest.approx(1.0)
    assert summary["runs"][0]["tokens_per_forward_until_eos"] <= 1.0


def test_a_preset_of_another_family_warns_in_a_line(tmp_path, gsm8k):
    needs("preset", "dream-instruct")
    folder = checkpoint(tmp_path / "llada", "llada")
    flags = {"preset": "dream-instruct", "task": "gsm8k", "model": str(folder), "data": gsm8k, "limit": 1}
    built = configs.build(RunConfig, None, {**flags, "gen_length": 4, "steps": 4})
    runs.run(built, tmp_path / "run", notes := Notes())
    [line] = notes.warnings
    assert line == f"preset dream-instruct is meant for dream models, and {folder} is of the family llada"


def test_a_preset_of_diffusion_is_refused_for_an_autoregressive_model(tmp_path, gsm8k):
    needs("preset", "dream-instruct")
    needs("model", "ar")
    folder = tiny_families.save_causal(tmp_path / "ar")
    flags = {"preset": "dream-instruct", "task": "gsm8k", "model": str(folder), "data": gsm8k, "limit": 1}
    with pytest.raises(MdmError, match=r"autoregressive models take no sampler.*\(preset 'dream-instruct' is for oth"):
        runs.run(configs.build(RunConfig, None, flags), tmp_path / "run")


def test_generate_begins_from_a_preset():
    needs("preset", "infogain-paper", "dream-instruct")
    needs("checkpoint", "tiny")
    done = mdm_command("generate", "12+30=", "--preset", "dream-instruct", "--gen-length", "4", "--json")
    assert done.stderr.count("\n") == 1 and "is meant for dream models, and tiny is of the family llada" in done.stderr
    plain = mdm_command("generate", "12+30=", "--gen-length", "4", "--json")
    assert json.loads(done.stdout)["trace"] != json.loads(plain.stdout)["trace"]


def test_an_infill_has_the_length_of_its_text():
    needs("preset", "llada-base")
    done = mdm_command("generate", "12+[MASK]0=42", "--infill", "--preset", "llada-base", "--json")
    assert len(json.loads(done.stdout)["sequence"]) == len("12+30=42")
