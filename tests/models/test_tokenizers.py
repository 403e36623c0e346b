"""Tokenizers laid out as each family publishes its own, read without the classes that lie beside them."""

from __future__ import annotations

import mdm
import pytest
from mdm.protocols import Message
from tiny_families import save, save_bpe

LLADA = [
    "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
]  # fmt: skip
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HEADERS = (
    "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nhello 4<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
TURNS = "<|im_start|>user\nhello 4<|im_end|>\n<|im_start|>assistant\n"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
LAYOUTS = {
    # family, added tokens, the mask's, the end's, whether tokenizer.json is there, the known chat
    "LLaDA": ("llada", LLADA, "<|mdm_mask|>", "<|endoftext|>", True, HEADERS),
    "MMaDA": ("mmada", LLADA, "<|mdm_mask|>", "<|endoftext|>", True, HEADERS.replace("\n\n", "\n")),
    "Dream": ("dream", [*QWEN, "<|beginoftext|>", "<|mask|>"], "<|mask|>", "<|endoftext|>", False, SYSTEM + TURNS),
    "SDAR, two files": ("sdar", [*QWEN, "<|MASK|>"], "<|MASK|>", "<|im_end|>", False, TURNS),
    "SDAR and TraDo, one file": ("sdar", [*QWEN, "<|MASK|>"], "<|MASK|>", "<|im_end|>", True, TURNS),
}


class Layout:
    """A checkpoint laid out as its family does; a model of it."""

    def __init__(self, folder, name, **config):
        family, self.added, self.mask, self.end, whole, self.chat = LAYOUTS[name]
        folder.mkdir()
        first = save_bpe(folder, self.added, whole=whole, **config)
        self.ids = {text: first + i for i, text in enumerate(self.added)}
        ids = {"mask_token_id": self.ids[self.mask], "eos_token_id": self.ids["<|endoftext|>"]}
        if family == "sdar":
            ids["mask_token_id"] = None  # some of its checkpoints leave it to the tokenizer
        size = {"sdar": 320, "dream": 320}.get(family, 384)
        save(folder, family, **ids, vocab_size=size, embedding_size=size, new_vocab_size=size)
        self.folder = folder

    def model(self):
        return mdm.load_model(self.folder, device="cpu", dtype="float32")


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    return Layout(tmp_path / "checkpoint", request.param)


def test_text_and_mask(layout):
    model = layout.model()
    assert model.spec.mask_id == layout.ids[layout.mask]
    for text in ("hello hello", "1+1=2\n\ttwo  spaces ", "é → 漢字 🙂"):
        assert model.decode(model.encode(text)) == text
    assert len(model.encode("hello")) == 1  # one merged word: the merges are the checkpoint's
    masked = model.encode("hello[MASK]")
    assert masked == [*model.encode("hello"), model.spec.mask_id]
    spelled = model.encode(f"hello{layout.mask}")
    assert model.spec.mask_id not in spelled and model.tokenizer.decode(spelled) == f"hello{layout.mask}"


def test_where_an_answer_ends(layout):
    model = layout.model()
    assert layout.ids[layout.end] in model.spec.eos_ids
    assert layout.ids["<|endoftext|>"] in model.spec.eos_ids
    hello, junk = model.encode("hello"), model.encode("junk")
    assert model.decode([*hello, layout.ids[layout.end], *junk]) == "hello"
    assert model.decode([*hello, model.spec.mask_id]) == "hello"  # special tokens are no text


def test_the_known_chat_where_there_is_none(layout):
    model = layout.model()
    ids = model.encode_chat([Message("user", "hello 4")])
    assert "".join(model.token_texts(ids)) == layout.chat
    named = [layout.ids[text] for text in layout.added if text in layout.chat]
    assert named and set(named) <= set(ids)  # a special token is one id


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
@pytest.mark.parametrize("name", ["LLaDA", "Dream", "SDAR, two files"])
def test_the_checkpoints_own_chat_comes_first(tmp_path, name, place):
    own = "{{ messages[0]['content'] }}!"
    made = Layout(tmp_path / "checkpoint", name, **({"chat_template": own} if place.endswith("json") else {}))
    if place.endswith("jinja"):
        (made.folder / place).write_text(own)
    model = made.model()
    assert "".join(model.token_texts(model.encode_chat([Message("user", "hello")]))) == "hello!"


def test_a_system_message(tmp_path):
    model = Layout(tmp_path / "checkpoint", "Dream").model()
    ids = model.encode_chat([Message("system", "Be short."), Message("user", "hello 4")])
    assert "".join(model.token_texts(ids)) == f"<|im_start|>system\nBe short.<|im_end|>\n{TURNS}"


def test_of_a_character_over_several_tokens_each_has_its_bytes(layout):
    """What is shown spells them; the text of whole characters, and of what was decoded, stays as it is."""
    model = layout.model()
    ids = model.encode("hello é漢\N{REPLACEMENT CHARACTER}")
    shown = model.shown_texts(ids)
    assert shown[:2] == ["hello", " "] and shown[2:7] == ["‹C3›", "‹A9›", "‹E6›", "‹BC›", "‹A2›"]
    assert len(set(model.token_texts(ids)[2:])) == 1
    [end] = model.shown_texts([layout.ids[layout.end]])
    assert end == layout.end


def test_a_template_that_the_tokenizer_does_not_know_is_warned_of():
    """The embedded model has LLaDA's template, of whose tokens its own vocabulary has none."""
    model = mdm.load_model("tiny", device="cpu")
    with pytest.warns(mdm.errors.MdmWarning, match="tiny's tokenizer does not know all of its chat template"):
        model.encode_chat([Message("user", "12:")])
