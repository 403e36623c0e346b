"""What is said to the program instead of the model: lines that begin with a slash."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mdm.errors import MdmError, suggest

if TYPE_CHECKING:
    from mdm_chat.conversation import Conversation

COMMANDS = {
    "/help": "this list",
    "/reset": "forget all turns; the system's message stays",
    "/undo": "forget the last question and its answer",
    "/retry": "answer the last question again, with other random draws",
    "/system [TEXT]": "show the system's message, or set it; /system - takes it away",
    "/set [OPTION=VALUE]": "show what differs from the usual, or set an option: temperature=0.7, sampler=confidence",
    "/save FILE": "write the talk as JSON, whose messages mdm.decode takes",
    "/quit": "leave, as Ctrl-D does",
}
NAMES = [usage.split()[0] for usage in COMMANDS]
HELP = "\n".join([
    *(f"{usage:<20}  {what}" for usage, what in COMMANDS.items()),
    'A message of several lines begins and ends with """. Ctrl-C stops an answer.',
])  # fmt: skip


def obey(talk: Conversation, line: str) -> bool:
    """Do what a line with a slash says; False ends the talk.

    Raises:
        MdmError: there is no such command, or it cannot be done.
    """
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name not in NAMES:
        raise MdmError(f"there is no command {name}.{suggest(name, NAMES)} /help lists them")
    takes = "[" in _usage(name) or _usage(name) != name
    if rest and not takes:
        raise MdmError(f"{name} takes nothing behind it")
    if name == "/quit":
        return False
    if name == "/help":
        talk.say(HELP)
    elif name == "/reset":
        talk.reset()
    elif name == "/undo":
        talk.undo()
    elif name == "/retry":
        talk.retry()
    elif name == "/system":
        talk.set_system(rest)
    elif name == "/set":
        talk.set_option(rest)
    elif not rest:
        raise MdmError("/save FILE: name the file")
    else:
        talk.save(Path(rest).expanduser())
    return True


def _usage(name: str) -> str:
    return next(usage for usage in COMMANDS if usage.split()[0] == name)
