"""The one exception and the one warning that a user is meant to read, and how their lines are worded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

LONGEST = 2000
"""Characters of an error's text that are kept."""


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it, and halves of characters, but for line breaks and tabs."""


def printable(text: str) -> str:
    """``text`` for a terminal: control characters are shown, such as ``\\x1b``, and not obeyed."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class MdmError(Exception):
    """A mistake in what was asked: one line that names the culprit and the way out.

    The command line prints it without a traceback and exits with code 2. Strangers' words in it are ``printable``.
    """

    request: int | None = None
    """the number of the prompt that alone is at fault, where that is known"""
    fault: str = ""
    """what a sampler did: got "nowhere", or committed what is "strange", "stray" or came with "foreign" scores"""

    def __str__(self) -> str:
        return printable(super().__str__())


class PromptError(MdmError):
    """What went wrong with one prompt: in a run it is that example's, and the others go on."""


class MdmWarning(UserWarning):
    """What a user should know and nothing stops for; the command line prints it as one line."""


def suggest(wrong: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for a misspelt name, or an empty text."""
    near = difflib.get_close_matches(wrong, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(error: BaseException) -> str:
    """The class of an error and what it says, if it can say anything; cut where that is long."""
    try:
        text = str(error)
    except Exception:
        text = "which cannot be put in words"
    text = text if len(text) <= LONGEST else text[:LONGEST] + " ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def cause(error: BaseException) -> str:
    """The class of an error and the first line of what it says."""
    return next(iter(describe(error).splitlines()))


def one_line(text: str) -> str:
    """A text of strangers as one ``printable`` line."""
    return printable(" ".join(text.split()))


@contextmanager
def blamed(what: str, only_exits: bool = False) -> Iterator[None]:
    """Make one line of all that ``what``, somebody else's code, raises, but for a Ctrl-C; an MdmError has its line.

    ``StopIteration`` and ``SystemExit`` are errors, too: who is called ends neither a loop of ours nor the process.
    With ``only_exits`` all errors pass but ``SystemExit`` and its like, for which nobody is prepared.
    """
    try:
        yield
    except (MdmError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if only_exits and isinstance(error, Exception):
            raise
        raise MdmError(f"{what}: {cause(error)}") from error


def explain(error: ValidationError, where: str, schema: type[BaseModel]) -> str:
    """The first mistake that pydantic found, in one line. A union's complaints about one value are joined.

    ``where``, such as ``"config.yaml: "``, stands in front of the field's name. ``schema`` is the model that was
    validated; its fields are listed where a name is unknown.
    """
    details = error.errors(include_url=False)
    first = details[0]
    if not first["loc"]:
        return f"{where.rstrip('.: ')}: {_reason(first['msg'])}" if where else _reason(first["msg"])
    deep = len(first["loc"]) > 2 and str(first["loc"][2]).isidentifier()  # a field of an entry of a list
    key = ".".join(map(str, first["loc"])) if deep else str(first["loc"][0])
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        known = ", ".join(schema.model_fields) or "no options"
        return f"{where}{key}: there is no such name.{suggest(key, schema.model_fields)} There are: {known}"
    if first["type"] == "missing":
        return f"{where}{'.'.join(map(str, first['loc']))} is missing"
    same = dict.fromkeys(_reason(detail["msg"]) for detail in details if detail["loc"][:1] == first["loc"][:1])
    return f"{where}{key}={_display(first['input'])}: {' or '.join(same)}"


def _reason(message: str) -> str:
    message = message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "there is no such name")
    message = (
        message.replace("Input should", "should").replace("List should", "should").replace("String should", "should")
    )
    return re.split(" after validation|, unable to parse| or instance of", message)[0]


def _display(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
