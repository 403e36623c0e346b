"""A run's folder, written incrementally; a killed run can be resumed.

``config.yaml`` (what reproduces the run), ``environment.json`` (the machine and the versions), ``results.jsonl`` (one
line per example), ``trace.jsonl`` (one line per commit) and ``summary.json``. A run of several variants keeps the
results and traces of each in a subfolder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import chain, count, product
from math import nan
from pathlib import Path
from typing import Annotated, Any, ClassVar

from mdm.errors import MdmError, explain
from mdm.runs import files
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

REPEAT_ROWS = 10**9
"""Row ids between an example's repeats: row 3000000017 is repeat 3 of example 17; repeat 0 has the example's index."""

LARGEST = 1e100
"""Of a grade and an entropy: sums and squares of such numbers are finite."""
PARTS = r"config\.yaml|environment\.json|summary\.json|(results|trace)\.jsonl|\d+\.png"
"""Files that a run replaces, and may leave parts of where it is killed."""


def _bounded(value: float) -> float:
    if abs(value) > LARGEST:
        raise ValueError("is too large")
    return value


Natural = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Number = Annotated[
    float, Field(strict=True), BeforeValidator(lambda value: nan if value is None else value), AfterValidator(_bounded)
]
"""A number that may be NaN, in place of which JSON holds null."""


@dataclass(frozen=True)
class ExampleResult:
    """One example decoded and graded: a line of ``results.jsonl``."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: str
    index: Natural
    """Position among the task's examples."""
    repeat: Natural
    """Which decoding of this example; 0 in a run without repeats."""
    row: Natural
    """Row id: it keys the random draws and names the example's lines in the trace."""
    digest: str
    """Digest of the example's inputs and reference."""
    prompt: str
    completion: str
    metrics: Mapping[str, Number]
    tokens: Natural
    """Number of tokens decoded."""
    cumulative_entropy: Number
    """Sum of the entropies of the tokens, each as it was committed, in nats."""
    forwards: Natural
    """Model calls that this example took part in."""
    rows: Natural
    """Canvases that it sent through the model, candidates included."""
    seconds: Annotated[float, Field(strict=True, ge=0, le=1e12)]
    """Wall time since the result before, so that they add up to the time of the run whatever the batch."""
    tokens_until_eos: Natural | None = None
    """Those of ``tokens`` before the first end token; None in results of earlier versions."""
    block_steps: Sequence[Natural] | None = None
    """Steps in each block."""
    error: str | None = None
    """Why it could not be decoded or graded; it then counts as wrong."""
    canvas: Sequence[str | None] | None = None
    """The text of each token before decoding, None where it is masked."""
    texts: Mapping[str, str] | None = None
    """Token id -> text, for the ids in the trace."""
    image: str | None = None
    """The picture that answers, a PNG file below the results' folder; ``completion`` is empty then."""
    grid: Sequence[int] | None = None
    """Rows and columns of the picture's tokens, which are the masked positions of ``canvas``, row by row."""

    @property
    def decoded(self) -> bool:
        """False where decoding failed: there is then no entropy and no cost."""
        return self.forwards > 0

    def graded(self, metric: str) -> bool:
        """Whether it counts in a mean of ``metric``; one that failed does, as wrong."""
        return self.error is not None or metric in self.metrics

    def grade(self, metric: str) -> float:
        """What it counts in a mean of ``metric``: nothing where it failed, or where the grade is NaN."""
        grade = self.metrics.get(metric, 0.0)
        return grade if grade == grade else 0.0


@cache
def _schema() -> TypeAdapter[ExampleResult]:
    return TypeAdapter(ExampleResult)


class Environment(BaseModel):
    """The content of ``environment.json``, as far as it is read."""

    model_config = ConfigDict(extra="allow", strict=True)

    versions: dict[str, str] = {}
    data_sha256: str | None = None
    models: dict[str, dict[str, str | int | bool | list[int] | None]] = {}
    """What only the loaded model tells, by its name."""
    sizes: dict[str, dict[str, int | None]] = {}
    """The sizes of batches, by the folder of the variant."""


def read_environment(folder: Path) -> Environment:
    """What ``environment.json`` of a run says; raises an MdmError where it is something else."""
    path = folder / "environment.json"
    try:
        return Environment.model_validate(files.read_json(path))
    except ValidationError as error:
        raise MdmError(f"{explain(error, f'{path}: ', Environment)}; choose another --out") from error


def is_finished(path: Path) -> bool:
    """Whether the summary of the run in ``path`` says that all of its examples are decoded."""
    summary = files.read_json(path / "summary.json")
    return isinstance(summary, dict) and summary.get("complete") is True


@dataclass
class ResultsFolder:
    """Results and trace of one variant of a run.

    A run of several processes writes ``results.rank1.jsonl`` and the like, which ``gather`` merges.
    """

    folder: Path
    by_row: dict[int, ExampleResult] = field(default_factory=dict)
    """Row id -> result."""

    def __post_init__(self) -> None:
        self.reload()

    def reload(self) -> None:
        """Load all results that are written, the files of all ranks included."""
        results = chain.from_iterable(map(self._results, ["", *self._ranks()]))
        self.by_row = {result.row: result for result in results}

    def gather(self, digests: Sequence[str] | None = None, retry_failed: bool = False) -> int:
        """Merge the closed files of all ranks into lines that are whole, each row's last. Safe to kill.

        Traces that lack a result go, and so does what a killed process left half replaced.

        Args:
            digests: of the run's examples, in order, where it goes on: results of other inputs, and those whose picture
                is gone, are left out, to be made again.
            retry_failed: leave out also those that were recorded with an error.

        Returns:
            How many results were of other inputs.
        """
        for folder in (self.folder, self.folder / "images"):
            files.remove_parts(folder, PARTS)
        kept: dict[str, dict[int, int]] = {}  # file -> row -> number of the line that counts
        changed: set[int] = set()
        failed = {row for row, result in self.by_row.items() if retry_failed and result.error is not None}
        with ExitStack() as stack:
            ranks = self._ranks()
            for path in (self._path("results", suffix) for suffix in ranks):
                if path.exists():
                    stack.enter_context(files.exclusive_lock(path))
            for suffix in ("", *ranks):
                earlier = set().union(*kept.values())
                kept[suffix] = {}
                for number, result in enumerate(self._results(suffix)):
                    is_lost = result.image is not None and not (self.folder / result.image).is_file()
                    if digests is not None and result.digest != digests[result.index]:
                        changed.add(result.row)
                    elif result.row not in earlier | failed and not (digests is not None and is_lost):
                        kept[suffix][result.row] = number
            # Traces first: a result without its trace must never be in the files.
            for name, lines in (("trace", self._trace_lines), ("results", self._result_lines)):
                if any(self._path(name, suffix).exists() for suffix in kept):
                    files.write_lines(self._path(name, ""), lines(kept))
            with files.os_errors_as_mdm_errors(self.folder, "write into"):
                for suffix, name in product(ranks, ("trace", "results")):
                    self._path(name, suffix).unlink(missing_ok=True)
        self.reload()
        return len(changed - self.by_row.keys())

    def _result_lines(self, kept: Mapping[str, Mapping[int, int]]) -> Iterator[Any]:
        for suffix, rows in kept.items():
            for number, record in enumerate(files.json_lines(self._path("results", suffix))):
                if rows.get(record["row"]) == number:
                    yield record

    def _trace_lines(self, kept: Mapping[str, Mapping[int, int]]) -> Iterator[Any]:
        for suffix, rows in kept.items():
            path, seen = self._path("trace", suffix), set()
            for number, line in enumerate(files.json_lines(path), 1):
                if not isinstance(line, dict) or not isinstance(line.get("row"), int):
                    raise MdmError(f"{path}, line {number}: not a line of a trace; delete it, or choose another --out")
                key = str([line.get(name) for name in ("row", "step", "kind", "positions")])
                if line["row"] in rows and key not in seen:
                    seen.add(key)
                    yield line

    def check(self, ids: Sequence[str], repeats: int) -> None:
        """Raise an MdmError for a result that is not of this run, whose examples have these ``ids``, in order."""
        for result in self.by_row.values():
            if result.repeat >= repeats or result.index >= len(ids) or ids[result.index] != result.id:
                raise MdmError(
                    f"{self.folder} holds a result of {result.id!r} at index {result.index}, which is not an example "
                    "of this run; choose another --out"
                )

    @contextmanager
    def writing(self, rank: int | None = None) -> Iterator[ResultsWriter]:
        """Open the files, or a rank's, to append to after ``gather``; raises an MdmError where they are in use."""
        with files.os_errors_as_mdm_errors(self.folder, "create"):
            self.folder.mkdir(parents=True, exist_ok=True)
        suffix = "" if rank is None else f".rank{rank}"
        with ExitStack() as stack:
            paths = self._path("trace", suffix), self._path("results", suffix)
            trace, results = (stack.enter_context(closing(files.Log(path))) for path in paths)
            stack.enter_context(files.exclusive_lock(results.path))
            yield ResultsWriter(self, trace, results)

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}{suffix}.jsonl"

    def _ranks(self) -> list[str]:
        found = chain.from_iterable(self.folder.glob(f"{name}.rank*.jsonl") for name in ("results", "trace"))
        return sorted({path.stem[path.stem.index(".") :] for path in found})

    def _results(self, suffix: str) -> Iterator[ExampleResult]:
        path = self._path("results", suffix)
        for number, record in enumerate(files.json_lines(path), 1):
            try:
                result = _schema().validate_python(record)
                if result.row != result.index + result.repeat * REPEAT_ROWS:
                    raise ValueError("row, index and repeat disagree")
                if result.image not in (None, f"images/{result.row}.png"):
                    raise ValueError("its image is another row's")
            except ValueError as error:
                why = str(error)
                if isinstance(error, ValidationError):
                    first = error.errors(include_url=False, include_input=False)[0]
                    why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".strip(": ")
                raise MdmError(
                    f"{path}, line {number}: not a result of a run ({why}); without this line its example is decoded "
                    "again"
                ) from error
            yield result


@dataclass(frozen=True)
class ResultsWriter:
    """The open files of a ``ResultsFolder``."""

    folder: ResultsFolder
    trace: files.Log
    results: files.Log

    def save_image(self, row: int, image: Any) -> Path:
        """Write the picture of a row, uint8 ``[H, W, 3]``, before its result: a kill in between leaves none lost."""
        from PIL import Image  # a package whose models make pictures brings it

        path = self.folder.folder / "images" / f"{row}.png"
        with files.os_errors_as_mdm_errors(path, "write"):
            path.parent.mkdir(exist_ok=True)
        with files.atomic_file(path) as part:
            Image.fromarray(image).save(part, format="PNG")
        return path

    def add(self, result: ExampleResult, trace: Iterable[Mapping[str, Any]]) -> None:
        """Write one finished example. The trace comes first: a kill in between leaves a trace that ``gather`` drops."""
        try:
            self.trace.append(*({**line, "row": result.row} for line in trace))
            self.results.append({key: value for key, value in asdict(result).items() if value is not None})
        except MdmError as error:
            raise MdmError(f"{error}; what is written is kept, and the same command goes on from there") from error
        self.folder.by_row[result.row] = result


def folder_names(labels: Iterable[str], given: Mapping[str, str]) -> list[str]:
    """A distinct folder name for each label, which may be a model's path: the ``given`` one, or one like it."""
    names: list[str] = []
    for label in labels:
        base = re.sub(r"[^\w.+-]+", "-", label).strip("-.") or "run"
        free = (name for name in numbered(base) if name not in (*names, *given.values(), "images"))
        names.append(given[label] if label in given else next(free))
    return names


def numbered(base: str) -> Iterator[str]:
    """``base``, ``base-2``, ``base-3`` and so on: names for something that needs a free one."""
    return chain([base], (f"{base}-{number}" for number in count(2)))
