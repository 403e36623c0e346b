"""The sets of sequences that are scored: a run's, variant by variant, or a FASTA file's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdm.errors import MdmError, MdmWarning
from mdm.runs import config
from mdm.runs.config import RunConfig
from mdm.runs.results import ResultsFolder, is_finished
from mdm.runs.variants import variants

from mdm_protein.sequences import STANDARD, read_answer, read_fasta


@dataclass(frozen=True)
class Entry:
    """One sequence, and what it is called."""

    id: str
    repeat: int
    sequence: str

    @property
    def name(self) -> str:
        """A name that is its own within its set."""
        return f"{self.id}/{self.repeat}" if self.repeat else self.id


@dataclass(frozen=True)
class SequenceSet:
    """What one column of a table is about."""

    label: str
    source: Path
    entries: Sequence[Entry]
    failed: int = 0
    """Examples of a run that have no sequence."""

    @property
    def sequences(self) -> list[str]:
        return [entry.sequence for entry in self.entries]

    @property
    def lengths(self) -> list[int]:
        """Of the sequences, in residues."""
        return [len(entry.sequence) for entry in self.entries]


def sequence_sets(paths: Sequence[Path]) -> list[SequenceSet]:
    """What lies in runs' folders and FASTA files.

    Raises:
        MdmError: a path is neither, or holds no protein.
    """
    found = [one for path in paths for one in _sets(path)]
    for one in found:
        if not any(letter in STANDARD for sequence in one.sequences for letter in sequence):
            raise MdmError(f"{one.label} holds no protein: in none of its answers is there one of the 20 amino acids")
        if one.failed:
            warnings.warn(f"{one.label}: {one.failed} examples have no sequence", MdmWarning, stacklevel=2)
    return found


def _sets(path: Path) -> Iterator[SequenceSet]:
    name = path.resolve().name
    if path.is_file():
        yield fasta_set(path)
    elif (path / "config.yaml").is_file():
        rows = variants(config.parse(RunConfig, path / "config.yaml"), path)
        if not is_finished(path):
            warnings.warn(f"{path} is not finished: what is scored is a part of it", MdmWarning, stacklevel=2)
        for row in rows:
            yield _of_results(name if len(rows) == 1 else f"{name}/{row.label}", path, row.results)
    elif (path / "results.jsonl").is_file():
        yield _of_results(name, path, ResultsFolder(path))
    else:
        raise MdmError(f"{path} is neither the folder of a run, with its config.yaml, nor a FASTA file")


def _of_results(label: str, source: Path, results: ResultsFolder) -> SequenceSet:
    rows = [result for _, result in sorted(results.by_row.items())]
    if pictures := sum(result.image is not None for result in rows):
        raise MdmError(f"{results.folder} holds {pictures} pictures, and no proteins")
    decoded = [result for result in rows if result.decoded]
    if not decoded:
        raise MdmError(f"{results.folder} holds no sequence: {'all examples failed' if rows else 'it has just begun'}")
    entries = [Entry(result.id, result.repeat, read_answer(result.completion)) for result in decoded]
    return SequenceSet(label, source, entries, len(rows) - len(decoded))


def fasta_set(path: Path) -> SequenceSet:
    """The sequences of a FASTA file."""
    entries = [Entry(record.name or str(i), 0, record.sequence) for i, record in enumerate(read_fasta(path))]
    return SequenceSet(path.name, path, entries)
