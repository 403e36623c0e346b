"""Three tasks: proteins of a length, holes in known ones, and scaffolds around motifs.

All of them show a model one sequence in which some residues are masked, and nothing else.
"""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from mdm.data import read
from mdm.errors import MdmError
from mdm.protocols import MASK, BaseTask, Example, NoOptions, Prompt, PromptStyle
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from mdm_protein import measures
from mdm_protein.sequences import LONGEST, STANDARD, read_answer, read_fasta

HOLE = "_"
"""A masked residue in the templates that examples hold."""
HERE = Path(__file__).parent
Size = Annotated[int, Field(ge=1, le=LONGEST, strict=True)]


class _Proteins(BaseTask):
    """Base of the tasks: an example's input is a template, a sequence with ``_`` for residues that are masked."""

    metric: ClassVar[str] = "valid"
    default_limit: ClassVar[int | None] = 16

    def prompt(self, example: Example, style: PromptStyle) -> Prompt:
        """The template alone, however a model is used to be asked: its masks are one block."""
        return Prompt("", example.inputs["template"].replace(HOLE, MASK))

    @abstractmethod
    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        raise NotImplementedError

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """What a sequence is by itself, and whether it is what was asked for.

        ``valid``: 1 where it is as long as asked, holds the 20 amino acids alone and all residues that were given;
        ``standard``: the share of its letters that are one of the 20; ``length``: residues; ``entropy``: bits;
        ``low_complexity``: a share of the residues; ``longest_run`` and ``longest_repeat``: residues. ``kept``, where
        residues were given: the share of them that stand in their places.
        """
        template: str = example.inputs["template"]
        sequence = read_answer(completion)
        standard = measures.standard_share(sequence)
        given = [place for place, letter in enumerate(template) if letter != HOLE]
        kept = measures.agreement(sequence, template, given) if given else 1.0
        valid = len(sequence) == len(template) and standard == 1 and kept == 1
        return {
            "valid": float(valid), "standard": standard, **({"kept": kept} if given else {}),
            "length": len(sequence), "entropy": measures.sequence_entropy(sequence),
            "low_complexity": measures.low_complexity(sequence), "longest_run": measures.longest_run(sequence),
            "longest_repeat": measures.longest_repeat(sequence),
        }  # fmt: skip


def _lengths(value: int | str) -> int | str:
    least, most = span(value)
    if not 1 <= least <= most <= LONGEST:
        raise ValueError(f"should be a number of residues from 1 to {LONGEST:,}, or A:B to draw from A to B")
    return value


def span(value: int | str) -> tuple[int, int]:
    """``80`` -> (80, 80); ``"50:200"`` -> (50, 200); what is neither -> (0, 0)."""
    found = re.fullmatch(r"([0-9]{1,8})(?::([0-9]{1,8}))?", str(value))
    return (int(found[1]), int(found[2] or found[1])) if found else (0, 0)


class ProteinOptions(NoOptions):
    """How long the proteins are; with --data they are as long as the sequences of that file."""

    length: Annotated[int | str, AfterValidator(_lengths)] = Field(
        100, description="residues: a number, or A:B to draw from A to B"
    )


class Protein(_Proteins):
    """Proteins from nothing, of a length that is given, drawn, or that of a FASTA file's sequences (--data)."""

    Options: ClassVar[type[BaseModel]] = ProteinOptions

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        """As many as one likes; of a FASTA file one for each of its sequences, in an order drawn by the seed."""
        draw = random.Random(f"protein:{self.options.length}:{seed}")
        if data is None:
            lengths = (draw.randint(*span(self.options.length)) for _ in count())
            names: Iterator[str] = (f"protein-{seed}-{number}" for number in count())
        else:
            if "length" in self.options.model_fields_set:
                raise MdmError(
                    f"option protein.length={self.options.length} and the lengths of {data}: give one of them"
                )
            records = list(enumerate(read_fasta(data)))
            draw.shuffle(records)
            lengths = (len(record.sequence) for _, record in records)
            names = (f"protein-{number}-{record.name}" for number, record in records)
        for name, length in zip(names, lengths, strict=False):
            yield Example(name, {"template": HOLE * length}, "")


class ProteinInfillOptions(NoOptions):
    """Which residues are masked."""

    mask: Literal["random", "span"] = Field("random", description="residues here and there, or one stretch")
    share: float = Field(0.3, gt=0, le=1, description="of the residues that are masked; one at least")


class ProteinInfill(_Proteins):
    """Known proteins with masked residues, from a FASTA file (--data) or of eight well-known ones."""

    Options: ClassVar[type[BaseModel]] = ProteinInfillOptions
    metric: ClassVar[str] = "recovery"

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        """One for each sequence, in order. Letters beside the 20 amino acids are shown and never masked."""
        source = data or HERE / "proteins.fasta"
        for number, record in enumerate(read_fasta(source)):
            places = [place for place, letter in enumerate(record.sequence) if letter in STANDARD]
            if not places:
                raise MdmError(f"{source}, line {record.line}: none of its letters is one of the 20 amino acids")
            draw = random.Random(f"protein-infill:{self.options.mask}:{self.options.share}:{seed}:{number}")
            masked = self._choose(places, draw)
            template = "".join(HOLE if i in masked else letter for i, letter in enumerate(record.sequence))
            yield Example(f"infill-{number}-{record.name}", {"template": template}, record.sequence)

    def _choose(self, places: Sequence[int], draw: random.Random) -> set[int]:
        """Some of the places that may be masked; a stretch goes over those that may not."""
        size = min(len(places), max(1, round(self.options.share * len(places))))
        if self.options.mask == "random":
            return set(draw.sample(places, size))
        first = draw.randint(0, len(places) - size)
        return set(places[first : first + size])

    def grade(self, example: Example, completion: str) -> Mapping[str, float]:
        """``recovery``: the share of masked residues that are the protein's own; ``identity``: that of all residues.

        Both are 0 of a sequence of another length. The other grades are those of every protein.
        """
        template: str = example.inputs["template"]
        sequence, every = read_answer(completion), range(len(template))
        masked = [place for place in every if template[place] == HOLE]
        recovery = measures.agreement(sequence, example.reference, masked)
        identity = measures.agreement(sequence, example.reference, every)
        return {"recovery": recovery, "identity": identity, **super().grade(example, completion)}


class Scaffold(BaseModel):
    """A line of a file of motifs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[\w.|-]{1,60}$")] = "motif"
    source: str = ""
    """where the sequence is from, for who reads the file"""
    sequence: str = Field(min_length=1, max_length=LONGEST)
    motif: list[tuple[Size, Size]] = Field(min_length=1, max_length=1000)
    """its segments in order, each from its first residue to its last, counted from 1"""
    lengths: list[Annotated[int, Field(ge=0, le=LONGEST, strict=True)] | tuple[int, int]]
    """of the scaffold before, between and behind the segments: a number, or the least and the most"""

    @field_validator("sequence")
    @classmethod
    def _standard(cls, text: str) -> str:
        text = text.upper()
        if wrong := next((i for i, letter in enumerate(text, 1) if letter not in STANDARD), None):
            raise ValueError(f"residue {wrong} is {text[wrong - 1]!r}, which is none of the 20 amino acids")
        return text

    @model_validator(mode="after")
    def _fits(self) -> Scaffold:
        end = 0
        for first, last in self.motif:
            if not end < first <= last <= len(self.sequence):
                raise ValueError(
                    f"motif [{first}, {last}]: segments are in order, apart, within {len(self.sequence)} residues"
                )
            end = last
        if len(self.lengths) != len(self.motif) + 1:
            raise ValueError(
                f"lengths has {len(self.lengths)} entries, and {len(self.motif)} segments have {len(self.motif) + 1} "
                "scaffolds before, between and behind them"
            )
        for least, most in self.spans:
            if not 0 <= least <= most <= LONGEST:
                raise ValueError(f"lengths [{least}, {most}]: the least and the most residues, up to {LONGEST:,}")
        longest = sum(most for _, most in self.spans)
        if not longest:
            raise ValueError("lengths are all 0: there is nothing to design")
        if longest + len(self.sequence) > LONGEST:
            raise ValueError(f"lengths come to {longest:,}: a protein has at most {LONGEST:,} residues")
        return self

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The least and the most of each scaffold."""
        return [(size, size) if isinstance(size, int) else size for size in self.lengths]

    def template(self, draw: random.Random) -> str:
        """The motif's residues in masked scaffolds of drawn lengths, of one residue at least."""
        while not sum(sizes := [draw.randint(least, most) for least, most in self.spans]):
            pass
        segments = [self.sequence[first - 1 : last] for first, last in self.motif]
        return "".join(HOLE * size + segment for size, segment in zip(sizes, [*segments, ""], strict=True))


class ProteinScaffoldOptions(NoOptions):
    """How many proteins are designed around a motif."""

    designs: int = Field(4, ge=1, le=100_000, description="of each motif, each with scaffold lengths of its own")


class ProteinScaffold(_Proteins):
    """Proteins around a motif that is kept, from a file of JSON lines (--data) or of calmodulin's calcium loops."""

    Options: ClassVar[type[BaseModel]] = ProteinScaffoldOptions

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        """``designs`` of each motif, in order."""
        for number, motif in read(data or HERE / "motifs.jsonl", Scaffold):
            for design in range(self.options.designs):
                draw = random.Random(f"protein-scaffold:{seed}:{number}:{design}")
                inputs: dict[str, Any] = {"template": motif.template(draw)}
                yield Example(f"scaffold-{number}-{motif.name}-{design}", inputs, "")
