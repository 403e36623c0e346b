"""What a sampler promises that takes back what it committed."""

from __future__ import annotations

from mdm.errors import MdmError

from mdm_testing.kit import Subject, check
from mdm_testing.probe import GEN, Decided, Watched, decode, of_rows, prompts, say, under
from mdm_testing.toy import MASK, toy_model

MOST_REVISING = 32
"""Steps of a block for each of its positions."""

HOLES: tuple[tuple[int, ...], ...] = ((1, 2), (0, 3, 4, 9), (), (2, 6, 7))
"""Which positions of ``prompts()`` are masked for an infill."""


@check("sampler")
def revises_its_own_answer_alone(of: Subject) -> None:
    """What it replaces or masks again is its own: never a prompt's token, nor one that stands between the holes."""
    if of.plugin.reads == "masked":
        return
    given = [[MASK if i in holes else t for i, t in enumerate(p)] for p, holes in zip(prompts(), HOLES, strict=True)]
    for model in (toy_model(), toy_model("block-causal")):
        watched = Watched(of.make())
        try:
            results = decode(model, given, watched, gen_length=[GEN, 3, 5, 0])
        except MdmError as error:
            if error.fault != "stray":
                raise
            raise AssertionError(str(error)) from error
        for seen in watched.decided:
            own = of_rows(seen, seen.state.targets).gather(1, of_rows(seen, seen.scores.positions))
            strange = seen.commit.where & ~own
            assert not strange.any(), say("replaces a token that it was given", seen, strange)
        for prompt, result in zip(given, results, strict=True):
            changed = [i for i, t in enumerate(prompt) if t not in (MASK, result.sequence[i])]
            assert not changed, f"the given tokens at {changed} are not what they were"


@check("sampler")
def leaves_a_block_that_it_revises(of: Subject) -> None:
    """A row lingers in a block without masks only to revise it, and not for ever where the model never settles."""
    watched = Watched(of.make(), look=_leaves)
    for settings in ({}, {"gen_length": [GEN, 3, GEN, 6]}, {"temperature": 1.0}):
        try:
            decode(toy_model(), prompts(), watched, **settings)
        except MdmError as error:
            raise AssertionError(f"{under(settings)}{error}") from error
    lingered = any(seen.state.lingers is not None and bool(seen.state.lingers.any()) for seen in watched.decided)
    assert not lingered or of.plugin.reads != "masked", (
        'lingers where it can change nothing: it needs reads = "generated"'
    )


def _leaves(seen: Decided) -> None:
    most = MOST_REVISING * int(seen.state.in_block.sum(1).amax())
    assert int(seen.state.block_step.max()) < most, f"has spent {most} steps in one block, and revises on"
