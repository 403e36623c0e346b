"""How a model encodes texts in which masks stand."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.errors import MdmError
from mdm.models import Model
from mdm.protocols import ModelSpec
from mdm_testing.toy import toy_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs", "."]
MASK = WORDS.index("[MASK]")


@pytest.fixture(scope="module")
def wordpiece():
    """A model whose tokenizer has no token for a blank."""
    words = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", mask_token="[MASK]")
    toy = toy_model()
    return Model(ModelSpec("mlm", len(WORDS), MASK, has_kv=False), toy.body, toy.lm_head, tokenizer, name="words")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a [MASK] runs .", [5, MASK, 7, 8]),
        ("a [MASK] [MASK] .", [5, MASK, MASK, 8]),
        ("[MASK]\n", [MASK]),
        (" [MASK]\t[MASK] ", [MASK, MASK]),
    ],
)
def test_a_blank_beside_a_mask_is_no_unknown_character(wordpiece, text, ids):
    assert wordpiece.encode(text) == ids


def test_a_word_that_the_tokenizer_does_not_know_is_refused(wordpiece):
    with pytest.raises(MdmError, match="words's tokenizer does not know some characters of ' zebra '"):
        wordpiece.encode("[MASK] zebra [MASK]")


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [(7, "7"), (999, "999"), (35_040, "35k"), (8_100, "8.1k"), (869_888, "870k"), (6_739_000_000, "6.7B")],
)
def test_a_model_says_what_it_is_in_one_line(parameters, shown):
    toy = toy_model()
    head = nn.Linear(1, 1, bias=False)
    head.weight = nn.Parameter(torch.empty(parameters, device="meta", dtype=torch.bfloat16))
    spec = ModelSpec("dream", 259, 256, default_cache="prefix")
    assert repr(Model(spec, head, head, name="some/name")) == (
        f"<mdm model 'some/name': family dream, {shown} parameters, bfloat16 on meta, cache prefix>"
    )
    assert repr(toy) == "<mdm model 'toy': family toy, 35k parameters, float32 on cpu, cache none>"


def test_a_model_is_called_what_it_was_loaded_by():
    assert mdm.load_model("tiny", device="cpu").name == "tiny"
