"""Steps of a generation over its blocks: shared out; where there are fewer than blocks, blocks are joined."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import mdm
import pytest
from mdm.errors import MdmWarning
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
def test_of_more_blocks_than_steps_some_are_joined(model, prompt, length, size, steps, blocks):
    """As many forwards as were asked for, and a line says what became of the blocks."""
    line = f"^steps {steps} over {blocks} blocks of {size or 32} tokens: .* joined to {steps} longer ones"
    with pytest.warns(MdmWarning, match=line):
        [result] = decoded(model, prompt, gen_length=length, block_length=size, steps=steps)
    assert result.forwards == len(result.trace) == steps and MASK not in result.sequence
    ends = [max(line["positions"]) for line in result.trace]
    starts = [min(line["positions"]) for line in result.trace]
    assert all(start > end for start, end in zip(starts[1:], ends, strict=False))  # block after block
    [result] = decoded(model, prompt, gen_length=length, block_length=size, steps=blocks)
    assert result.forwards == blocks


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_joined_blocks_are_those_of_that_length(model, cache):
    options = {"gen_length": 24, "steps": 3, "cache": cache}
    with pytest.warns(MdmWarning, match="steps 3 over 6 blocks"):
        [joined] = decoded(model, block_length=4, **options)
    assert joined.sequence == decoded(model, block_length=8, **options)[0].sequence


def test_a_grids_blocks_are_counted_as_they_lie():
    model = toy_model("block-causal")
    with pytest.raises(mdm.MdmError, match="steps 2 over 3 blocks"):  # positions 3 to 10 lie in three blocks of four
        decoded(model, gen_length=8, steps=2)
    assert decoded(model, gen_length=8, steps=3)[0].forwards >= 3


def test_a_grid_with_more_blocks_is_refused_before_any_is_decoded():
    done = []
    with pytest.raises(mdm.MdmError, match="prompt 1: steps 2 over 3 blocks"):
        decoded(
            toy_model("block-causal"), PROMPT, [5], gen_length=[1, 11], steps=2, batch_size=1,
            on_finish=lambda i, _: done.append(i),
        )  # fmt: skip
    assert done == []


def test_only_the_prompts_with_more_blocks_than_steps_are_touched(model):
    with pytest.warns(MdmWarning, match="steps 2 over 3 blocks"):
        short, long = decoded(model, PROMPT, [5], gen_length=[8, 12], block_length=4, steps=2)
    alone = decoded(model, PROMPT, gen_length=8, block_length=4, steps=2)[0]
    assert replace(short, trace=[], cumulative_entropy=0) == replace(alone, trace=[], cumulative_entropy=0)
    for line, other in zip(short.trace, alone.trace, strict=True):  # entropies round as the batch is wide
        assert line == other | {"entropy": pytest.approx(other["entropy"], abs=1e-5)}
    assert long.forwards == 2


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


def test_the_command_line_says_it_in_a_line(tmp_path):
    command = [sys.executable, "-m", "mdm", "generate", "1+1=", "--steps", "1", "--sampler", "confidence", "--no-chat"]
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.startswith("mdm: steps 1 over 2 blocks of 32 tokens: "), done.stderr
    assert "1 forwards" in done.stderr
