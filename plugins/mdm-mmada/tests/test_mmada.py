"""What MMaDA adds to LLaDA's layout: a vocabulary with image codes behind the text."""

from __future__ import annotations

import mdm
import pytest
from mdm_mmada import FAMILY
from tiny_families import CONFIGS, MASK, save, save_bpe

CODES = 64
PROMPT = [3, 1, 4, 1, 5, 9]


@pytest.mark.parametrize(
    "config", [{"model_type": "mmada"}, {"model_type": "llada", "architectures": ["MMadaModelLM"]}]
)
def test_it_claims_its_own(config):
    assert FAMILY.claims(config)


def test_it_claims_nothing_else():
    assert not any(FAMILY.claims(config) for family, config in CONFIGS.items() if family != "mmada")


def test_a_config_that_calls_itself_llada_is_still_mmada(tmp_path):
    assert mdm.load_model(save(tmp_path, "mmada", model_type="llada"), device="cpu").spec.family == "mmada"


def test_where_the_image_codes_begin_is_unknown_without_a_tokenizer(tmp_path):
    spec = mdm.load_model(save(tmp_path, "mmada"), device="cpu").spec
    assert (spec.vocab_size, spec.image_codes, spec.image_offset) == (320, CODES, None)


def test_the_image_codes_lie_behind_the_tokenizer_whatever_the_config_says(tmp_path):
    first = save_bpe(tmp_path, ["<|mdm_mask|>"], whole=True)
    save(tmp_path, "mmada", codebook_size=32, llm_vocab_size=256, mask_token_id=first)
    spec = mdm.load_model(tmp_path, device="cpu").spec
    assert (spec.image_offset, spec.image_codes) == (first + 1, 32)


def test_image_codes_that_do_not_fit_are_refused(tmp_path):
    first = save_bpe(tmp_path, ["<|mdm_mask|>"], whole=True)
    save(tmp_path, "mmada", codebook_size=CODES, mask_token_id=first)
    with pytest.raises(mdm.MdmError, match=f"{CODES} image codes .* {first + 1} tokens do not fit .* of 320"):
        mdm.load_model(tmp_path, device="cpu")


def test_text_is_drawn_from_the_whole_vocabulary_unless_told_otherwise(tmp_path):
    model = mdm.load_model(save(tmp_path, "mmada"), device="cpu", dtype="float32")
    [free] = mdm.decode(model, [PROMPT], "confidence", gen_length=32)
    assert any(token >= 256 for token in free.tokens)
    [text] = mdm.decode(model, [PROMPT], "confidence", gen_length=32, allowed_tokens=[(0, 256)])
    assert all(token < 256 and token != MASK for token in text.tokens)
