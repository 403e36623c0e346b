"""Passes values between the two processes as JSON, so that nothing that arrives can run.

Plain values cross as what they are, subclasses as their base, and whatever else stays where it is and crosses as a
reference. So a result that claims to equal everything equals nothing on the other side.
"""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable
from typing import Any

LARGEST = 32 * 2**20
"""Bytes of one message."""

TOO_LARGE = "a value is too large"
SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Closed(Exception):
    """The other process is gone, or sent something that is not a message."""


class Wire:
    """Messages over two pipes, each a length of 4 bytes and JSON."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._in, self._out = incoming, outgoing

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        if len(data) > LARGEST:
            raise ValueError(TOO_LARGE)
        data = len(data).to_bytes(4, "big") + data
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]

    def receive(self) -> Any:
        size = int.from_bytes(self._read(4), "big")
        if size > LARGEST:
            raise Closed
        try:
            return json.loads(self._read(size))
        except (ValueError, RecursionError) as error:
            raise Closed from error

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._in, min(size, 1 << 20))
            if not part:
                raise Closed
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def encode(value: Any, refer: Callable[[Any], int]) -> Any:
    """``value`` as JSON. ``refer`` keeps an object that cannot cross and gives its number.

    Raises:
        ValueError: it takes more than a message may; that is found before anything of that size is made.
    """
    return _Encoder(refer).encode(value)


class _Encoder:
    """One value; ``left`` is how many bytes of a message its parts may still take."""

    def __init__(self, refer: Callable[[Any], int]) -> None:
        self.refer, self.left = refer, LARGEST

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError(TOO_LARGE)

    def number(self, value: int) -> str:
        self.take(int.bit_length(value) // 4 + 16)
        return hex(value)

    def encode(self, value: Any) -> Any:
        if value is None or value is True or value is False:
            self.take(6)
            return value
        if isinstance(value, str):
            self.take(str.__len__(value) + 4)
            return str.__str__(value)
        if isinstance(value, int):
            return ["int", self.number(int.__index__(value))]
        if isinstance(value, float):
            self.take(24)
            return ["float", float.hex(value)]
        if isinstance(value, complex):
            self.take(32)
            return ["complex", float.hex(value.real), float.hex(value.imag)]
        if isinstance(value, bytes | bytearray):
            with memoryview(value) as view:
                self.take(2 * view.nbytes + 16)
                return ["bytes", view.hex()]
        for name, kind in SEQUENCES.items():
            if isinstance(value, kind):
                self.take(12)
                self.check(4 * kind.__len__(value))
                return [name, [self.encode(item) for item in kind.__iter__(value)]]
        if isinstance(value, dict):
            self.take(12)
            self.check(12 * dict.__len__(value))
            return ["dict", [[self.encode(key), self.encode(item)] for key, item in dict.items(value)]]
        if isinstance(value, type) and vars(builtins).get(name := value.__name__) is value:
            return ["type", name]
        if type(value).__module__ in ("decimal", "_decimal", "fractions"):
            try:
                over, under = value.as_integer_ratio()
                return ["ratio", self.number(over), self.number(under)]
            except OverflowError:  # infinite
                return ["float", "nan"]
            except ValueError:
                if self.left < 0:
                    raise
                return ["float", "nan"]
        self.take(16)
        return ["ref", self.refer(value)]

    def check(self, least: int) -> None:
        """Refuse a container whose items cannot fit, each at its smallest."""
        if least > self.left:
            raise ValueError(TOO_LARGE)


def decode(message: Any, resolve: Callable[[int], Any]) -> Any:
    """The value of a message; ``resolve`` gives what a reference stands for.

    Raises:
        Closed: it is no value.
    """
    if message is None or isinstance(message, bool | str):
        return message
    try:
        kind, *parts = message
        if kind == "int":
            return int(parts[0], 16)
        if kind == "float":
            return float.fromhex(parts[0])
        if kind == "complex":
            return complex(float.fromhex(parts[0]), float.fromhex(parts[1]))
        if kind == "bytes":
            return bytes.fromhex(parts[0])
        if kind == "ratio":
            from fractions import Fraction

            return Fraction(int(parts[0], 16), int(parts[1], 16))
        if kind in SEQUENCES:
            return SEQUENCES[kind](decode(part, resolve) for part in parts[0])
        if kind == "dict":
            return {decode(key, resolve): decode(item, resolve) for key, item in parts[0]}
        if kind == "type" and isinstance(found := vars(builtins).get(parts[0]), type):
            return found
        if kind == "ref":
            return resolve(parts[0])
    except (TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError) as error:
        raise Closed from error
    raise Closed
