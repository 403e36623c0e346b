"""An autoregressive baseline: transformers' own generate, our rules, and a row in the table of a run."""

from __future__ import annotations

import json

import mdm
import pytest
import torch
from click.testing import CliRunner
from mdm.cli import cli
from mdm_ar import FAMILY
from tiny_families import CONFIGS, save_causal

PROMPTS = [[5, 9, 11, 3], [7, 2], [8, 8, 1, 30, 12, 4]]
EOS = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_causal(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(folder):
    return mdm.load_model(folder, device="cpu", dtype="float32")


def entropy(logits):
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def test_it_claims_what_transformers_can_run():
    assert FAMILY.claims({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})
    assert not FAMILY.claims({"model_type": "sdar", "architectures": ["SDARForCausalLM"]})
    assert not any(FAMILY.claims(config) for config in CONFIGS.values())
    refusion = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "mask_token_id": 151670}
    assert not FAMILY.claims(refusion)  # a diffusion model under the name of a stock class


def test_it_writes_what_the_argmax_says_and_pays_its_entropy(model):
    [result] = mdm.decode(model, PROMPTS[:1], gen_length=6)
    canvas, paid = list(PROMPTS[0]), 0.0
    for token in result.tokens:
        with torch.inference_mode():
            logits = model.network(torch.tensor([canvas])).logits[0, -1]
        assert token == logits.argmax()
        paid += entropy(logits).item()
        canvas.append(token)
    assert result.sequence == canvas
    assert result.cumulative_entropy == pytest.approx(paid, abs=1e-4)
    assert (result.forwards, result.rows) == (len(result.tokens), len(result.tokens))
    assert [line["positions"] for line in result.trace] == [[len(PROMPTS[0]) + i] for i in range(len(result.tokens))]


def test_what_only_a_mask_models_decode_compiles_leaves_it_alone(model):
    plain, compiled = (mdm.decode(model, PROMPTS[:1], gen_length=6, compile=on) for on in (False, True))
    assert plain[0].tokens == compiled[0].tokens


def test_score_logits_predict_their_own_position(model):
    canvas = torch.tensor([PROMPTS[0]])
    with torch.inference_mode():
        logits = model.network(canvas).logits
    torch.testing.assert_close(model.score_logits(canvas)[:, 1:], logits[:, :-1])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_does_not_depend_on_its_neighbours(model, temperature):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    together = mdm.decode(model, PROMPTS, gen_length=8, temperature=temperature)
    assert torch.equal(before, torch.get_rng_state())
    for i, prompt in enumerate(PROMPTS):
        [alone] = mdm.decode(model, [prompt], gen_length=8, temperature=temperature, row_ids=[i])
        assert alone.tokens == together[i].tokens
    other = mdm.decode(model, PROMPTS, gen_length=8, temperature=temperature, seed=1)
    assert ([r.tokens for r in other] != [r.tokens for r in together]) is bool(temperature)


def test_it_ends_at_its_end_token(model):
    [free] = mdm.decode(model, PROMPTS[:1], gen_length=8, suppressed_tokens=[EOS])
    assert len(free.tokens) == 8
    [short] = mdm.decode(model, PROMPTS[:1], gen_length=8, allowed_tokens=[(EOS, EOS + 1)])
    assert short.tokens == [EOS]


def test_rules_hold(model):
    [result] = mdm.decode(model, PROMPTS[:1], gen_length=8, allowed_tokens=[(10, 14)], suppressed_tokens=[11])
    assert set(result.tokens) <= {10, 12, 13}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"sampler": "confidence"}, "sampler confidence does not apply"),
        ({"cache": "prefix"}, "cache prefix does not apply"),
        ({"guidance": 1.0}, "guidance 1.0 does not apply"),
        ({"prompts": ["1[MASK]3"]}, "cannot fill in"),
        ({"prompts": [[]]}, "from the one before it"),
    ],
)
def test_what_it_cannot_do_is_said(model, asked, said):
    with pytest.raises(mdm.MdmError, match=said):
        mdm.decode(model, **{"prompts": PROMPTS[:1], "gen_length": 4, **asked})


def invoke(*args):
    return CliRunner().invoke(cli, args, catch_exceptions=True)


def test_one_table_with_a_diffusion_model(folder, tmp_path):
    """The sudoku task, infilled by the one and written out by the other, under two samplers and none."""
    got = invoke(
        "run", "--task", "sudoku", "--limit", "2", "--model", "tiny", "--model", str(folder), "--sampler", "confidence",
        "--sampler", "random", "--gen-length", "16", "--out", str(tmp_path / "run"), "--json",
    )  # fmt: skip
    assert got.exit_code == 0, got.output
    rows = json.loads(got.stdout)["runs"]
    assert [(row["model"], row["sampler"]) for row in rows] == [
        ("tiny", "confidence"), ("tiny", "random"), (str(folder), "autoregressive"),
    ]  # fmt: skip
    assert all(row["examples"] == 2 for row in rows)
    written = rows[2]
    assert 0 < written["tokens"] <= 32 and written["forwards"] == written["tokens"] and not written["accuracy"]


def test_alone_it_is_one_row_and_resumes(folder, tmp_path):
    command = ["run", "--task", "sudoku", "--limit", "2", "--model", str(folder), "--out", str(tmp_path / "run")]
    first = invoke(*command, "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["runs"][0]["sampler"] == "autoregressive"
    again = invoke("run", "--config", str(tmp_path / "run" / "config.yaml"), "--out", str(tmp_path / "run"), "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)


@pytest.mark.parametrize("policy", [["--sampler", "info-gain"], ["--cache", "dual"], ["--steps", "4"]])
@pytest.mark.parametrize("command", [["run", "--limit", "1"], ["generate", "12:"]])
def test_alone_it_takes_no_policy(folder, tmp_path, monkeypatch, command, policy):
    monkeypatch.chdir(tmp_path)
    got = invoke(*command, "--model", str(folder), *policy)
    assert isinstance(got.exception, mdm.MdmError)
    assert f"{policy[0][2:]} {policy[1]} does not apply to {folder}" in str(got.exception)
    assert not list(tmp_path.iterdir())


def test_a_task_that_only_asks_to_fill_in_is_refused(folder, tmp_path):
    got = invoke("run", "--task", "equations", "--limit", "1", "--model", str(folder), "--out", str(tmp_path / "run"))
    assert isinstance(got.exception, mdm.MdmError) and "autoregressive: it cannot fill in" in str(got.exception)
    assert not (tmp_path / "run").exists()


def test_generate(folder):
    got = invoke("generate", "3102:", "--model", str(folder), "--gen-length", "5", "--json")
    assert got.exit_code == 0, got.output
    assert 1 <= len(json.loads(got.stdout)["tokens"]) <= 5
