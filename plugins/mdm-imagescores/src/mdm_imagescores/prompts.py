"""The task `prompts`: a picture of each prompt in a file. Nothing is graded; sets of pictures are scored as a whole."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from mdm.data import read
from mdm.data.documents import open_regular, unpacked
from mdm.errors import MdmError
from mdm.protocols import BaseTask, Example, NoOptions, Prompt, PromptStyle
from mdm.protocols.task import Answers
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, create_model

LONGEST = 2000
"""Characters of a prompt; a longer line is of another kind of file."""
MOST_BYTES = 4 * LONGEST
"""of them in UTF-8"""
PLACE = "{}"


def _one_place(template: str) -> str:
    if template.count(PLACE) != 1:
        raise ValueError(f"should hold {PLACE} exactly once: there stands the prompt")
    return template


class PromptsOptions(NoOptions):
    """What becomes of a line of the file."""

    template: Annotated[str, AfterValidator(_one_place)] = Field(
        PLACE, description='the words around a prompt, such as "a photo of a {}"'
    )
    key: str | None = Field(
        None, min_length=1, description="of JSON lines and CSV: where the prompt stands (default: prompt)"
    )


class Prompts(BaseTask):
    """A picture for each prompt of a file: a text with one a line (.txt), JSON lines or CSV."""

    Options: ClassVar[type[BaseModel]] = PromptsOptions
    answers: ClassVar[Answers] = "image"

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        if data is None:
            raise MdmError("the task prompts draws what a file says: give --data FILE, with one prompt a line")
        for number, prompt in self._prompts(data):
            text = self.options.template.replace(PLACE, prompt)
            yield Example(f"prompt-{data.name.split('.')[0]}-{number}", {"prompt": text}, "")

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        return Prompt(example.inputs["prompt"], kind="image")

    def grade_image(self, example: Example, image: Path) -> Mapping[str, float]:
        """Nothing: a picture counts as not graded."""
        return {}

    def _prompts(self, data: Path) -> Iterator[tuple[int, str]]:
        if data.name.lower().removesuffix(".gz").endswith(".txt"):
            if self.options.key is not None:
                raise MdmError(f"option prompts.key={self.options.key} is of JSON lines, and {data} is plain text")
            return _lines(data)
        key = self.options.key or "prompt"
        text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST)]
        fields: Any = {"text": (text, Field(alias=key))}
        return ((number, row.text) for number, row in read(data, create_model("Row", **fields)))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text that are not blank, with their numbers.

    Raises:
        MdmError: the file is missing, empty or no UTF-8, or a line is too long; it names the line.
    """
    none = True
    try:
        with open_regular(path) as stored:
            file = unpacked(stored) if path.suffix.lower() == ".gz" else stored
            for number, line in enumerate(iter(partial(file.readline, MOST_BYTES + 1), b""), 1):
                where = f"{path}, line {number}"
                try:
                    # A line that is longer is cut, perhaps within a character.
                    prompt = "" if len(line) > MOST_BYTES else line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise MdmError(f"{where}: not UTF-8 ({error.reason}): save it as UTF-8") from None
                if len(line) > MOST_BYTES or len(prompt.strip()) > LONGEST:
                    raise MdmError(f"{where}: more than {LONGEST:,} characters, which are no prompt")
                if prompt.strip():
                    none = False
                    yield number, prompt.strip()
    except FileNotFoundError:
        raise MdmError(f"{path}: there is no such data file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise MdmError(f"{path} cannot be read: {error}") from None
    if none:
        raise MdmError(f"{path} holds no prompt")
