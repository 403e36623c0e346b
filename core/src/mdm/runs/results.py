"""A run's folder, written incrementally; a killed run can be resumed.

``config.yaml`` (what reproduces the run), ``environment.json`` (the machine and the versions), ``results.jsonl`` (one
line per example), ``trace.jsonl`` (one line per commit) and ``summary.json``. A run of several variants keeps the
results and traces of each in a subfolder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import chain, count, product
from math import nan
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs import config, files
from mdm.runs.config import RunConfig


@dataclass(frozen=True)
class ExampleResult:
    """One example decoded and graded: a line of ``results.jsonl``."""

    id: str
    index: int
    """Position among the task's examples."""
    repeat: int
    """Which decoding of this example; 0 in a run without repeats."""
    row: int
    """Row id: it keys the random draws and names the example's lines in the trace."""
    digest: str
    """Digest of the example's inputs and reference."""
    prompt: str
    completion: str
    metrics: Mapping[str, float]
    tokens: int
    """Number of tokens decoded."""
    cumulative_entropy: float
    """Sum of the entropies of the tokens, each as it was committed, in nats."""
    forwards: int
    """Model calls that this example took part in."""
    rows: int
    """Canvases that it sent through the model, candidates included."""
    seconds: float
    """Wall time since the result before, so that they add up to the time of the run whatever the batch."""
    tokens_until_eos: int | None = None
    """Those of ``tokens`` before the first end token; None in results of earlier versions."""
    block_steps: Sequence[int] | None = None
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


@contextmanager
def run_folder(path: Path, run_config: RunConfig, environment: Mapping[str, Any]) -> Iterator[None]:
    """Begin or resume a run in ``path``, and lock it against other processes.

    Where an MdmError ends a new run before its first result, what the run created is removed again.

    Raises:
        MdmError: the folder holds a run of another configuration, or something else, or is in use.
    """
    if path.exists() and not path.is_dir():
        raise MdmError(f"{path} is a file, not a folder")
    is_new_folder = not path.exists()
    names = set() if is_new_folder else {entry.name for entry in path.iterdir()}
    if "config.yaml" not in names and any(not name.startswith(".") for name in names - {"environment.json"}):
        raise MdmError(f"{path} is not empty and not a run's folder: choose another --out")
    with files.os_errors_as_mdm_errors(path, "create"):
        path.mkdir(parents=True, exist_ok=True)
    with files.exclusive_lock(path):
        is_new_run = not (path / "config.yaml").exists()
        try:
            if is_new_run:
                files.write_json(path / "environment.json", environment)
                files.write_text_atomic(path / "config.yaml", config.to_yaml(run_config))
            else:
                _check_same_run(path, run_config, environment)
            yield
        except MdmError:
            if is_new_run:
                _remove_new_run(path, is_new_folder)
            raise


def is_finished(path: Path) -> bool:
    """Whether the summary of the run in ``path`` says that all of its examples are decoded."""
    summary = files.read_json(path / "summary.json")
    return all(row.get("complete", False) for row in summary.get("runs", [summary]))


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

    def gather(self, *, without_lost_pictures: bool = False) -> None:
        """Merge the closed files of all ranks, without torn lines and traces that lack a result. Safe to kill.

        Args:
            without_lost_pictures: leave out results whose picture is gone, so that it is made again.
        """
        with ExitStack() as stack:
            ranks = self._ranks()
            for suffix in ranks:
                stack.enter_context(files.exclusive_lock(self._path("results", suffix)))

            def rows_of(suffix: str) -> set[int]:
                return {
                    result.row for result in self._results(suffix)
                    if not (without_lost_pictures and result.image and not (self.folder / result.image).is_file())
                }  # fmt: skip

            rows = {"": rows_of("")}
            for suffix in ranks:
                merged_rows = set().union(*rows.values())
                rows[suffix] = rows_of(suffix) - merged_rows
            # Traces first: a result without its trace must never be in the files.
            for name in ("trace", "results"):
                merged = (
                    record
                    for suffix, rows_of_file in rows.items()
                    for record in files.json_lines(self._path(name, suffix))
                    if record["row"] in rows_of_file
                )
                if any(self._path(name, suffix).exists() for suffix in rows):
                    files.write_lines(self._path(name, ""), merged)
            with files.os_errors_as_mdm_errors(self.folder, "write into"):
                for suffix, name in product(ranks, ("trace", "results")):
                    self._path(name, suffix).unlink(missing_ok=True)
        self.reload()

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
        return sorted(path.stem.removeprefix("results") for path in self.folder.glob("results.rank*.jsonl"))

    def _results(self, suffix: str) -> Iterator[ExampleResult]:
        path = self._path("results", suffix)
        for record in files.json_lines(path):
            try:
                yield ExampleResult(**_with_nan(record | {"metrics": _with_nan(record["metrics"])}))
            except (TypeError, KeyError) as error:
                raise MdmError(f"{path}: not the results of a run ({error}); choose another --out") from error


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


def _with_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it was before it became JSON, which holds null in place of NaN."""
    return {name: nan if value is None else value for name, value in record.items()}


def folder_names(labels: Iterable[str]) -> list[str]:
    """A distinct folder name for each label, which may be a model's path."""
    names: list[str] = []
    for label in labels:
        base = re.sub(r"[^\w.+-]+", "-", label).strip("-.") or "run"
        names.append(next(name for name in numbered(base) if name not in names))
    return names


def numbered(base: str) -> Iterator[str]:
    """``base``, ``base-2``, ``base-3`` and so on: names for something that needs a free one."""
    return chain([base], (f"{base}-{number}" for number in count(2)))


def _remove_new_run(path: Path, is_new_folder: bool) -> None:
    """Remove a run that was refused before its first result.

    Where the folder was there before the run, it stays, and so do the hidden files and folders in it: all else in it is
    the run's.
    """
    subfolders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if any(results.stat().st_size for folder in (path, *subfolders) for results in folder.glob("results*.jsonl")):
        return
    with suppress(OSError):
        for folder in (*subfolders, path):
            for file in chain(*map(folder.glob, ("config.yaml", "environment.json", "results*.jsonl", "trace*.jsonl"))):
                file.unlink()
            if folder != path or is_new_folder:
                folder.rmdir()


def _check_same_run(path: Path, run_config: RunConfig, environment: Mapping[str, Any]) -> None:
    # Where a model's files come from is not what they are.
    old, new = (
        run.model_dump(mode="json", exclude={"offline"})
        for run in (config.parse(RunConfig, path / "config.yaml"), run_config)
    )
    digest = files.read_json(path / "environment.json").get("data_sha256")
    same_data = digest == environment.get("data_sha256")
    if digest and same_data:
        old["data"] = new["data"]  # the same bytes under another name are the same data
    difference = _first_difference(old, new)
    if difference:
        raise MdmError(f"{path} holds another run: {difference}; choose another --out")
    if not same_data:
        raise MdmError(f"{path} was begun with other data: {run_config.data} has changed; choose another --out")


def _first_difference(old: Any, new: Any, key: str = "") -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        prefix = f"{key}." if key else ""
        differences = (_first_difference(old.get(name), new.get(name), f"{prefix}{name}") for name in old | new)
        return next(filter(None, differences), None)
    return None if old == new else f"{key} is {_display(old)} there, {_display(new)} here"


def _display(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
