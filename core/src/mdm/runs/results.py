"""A run's folder: written as it goes, complete or resumable after any death.

``config.yaml`` (what reproduces the run), ``environment.json`` (what it ran on), ``results.jsonl`` (one line an
example), ``trace.jsonl`` (one line a commit) and ``summary.json``. A run of several samplers or models keeps
results and traces in a subfolder for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs import config, files
from mdm.runs.config import RunConfig


@dataclass(frozen=True)
class Outcome:
    """One example decoded and graded: a line of ``results.jsonl``."""

    id: str
    index: int
    """Place in the task's examples."""
    repeat: int
    """Which of the decodings of this example; 0 is the one of a run without repeats."""
    row: int
    """Keys the draws and names the rows of the trace."""
    digest: str
    """Of the example's inputs and reference."""
    prompt: str
    completion: str
    metrics: Mapping[str, float]
    tokens: int
    """How many positions were masked at the start."""
    cumulative_entropy: float
    forwards: int
    rows: int
    seconds: float
    """Wall time since the outcome before, so that they add up to the run's whatever the batch."""
    error: str | None = None
    """Why it could not be decoded or graded; it then counts as wrong."""
    canvas: Sequence[str | None] | None = None
    """The text of each token that decoding began with, None where it was masked; without a tokenizer None."""
    texts: Mapping[str, str] | None = None
    """The text of each token id in the trace."""

    @property
    def decoded(self) -> bool:
        """False where decoding failed: it then has no entropy and no cost."""
        return self.forwards > 0


@contextmanager
def run_folder(path: Path, settled: RunConfig, environment: Mapping[str, Any]) -> Iterator[None]:
    """Begin or take up a run in ``path`` and keep other processes out of it.

    Raises:
        MdmError: the folder holds a run of another configuration, or something else, or is in use.
    """
    if path.exists() and not path.is_dir():
        raise MdmError(f"{path} is a file, not a folder")
    if not (path / "config.yaml").exists() and path.is_dir() and any(_visible(path)):
        raise MdmError(f"{path} is not empty and not a run's folder: choose another --out")
    with files.os_errors_as_mdm_errors(path, "create"):
        path.mkdir(parents=True, exist_ok=True)
    with files.exclusive_lock(path):
        fresh = not (path / "config.yaml").exists()
        try:
            if fresh:
                files.write_json(path / "environment.json", environment)
                files.write_text_atomic(path / "config.yaml", config.to_yaml(settled))
            else:
                _same_run(path, settled, environment)
            yield
        except MdmError:
            if fresh:
                _remove_new_run(path)
            raise


@dataclass
class ResultsFolder:
    """Results and trace of one model under one sampler.

    A run of several processes writes ``results.rank1.jsonl`` and the like, which ``gather`` merges.
    """

    folder: Path
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """By row id."""

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> None:
        """Learn what the files say by now, each process's own included."""
        self.outcomes = {}
        for suffix in ["", *self._ranks()]:
            self.outcomes |= {outcome.row: outcome for outcome in self._read(suffix)}

    def gather(self) -> None:
        """Repair what a death left behind, and merge what several processes wrote. Any death in here does no harm.

        Raises:
            MdmError: a process is still writing.
        """
        with ExitStack() as stack:
            ranks = self._ranks()
            for suffix in ranks:
                stack.enter_context(files.exclusive_lock(self._path("results", suffix)))
            rows = {"": {outcome.row for outcome in self._read("")}}
            for suffix in ranks:
                known = set().union(*rows.values())
                rows[suffix] = {outcome.row for outcome in self._read(suffix)} - known
            # Traces first: an outcome without its trace must never be seen.
            for name in ("trace", "results"):
                merged = (
                    record
                    for suffix, ours in rows.items()
                    for record in files.json_lines(self._path(name, suffix))
                    if record["row"] in ours
                )
                if any(self._path(name, suffix).exists() for suffix in rows):
                    files.write_lines(self._path(name, ""), merged)
            for suffix in ranks:
                for name in ("trace", "results"):
                    with files.os_errors_as_mdm_errors(self.folder, "write into"):
                        self._path(name, suffix).unlink(missing_ok=True)
        self.read()

    def check(self, ids: Sequence[str], repeats: int) -> None:
        """Raises MdmError where an outcome is of none of these examples."""
        for outcome in self.outcomes.values():
            if outcome.repeat >= repeats or outcome.index >= len(ids) or ids[outcome.index] != outcome.id:
                raise MdmError(
                    f"{self.folder} holds a result of {outcome.id!r} at place {outcome.index}, which is not an example "
                    "of this run; choose another --out"
                )

    @contextmanager
    def writing(self, rank: int | None = None) -> Iterator[ResultsWriter]:
        """Append to files that ``gather`` has seen to; with ``rank``, to that process's own."""
        with files.os_errors_as_mdm_errors(self.folder, "create"):
            self.folder.mkdir(parents=True, exist_ok=True)
        suffix = "" if rank is None else f".rank{rank}"
        paths = self._path("trace", suffix), self._path("results", suffix)
        trace, lines = map(files.Log, paths)
        try:
            with files.exclusive_lock(paths[1]):
                yield ResultsWriter(self, trace, lines)
        finally:
            trace.close()
            lines.close()

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}{suffix}.jsonl"

    def _ranks(self) -> list[str]:
        return sorted(path.stem.removeprefix("results") for path in self.folder.glob("results.rank*.jsonl"))

    def _read(self, suffix: str) -> Iterator[Outcome]:
        path = self._path("results", suffix)
        for record in files.json_lines(path):
            try:
                yield Outcome(**record)
            except TypeError as error:
                raise MdmError(f"{path}: not the results of a run ({error}); choose another --out") from error


@dataclass(frozen=True)
class ResultsWriter:
    """The open files of an arm."""

    arm: ResultsFolder
    trace: files.Log
    results: files.Log

    def add(self, outcome: Outcome, trace: Iterable[Mapping[str, Any]]) -> None:
        """One finished example: in the files before this returns. Its trace comes first, so a torn one is orphaned."""
        try:
            self.trace.append(*({**line, "row": outcome.row} for line in trace))
            self.results.append({key: value for key, value in asdict(outcome).items() if value is not None})
        except MdmError as error:
            raise MdmError(f"{error}; what is written is kept, and the same command goes on from there") from error
        self.arm.outcomes[outcome.row] = outcome


def folder_names(labels: Iterable[str]) -> list[str]:
    """A folder's name for each label (a sampler, or a model's path), all different."""
    names: list[str] = []
    for label in labels:
        base = re.sub(r"[^\w.+-]+", "-", label).strip("-.") or "run"
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "environment.json")


def _remove_new_run(path: Path) -> None:
    """Leave nothing of a run that was refused before its first result."""
    if any(found.stat().st_size for found in path.glob("**/results*.jsonl")):
        return
    with suppress(OSError):
        for name in ("config.yaml", "environment.json", "results*.jsonl", "trace*.jsonl"):
            for found in path.glob(f"**/{name}"):
                found.unlink()
        for folder in [*(found for found in path.iterdir() if found.is_dir()), path]:
            folder.rmdir()


def _same_run(path: Path, settled: RunConfig, environment: Mapping[str, Any]) -> None:
    parsed = config.parse(RunConfig, path / "config.yaml")
    # Where a model's files come from is not what they are.
    there, here = (run.model_dump(mode="json", exclude={"offline"}) for run in (parsed, settled))
    digest = files.read_json(path / "environment.json").get("data_sha256")
    same_data = digest == environment.get("data_sha256")
    if digest and same_data:
        there["data"] = here["data"]  # the same bytes under another name are the same data
    difference = _first_difference(there, here)
    if difference:
        raise MdmError(f"{path} holds another run: {difference}; choose another --out")
    if not same_data:
        raise MdmError(f"{path} was begun with other data: {settled.data} has changed; choose another --out")


def _first_difference(there: Any, here: Any, key: str = "") -> str | None:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in [*there, *(name for name in here if name not in there)]:
            found = _first_difference(there.get(name), here.get(name), f"{key}.{name}" if key else str(name))
            if found:
                return found
        return None
    return None if there == here else f"{key} is {_shown(there)} there, {_shown(here)} here"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
