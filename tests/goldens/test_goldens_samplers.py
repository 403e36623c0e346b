"""Each published sampler against the published code on the same tiny weights.

``WHY_NOT`` names the cases that a fault of the published code decides (numbers: the quirks in the goldens' README).
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import mdm
import pytest
import torch
from goldens import ABSENT, cases, committed, facts, folder, steps, tensors
from mdm.protocols import Draws, Lookahead, LookaheadOptions, Scores
from mdm.scoring.statistics import statistics


def load(family: str) -> Any:
    if not folder(family).is_dir():
        pytest.skip(ABSENT)
    return mdm.load_model(folder(family) / "checkpoint", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def llada():
    return load("llada")


@pytest.fixture(scope="module")
def sdar():
    return load("sdar")


@pytest.fixture(scope="module")
def dream():
    return load("dream")


def one(case: dict[str, Any]) -> list[int]:
    """The prompt of a case of one prompt."""
    prompt = case["prompt"]
    return prompt[0] if isinstance(prompt[0], list) else prompt


def binding(found: list[Any], why_not: dict[str, str]) -> list[Any]:
    """The cases, those that do not bind marked as failing for the reason given."""
    marked = []
    for c in found:
        reason = next((why for part, why in why_not.items() if part in c.id), None)
        marks = [*c.marks, pytest.mark.xfail(reason=reason, strict=True)] if reason else c.marks
        marked.append(pytest.param(*c.values, id=c.id, marks=marks))
    return marked


def baseline(case: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Sampler, its options and the decode settings of a case of the Info-Gain repository's baselines."""
    p, name = case["params"], case["name"].removeprefix("igrepo.")
    settings = {k: p[k] for k in ("steps", "gen_length", "block_length") if k in p}
    settings["guidance"] = p.get("cfg_scale", 0.0)
    pc = {k: p[k] for k in ("lambd", "alpha") if k in p}
    pc["baseline"] = str(folder("llada") / "baseline_freq.json")
    for prefix, sampler, options in (
        ("pc_sampler", "pc", pc),
        ("linear_position", "linear-position", pc),
        ("eb", "eb", {"gamma": p.get("gamma")}),
        ("fast_dllm_threshold", "fastdllm-threshold", {"threshold": p.get("threshold")}),
        ("fast_dllm_factor", "fastdllm-factor", {"factor": p.get("factor"), "accept_last": True}),
        ("fast_dllm_fixed", "confidence", {}),
        ("remdm", "remdm", {k: p.get(k) for k in ("init_unmask_ratio", "unmask_k", "loop_steps")}),
    ):
        if name.startswith(prefix):
            return sampler, options, settings
    return name.split("_")[0], {}, settings


BASELINES = binding(
    cases("llada", "traces_igrepo_baselines"),
    {
        "margin_b8": "the published margin leaves the block (quirk 3)",
        "entropy_cfg1.5_b8": "the published entropy leaves the block (quirk 3)",
    },
)


@pytest.mark.parametrize("case", BASELINES)
def test_baseline(llada, case):
    sampler, options, settings = baseline(case)
    [result] = mdm.decode(llada, [one(case)], sampler, options, cache="none", **settings)
    assert committed(result.trace) == steps(case)
    assert result.sequence == case["output"][0]
    assert result.forwards == case["forwards"]
    if not settings["guidance"]:
        assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_fullforward"], abs=1e-4)
    kinds = {"decode": "commit", "remask": "remask"}
    assert [line["kind"] for line in result.trace] == [kinds[s["kind"]] for s in case["steps"]]


FASTDLLM = [c for c in cases("llada", "traces_fastdllm") if c.values[0] is None or "_thr" in c.id or "_factor" in c.id]


@pytest.mark.parametrize("case", FASTDLLM)
def test_fastdllm(llada, case):
    p = case["params"]
    cache = "prefix" if "prefix" in case["name"] else "dual" if "dual" in case["name"] else "none"
    rule = "factor" if "factor" in p else "threshold"
    [result] = mdm.decode(
        llada, [one(case)], f"fastdllm-{rule}", {rule: p[rule]}, cache=cache,
        gen_length=p.get("gen_length") or p["max_new_tokens"], block_length=p.get("block_length") or p["block_size"],
    )  # fmt: skip
    assert committed(result.trace) == steps(case)


SDAR = binding(
    [c for c in cases("sdar", "traces") if "sequential" not in c.id],
    {
        "overwrites": "the published code overwrites known tokens (quirk 18)",
        "P12.bl8.static_3": "the published code overwrites known tokens (quirk 18)",
    },
)


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", SDAR)
def test_sdar(sdar, case, cache):
    p, prompt = case["params"], one(case)
    size = p["block_length"]
    stop = -(-(len(prompt) + p["gen_length"]) // size)
    rule = p["remasking_strategy"].rsplit("_", 1)[1]
    options = {"threshold": p["confidence_threshold"]} if rule == "dynamic" else {}
    [result] = mdm.decode(
        sdar, [prompt], f"sdar-{rule}", options, cache=cache, gen_length=p["gen_length"], block_length=size,
        steps=p["denoising_steps"] * (stop - len(prompt) // size),
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
    assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_blockcausal"], abs=1e-4)


DREAM = cases("dream", "traces_fastdllm", only="nocache")


@pytest.mark.parametrize("case", DREAM)
def test_dream_without_a_cache(dream, case):
    """The published threshold never commits more than m // steps, here 1: it is plain confidence."""
    p = case["params"]
    sampler, schedule = ("entropy", "dream") if p["alg"] == "entropy" else ("confidence", "even")
    [result] = mdm.decode(
        dream, [one(case)], sampler, cache="none", schedule=schedule, steps=p["steps"],
        gen_length=p["max_new_tokens"], block_length=p["max_new_tokens"],
    )  # fmt: skip
    assert committed(result.trace) == steps(case)


class Recorded:
    """Mixed into a sampler: the uniforms that the published code drew, in place of keyed ones."""

    golden: tuple[torch.Tensor, list[int]]

    def drawn(self, scores, confidence, draws, look):
        if look[0]:
            values, lengths = self.golden
            calls = lengths[: confidence.shape[1]]
            uniform = torch.full(confidence.shape, 0.5)
            for n, length in enumerate(calls):
                assert length == scores.valid.sum()
                uniform[0, n, :length] = values[sum(calls[:n]) :][:length]
            self.golden = (values[sum(calls) :], lengths[len(calls) :])
            draws = Given(uniform)
        return super().drawn(scores, confidence, draws, look)


class Given(Draws):
    def __init__(self, uniform: torch.Tensor) -> None:
        object.__setattr__(self, "given", -torch.log(-torch.log(uniform)))

    def gumbel(self, purpose: str, at: torch.Tensor, candidate: torch.Tensor | int = 0) -> torch.Tensor:
        return self.given


def recorded(family: str, case: dict[str, Any], **options: Any) -> Any:
    golden = tensors(family, "traces_infogain")
    name, lengths = case["name"], []
    plugin = mdm.registry.resolve("sampler", case["params"]["variant"].replace("_", "-"))
    if f"{name}.rand_lengths" in golden:
        lengths = golden[f"{name}.rand_lengths"].tolist()
    kind = type("Recorded", (Recorded, plugin), {"golden": (golden.get(f"{name}.rand_values"), lengths)})
    return kind(plugin.Options(**options))


STALE = {"dllm.lookum.None.n8_pt0.5_b8_s24_eosfill"}
"""The published code goes on with scores from before a fill (quirk 7): compared up to the first fill."""
INFOGAIN = binding(
    cases("llada", "traces_infogain"),
    {
        "short_steps12": "the published code leaves masks (quirk 13)",
        "dllm.info_gain.prefix.n8": "the published lookahead runs on the untrimmed cache (quirk 6)",
        "dllm.lookum.prefix.n8": "the published lookahead runs on the untrimmed cache (quirk 6)",
    },
)


@pytest.mark.parametrize("case", INFOGAIN)
def test_infogain(llada, case):
    p, name = case["params"], case["name"]
    options = {"candidates": p["candidate_number"], "position_temperature": p["position_temperature"]}
    settings = {"gen_length": p["max_new_tokens"], "block_length": p["block_size"]}
    options["threshold"] = p.get("threshold") or None
    if name.startswith("standalone"):
        options["bypass"] = "block"
    else:
        ids = {"eos_token_id": case["tokenizer"]["eos"], "pad_token_id": case["tokenizer"]["pad"]}
        settings |= {"steps": p["steps"], "schedule": "linear", "eos_penalty": 4.0, "pad_penalty": 4.0, **ids}
        settings |= {"stop_at_eos": True}
    sampler = recorded("llada", case, **options)
    [result] = mdm.decode(llada, [one(case)], sampler, cache=p.get("use_cache") or "none", **settings)
    mine, theirs = committed(result.trace), steps(case)
    if name in STALE:
        fill = next(i for i, step in enumerate(case["steps"]) if step["kind"] == "eos_fill")
        mine, theirs = mine[:fill], theirs[:fill]
        assert fill
    else:
        assert not sampler.golden[1]
    assert mine == theirs
    whole = settings.get("eos_penalty", 0) == 0 and p.get("use_cache") is None
    if whole:
        assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_fullforward"], abs=1e-4)


PURE = facts("llada", "pure_functions") or {"candidates": [], "selection": []}


def row_of(golden: dict[str, torch.Tensor], name: str, mask_id: int, span: tuple[int, int] | None = None) -> Scores:
    """The scores of one stored canvas; only the masks in ``span`` are valid."""
    stats = statistics(golden[f"{name}.logits"][0], never=mask_id)
    canvas = golden[f"{name}.x"]
    at = torch.arange(canvas.shape[1])[None]
    valid = canvas == mask_id
    if span:
        valid &= (at >= span[0]) & (at < span[1])
    found = {f.name: v[None] for f in dataclasses.fields(stats) if (v := getattr(stats, f.name)) is not None}
    return Scores(positions=at, valid=valid, unscored=torch.zeros(1, dtype=torch.long), vocab_size=1, **found)


@pytest.mark.parametrize("case", PURE["candidates"], ids=lambda c: c["name"])
def test_candidates(case):
    golden, name = tensors("llada", "pure_functions"), case["name"]
    scores = row_of(golden, name, case["mask_id"], case["block"])
    uniform = torch.full((1, case["n_candidates"] - 1, scores.positions.shape[1]), 0.5)
    uniform[0, :, golden[f"{name}.valid"]] = golden[f"{name}.rand"]
    options = LookaheadOptions(
        candidates=case["n_candidates"], position_temperature=case["position_temperature"]
    )  # fmt: skip
    state = SimpleNamespace(budget=torch.tensor([case["k"]]))
    actions = Lookahead(options).actions(state, scores, Given(uniform))
    mine = [where.nonzero()[:, 0].tolist() for where in actions.where[0][actions.valid[0]]]
    assert mine == [sorted(action) for action in case["actions"]]


@pytest.mark.parametrize("case", PURE["selection"], ids=lambda c: c["name"])
@pytest.mark.parametrize("rule", ["threshold0.5", "threshold0.9", "factor0.5", "factor1.0", "factor2.0"])
@pytest.mark.parametrize("version", ["igrepo", "dllm"])
def test_selection(case, rule, version):
    scores = row_of(tensors("llada", "pure_functions"), case["name"], 250)
    kind, value = rule[:-3], float(rule[-3:])
    plugin = mdm.registry.resolve("sampler", f"fastdllm-{kind}")
    options = {kind: value} | ({"accept_last": version == "igrepo"} if kind == "factor" else {})
    commit = plugin(plugin.Options(**options)).decide(None, scores, None, None)
    key = f"{rule}.{version}" if kind == "factor" else f"{rule}.dllm"
    assert commit.where[0].nonzero()[:, 0].tolist() == case[key]


DREAM_INFOGAIN = binding(
    [c for c in cases("dream", "traces_infogain") if c.values[0] is None or "None" in c.id],
    {"eosfill": "the published lookahead forgets the penalty (quirk 9)"},
)


@pytest.mark.parametrize("case", DREAM_INFOGAIN)
def test_dream_infogain(dream, case):
    """Without a cache, where the published code takes the whole completion as one block."""
    p, ids = case["params"], case["tokenizer"]
    options = {"candidates": p["candidate_number"], "position_temperature": p["position_temperature"]}
    sampler = recorded("dream", case, threshold=p.get("threshold"), **options)
    [result] = mdm.decode(
        dream, [one(case)], sampler, cache="none", gen_length=p["max_new_tokens"], block_length=p["max_new_tokens"],
        steps=p["steps"], schedule="linear", eos_penalty=4.0, pad_penalty=4.0, eos_token_id=ids["eos"],
        pad_token_id=ids["pad"], stop_at_eos=True,
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
