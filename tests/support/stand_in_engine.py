"""Runs with a stand-in for the engine, tasks made for it, and what reads the files that it leaves."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import mdm
import pytest
import torch
from mdm.models import Model
from mdm.protocols import MASK, ModelSpec
from mdm.protocols.hooks import StepEvent
from mdm.runs import config as configs
from mdm.runs.config import RunConfig

PLUGINS = """
    from concurrent.futures import ThreadPoolExecutor
    from itertools import count
    from threading import Event
    from pydantic import BaseModel, ConfigDict, Field
    from mdm.protocols import MASK, BaseCache, BaseSampler, BaseTask, Example, Message, Prompt

    started = []

    class Base(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    class Sampler(BaseSampler):
        class Options(Base):
            candidates: int = 8
        def decide(self, *args): ...

    class Cache(BaseCache):
        uses_kv = False
        class Options(Base):
            keep: int = 3
        def plan(self, *args): ...

    class Copy(BaseTask):
        '''Say the letter again; every third example does not ask for what it says.'''
        class Options(Base):
            infill: bool = False
            fragile: bool = False
        metric, default_limit = "right", 5
        def examples(self, *, seed, data=None):
            letters = data.read_text().split() if data else (chr(97 + (seed + i) % 26) for i in count())
            for i, letter in enumerate(letters):
                yield Example(f"copy-{i}", {"letter": letter, "wrong": i % 3 == 2}, letter)
        def prompt(self, example, style):
            text = f"say {example.inputs['letter']}:"
            if self.options.infill:
                return Prompt(text, MASK * 2)
            return Prompt(text if style == "compact" else (Message("user", text),), "", 2)
        def grade(self, example, completion):
            if self.options.fragile and example.inputs["wrong"]:
                raise ZeroDivisionError("oops")
            return {"right": completion == 2 * example.reference and not example.inputs["wrong"], "tried": True}

    class Code(Copy):
        executes_code = True
        default_limit = None
        def examples(self, *, seed, data=None):
            yield next(super().examples(seed=seed))

    class Slow(Copy):
        '''Grades in a pool of its own, none before so many were asked for.'''
        class Options(Copy.Options):
            hold: int
        def __init__(self, options):
            super().__init__(options)
            self.pool, self.go, self.asked, self.closed = ThreadPoolExecutor(2), Event(), 0, 0
            started.append(self)
        def grade(self, example, completion):
            self.asked += 1
            if self.asked == self.options.hold:
                self.go.set()
            return self.pool.submit(lambda: self.go.wait(20) and super(Slow, self).grade(example, completion))
        def aggregate(self, grades):
            return {"both": sum(all(g.get("right") for g in of) for of in grades.values()) / len(grades)}
        def close(self):
            self.closed += 1
            self.pool.shutdown()

    class Boring(Copy):
        def prompt(self, example, style):
            return Prompt("nothing to do", "")
"""


class Tokens:
    """A model that knows letters; id 0 is the mask."""

    device, dtype, body, lm_head = torch.device("cpu"), torch.float32, None, None
    spec = ModelSpec("fake", 256, 0, eos_ids=(1,), prompt_style="compact")
    name, lay_out, draws_pictures = "fake", Model.lay_out, False

    def encode(self, text, mask=MASK):
        ids = []
        for i, part in enumerate([text] if mask is None else text.split(mask)):
            ids += [0] * (i > 0) + [ord(letter) for letter in part]
        return ids

    def encode_chat(self, messages):
        return [2, *self.encode("".join(message.text for message in messages))]

    def token_texts(self, ids):
        return [chr(i) for i in ids]

    shown_texts = token_texts

    def decode(self, ids, eos_ids=None, stop=(), given=0):
        text = "".join(map(chr, ids[: ids.index(1)] if 1 in ids else ids))
        return text[: min([text.index(end, given) for end in stop if end in text[given:]], default=len(text))]


class Engine:
    """``mdm.api`` that repeats the letter before the colon, finishes from the last prompt on, and may be stopped."""

    def __init__(self):
        self.model, self.loads, self.calls, self.decoded, self.stop_after = Tokens(), [], [], [], None
        self.cannot = {}

    def load_model(self, name, **kw):
        self.loads.append((name, kw))
        return self.model

    def decode(self, model, layouts, *, row_ids=None, on_finish=None, on_step=None, **settings):
        prompts, lengths = [layout.tokens for layout in layouts], [layout.gen_length for layout in layouts]
        self.calls.append({"prompts": prompts, "gen_length": lengths, "row_ids": row_ids, **settings})
        results = []
        for i in reversed(range(len(prompts))):
            row = row_ids[i] if row_ids else i
            if self.stop_after is not None and len(self.decoded) >= self.stop_after:
                raise KeyboardInterrupt
            if row in self.cannot:
                raise self.cannot[row]
            canvas = [*prompts[i], *[0] * lengths[i]]
            masks = [at for at, token in enumerate(canvas) if token == 0]
            letter = canvas[canvas.index(ord(":")) - 1] if ord(":") in canvas else ord("x")
            sequence = [letter if token == 0 else token for token in canvas]
            trace = [
                {"row": i, "step": s, "positions": [at], "tokens": [letter], "entropy": [0.5], "kind": "commit",
                 "candidates": 8, "forwards": 1, "rows": 9}
                for s, at in enumerate(masks)
            ]  # fmt: skip
            result = SimpleNamespace(
                tokens=[letter] * len(masks), text="", sequence=sequence, trace=trace,
                cumulative_entropy=0.1 * row, forwards=len(masks), rows=9 * len(masks), block_steps=[len(masks)],
                image=None,
            )  # fmt: skip
            self.decoded.append(row)
            results.insert(0, result)
            if on_step:
                on_step(StepEvent(tuple(trace)))
            if on_finish:
                on_finish(i, result)
        return results


@pytest.fixture
def engine(site, monkeypatch):
    points = {
        "mdm.samplers": {"one": "fake_run:Sampler", "two": "fake_run:Sampler"},
        "mdm.caches": {"kept": "fake_run:Cache"},
        "mdm.tasks": {"copy": "fake_run:Copy", "boring": "fake_run:Boring", "code": "fake_run:Code"}
        | {"slow": "fake_run:Slow"},
    }
    site.package("fake-run", points, PLUGINS)
    engine = Engine()
    monkeypatch.setitem(sys.modules, "mdm.api", engine)
    monkeypatch.setattr(mdm, "api", engine, raising=False)
    return engine


def make(*assignments, **flags):
    return configs.build(RunConfig, None, {"sampler": ["one"], "task": "copy", **flags}, assignments)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(summary):
    """What neither the time nor the size of a batch decides."""
    kept = [
        {key: value for key, value in row.items() if "second" not in key and key != "batch_size"}
        for row in summary["runs"]
    ]
    return json.dumps(kept, sort_keys=True)
