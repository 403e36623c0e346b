"""Pictures drawn by every sampler: rows that do not see each other, what a forward runs, and a part drawn anew."""

from __future__ import annotations

from dataclasses import replace
from math import log

import mdm
import pytest
from mdm import registry
from mdm.errors import MdmError
from mdm.models import Layout
from mdm.protocols import Prompt
from mdm_testing.counters import counting
from mdm_testing.probe import essence
from tiny_families import save_painter

ASKED = [Prompt(text, kind="image") for text in ("a red cube", "a", "two blue balls, far away")]
SECOND = [None, "b", "dark"]
OFTEN = ("confidence", "maskgit", "info-gain", "lookum", "beam")
SETTINGS = {"guidance": 2.0, "temperature": 0.7, "steps": 4}


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    model, tokenizer = save_painter(tmp_path_factory.mktemp("painter"))
    return mdm.load_model(model, device="cpu", image_tokenizer=tokenizer)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(name, marks=() if name in OFTEN else pytest.mark.wide)
        for name in registry.names("sampler")
        if name != "pc"  # it weighs tokens by how often a text has them
    ],
)
def test_a_picture_does_not_see_its_neighbours(painter, sampler, cache):
    together = mdm.decode(painter, ASKED, sampler, cache=cache, unconditional=SECOND, **SETTINGS)
    for row, (prompt, second) in enumerate(zip(ASKED, SECOND, strict=True)):
        [alone] = mdm.decode(painter, [prompt], sampler, cache=cache, unconditional=[second], row_ids=[row], **SETTINGS)
        assert essence(alone) == essence(together[row]) and (alone.image == together[row].image).all()
    few = mdm.decode(
        painter, ASKED, sampler, cache=cache, unconditional=SECOND, batch_size=2, max_rows=1, **SETTINGS
    )  # fmt: skip
    assert [essence(row) for row in few] == [essence(row) for row in together]


def test_the_head_runs_on_the_codes_alone(painter):
    with counting(painter) as counts:
        [result] = mdm.decode(painter, ASKED[:1], "confidence", steps=4, guidance=2.0)
    assert result.forwards == 4 and result.rows == 8
    assert counts.head_logits == 64 * counts.head_rows


def test_what_is_not_computed_counts_ln_of_the_codes(painter):
    """Under dual a lookahead runs the block; with blocks of 8 the other 8 slots are not computed."""
    settings = {"block_length": 8, "cache": "dual", "trace": "full", "steps": 16}
    [result] = mdm.decode(painter, ASKED[:1], "info-gain", {"candidates": "all"}, **settings)
    compared = [candidate["H"] for line in result.trace for candidate in line.get("weighed", [])]
    assert compared and all(0 <= value <= log(64) + 1e-6 for value in compared)


def test_a_part_is_drawn_anew(painter):
    [whole] = mdm.decode(painter, ASKED[:1], "confidence", guidance=2.0, steps=4)
    layout, mask = painter.lay_out(ASKED[0]), painter.spec.mask_id
    part = [mask if i % 4 < 2 else token for i, token in enumerate(whole.tokens)]
    again = Layout(
        [*layout.tokens, *part], "image", layout.context, 0, layout.suffix, [*layout.unconditional, *part], layout.grid
    )
    [result] = mdm.decode(painter, [again], "confidence", guidance=2.0, steps=6)
    shown = result.sequence[layout.context : layout.context + 16]
    assert [b for a, b in zip(part, shown, strict=True) if a != mask] == [a for a in part if a != mask]
    assert result.image.shape == (16, 16, 3) and len(result.tokens) == 8
    # Of 16 slots 8 are known: cos leaves more open than are masked until step 5, so that one is filled a step.
    assert [len(line["positions"]) for line in result.trace] == [1, 1, 1, 1, 1, 3]


def test_texts_and_pictures_are_not_one_call(painter):
    with pytest.raises(MdmError, match="ask for pictures and for texts: decode them in two calls"):
        mdm.decode(painter, [ASKED[0], "a text"])
    with pytest.raises(MdmError, match="gen_length does not apply to a picture"):
        mdm.decode(painter, ASKED[:1], gen_length=4)
    with pytest.raises(MdmError, match="stop_at_eos does not apply to pictures"):
        mdm.decode(painter, ASKED[:1], stop_at_eos=True)


def test_without_an_image_tokenizer_there_are_codes_alone(tmp_path):
    model = mdm.load_model(save_painter(tmp_path)[0], device="cpu")
    [result] = mdm.decode(model, ASKED[:1], "confidence", steps=2)
    assert result.image is None and result.text is None and len(result.tokens) == 16
    assert all(107 <= token < 171 for token in result.tokens)


@pytest.mark.parametrize("written", [True, False], ids=["masks", "gen_length"])
@pytest.mark.parametrize("allowed", [None, [(107, 130)]])
def test_known_codes_are_slots_however_the_rest_is_asked_for(painter, written, allowed):
    layout = painter.lay_out(ASKED[0])
    known = [107 + code for code in (3, 60, 9, 41, 5, 17, 63, 30)]
    given = [*known, *[painter.spec.mask_id] * 8] if written else known
    half = replace(
        layout, tokens=[*layout.tokens, *given], unconditional=[*layout.unconditional, *given],
        gen_length=0 if written else 8,
    )  # fmt: skip
    [result] = mdm.decode(painter, [half], "confidence", steps=5, guidance=2.0, allowed_tokens=allowed)
    assert [len(line["positions"]) for line in result.trace] == [1, 1, 1, 1, 4]


def test_layouts_that_are_no_picture_are_refused_before_anything_is_drawn(painter):
    layout, done = painter.lay_out(ASKED[0]), []
    for wrong, said in (
        (replace(layout, grid=(5, 5)), "prompt 1: a grid of 5 x 5 has 25 codes, and behind the context there are 16"),
        (
            replace(layout, gen_length=None),
            "prompt 1: a grid of 4 x 4 has 16 codes, and behind the context there are 0",
        ),
        (
            replace(layout, context=3, gen_length=16 - len(layout.tokens) + 3),
            "prompt 1: token .* is neither a mask nor a",
        ),
        (replace(layout, grid=(2, 4), gen_length=8), "pictures of 16 and of other numbers of codes: decode them apart"),
    ):
        with pytest.raises(MdmError, match=said):
            mdm.decode(painter, [layout, wrong], "confidence", on_finish=lambda *_: done.append(1))
    assert not done


def test_second_prompts_of_a_picture(painter):
    settings = {"guidance": 2.0, "steps": 4}
    [text] = mdm.decode(painter, ASKED[:1], "confidence", unconditional="dark", **settings)
    [same] = mdm.decode(painter, ASKED[:1], "confidence", unconditional=[Prompt("dark", kind="image")], **settings)
    assert essence(text) == essence(same)
    for second in (Prompt("dark"), [{"role": "user", "content": "dark"}]):
        with pytest.raises(MdmError, match="a picture is compared with another: give a text, ids or a Prompt of kind="):
            mdm.decode(painter, ASKED[:1], "confidence", unconditional=second, **settings)
