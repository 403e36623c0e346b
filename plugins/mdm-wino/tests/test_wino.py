"""What WINO commits and takes back, by the definition, from scores of its own making."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.protocols import Draws, Scores
from mdm_wino import WINO, Last, WINOOptions
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [89, 79, 32]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


class Watched(WINO):
    """Keeps what it was shown and what it answered."""

    def __init__(self, options):
        super().__init__(options)
        self.log = []

    def decide(self, state, scores, memory, draws):
        commit = super().decide(state, scores, memory, draws)
        self.log.append((state, scores, memory, commit))
        return commit


@pytest.mark.parametrize(("threshold", "back"), [(0.0, 1.0), (0.0, 0.02), (0.015, 0.5), (1.0, 1.0)])
def test_each_step_is_the_definitions(model, threshold, back):
    sampler = Watched(WINOOptions(threshold=threshold, threshold_back=back))
    mdm.decode(model, PROMPTS, sampler, gen_length=24, block_length=12, cache="none")
    revoked = 0
    for state, scores, memory, commit in sampler.log:
        for b in range(len(state.step)):
            valid = scores.valid[b]
            at = scores.positions[b]
            masks = [k for k in range(len(at)) if valid[k] and state.tokens[b, at[k]] == MASK]
            held = [k for k in range(len(at)) if valid[k] and state.tokens[b, at[k]] != MASK]
            if not masks:
                continue
            conf = scores.confidence[b].tolist()
            most = min(max(int(0.7 * len(masks)), 5), 20)
            wide = [k for k in masks if conf[k] > threshold]
            best = sorted(masks, key=lambda k: (-float(scores.log_odds[b, k]), k))
            wide = best[:most] if len(wide) > most else wide or best[:1]
            last = 30 if state.block_step[b] == 0 else int(memory.count[b])
            out: list[int] = []
            if len(wide) > 1:
                p = scores.held[b].tolist()
                out = sorted((k for k in held if p[k] < back), key=lambda k: (p[k], k))[: max(last - 1, 0)]
            assert set(commit.where[b].nonzero().flatten().tolist()) == set(wide) | set(out)
            assert all(commit.tokens[b, k] == MASK for k in out)
            assert all(commit.tokens[b, k] == scores.token[b, k] for k in wide)
            assert int(commit.memory.count[b]) == len(wide)
            revoked += len(out)
    assert revoked > 0 or (threshold, back) != (0.0, 1.0)


def test_a_step_takes_back_less_than_the_last_one_gave(model):
    """So that it ends, also where everything is doubted for ever."""
    for result in mdm.decode(
        model, PROMPTS, "wino", {"threshold": 0.0, "threshold_back": 1.0}, gen_length=24, cache="none"
    ):
        given: dict[int, int] = {}
        for line in result.trace:
            if line["kind"] == "remask":
                assert len(line["positions"]) < given[line["step"] - 1]
            else:
                given[line["step"]] = len(line["positions"])
        assert MASK not in result.sequence


@pytest.mark.parametrize("name", ["threshold", "threshold_back"])
def test_probabilities_are_probabilities(model, name):
    with pytest.raises(mdm.MdmError, match=name):
        mdm.decode(model, PROMPTS, "wino", {name: 1.5}, gen_length=8, cache="none")


def test_it_commits_nothing_where_nothing_is_shown():
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    state = type("S", (), {"masked": nothing, "block_step": torch.zeros(1, dtype=torch.long), "mask_id": MASK})
    zeros = torch.zeros(1, 3)
    scores = Scores(
        token=zeros.long(), numbers=torch.zeros(1, 3, 5), held=zeros, positions=torch.arange(3)[None], valid=nothing,
        unscored=torch.zeros(1, dtype=torch.long), vocab_size=100,
    )  # fmt: skip
    commit = WINO(WINOOptions()).decide(state, scores, Last(torch.tensor([4])), Draws(0, zeros, zeros))  # type: ignore[arg-type]
    assert not commit.where.any()
