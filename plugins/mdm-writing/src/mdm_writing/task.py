"""Creative writing: a prompt in, a story out. How good it is, only a reader can say (``mdm judge``)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from mdm.data import read
from mdm.protocols import BaseTask, Example, Message, NoOptions, Prompt, PromptStyle
from pydantic import BaseModel, Field

WHO = (
    "A lighthouse keeper", "A retired thief", "A child who never sleeps", "The last bookbinder",
    "A translator of bird song", "A widowed clockmaker", "A night nurse",
    "An apprentice mapmaker", "A ferryman", "A robot gardener",
)  # fmt: skip
WHAT = (
    "finds a letter addressed to somebody not yet born", "wakes up with another voice", "is asked to forge a memory",
    "counts one star too few", "receives a visit from a former self", "opens a door that was painted on a wall",
    "is the only one who hears the bells", "has to tell the truth for a day", "inherits a debt of laughter",
    "discovers that the map is wrong on purpose",
)  # fmt: skip
WHERE = (
    "in a town below the sea", "on the longest night of the year", "in a library without doors",
    "during a silent parade", "on a train that never stops",
    "in the ruins of a theatre", "at the edge of a frozen lake", "in a city of mirrors",
)  # fmt: skip


class WritingOptions(NoOptions):
    """What counts as an answer."""

    least_words: int = Field(20, ge=1, description="words from which a completion counts as answered")


class Row(BaseModel):
    """A line of the data: the whole instruction."""

    prompt: str = Field(min_length=1)


class CreativeWriting(BaseTask):
    """Creative writing from prompts. Its metric says only that something was written; ``mdm judge`` says how well."""

    Options: ClassVar[type[BaseModel]] = WritingOptions
    metric: ClassVar[str] = "answered"
    default_limit: ClassVar[int | None] = 8

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        if data is not None:
            for number, row in read(data, Row):
                yield Example(f"writing-{data.stem}-{number}", {"prompt": row.prompt}, "")
            return
        draw = random.Random(f"creative-writing:{seed}")
        number = 0
        while True:
            story = f"{draw.choice(WHO)} {draw.choice(WHAT)} {draw.choice(WHERE)}."
            yield Example(f"writing-{seed}-{number}", {"prompt": f"Write a short story of 300 words. {story}"}, "")
            number += 1

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        text: str = example.inputs["prompt"]
        if style == "compact":  # small models know lower case only
            return Prompt(text.lower() + "\n", gen_length=64)
        return Prompt((Message("user", text),), gen_length=512)

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``answered``: long enough to be one; ``distinct``: share of its word pairs that are different ones."""
        words = re.findall(r"\w+(?:['’]\w+)*", completion.lower())
        pairs = list(pairwise(words))
        return {
            "answered": float(len(words) >= self.options.least_words),
            "distinct": len(set(pairs)) / len(pairs) if pairs else 0.0,
        }
