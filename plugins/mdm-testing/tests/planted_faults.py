"""Faulty plugins, and for each the check of the conformance kit that catches it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mdm.errors import MdmError
from mdm.models import BaseFamily
from mdm.protocols import (
    BaseSampler,
    BaseTask,
    Commit,
    Evaluate,
    Example,
    LayerCache,
    NoCache,
    NoOptions,
    Plan,
    Preset,
    Prompt,
    Rowwise,
    TaskPreset,
    top_k,
)  # fmt: skip
from mdm_testing import toy_model
from PIL import Image
from torch import Tensor


def best(state, scores, key=None):
    return Commit(top_k(scores.log_odds if key is None else key, scores.valid, state.budget), scores.token)


class Sound(BaseSampler):
    """Breaks no promise."""

    def decide(self, state, scores, memory, draws):
        return best(state, scores)


class ReadsNeighbour(BaseSampler):
    """Ranks by the row above it."""

    def decide(self, state, scores, memory, draws):
        return best(state, scores, scores.log_odds + scores.log_odds.roll(1, 0))


class CommitsVisible(BaseSampler):
    """Commits whatever it finds in the scores' padding, or visible positions."""

    def decide(self, state, scores, memory, draws):
        return Commit(top_k(scores.log_odds, scores.valid | True, state.budget + 1), scores.token)


class ReadsPadding(BaseSampler):
    """Takes the surest position of a row, also where its score is not valid."""

    def decide(self, state, scores, memory, draws):
        surest = scores.log_odds.argmax(1, keepdim=True)
        return best(state, scores, torch.zeros_like(scores.log_odds).scatter(1, surest, 1.0))


class NeverEnds(BaseSampler):
    """Stops one mask short."""

    def decide(self, state, scores, memory, draws):
        return Commit(best(state, scores).where & (scores.valid.sum(1, keepdim=True) > 1), scores.token)


class Overspends(BaseSampler):
    """Commits two where the schedule has one."""

    def decide(self, state, scores, memory, draws):
        return Commit(top_k(scores.log_odds, scores.valid, 2 * state.budget), scores.token)


class GlobalDraws(BaseSampler):
    """Draws from torch's own generator."""

    def decide(self, state, scores, memory, draws):
        return best(state, scores, torch.rand(scores.log_odds.shape))


class Counts(BaseSampler):
    """Remembers the steps in itself."""

    def __init__(self, options):
        super().__init__(options)
        self.steps = 0

    def decide(self, state, scores, memory, draws):
        self.steps += 1
        return best(state, scores, scores.log_odds * (-1) ** self.steps)


class Asks(BaseSampler):
    """Asks the device how many masks are left."""

    def decide(self, state, scores, memory, draws):
        left = scores.valid.sum().item()
        return best(state, scores, scores.log_odds / max(left, 1))


class Lectures(BaseSampler):
    """Tells the device in every step what it could have remembered."""

    def decide(self, state, scores, memory, draws):
        weights = torch.tensor([1.0] * len(scores.valid)).to(state.device)
        return best(state, scores, scores.log_odds * weights[:, None])


class Overwrites(BaseSampler):
    """Ranks in place."""

    def decide(self, state, scores, memory, draws):
        return best(state, scores, scores.log_odds.mul_(2.0))


class WrongScores(BaseSampler):
    """Returns the scores of a candidate that it did not choose."""

    def decide(self, state, scores, memory, draws):
        first, second = (
            top_k(scores.log_odds, scores.valid, state.budget),
            top_k(-scores.log_odds, scores.valid, state.budget),
        )
        where = torch.stack([first, second], 1)
        ahead = yield Evaluate(Commit(where, scores.token[:, None].expand_as(where)), where.any(-1))
        return Commit(first, scores.token, scores=ahead.pick(torch.ones_like(state.budget)))


class BreaksItsWord(BaseSampler):
    """Binds itself to candidates of which it commits none."""

    def decide(self, state, scores, memory, draws):
        where = top_k(-scores.log_odds, scores.valid, state.budget)[:, None]
        yield Evaluate(Commit(where, scores.token[:, None]), where.any(-1), commits_a_candidate=True)
        return best(state, scores)


class BeyondVocabulary(BaseSampler):
    """Commits ids that are one too large."""

    def decide(self, state, scores, memory, draws):
        return replace(best(state, scores), tokens=scores.token.clamp(max=0) + 259)


class LooseOptions(BaseSampler):
    """Takes any option."""

    class Options(NoOptions):
        model_config = {"extra": "allow"}

    def decide(self, state, scores, memory, draws):
        return best(state, scores)


class Edits(BaseSampler):
    """Commits one mask a step, and replaces what has become less likely than another token."""

    reads = "generated"
    pace = "own"

    def decide(self, state, scores, memory, draws):
        masked = scores.valid & state.masked.gather(1, scores.positions)
        other = self.shown(scores) & ~masked & (scores.held <= scores.confidence)
        return Commit(top_k(scores.log_odds, masked, state.budget) | other, scores.token)

    def shown(self, scores):
        return scores.valid

    def lingers(self, state, memory):
        return state.block_step < 6


class EditsGiven(Edits):
    """Replaces whatever is unlikely, in the scores' padding too, where the prompt's tokens are named."""

    def shown(self, scores):
        return scores.valid | True


class NeverSettles(Edits):
    """Stays in its block until nothing changes, which with this model never comes."""

    def lingers(self, state, memory):
        return state.block_step > 0


class Loiters(Sound):
    """Stays in its block for two steps more, and reads masks alone."""

    def lingers(self, state, memory):
        return state.block_step < 6


class ForgetsFirst(NoCache):
    """Keeps keys and values and never computes the prompt's."""

    uses_kv = True

    def plan(self, state, spec):
        window = state.in_block
        return Plan(query=window, write=state.in_canvas & False, window=window)


class MissesLast(NoCache):
    """Leaves the block's last position out."""

    uses_kv = True

    def plan(self, state, spec):
        whole = state.in_canvas & state.entered_block[:, None]
        window = state.in_block & (state.positions < state.block_bounds[:, 1:] - 1)
        return Plan(query=whole | window, write=whole, window=window)


class OneForAll(NoCache):
    """Refreshes all rows when the first enters a block."""

    uses_kv = True

    def plan(self, state, spec):
        whole = state.in_canvas & (state.entered_block[:1, None] | (state.step[:, None] == 0))
        return Plan(query=whole | state.in_block, write=whole, window=state.in_block)


class Remembers(NoCache):
    """Counts the steps in itself."""

    steps = 0

    def plan(self, state, spec):
        self.steps += 1
        return super().plan(state, spec)


class Lists(NoCache):
    """Goes through the rows in Python."""

    def plan(self, state, spec):
        for row in state.block_bounds.tolist():
            assert len(row) == 2
        return super().plan(state, spec)


@dataclass(frozen=True)
class Count(Rowwise):
    number: Tensor


class LearnsInPlace(NoCache):
    """Writes into its memory in place of making another."""

    def begin(self, state):
        return Count(state.step + 0)

    def plan(self, state, spec, memory=None):
        return super().plan(state, spec)

    def learn(self, seen, memory):
        memory.number.add_(1)
        return memory


class LearnsOnTheHost(LearnsInPlace):
    """Learns from numbers that it brings to the host."""

    def learn(self, seen, memory):
        return Count(memory.number + int(seen.scores.valid.sum()))


class WholeSpan(NoCache):
    """A sound block cache."""

    uses_kv = True

    def plan(self, state, spec):
        whole = state.in_canvas & state.entered_block[:, None]
        return Plan(query=whole | state.in_block, write=whole, window=state.in_block)


class PicksMore(LayerCache):
    """Picks more positions than it watches."""

    def plan(self, state, spec):
        watched = state.masked_in_block
        return Plan(state.in_canvas & ~watched, state.in_canvas, state.in_canvas, watched, watched.sum(1) + 1)

    def rank(self, layer, new, kept):
        return new.sum(-1)


class KeepsLess(PicksMore):
    """Leaves out of what it keeps what it watches."""

    def plan(self, state, spec):
        plan = super().plan(state, spec)
        return Plan(plan.query, plan.query, plan.window, plan.watched, plan.picked - 1)


class Echo(BaseTask):
    """A sound task: repeat a word."""

    default_limit = 8

    def examples(self, *, seed, data: Path | None = None):
        if data is not None:
            raise MdmError(f"{data}: this task reads no files")
        draw = random.Random(seed)
        for i in range(100):
            word = "".join(draw.choices("abcdef", k=4))
            yield Example(str(i), {"word": word}, word)

    def prompt(self, example, style):
        return Prompt(f"{example.inputs['word']}:", gen_length=4)

    def grade(self, example, completion):
        return {"accuracy": float(completion == example.reference)}


class Shades(Echo):
    """A sound task of pictures: white ones are right."""

    answers = "image"

    def prompt(self, example, style):
        return Prompt("white", kind="image")

    def grade_image(self, example, image):
        with Image.open(image) as picture:
            return {"accuracy": float(min(picture.convert("L").tobytes()) == 255)}


class AllPretty(Shades):
    """Grades every picture as right."""

    def grade_image(self, example, image):
        return {"accuracy": 1.0}


class Square(Shades):
    """Does not expect a picture that is no square."""

    def grade_image(self, example, image):
        with Image.open(image) as picture:
            return {"accuracy": float(picture.getpixel((15, 15)) == (255, 255, 255))}


class AsksForText(Shades):
    """Says that it asks for pictures, and asks for text."""

    def prompt(self, example, style):
        return Prompt("white", gen_length=4)


class AllRight(Echo):
    """Grades everything as right."""

    def grade(self, example, completion):
        return {"accuracy": 1.0}


class Raises(Echo):
    """Does not expect strange completions."""

    def grade(self, example, completion):
        return {"accuracy": float(completion[0] == example.reference[0] and completion == example.reference)}


class Unseeded(Echo):
    """Draws its examples from the global generator."""

    def examples(self, *, seed, data=None):
        yield from super().examples(seed=random.randrange(10**9), data=data)


class IgnoresMask(BaseFamily):
    """A family whose network looks at what the attention mask hides, or sees to the left only."""

    def __init__(self, name, spoil):
        self.name, self.spoil = name, spoil

    def claims(self, config):
        return config.get("model_type") == "toy"

    def example(self, folder):
        (folder / "config.json").write_text('{"model_type": "toy"}')

    def load(self, source, config, *, device, dtype):
        toy = toy_model()
        return type(toy)(replace(toy.spec), self.spoil(toy), toy.lm_head, toy.tokenizer, name="spoilt")


class Spoilt(torch.nn.Module):
    """The toy's network with its arguments changed on the way."""

    def __init__(self, model, change):
        super().__init__()
        self.body, self.change, self.config = model.body, change, model.body.config

    def forward(self, **arguments):
        return self.body(**self.change(arguments))


def causal(arguments):
    size = arguments["input_ids"].shape[1]
    if arguments["attention_mask"] is None and arguments["past_key_values"] is None:
        arguments["attention_mask"] = torch.full((1, 1, size, size), torch.finfo(torch.float32).min).triu(1)
    return arguments


class NamesAModel(Preset):
    """Sets the model, which is the user's to choose."""


class Misspells(Preset):
    """A key that is no setting, or a value that is not allowed."""


class MisplacesOptions(Preset):
    """Options that its sampler or task does not take."""


class Boasts(Preset):
    """A figure without a source."""


class NamesNobody(Preset):
    """A family, a task or a sampler that nobody brings."""


FAULTS = [
    ("sampler", ReadsNeighbour, "a_row_does_not_depend_on_its_neighbours"),
    ("sampler", CommitsVisible, "commits_only_what_it_was_shown"),
    ("sampler", ReadsPadding, "ignores_invalid_places"),
    ("sampler", NeverEnds, "always_ends"),
    ("sampler", Overspends, "keeps_to_the_budget"),
    ("sampler", GlobalDraws, "leaves_global_generators_alone"),
    ("sampler", Counts, "keeps_nothing_in_itself"),
    ("sampler", Counts, "is_a_pure_function"),
    ("sampler", Asks, "waits_for_nothing"),
    ("sampler", Lectures, "copies_nothing_that_waits"),
    ("sampler", Overwrites, "changes_nothing_it_is_given"),
    ("sampler", WrongScores, "scores_it_returns_are_true"),
    ("sampler", BreaksItsWord, "keeps_binding_promises"),
    ("sampler", BeyondVocabulary, "commits_tokens_of_the_vocabulary"),
    ("sampler", LooseOptions, "options_refuse_unknown_names"),
    ("sampler", EditsGiven, "revises_its_own_answer_alone"),
    ("sampler", NeverSettles, "leaves_a_block_that_it_revises"),
    ("sampler", Loiters, "leaves_a_block_that_it_revises"),
    ("cache", ForgetsFirst, "the_first_step_is_exact"),
    ("cache", MissesLast, "runs_every_position_that_is_read"),
    ("cache", OneForAll, "rows_may_be_in_different_blocks"),
    ("cache", Lists, "waits_for_nothing"),
    ("cache", Remembers, "plans_are_a_pure_function"),
    ("cache", PicksMore, "plans_are_well_formed"),
    ("cache", KeepsLess, "plans_are_well_formed"),
    ("cache", LearnsInPlace, "plans_are_a_pure_function"),
    ("cache", LearnsOnTheHost, "waits_for_nothing"),
    ("model", IgnoresMask("blind", lambda toy: Spoilt(toy, lambda a: a | {"attention_mask": None})), "a_mask_hides"),
    ("model", IgnoresMask("causal", lambda toy: Spoilt(toy, causal)), "every_position_sees_what_it_should"),
    ("model", IgnoresMask("ordered", lambda toy: Spoilt(toy, lambda a: a | {"position_ids": None})),
     "positions_are_what_they_are_called"),
    ("task", AllRight, "garbage_is_wrong"),
    ("task", AllRight, "another_answer_is_wrong"),
    ("task", Raises, "garbage_is_wrong"),
    ("task", AllPretty, "garbage_is_wrong"),
    ("task", Square, "garbage_is_wrong"),
    ("task", AsksForText, "a_prompt_leaves_something_to_decode"),
    ("task", Unseeded, "examples_are_a_pure_function_of_the_seed"),
    ("preset", NamesAModel("x", {"model": "tiny"}), "it_is_a_recipe"),
    ("preset", Misspells("x", {"gen_lenght": 8}), "its_keys_are_settings"),
    ("preset", Misspells("x", tasks={"sudoku": TaskPreset({"steps": 0})}), "its_keys_are_settings"),
    ("preset", MisplacesOptions("x", {"options": {"nobody": {"candidates": 8}}}), "its_options_are_options"),
    ("preset", MisplacesOptions("x", tasks={"sudoku": TaskPreset({}, {"size": -1})}), "its_options_are_options"),
    ("preset", Boasts("x", tasks={"sudoku": TaskPreset({"steps": 4}, {}, 99.0, "accuracy")}),
     "a_figure_says_where_it_is_from"),
    ("preset", Boasts("x", tasks={"sudoku": TaskPreset({}, {}, 990.0, "accuracy", "arXiv:1")}),
     "a_figure_says_where_it_is_from"),
    ("preset", NamesNobody("x", {"sampler": "no-such"}), "what_it_names_is_known"),
    ("preset", NamesNobody("x", {"steps": 4}, families=("no-such",)), "what_it_names_is_known"),
]  # fmt: skip
