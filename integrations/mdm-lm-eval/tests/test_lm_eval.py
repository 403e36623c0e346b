"""mdm-tiny through lm-eval's own command line, and the likelihood bound itself."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from itertools import product
from pathlib import Path

import mdm
import pytest
import torch
from hypothesis import given, strategies as st
from mdm_lm_eval.encoding import opened
from mdm_lm_eval.likelihood import Answer, exact, log_likelihoods, masks
from tiny_families import save, save_causal, save_masked

HERE = Path(__file__).parent
needs_lm_eval = pytest.mark.skipif(
    not any(dist.name == "lm_eval" for dist in metadata.distributions()),
    reason="lm-eval is not installed (tox -e lm-eval has it)",
)


@pytest.fixture(scope="module")
def model():
    return mdm.load_model("tiny", device="cpu")


def answer(model, context, target):
    return Answer(tuple(model.encode(context)), tuple(model.encode(target)))


def test_a_determined_answer_is_certain_and_a_wrong_one_is_not(model):
    answers = [answer(model, "123434122143", target) for target in ("4321", "4312")]
    right, wrong = log_likelihoods(model, answers, draws=16)
    assert -0.01 < right <= 0
    assert wrong < -10


@given(st.integers(1, 12), st.integers(1, 64), st.integers(0, 5))
def test_masks_are_different_and_their_weights_add_up(length, draws, seed):
    different, weight = masks(length, draws, seed)
    assert len({tuple(row.tolist()) for row in different}) == len(different) <= draws
    assert different.any(1).all()
    # L / l * l summed over the draws is L, whatever l was drawn.
    assert float((weight * different.sum(1)).sum()) == pytest.approx(length, rel=1e-5)
    again, _ = masks(length, draws, seed)
    assert torch.equal(different, again)


def test_the_numbers_of_masked_tokens_are_spread_evenly():
    different, weight = masks(6, 600, 3)
    drawn = weight * different.sum(1) * 100  # how often: 600 draws, each weighing L / l / draws
    assert [round(float(drawn[different.sum(1) == n].sum())) for n in range(1, 7)] == [100] * 6


def test_the_estimate_is_the_bound(model):
    """With every mask of an answer of three tokens enumerated, the average is the draws' expectation."""
    one = answer(model, "12+30", "=42")
    length, start = 3, len(one.prefix)
    exact = 0.0
    for pattern in product([False, True], repeat=length):
        count = sum(pattern)
        if count:
            canvas = torch.tensor([one.prefix + one.target])
            canvas[0, start:][torch.tensor(pattern)] = model.spec.mask_id
            logits = model.score_logits(canvas)[0, start:].clone()
            logits[:, model.spec.mask_id] = -torch.inf
            logp = logits.log_softmax(-1).gather(-1, torch.tensor(one.target)[:, None])[:, 0]
            chance = 1 / length / math.comb(length, count)
            exact += chance * length / count * float(logp[torch.tensor(pattern)].sum())
    few, many = (log_likelihoods(model, [one], draws=n, seed=1)[0] for n in (64, 4096))
    assert many == pytest.approx(exact, abs=0.1)
    assert few == pytest.approx(exact, abs=1.0)


def test_batches_change_nothing(model):
    answers = [answer(model, "1234341221430321:", "1234341221434321"), answer(model, "", "12+30=42")]
    values = [log_likelihoods(model, answers, draws=12, batch_size=size) for size in (1, 5, 64)]
    assert values[0] == pytest.approx(values[1], abs=1e-4) and values[0] == pytest.approx(values[2], abs=1e-4)


@pytest.mark.parametrize("family", ["llada", "dream", "sdar"])
def test_logits_of_some_positions_are_those_of_all(tmp_path, family):
    model = mdm.load_model(save(tmp_path / family, family), device="cpu")
    tokens = torch.randint(0, 200, (2, 11), generator=torch.Generator().manual_seed(0))
    at = torch.tensor([0, 4, 9])
    torch.testing.assert_close(model.score_logits(tokens, 4, at), model.score_logits(tokens, 4)[:, at])


def test_a_block_causal_answer_is_the_sum_of_its_blocks(tmp_path):
    model = mdm.load_model(save(tmp_path / "sdar", "sdar"), device="cpu")
    ids = tuple(range(20, 31))
    whole = log_likelihoods(model, [Answer(ids[:2], ids[2:])], draws=8, block_length=4)[0]
    blocks = [Answer(ids[:2], ids[2:4]), Answer(ids[:4], ids[4:8]), Answer(ids[:8], ids[8:])]
    assert whole == pytest.approx(sum(log_likelihoods(model, blocks, draws=8, block_length=4)), abs=1e-4)


def test_a_text_stands_between_what_the_model_puts_around_it(tmp_path):
    """An encoder is asked about [CLS] text [SEP], as it was trained on."""
    model = mdm.load_model(save_masked(tmp_path / "bert"), device="cpu")
    model.spec = replace(model.spec, prefix=(240,), suffix=(241, 242))
    assert opened(model, [5, 6]) == [240, 5, 6] == opened(model, [240, 5, 6])
    [value] = log_likelihoods(model, [Answer((240, 5, 6), (7,))], draws=1)
    logits = model.score_logits(torch.tensor([[240, 5, 6, model.spec.mask_id, 241, 242]]))[0, 3].clone()
    logits[model.spec.mask_id] = -torch.inf
    assert value == pytest.approx(float(logits.log_softmax(-1)[7]), abs=1e-4)


@pytest.mark.parametrize("family", ["llada", "dream", "sdar"])
@pytest.mark.parametrize("guidance", [0.5, 3.0])
def test_guidance_is_its_formula(tmp_path, family, guidance):
    """One masked token: u + (w + 1)(c - u), where u sees the prompt masked and nothing else changed."""
    model = mdm.load_model(save(tmp_path / family, family), device="cpu")
    prompt, target, never = (20, 21, 22), 30, model.spec.mask_id
    logits = []
    for shown in (prompt, (never,) * 3):
        logits.append(model.score_logits(torch.tensor([[*shown, never]]), 4)[0, 3].clone())
    conditional, unconditional = logits
    mixed = unconditional + (guidance + 1) * (conditional - unconditional)
    mixed[never] = -torch.inf
    [value] = log_likelihoods(model, [Answer(prompt, (target,))], draws=1, block_length=4, guidance=guidance)
    assert value == pytest.approx(float(mixed.log_softmax(-1)[target]), abs=1e-3)


def test_guidance_masks_the_prompt_of_every_block(tmp_path):
    """The second block's finished past is no prompt: it stays visible where the prompt is masked."""
    model = mdm.load_model(save(tmp_path / "sdar", "sdar"), device="cpu")
    ids, never = list(range(20, 27)), model.spec.mask_id
    whole, first = (
        log_likelihoods(model, [Answer(tuple(ids[:3]), tuple(ids[3:end]))], draws=1, block_length=4, guidance=2.0)[0]
        for end in (5, 4)
    )
    logits = []
    for shown in (ids[:3], [never] * 3):
        logits.append(model.score_logits(torch.tensor([[*shown, ids[3], never]]), 4)[0, 4].clone())
    mixed = logits[1] + 3.0 * (logits[0] - logits[1])
    mixed[never] = -torch.inf
    assert whole - first == pytest.approx(float(mixed.log_softmax(-1)[ids[4]]), abs=1e-3)


def test_an_autoregressive_models_are_exact(tmp_path):
    model = mdm.load_model(save_causal(tmp_path / "llama"), device="cpu")
    answers = [Answer((5, 6), (7, 8)), Answer((5,), (6, 7, 8)), Answer((9,) * 20, (4,)), Answer((5, 6), ())]
    values = exact(model, answers, max_length=64, batch_size=2)
    for answer, (value, greedy) in zip(answers, values, strict=True):
        ids = torch.tensor([answer.prefix + answer.target])
        logp = model.network(ids).logits[0].log_softmax(-1)
        steps = range(len(answer.prefix), ids.shape[1])
        assert value == pytest.approx(sum(float(logp[i - 1, ids[0, i]]) for i in steps), abs=1e-4)
        assert greedy == all(int(logp[i - 1].argmax()) == int(ids[0, i]) for i in steps)
    best = int(model.network(torch.tensor([[5, 6]])).logits[0, -1].argmax())
    assert exact(model, [Answer((5, 6), (best,))], max_length=64)[0][1]
    assert exact(model, answers[2:3], max_length=8) == exact(model, [Answer((9,) * 7, (4,))], max_length=8)
    with pytest.raises(mdm.MdmError, match="an answer of 3 tokens needs a max_length above 3"):
        exact(model, answers[1:2], max_length=3)


@needs_lm_eval
class TestModel:
    """The methods lm-eval calls."""

    def lm(self, **args):
        from mdm_lm_eval.model import MdmLM

        return MdmLM(**{"pretrained": "tiny", "sampler": "confidence", "device": "cpu"} | args)

    def requests(self, *args):
        from types import SimpleNamespace

        return [SimpleNamespace(args=one) for one in args]

    def test_options_reach_the_plugins_and_the_unknown_are_named(self):
        lm = self.lm(sampler="info-gain", cache="prefix", candidates=4, batch_size="auto", seed=3)
        assert lm.config.options["info-gain"]["candidates"] == 4
        assert (lm.config.cache, lm.config.seed, lm.config.batch_size) == ("prefix", 3, "auto")
        with pytest.raises(mdm.MdmError, match="candidate"):
            self.lm(candidate=4)
        assert self.lm(device="cuda:0").model.device.type in ("cpu", "cuda", "mps")

    def test_generations_end_at_the_first_stop_string_and_have_their_own_lengths(self):
        lm = self.lm()
        asked = self.requests(
            ("1234341221430321:", {"max_gen_toks": 16}),
            ("1234341221430321:", {"until": ["2", "34"], "max_gen_toks": 16, "do_sample": False}),
            ("1234341221430321:", {"until": "x", "max_gen_toks": 4}),
            ("1234341221430321:", {"max_gen_toks": 16, "temperature": 5.0, "do_sample": True}),
        )
        one, two, three, four = lm.generate_until(asked, disable_tqdm=True)
        assert (one, two, len(three)) == ("1234341221434321", "1", 4)
        assert four != one
        assert lm.generate_until(asked[:1], disable_tqdm=True) == [one]

    def test_log_likelihoods_and_what_the_sampler_would_write(self):
        lm = self.lm(draws=16, greedy=True)
        pairs = self.requests(("123434122143", "4321"), ("123434122143", "4312"), ("", "1"), ("12 ", "3"))
        (right, yes), (wrong, no), (alone, _), (spaced, _) = lm.loglikelihood(pairs, disable_tqdm=True)
        assert right > -0.01 and wrong < -10 and yes and not no
        assert alone < 0
        [(fitting, _)] = self.lm(draws=16, batch_size="auto").loglikelihood(pairs[1:2], disable_tqdm=True)
        assert fitting == pytest.approx(wrong, abs=1e-4)
        [(moved, _)] = lm.loglikelihood(self.requests(("12", " 3")), disable_tqdm=True)
        assert spaced == moved  # the blank belongs to the answer

    def test_a_long_text_is_rolled_over(self):
        lm = self.lm(draws=4, max_length=8)
        ids = lm.model.encode("1234341221434321")
        windows = lm._windows(ids)
        assert [w for window in windows for w in window.target] == ids
        assert all(len(w.prefix) + len(w.target) <= 8 for w in windows)
        assert all(len(w.prefix) == 4 for w in windows[1:])
        [rolled] = lm.loglikelihood_rolling(self.requests(("1234341221434321",)), disable_tqdm=True)
        assert rolled == pytest.approx(sum(log_likelihoods(lm.model, windows, draws=4)), abs=1e-4)
        assert lm.loglikelihood_rolling(self.requests(("",)), disable_tqdm=True) == [0]


@needs_lm_eval
def test_through_lm_evals_own_command_line(tmp_path):
    for path in HERE.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text().replace("DATA", str(HERE / "sudoku.jsonl")))
    command = [
        sys.executable, "-m", "mdm_lm_eval", "--model", "mdm",
        "--model_args", "pretrained=tiny,sampler=info-gain,cache=prefix,candidates=4,draws=16",
        "--tasks", "sudoku_write,sudoku_choose,sudoku_perplexity", "--include_path", str(tmp_path),
        "--batch_size", "8", "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [path] = (tmp_path / "out").rglob("results_*.json")
    report = json.loads(path.read_text())
    assert report["results"]["sudoku_write"]["exact_match,none"] == 1
    assert report["results"]["sudoku_choose"]["acc,none"] == 1
    # 288 grids in 16 characters: no model can be below this, and one that knew nothing of them is at 4 or above.
    assert 288 ** (1 / 16) * 0.95 < report["results"]["sudoku_perplexity"]["byte_perplexity,none"] < 2
    assert report["config"]["mdm"]["options"]["info-gain"]["candidates"] == 4


@needs_lm_eval
def test_a_mistake_is_one_line(monkeypatch, capsys):
    import lm_eval.__main__
    from mdm_lm_eval.__main__ import main
    from mdm_lm_eval.model import MdmLM

    monkeypatch.setattr(lm_eval.__main__, "cli_evaluate", lambda: MdmLM(sampler="info-gian"))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("mdm: unknown sampler 'info-gian'. Did you mean 'info-gain'?")


def test_the_entry_point_is_where_lm_eval_looks():
    [point] = metadata.entry_points(group="lm_eval.models", name="mdm")
    assert point.value == "mdm_lm_eval.model:MdmLM"
