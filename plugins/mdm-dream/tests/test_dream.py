"""Dream's own ways: shifted logits, its tokenizer's files, what it refuses."""

from __future__ import annotations

import mdm
import pytest
import tiny_families
import torch
from mdm.models.kv_store import KVStore
from mdm.protocols import Message


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(tiny_families.save(tmp_path_factory.mktemp("dream"), "dream"), device="cpu", dtype="float32")


PROMPT = torch.randint(0, 250, (9,), generator=torch.Generator().manual_seed(1)).tolist()
START, STOP, LENGTH = 9, 17, 25


@torch.inference_mode()
def decoded(model, cache, *, repeat):
    """Most confident first under a cache, written out for one row. What each step commits: (position, token).

    ``repeat``: as the published code does, take the window's first row for its first position too.
    """
    canvas = torch.tensor([PROMPT + [tiny_families.MASK] * (LENGTH - START)])
    store, out = KVStore(model, 1, LENGTH), []
    for start, stop in ((START, STOP), (STOP, LENGTH)):
        for step in range(stop - start):
            first, last = (0, LENGTH) if step == 0 else (start if repeat else start - 1, LENGTH)
            if step and cache == "dual":
                last = stop
            at = torch.arange(first, last)[None]
            logits = model.head(
                model.hidden(
                    canvas.gather(1, at),
                    at,
                    cache=store.window([0], at, write=torch.ones_like(at).bool() if step == 0 else None),
                )
            )[0]
            by_position = {position: logits[max(position - 1 - first, 0)] for position in range(start, stop)}
            open_ = [p for p in by_position if canvas[0, p] == tiny_families.MASK]
            for values in by_position.values():
                values[tiny_families.MASK] = -torch.inf
            best = max(open_, key=lambda p: by_position[p].softmax(-1).max().item())
            canvas[0, best] = token = by_position[best].argmax().item()
            out.append((best, token))
    return out


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_window_reads_the_row_before_it(model, cache):
    [result] = mdm.decode(model, [PROMPT], "confidence", cache=cache, gen_length=LENGTH - START, block_length=8)
    commits = [(line["positions"][0], line["tokens"][0]) for line in result.trace]
    assert commits == decoded(model, cache, repeat=False)
    assert commits != decoded(model, cache, repeat=True), "this case cannot tell the two apart"


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("candidates", [8, "all"])
def test_many_candidates_under_a_cache(model, cache, candidates):
    options = {"candidates": candidates}
    [result] = mdm.decode(model, [PROMPT], "info-gain", options, cache=cache, gen_length=16, block_length=8)
    assert max(line["candidates"] for line in result.trace) > 1
    assert tiny_families.MASK not in result.tokens
    again = mdm.decode(model, [PROMPT], "info-gain", options, cache=cache, gen_length=16, block_length=8, max_rows=1)
    assert again[0].tokens == result.tokens


def test_the_first_position_cannot_be_a_mask(model):
    with pytest.raises(mdm.MdmError, match="first cannot be a mask"):
        mdm.decode(model, [[tiny_families.MASK, 1]], gen_length=0)


DISTILLED = {
    "attention_dropout": 0.0, "auto_map": {"AutoModel": "Dream-org/Dream-v0-Instruct-7B--modeling_dream.DreamModel"},
    "bos_token_id": tiny_families.EOS, "initializer_range": 0.02, "max_window_layers": 28, "torch_dtype": "bfloat16",
    "use_cache": False, "use_mrope": False,
}  # fmt: skip
"""Keys of a published config.json beside Qwen2's (apple/DiffuCoder-7B-Instruct at 69c039a) as saving again keeps them.

dParallel_Dream_7B_Instruct is Dream-v0-Instruct-7B with an adapter merged and saved (Dream/merge_lora.py of
czg1225/dParallel at 57e1e68); d3LLM_Dream and d3LLM_Dream_Coder are loaded by Dream's own class
(chat/chat_d3llm_dream.py of hao-ai-lab/d3LLM).
"""


def test_a_distilled_model_loads_as_what_it_was_distilled_from(tmp_path, model):
    distilled = mdm.load_model(tiny_families.save(tmp_path, "dream", **DISTILLED), device="cpu", dtype="float32")
    canvas = torch.tensor([PROMPT + [tiny_families.MASK] * 3])
    assert distilled.spec == model.spec
    assert torch.equal(distilled.score_logits(canvas), model.score_logits(canvas))


@pytest.mark.parametrize(("key", "value"), [("use_sliding_window", True), ("rope_scaling", {"type": "yarn"})])
def test_a_config_that_asks_for_more_is_refused(tmp_path, key, value):
    tiny_families.save(tmp_path, "dream", **{key: value})
    with pytest.raises(mdm.MdmError, match=key):
        mdm.load_model(tmp_path, device="cpu")


def test_the_tokenizer_is_built_from_its_files(tmp_path):
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>"]
    named = {"eos_token": tokens[0], "pad_token": tokens[0], "mask_token": tokens[4], "bos_token": tokens[3]}
    first = tiny_families.save_bpe(tmp_path, tokens, **named)
    tiny_families.save(tmp_path, "dream", mask_token_id=first + 4, vocab_size=320)
    model = mdm.load_model(tmp_path, device="cpu")
    ids = model.encode("hello [MASK] 42<|im_end|>")
    assert ids[0] == first - 1 and ids[2] == first + 4  # one merged word, the mask
    assert first + 2 not in ids and model.tokenizer.decode(ids).endswith("42<|im_end|>")  # what a text names is text
    assert model.spec.eos_ids == (tiny_families.EOS, first, first + 2)  # config.json's, the tokenizer's, a turn's
    assert model.tokenizer.decode(model.encode("hello\n\t4 2 é")) == "hello\n\t4 2 é"
    chat = model.tokenizer.decode(model.encode_chat([Message("user", "hello")]))
    assert chat.startswith("<|im_start|>system\n")
    assert chat.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")


def test_the_checkpoints_own_chat_template_comes_first(tmp_path):
    tiny_families.save_bpe(tmp_path, ["<|endoftext|>"], chat_template="{{ messages[0]['content'] }}!")
    model = mdm.load_model(tiny_families.save(tmp_path, "dream"), device="cpu")
    assert model.tokenizer.decode(model.encode_chat([Message("user", "hello")])) == "hello!"
