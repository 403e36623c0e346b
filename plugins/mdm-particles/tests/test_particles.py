"""One particle is the base sampler; several have draws of their own, and the surest go on and answer."""

from __future__ import annotations

import math

import mdm
import pytest
import torch
from mdm.errors import MdmError
from mdm_particles import Particles, ParticlesOptions, resampled
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [8, 97, 93], [2, 38, 46, 26, 43, 38, 32, 79]]
SHAPE = {"gen_length": 12, "block_length": 6}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def essence(results):
    return [([(x["positions"], x["tokens"], x["kind"]) for x in r.trace], r.forwards, r.rows) for r in results]


class Watched(Particles):
    """Keeps what each step was given, what it answered, and what the answer was picked from."""

    def decide(self, state, scores, memory, draws):
        commit = super().decide(state, scores, memory, draws)
        self.options.__dict__.setdefault("seen", []).append((state, scores, memory, commit))
        return commit

    def pick(self, state, memory):
        self.options.__dict__["ended"] = state, memory
        return super().pick(state, memory)


def watched(model, prompts, options, **settings):
    options = ParticlesOptions(**options)
    results = mdm.decode(model, prompts, Watched(options), cache="none", **SHAPE, **settings)
    return results, options.__dict__["seen"], options.__dict__["ended"]


@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}, {"tokens_per_step": 2}], ids=str)
def test_one_particle_is_confidence(model, cache, settings):
    plain = mdm.decode(model, PROMPTS, "confidence", cache=cache, **SHAPE, **settings)
    options = {"particles": 1, "position_temperature": 0}
    assert essence(mdm.decode(model, PROMPTS, "particles", options, cache=cache, **SHAPE, **settings)) == essence(plain)


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"tokens_per_step": 3}], ids=str)
def test_the_least_entropy_answers(model, settings):
    """The entropies are those of the trace; the rows that there are to pick from are P a prompt."""
    options = {"particles": 5, "resample": False}
    results, _, (state, memory) = watched(model, PROMPTS, options, **settings)
    assert sorted(state.request.tolist()) == [0] * 5 + [1] * 5 + [2] * 5
    totals = memory.total[state.request.sort().indices].view(3, 5)
    assert len({round(x, 4) for x in totals[0].tolist()}) > 1
    for result, of_prompt in zip(results, totals, strict=True):
        assert result.cumulative_entropy == pytest.approx(float(of_prompt.min()), abs=1e-4)
        assert result.rows == 1 + 5 * (result.forwards - 1)


def test_particles_have_draws_of_their_own_from_the_first_step(model):
    for settings, options in (({}, {}), ({"temperature": 2.0}, {"position_temperature": 0})):
        _, seen, _ = watched(model, PROMPTS[:1], {"particles": 6} | options, **settings)
        commit = seen[0][3]
        assert len(commit.source) == 6
        assert len({str((w.tolist(), t[w].tolist())) for w, t in zip(commit.where, commit.tokens, strict=True)}) > 1


def test_the_surest_row_of_a_block_goes_on(model):
    """At a low temperature all rows continue the one that paid least in the block; it need not be the answer's."""
    _, seen, _ = watched(model, PROMPTS, {"particles": 4, "resampling_temperature": 1e-4})
    last = next(i for i, (state, *_) in enumerate(seen) if i and state.entered_block.any())
    state, scores, memory, commit = seen[last - 1]
    cost = memory.block + (scores.entropy * (scores.valid & (state.budget > 0)[:, None])).sum(-1)
    for request in range(3):
        rows = [i for i, r in enumerate(state.request.tolist()) if r == request]
        best = min(rows, key=lambda i: float(cost[i]))
        assert [commit.source.tolist()[i] for i in rows] == [best] * 4
    assert len({str(t.tolist()) for t in seen[last][0].tokens}) == 3
    assert not seen[last][2].block.any() and seen[last][2].total.all()


def systematic(cost, uniform):
    """The n copies of rows of a prompt, one after the other."""
    weights = [math.exp(-c) for c in cost]
    out = []
    for i in range(len(cost)):
        left, point = 0, (uniform + i) / len(cost) * sum(weights)
        while left < len(cost) - 1 and sum(weights[: left + 1]) <= point:
            left += 1
        out.append(left)
    return out


@pytest.mark.parametrize("seed", range(20))
def test_resampling_is_systematic(seed):
    random = torch.Generator().manual_seed(seed)
    request = torch.randint(0, 3, (12,), generator=random)
    leaves = torch.rand(12, generator=random) < 0.7
    cost, uniform = torch.rand(12, generator=random) * 3, torch.rand(12, generator=random)
    found = resampled(cost, request, leaves, uniform).tolist()
    expected = list(range(12))
    for each in range(3):
        rows = [i for i in range(12) if request[i] == each and leaves[i]]
        if rows:
            picked = systematic(cost[rows].tolist(), float(uniform[rows[0]]))
            for row, place in zip(rows, picked, strict=True):
                expected[row] = rows[place]
    assert found == expected


def test_each_option_changes_something(model):
    def decoded(**options):
        return essence(mdm.decode(model, PROMPTS, "particles", options, cache="none", temperature=1.0, **SHAPE))

    plain = decoded()
    for change in (
        {"particles": 2}, {"position_temperature": 0.0}, {"resample": False}, {"resampling_temperature": 1e-3}
    ):  # fmt: skip
        assert decoded(**change) != plain, change


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "tokens_per_step": 2}], ids=str)
def test_a_prompt_decodes_the_same_in_any_batch(model, settings):
    together = mdm.decode(model, PROMPTS, "particles", cache="dual", **SHAPE, **settings)
    [alone] = mdm.decode(model, PROMPTS[1:2], "particles", cache="dual", row_ids=[1], **SHAPE, **settings)
    assert essence([alone]) == essence([together[1]])
    one_by_one = mdm.decode(model, PROMPTS, "particles", cache="dual", batch_size=1, **SHAPE, **settings)
    assert essence(one_by_one) == essence(together)


def test_particles_with_fills_end_together(model):
    [free] = mdm.decode(model, PROMPTS[:1], "particles", **SHAPE)
    for end in free.tokens[:4]:
        results = mdm.decode(model, PROMPTS, "particles", stop_at_eos=True, eos_token_id=end, **SHAPE)
        assert len(results) == len(PROMPTS) and all(MASK not in r.sequence for r in results)


def test_particles_that_are_all_the_same_are_refused(model):
    with pytest.raises(MdmError, match="set a temperature"):
        mdm.decode(model, PROMPTS, "particles", {"position_temperature": 0}, **SHAPE)


@pytest.mark.parametrize("options", [{"particles": 0}, {"position_temperature": -1}, {"resampling_temperature": 0}])
def test_what_is_refused(model, options):
    with pytest.raises(MdmError, match=f"particles.{next(iter(options))}"):
        mdm.decode(model, PROMPTS, "particles", options, **SHAPE)
