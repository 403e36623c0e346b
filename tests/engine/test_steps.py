"""Steps of a generation over its blocks: shared out, or refused where there are fewer than blocks."""

from __future__ import annotations

import mdm
import pytest
from mdm_testing.toy import MASK, toy_model

PROMPT = [1, 2, 3]


@pytest.fixture(scope="module")
def model():
    return toy_model()


def decoded(model, *prompts, **more):
    return mdm.decode(model, list(prompts) or [PROMPT], "confidence", **more)


@pytest.mark.parametrize(
    ("prompt", "length", "size", "steps", "blocks"),
    [
        (PROMPT, 32, 4, 3, 8),
        (PROMPT, 32, 4, 7, 8),
        (PROMPT, 32, 4, 1, 8),
        (PROMPT, 5, 2, 2, 3),
        (PROMPT, 64, None, 1, 2),
        (PROMPT, 33, 32, 1, 2),
        ([1, MASK, 2], 8, 4, 2, 3),  # the prompt's own mask is a block
        ([1, MASK, 2], 4, 4, 1, 2),
    ],
)
def test_fewer_steps_than_blocks_are_refused(model, prompt, length, size, steps, blocks):
    with pytest.raises(
        mdm.MdmError, match=f"prompt 0: steps {steps} over {blocks} blocks .*take at least {blocks} steps"
    ):
        decoded(model, prompt, gen_length=length, block_length=size, steps=steps)
    [result] = decoded(model, prompt, gen_length=length, block_length=size, steps=blocks)
    assert result.forwards == blocks


def test_a_grids_blocks_are_counted_as_they_lie():
    model = toy_model("block-causal")
    with pytest.raises(mdm.MdmError, match="steps 2 over 3 blocks"):  # positions 3 to 10 lie in three blocks of four
        decoded(model, gen_length=8, steps=2)
    assert decoded(model, gen_length=8, steps=3)[0].forwards >= 3


def test_the_longest_prompt_of_a_batch_is_named_before_any_is_decoded(model):
    done = []
    with pytest.raises(mdm.MdmError, match="prompt 1: steps 2 over 3 blocks"):
        decoded(
            model, PROMPT, [5], gen_length=[4, 12], block_length=4, steps=2, batch_size=1,
            on_finish=lambda i, _: done.append(i),
        )  # fmt: skip
    assert done == []


@pytest.mark.parametrize("steps", [8, 5, 3, 20])
def test_steps_that_do_not_divide_go_to_the_first_blocks(model, steps):
    """Blocks of 3, 3 and 2 of eight tokens; a block's steps are at most its tokens."""
    [result] = decoded(model, gen_length=8, block_length=3, steps=steps)
    shares = {8: (3, 3, 2), 5: (2, 2, 1), 3: (1, 1, 1), 20: (3, 3, 2)}[steps]
    assert result.forwards == sum(shares)


def test_a_sampler_that_works_on_the_whole_canvas_has_one_block(model):
    from mdm import registry

    whole = [name for name in registry.names("sampler") if registry.resolve("sampler", name).works_on == "canvas"]
    for name in whole:
        [result] = mdm.decode(model, [PROMPT], name, gen_length=8, block_length=4, steps=2)
        assert len(result.tokens) == 8
    assert whole


def test_a_run_refuses_before_it_decodes(tmp_path):
    from click.testing import CliRunner
    from mdm.cli import cli

    done = CliRunner().invoke(
        cli,
        [
            "run",
            "--limit",
            "2",
            "--block-length",
            "4",
            "--steps",
            "3",
            "--sampler",
            "confidence",
            "-o",
            "mode=generate",
            "--out",
            str(tmp_path / "run"),
        ],
    )
    assert isinstance(done.exception, mdm.MdmError) and "sudoku, example" in str(done.exception)
    assert "steps 3 over 4 blocks of 4 tokens: 4 blocks take at least 4 steps" in str(done.exception)
    assert not list(tmp_path.rglob("results*.jsonl"))
    done = CliRunner().invoke(cli, ["generate", "1+1=", "--steps", "1", "--sampler", "confidence"])
    assert "prompt 0: steps 1 over 2 blocks" in str(done.exception)
