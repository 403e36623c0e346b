"""Protein sequences as text: what models write, and FASTA files in and out."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mdm.data.documents import lines, open_regular, unpacked
from mdm.errors import MdmError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
"""The 20 amino acids that the standard code translates to."""
STANDARD = frozenset(AMINO_ACIDS)
UNKNOWN = "X"
"""IUPAC's letter for a residue that may be any."""

LONGEST = 100_000
"""Residues of a sequence; the longest protein known, titin, has some 35,000."""
MOST = 1_000_000
"""Records of a FASTA file; Swiss-Prot has some 570,000."""
LONGEST_HEADER = 10_000
"""Characters of a header line."""
WIDTH = 60
"""Residues on a line of FASTA that is written."""

_ANSWER = re.compile(r"(?P<blank>\s+)|<[A-Za-z0-9_|]{1,40}>|\[[A-Z]{1,40}\]|[A-Za-z]|.", re.DOTALL)
_LETTERS = re.compile("[A-Za-z]*")


@dataclass(frozen=True)
class Record:
    """One sequence of a FASTA file."""

    header: str
    """its line without ``>``"""
    sequence: str
    """capital letters"""
    line: int
    """number of the header's line"""

    @property
    def name(self) -> str:
        """The first word of the header, as far as it is an identifier; empty where it has none."""
        return re.sub(r"[^\w.|-]", "_", (self.header.split() or [""])[0], flags=re.ASCII)[:60]


def read_answer(text: str) -> str:
    """The sequence that a model wrote: one capital letter for each residue.

    Blanks and line breaks, which tokenizers put between letters, are left out. Whatever else is no letter, such as a
    gap, a digit or a token's name (``<null_1>``, ``[MASK]``), is one unknown residue, ``X``, so that places stay.
    """
    return "".join(
        "" if found["blank"] else found[0].upper() if len(found[0]) == 1 and found[0].isascii() and found[0].isalpha()
        else UNKNOWN
        for found in _ANSWER.finditer(text)
    )  # fmt: skip


def read_fasta(path: Path) -> Iterator[Record]:
    """The sequences of a FASTA file, plain or ``.gz``: any letters, small or capital, and a ``*`` at the end.

    Blank lines and lines that begin with ``;`` are passed over.

    Raises:
        MdmError: the file is missing, empty or broken; the line names the file, its line and the character.
    """
    header, started, parts, length, count, ended = "", 0, list[str](), 0, 0, False

    def record() -> Record:
        if not length:
            raise MdmError(f"{path}, line {started}: the record has no sequence")
        return Record(header, "".join(parts), started)

    try:
        with open_regular(path) as stored:
            file = unpacked(stored) if path.name.lower().endswith(".gz") else stored
            for number, raw in enumerate(lines(file), 1):
                where = f"{path}, line {number}"
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise MdmError(f"{where}: not UTF-8 ({error.reason}): save it as UTF-8") from None
                if not line or line.startswith(";"):
                    continue
                if line.startswith(">"):
                    if started:
                        yield record()
                    if (count := count + 1) > MOST:
                        raise MdmError(f"{where}: more than {MOST:,} sequences: give a part of them")
                    if len(line) > LONGEST_HEADER:
                        raise MdmError(f"{where}: a header of more than {LONGEST_HEADER:,} characters")
                    header, started, parts, length, ended = line[1:].strip(), number, [], 0, False
                    continue
                if not started:
                    raise MdmError(f"{where}: it is no FASTA: a record begins with '>' and its name, not {line[:20]!r}")
                if ended:
                    raise MdmError(f"{where}: a sequence goes on behind '*', which ends it")
                letters = line.removesuffix("*")
                _check(letters, where)
                parts.append(letters.upper())
                if (length := length + len(letters)) > LONGEST:
                    raise MdmError(f"{where}: a sequence of more than {LONGEST:,} residues")
                ended = letters != line
    except FileNotFoundError:
        raise MdmError(f"{path}: there is no such file") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise MdmError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not started:
        raise MdmError(f"{path} holds no sequence: a record of FASTA begins with '>' and its name")
    yield record()


def _check(letters: str, where: str) -> None:
    """Refuse a line of a sequence that holds anything but letters."""
    found = _LETTERS.match(letters)
    place = found.end() if found else 0
    if place == len(letters):
        return
    wrong = letters[place]
    if wrong in "-.":
        hint = ": a gap, as alignments have them: take the gaps out"
    elif wrong == "*":
        hint = ": a stop inside of a sequence: end the record there"
    else:
        hint = ": a sequence is letters only"
    raise MdmError(f"{where}, character {place + 1}: {wrong!r}{hint}")


def fasta(records: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The lines, with their ends, of a FASTA file of headers and sequences."""
    for header, sequence in records:
        yield f">{' '.join(header.split())}\n"
        for start in range(0, len(sequence), WIDTH):
            yield sequence[start : start + WIDTH] + "\n"
