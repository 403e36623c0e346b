"""What holds for every sampler under every cache, on a tiny LLaDA made on the spot."""

from __future__ import annotations

import json

import mdm
import pytest
import torch
from safetensors.torch import save_file

SAMPLERS = ["confidence", "entropy", "margin", "random", "left-to-right", "info-gain", "lookum"]
CACHES = ["none", "prefix", "dual"]
MASK, EOS, VOCABULARY = 250, 251, 256


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random LLaDA whose logits are spread enough that no choice hangs on a rounding."""
    folder = tmp_path_factory.mktemp("llada")
    d, layers, mlp = 32, 2, 64
    config = {
        "model_type": "llada", "d_model": d, "n_heads": 2, "n_kv_heads": 2, "n_layers": layers, "mlp_hidden_size": mlp,
        "embedding_size": VOCABULARY, "vocab_size": VOCABULARY, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
        "weight_tying": False, "mask_token_id": MASK, "eos_token_id": EOS, "pad_token_id": 252,
    }  # fmt: skip
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int, std: float = 0.3) -> torch.Tensor:
        return torch.randn(*shape, generator=random) * std

    weights = {
        "wte.weight": normal(VOCABULARY, d),
        "ln_f.weight": 2 + 0 * normal(d),
        "ff_out.weight": normal(VOCABULARY, d),
    }
    for n in range(layers):
        block = {"attn_norm": (d,), "ff_norm": (d,), "attn_out": (d, d), "ff_proj": (mlp, d), "up_proj": (mlp, d)}
        block |= {"q_proj": (d, d), "k_proj": (d, d), "v_proj": (d, d), "ff_out": (d, mlp)}
        for name, shape in block.items():
            weights[f"blocks.{n}.{name}.weight"] = torch.ones(shape) if len(shape) == 1 else normal(*shape)
    save_file({f"model.transformer.{k}": v.contiguous() for k, v in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return mdm.load_model(folder, device="cpu", dtype="float32")


PROMPTS = [
    torch.randint(0, 250, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    for n in (5, 11, 3, 8, 17, 4, 9, 6)
]  # fmt: skip
SHAPE = {"gen_length": 16, "block_length": 8}


def essence(result):
    return [(line["step"], line["positions"], line["tokens"], line["kind"]) for line in result.trace]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("options", [{}, {"tokens_per_step": 2}, {"temperature": 0.7}, {"guidance": 0.5}], ids=str)
def test_a_row_does_not_depend_on_its_neighbours(model, sampler, cache, options):
    together = mdm.decode(model, PROMPTS, sampler, cache=cache, **SHAPE, **options)
    for i in (0, 4):
        [alone] = mdm.decode(model, [PROMPTS[i]], sampler, cache=cache, row_ids=[i], **SHAPE, **options)
        assert essence(alone) == essence(together[i])
        assert (alone.forwards, alone.rows) == (together[i].forwards, together[i].rows)
        assert alone.cumulative_entropy == pytest.approx(together[i].cumulative_entropy, abs=1e-4)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("sampler", ["confidence", "info-gain"])
def test_rows_that_come_and_go_change_nothing(model, sampler, cache):
    options = {"sampler_options": {"threshold": 0.5}} if sampler == "info-gain" else {}
    together = mdm.decode(model, PROMPTS, sampler, cache=cache, **SHAPE, **options)
    refilled = mdm.decode(model, PROMPTS, sampler, cache=cache, batch_size=3, **SHAPE, **options)
    assert [essence(r) for r in together] == [essence(r) for r in refilled]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("sampler", ["info-gain", "lookum"])
@pytest.mark.parametrize("options", [{}, {"candidates": "all"}, {"threshold": 0.3}, {"reach": "span"}], ids=str)
def test_one_candidate_at_a_time_and_no_reuse_decide_the_same(model, sampler, cache, options):
    def decoded(**more):
        results = mdm.decode(model, PROMPTS[:3], sampler, options, cache=cache, **SHAPE, **more)
        return [essence(r) for r in results], sum(r.forwards for r in results)

    plain, forwards = decoded()
    assert decoded(max_rows=1)[0] == plain
    unused, more_forwards = decoded(reuse_scores=False)
    assert unused == plain
    assert more_forwards > forwards


@pytest.mark.parametrize("cache", CACHES)
def test_a_drawn_token_is_the_same_whether_scores_are_reused(model, cache):
    def decoded(**more):
        return [essence(r) for r in mdm.decode(model, PROMPTS[:3], temperature=1.0, cache=cache, **SHAPE, **more)]

    assert decoded() == decoded(reuse_scores=False)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trace_replays_the_tokens_and_the_entropy(model, sampler, cache):
    for prompt, result in zip(PROMPTS, mdm.decode(model, PROMPTS, sampler, cache=cache, **SHAPE), strict=True):
        canvas = prompt + [MASK] * SHAPE["gen_length"]
        for line in result.trace:
            assert all(canvas[p] == MASK for p in line["positions"])
            for position, token in zip(line["positions"], line["tokens"], strict=True):
                canvas[position] = token
        assert canvas == result.sequence
        assert result.tokens == canvas[len(prompt) :]
        assert result.cumulative_entropy == pytest.approx(sum(sum(line["entropy"]) for line in result.trace))
        assert result.forwards == sum(line["forwards"] for line in result.trace)


def test_the_trace_of_none_pays_the_entropy_of_the_full_forward(model):
    [result] = mdm.decode(model, PROMPTS[:1], "info-gain", **SHAPE)
    canvas = torch.tensor([PROMPTS[0] + [MASK] * SHAPE["gen_length"]])
    for line in result.trace:
        log_p = model.score_logits(canvas)[0].log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        assert line["entropy"] == pytest.approx(entropy[line["positions"]].tolist(), abs=1e-4)
        canvas[0, line["positions"]] = torch.tensor(line["tokens"])


@pytest.mark.parametrize("sampler", ["random", "info-gain"])
def test_a_seed_reproduces_and_the_global_generator_is_left_alone(model, sampler):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = mdm.decode(model, PROMPTS, sampler, temperature=0.9, seed=3, **SHAPE)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    again = mdm.decode(model, PROMPTS, sampler, temperature=0.9, seed=3, **SHAPE)
    other = mdm.decode(model, PROMPTS, sampler, temperature=0.9, seed=4, **SHAPE)
    assert [r.tokens for r in first] == [r.tokens for r in again]
    assert [r.tokens for r in first] != [r.tokens for r in other]


class Counted:
    """Counts a model's calls and the rows that its head is asked for."""

    def __init__(self, model, monkeypatch):
        self.calls, self.head_rows = [], 0
        hidden, head, part = model.hidden, model.head, model.head_part

        def counted_hidden(tokens, *args, **kwargs):
            self.calls.append(tuple(tokens.shape))
            return hidden(tokens, *args, **kwargs)

        def counted_head(states):
            self.head_rows += states.shape[:-1].numel()
            return head(states)

        def counted_part(states, first, *args):
            self.head_rows += states.shape[:-1].numel() if first == 0 else 0
            return part(states, first, *args)

        monkeypatch.setattr(model, "hidden", counted_hidden)
        monkeypatch.setattr(model, "head", counted_head)
        monkeypatch.setattr(model, "head_part", counted_part)


def test_info_gain_costs_one_model_call_a_step(model, monkeypatch):
    counted = Counted(model, monkeypatch)
    [result] = mdm.decode(model, PROMPTS[:1], "info-gain", {"candidates": "all"}, gen_length=8, block_length=8)
    # The block's first scores, one lookahead a step while there is a choice, and the last mask for nothing.
    assert len(counted.calls) == 8 == result.forwards
    assert [line["forwards"] for line in result.trace] == [2, 1, 1, 1, 1, 1, 1, 0]
    assert [line["candidates"] for line in result.trace] == [8, 7, 6, 5, 4, 3, 2, 0]
    assert result.rows == 1 + 8 + 7 + 6 + 5 + 4 + 3 + 2


@pytest.mark.parametrize(("cache", "reads"), [("none", 7), ("prefix", 7), ("dual", 3)])
def test_the_head_runs_on_no_position_that_nobody_reads(model, monkeypatch, cache, reads):
    """8 masks in blocks of 4: fresh scores read the block's, each candidate all masks that its forward computes."""
    counted = Counted(model, monkeypatch)
    options = {"gen_length": 8, "block_length": 4, "cache": cache}
    mdm.decode(model, PROMPTS[:1], "info-gain", {"candidates": "all"}, **options)
    behind = reads - 3
    first = 4 + sum(n * (n - 1 + behind) for n in (4, 3, 2))
    second = 4 + sum(n * (n - 1) for n in (4, 3, 2))
    assert counted.head_rows == first + second


@pytest.mark.parametrize(("cache", "width"), [("prefix", 16), ("dual", 8)])
def test_a_cache_recomputes_its_window_only(model, monkeypatch, cache, width):
    counted = Counted(model, monkeypatch)
    mdm.decode(model, PROMPTS[:1], "confidence", cache=cache, **SHAPE)
    whole = len(PROMPTS[0]) + 16
    first = [(1, whole)] + [(1, width)] * 7
    second = [(1, whole)] + [(1, 8)] * 7
    assert counted.calls == first + second


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_refreshed_at_every_step_is_exact(model, cache):
    plain = mdm.decode(model, PROMPTS, "confidence", **SHAPE)
    fresh = mdm.decode(model, PROMPTS, "confidence", cache=cache, cache_options={"refresh": 1}, **SHAPE)
    assert [essence(r) for r in plain] == [essence(r) for r in fresh]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_infill_decodes_the_masks_and_nothing_else(model, sampler, cache):
    prompt = list(PROMPTS[4])
    holes = [2, 3, 9, 14]
    for hole in holes:
        prompt[hole] = MASK
    [result] = mdm.decode(model, [prompt], sampler, cache=cache, gen_length=0)
    assert sorted(p for line in result.trace for p in line["positions"]) == holes
    assert result.tokens == [result.sequence[h] for h in holes]
    assert [t for i, t in enumerate(result.sequence) if i not in holes] == [
        t for i, t in enumerate(PROMPTS[4]) if i not in holes
    ]


def test_blocks_are_decoded_left_to_right_and_a_ragged_last_one_is_fine(model):
    [result] = mdm.decode(model, PROMPTS[:1], "random", gen_length=10, block_length=4)
    blocks = [(line["positions"][0] - len(PROMPTS[0])) // 4 for line in result.trace]
    assert blocks == sorted(blocks)
    assert len(result.tokens) == 10


def test_masks_behind_the_first_eos_are_filled(model):
    [free] = mdm.decode(model, PROMPTS[:1], "confidence", **SHAPE)
    end = free.tokens[3]
    [result] = mdm.decode(model, PROMPTS[:1], "confidence", stop_at_eos=True, eos_token_id=end, **SHAPE)
    where = result.tokens.index(end)
    fills = [p - len(PROMPTS[0]) for line in result.trace if line["kind"] == "fill" for p in line["positions"]]
    assert fills and all(p > where and result.tokens[p] == end for p in fills)


def test_a_penalty_is_summed_by_id(model):
    twice = mdm.decode(model, PROMPTS, eos_penalty=2.0, pad_penalty=1.0, eos_token_id=7, pad_token_id=7, **SHAPE)
    once = mdm.decode(model, PROMPTS, eos_penalty=3.0, eos_token_id=7, **SHAPE)
    assert [r.tokens for r in twice] == [r.tokens for r in once]


def test_allowed_and_suppressed_tokens(model):
    [result] = mdm.decode(model, PROMPTS[:1], allowed_tokens=[(10, 20)], suppressed_tokens=[11], **SHAPE)
    assert set(result.tokens) <= set(range(10, 20)) - {11}


def test_thresholds(model):
    """A threshold that nothing misses finishes a block at once, one that nothing meets changes nothing."""
    decode = {"gen_length": 8, "block_length": 8}
    [all_at_once] = mdm.decode(model, PROMPTS[:1], "info-gain", {"threshold": 0.0, "bypass": "all"}, **decode)
    assert [len(line["positions"]) for line in all_at_once.trace] == [8]
    assert all_at_once.trace[0]["kind"] == "bypass"
    plain = mdm.decode(model, PROMPTS, "info-gain", **SHAPE)
    never = mdm.decode(model, PROMPTS, "info-gain", {"threshold": 1.0, "bypass": "block"}, **SHAPE)
    assert [r.tokens for r in plain] == [r.tokens for r in never]


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        ({"sampler": "confidense"}, "confidence"),
        ({"sampler_options": {"candidate": 3}}, "candidate"),
        ({"sampler_options": {"candidates": 0}}, "candidates"),
        ({"gen_length": 0}, "no mask"),
        ({"gen_length": -1}, "gen_length"),
        ({"steps": 4, "tokens_per_step": 2}, "tokens_per_step"),
        ({"schedule": "odd"}, "odd"),
        ({"block_length": 0}, "block_length"),
        ({"prompts": [[999]]}, "999"),
        ({"prompts": ["text"]}, "tokenizer"),
        ({"prompts": [[1, MASK]], "guidance": 1.0}, "guidance"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(model, call, culprit):
    with pytest.raises(mdm.MdmError, match=culprit) as caught:
        mdm.decode(model, call.pop("prompts", PROMPTS[:1]), **call)
    assert "\n" not in str(caught.value)
