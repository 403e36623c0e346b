"""MMaDA's canvases around pictures: the published ids, a checkpoint's own, and what is refused."""

from __future__ import annotations

import warnings
from itertools import chain

import mdm
import numpy as np
import pytest
from goldens import cases, facts
from mdm.errors import MdmError, MdmWarning
from mdm.protocols import Message, Picture, Prompt
from mdm_mmada.canvases import NAMES, SpecialTokens, image_first, text_to_image
from mdm_mmada.example import SPECIAL
from PIL import Image
from tiny_families import save, save_painter

LAYOUT = "images_layout"
OF = {name: SPECIAL.index(name) for name in SPECIAL}


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    model, tokenizer = save_painter(tmp_path_factory.mktemp("painter"))
    return mdm.load_model(model, device="cpu", image_tokenizer=tokenizer)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("case", cases("images/mmada", LAYOUT))
def test_canvases_are_as_published(case):
    if "chat_ids" in case:
        tokens = [126349 + code for code in case["codes"]]
        assert image_first(tokens, case["chat_ids"], SpecialTokens()) == case["input_ids"]
        return
    for text, runs in zip(case["texts"], case["input_ids_runs"], strict=True):
        ids = list(chain.from_iterable([token] * times for token, times in runs))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MdmWarning)
            head = text_to_image(text, SpecialTokens(), case["max_text_len"])
        slots = [126336] * case["image_tokens"]
        assert [token for token in ids if token != 126093] == [*head, *slots, SpecialTokens().end_of_image]


def test_the_special_tokens_are_the_published_ones():
    expected = facts("images/mmada", LAYOUT)
    if expected is None:
        pytest.skip("the goldens are not on this machine")
    other = {"<|startoftext|>": "<|sot|>", "<|endoftext|>": "<|eot|>"}
    special = SpecialTokens()
    assert {other.get(name, name): getattr(special, field) for name, field in NAMES.items()}.items() <= expected[
        "special"
    ].items()


def test_a_picture_is_laid_out_behind_its_description(painter):
    layout = painter.lay_out(Prompt("red", kind="image"))
    text = painter.encode("red", None)
    head = [OF["<|t2i|>"], OF["<|startoftext|>"], *text, OF["<|endoftext|>"], OF["<|soi|>"]]
    assert (layout.tokens, layout.gen_length, layout.suffix) == (head, 16, (OF["<|eoi|>"],))
    assert layout.unconditional == [*head[:2], *head[-2:]] and layout.grid == (4, 4)
    assert painter.lay_out(Prompt("", kind="image")).tokens == layout.unconditional


def test_what_a_description_names_of_special_tokens_is_text(painter):
    tokens = painter.lay_out(Prompt("a <|soi|> b", kind="image")).tokens
    assert tokens.count(OF["<|soi|>"]) == 1 and len(tokens) == 4 + len("a <|soi|> b")


def test_a_description_that_is_too_long_is_cut_and_said(painter):
    with pytest.warns(MdmWarning, match="has 90 tokens more than the model was trained with: its end is cut"):
        tokens = painter.lay_out(Prompt("x" * 600, kind="image")).tokens
    assert len(tokens) == 514 and tokens[-2:] == [OF["<|endoftext|>"], OF["<|soi|>"]]


def test_a_picture_stands_before_the_chat(painter, photo):
    asked = Message("user", (Picture(photo), "What?"))
    layout = painter.lay_out(Prompt((asked,), gen_length=4))
    chat = painter.encode_chat([Message("user", "What?")])
    assert layout.tokens[:2] == [OF["<|mmu|>"], OF["<|soi|>"]] and layout.tokens[18] == OF["<|eoi|>"]
    assert layout.tokens[19:] == chat and layout.context == len(layout.tokens)
    codes = [token - painter.spec.image_offset for token in layout.tokens[2:18]]
    assert all(0 <= code < 64 for code in codes) and len(set(codes)) > 1
    squashed = painter.lay_out(Prompt((Message("user", (Picture(photo, squash=True), "What?")),))).tokens
    assert squashed[2:18] != layout.tokens[2:18] and squashed[19:] == chat


def test_a_header_has_one_newline_behind_it(painter):
    text = painter.text._text(painter.encode_chat([Message("user", "Hi")]))
    assert text == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n"
    )


def test_codes_have_no_text(painter):
    offset = painter.spec.image_offset
    text = painter.encode("ab", None)
    assert painter.token_texts([text[0], offset + 3, text[1]]) == ["a", "", "b"]
    assert painter.decode([text[0], offset, text[1], OF["<|endoftext|>"], text[0]]) == "ab"


def test_a_chat_that_is_seen_answers(painter, photo):
    [result] = mdm.decode(painter, [[Message("user", (Picture(photo), "What?"))]], gen_length=6)
    assert result.image is None and result.text is not None and len(result.tokens) == 6
    [same] = mdm.decode(painter, [[{"role": "user", "content": [Picture(photo), "What?"]}]], gen_length=6)
    assert same.tokens == result.tokens


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (Prompt((Message("user", "red"),), kind="image"), "give no chat for a picture"),
        (Prompt("red", "blue", kind="image"), "a prompt for a picture has a context alone"),
        (Prompt("red", gen_length=3, kind="image"), "a prompt for a picture has a context alone"),
        (
            Prompt((Message("user", (Picture("a.png"), Picture("b.png"))),)),
            "sees one picture in a chat, and this one has 2",
        ),
        (Prompt("red", kind="picture"), "a prompt of the kind 'picture': there are text and image"),
        (Prompt((Message("user", (Picture("nowhere.png"), "?")),)), "nowhere.png: there is no such file"),
    ],
)
def test_what_cannot_be_laid_out(painter, prompt, said):
    with pytest.raises(MdmError, match=said):
        painter.lay_out(prompt)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"special_token_ids": {"<|t2x|>": 3}}, r"names '<\|t2x\|>'. Did you mean '<\|t2i\|>'"),
        ({"special_token_ids": {"<|t2i|>": "3"}}, "'3', which is no id of a token"),
        ({"special_token_ids": [3]}, "is no mapping"),
    ],
)
def test_special_tokens_that_a_checkpoint_names_wrongly(tmp_path, changes, said):
    with pytest.raises(MdmError, match=said):
        mdm.load_model(save_painter(tmp_path, **changes)[0], device="cpu")


def test_special_tokens_behind_the_text_are_refused_where_they_are_used(tmp_path):
    model = mdm.load_model(save_painter(tmp_path, special_token_ids=None)[0], device="cpu")
    assert model.encode_chat([Message("user", "Hi")])
    with pytest.raises(MdmError, match=r"<\|startoftext\|> is 126080, and the text ends at 107: .*special_token_ids"):
        model.lay_out(Prompt("red", kind="image"))


def test_an_image_tokenizer_that_does_not_fit(tmp_path, painter):
    model, tokenizer = save_painter(tmp_path, codebook_size=32)
    with pytest.raises(MdmError, match="has 64 codes, and .* was trained with 32: they do not belong together"):
        mdm.load_model(model, device="cpu", image_tokenizer=tokenizer)
    for size in (18, 4, 10**5):
        with pytest.raises(MdmError, match=f"image_size {size} is no multiple of 4, .* from 8 to 512"):
            mdm.load_model(painter.name, device="cpu", image_tokenizer=tokenizer, image_size=size)
    for size in ("16", 16.0, 0, -4):
        with pytest.raises(MdmError, match=f"image_size is {size!r}: it is a number of pixels"):
            mdm.load_model(painter.name, device="cpu", image_tokenizer=tokenizer, image_size=size)
    with pytest.raises(MdmError, match="^image_tokenizer: .*nowhere"):
        mdm.load_model(painter.name, device="cpu", image_tokenizer="nowhere/here")
    with pytest.raises(MdmError, match="nothing makes any: give image_tokenizer"):
        mdm.load_model(painter.name, device="cpu", image_size=16)
    llada = save(tmp_path / "llada", "llada")
    with pytest.raises(MdmError, match="a llada model has no pictures"):
        mdm.load_model(llada, device="cpu", image_tokenizer=tokenizer)
    with pytest.raises(MdmError, match="draws no pictures"):
        mdm.load_model(llada, device="cpu").lay_out(Prompt("red", kind="image"))


def test_a_size_of_ones_own(tmp_path, painter):
    model, tokenizer = save_painter(tmp_path)
    larger = mdm.load_model(model, device="cpu", image_tokenizer=tokenizer, image_size=24)
    [result] = mdm.decode(larger, [Prompt("red", kind="image")], "confidence", steps=6)
    assert result.image.shape == (24, 24, 3) and len(result.tokens) == 36
    odd = mdm.load_model(save_painter(tmp_path / "odd", num_vq_tokens=12)[0], device="cpu")
    with pytest.raises(MdmError, match="12 codes of a picture .* are no square: give image_size"):
        odd.lay_out(Prompt("red", kind="image"))


@pytest.mark.parametrize("key", ["codebook_size", "num_vq_tokens", "image_token_offset"])
@pytest.mark.parametrize("value", ["abc", -4, 0, 107.0, None])
def test_numbers_of_a_config_that_are_none(tmp_path, key, value):
    with pytest.raises(MdmError, match=f"config key '{key}' is {value!r}: it is a whole number from 1"):
        mdm.load_model(save_painter(tmp_path, **{key: value})[0], device="cpu")


def test_special_tokens_are_told_apart(tmp_path):
    special = {name: OF[name] for name in NAMES}
    for name, token, other in (("<|soi|>", 1, "the mask"), ("<|eoi|>", OF["<|soi|>"], "<|soi|>")):
        changes = {"special_token_ids": special | {name: token}}
        model = mdm.load_model(save_painter(tmp_path, **changes)[0], device="cpu")
        with pytest.raises(MdmError) as caught:
            model.lay_out(Prompt("red", kind="image"))
        assert f"the token {name} is {token}, and so is {other}" in str(caught.value)


def test_texts_beside_a_picture_stand_on_lines_of_their_own(painter, photo):
    message = Message("user", ("ab", Picture(photo), "c"))
    assert message.text == "ab\nc" and Message("user", Picture(photo)).pictures == (Picture(photo),)
    [one] = mdm.decode(painter, [[{"role": "user", "content": Picture(photo)}]], "confidence", gen_length=2)
    assert len(one.tokens) == 2
