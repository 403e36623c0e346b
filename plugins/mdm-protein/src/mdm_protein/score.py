"""What ``mdm protein-score`` computes of sets of sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError
from mdm.runs.watch import RunObserver

from mdm_protein import measures
from mdm_protein.neighbours import aligner, diversity, nearest
from mdm_protein.sets import SequenceSet, fasta_set

if TYPE_CHECKING:
    from mdm_protein.folding import Folder
    from mdm_protein.kept import Kept, Values
    from mdm_protein.perplexity import Scorer

SAMPLE = 1000
"""Sequences of a reference that are measured by themselves; its composition and lengths are those of all."""
MEANS = ("entropy", "low_complexity", "longest_run", "longest_repeat", "standard")
"""Measures of a single sequence whose means describe a set."""
OF_NETWORKS = ("pseudo_perplexity", "plddt", "ptm")
OF_NEIGHBOURS = ("nearest_words", "nearest_identity")

Record = dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """Real proteins that sets are compared with."""

    found: SequenceSet
    align: int = 0
    """with how many of the nearest a sequence is aligned"""
    identity: Callable[[str, str], float] | None = None
    composition: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def read(path: Path, align: int) -> Reference:
        """The reference of a FASTA file; raises an MdmError where that is broken, or alignments cannot be had."""
        identity = aligner() if align else None
        found = fasta_set(path)
        composition = measures.composition(found.sequences)
        if not any(composition.values()):
            raise MdmError(f"{path} holds none of the 20 amino acids")
        return Reference(found, align, identity, composition)


@dataclass(frozen=True)
class Meter:
    """What sequences are measured with, and who watches."""

    observer: RunObserver
    reference: Reference | None = None
    scorer: Scorer | None = None
    folder: Folder | None = None
    fold_up_to: int = 1024

    def measure(self, found: SequenceSet, kept: Kept) -> Record:
        """A set's measures, with those of each sequence under ``examples``; ``kept``: what networks said before."""
        rows: list[Record] = []
        for entry in found.entries:
            rows.append({"id": entry.id, "repeat": entry.repeat, "sequence": entry.sequence, **alone(entry.sequence)})
            self.observer.on_progress(f"{found.label}: letters", len(rows), len(found.entries), None)
        record: Record = {
            "label": found.label, "source": str(found.source), "sequences": len(rows), "failed": found.failed,
            **_of_set(found.sequences, rows), "diversity": diversity(found.sequences),
        }  # fmt: skip
        if self.reference is not None:
            record["divergence"] = measures.jensen_shannon(record["composition"], self.reference.composition)
            self._neighbours(found, rows, self.reference)
        if self.scorer is not None:
            self._perplexities(found, rows, self.scorer, kept)
        if self.folder is not None:
            self._folds(found, rows, self.folder, kept)
        for name in (*OF_NETWORKS, *OF_NEIGHBOURS):
            if name in rows[0]:
                record[name] = _mean(row[name] for row in rows)
        return record | {"examples": rows}

    def _neighbours(self, found: SequenceSet, rows: Sequence[Record], reference: Reference) -> None:
        others = reference.found.sequences
        label = f"{found.label}: nearest"
        near = nearest(
            found.sequences, others, max(1, reference.align),
            lambda done: self.observer.on_progress(label, done, len(others), None),
        )  # fmt: skip
        for number, (row, candidates) in enumerate(zip(rows, near, strict=True), 1):
            place, shared = candidates[0]
            if reference.identity is not None:
                same = [(reference.identity(row["sequence"], others[place]), -place) for place, _ in candidates]
                row["nearest_identity"], place = max(same)[0], -max(same)[1]
                self.observer.on_progress(f"{found.label}: alignments", number, len(rows), None)
            row |= {"nearest_words": shared, "nearest": reference.found.entries[place].name}

    def _perplexities(self, found: SequenceSet, rows: Sequence[Record], scorer: Scorer, kept: Kept) -> None:
        label, counts = f"{found.label}: residues scored", [len(scorer.places(s)) for s in found.sequences]
        before = 0
        for row, count in zip(rows, counts, strict=True):

            def show(done: int, before: int = before) -> None:
                self.observer.on_progress(label, before + done, sum(counts), None)

            def score(sequence: str = row["sequence"], show: Callable[[int], None] = show) -> Values:
                return {"pseudo_perplexity": scorer.pseudo_perplexity(sequence, show)}

            row |= kept.ask({**scorer.question, "sequence": row["sequence"]}, score)
            show(count)
            before += count

    def _folds(self, found: SequenceSet, rows: Sequence[Record], folder: Folder, kept: Kept) -> None:
        left_out = 0
        for number, row in enumerate(rows, 1):
            sequence = row["sequence"]
            row |= {"plddt": None, "ptm": None}
            if len(sequence) > self.fold_up_to:
                left_out += 1
            elif sequence:
                row |= kept.ask({**folder.question, "sequence": sequence}, partial(folder.confidence, sequence))
            self.observer.on_progress(f"{found.label}: folded", number, len(rows), None)
        if left_out:
            self.observer.on_warning(
                f"{found.label}: {left_out} sequences of more than {self.fold_up_to} residues are not folded: "
                "--fold-up-to takes more"
            )

    def measure_reference(self) -> Record | None:
        """The reference's own measures, as far as they need no network: a thousand of its sequences, evenly spread."""
        if self.reference is None:
            return None
        found = self.reference.found
        every = found.sequences
        sample = every[:: -(-len(every) // SAMPLE)]
        rows: list[Record] = []
        for sequence in sample:
            rows.append(alone(sequence))
            self.observer.on_progress(f"{found.label}: letters", len(rows), len(sample), None)
        return {
            "label": found.label, "source": str(found.source), "sequences": len(every), "measured": len(sample),
            **_of_set(every, rows), "diversity": diversity(sample),
        }  # fmt: skip


def alone(sequence: str) -> Record:
    """What a sequence is by itself."""
    return {
        "length": len(sequence), "standard": measures.standard_share(sequence),
        "entropy": measures.sequence_entropy(sequence), "low_complexity": measures.low_complexity(sequence),
        "longest_run": measures.longest_run(sequence), "longest_repeat": measures.longest_repeat(sequence),
    }  # fmt: skip


def _of_set(sequences: Sequence[str], rows: Sequence[Record]) -> Record:
    """What is counted over all ``sequences``, and the means of the measures of ``rows``, which may be fewer."""
    lengths = [len(sequence) for sequence in sequences]
    return {
        "distinct": len(set(sequences)) / len(sequences),
        "length": {"mean": fmean(lengths), "least": min(lengths), "most": max(lengths)},
        "composition": measures.composition(sequences), **{name: _mean(row[name] for row in rows) for name in MEANS},
    }  # fmt: skip


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
