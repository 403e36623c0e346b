"""A run's folder: written as it goes, complete or resumable after any death.

``config.yaml`` (what reproduces the run), ``environment.json`` (what it ran on), ``results.jsonl`` (one line an
example), ``trace.jsonl`` (one line a commit) and ``summary.json``. A run of several samplers or models keeps
results and traces in a subfolder for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mdm import config, files
from mdm.config import RunConfig
from mdm.errors import MdmError


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
    with files.spoken(path, "create"):
        path.mkdir(parents=True, exist_ok=True)
    with files.held(path):
        fresh = not (path / "config.yaml").exists()
        if fresh:
            files.write_json(path / "environment.json", environment)
            files.write_whole(path / "config.yaml", config.to_yaml(settled))
        else:
            _same_run(path, settled, environment)
        try:
            yield
        except MdmError:
            if fresh:
                _withdraw(path)
            raise


@dataclass
class Arm:
    """Results and trace of one model under one sampler."""

    folder: Path
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """By row id."""

    def __post_init__(self) -> None:
        path = self.folder / "results.jsonl"
        for record in files.json_lines(path):
            try:
                self.outcomes[record["row"]] = Outcome(**record)
            except (TypeError, KeyError) as error:
                raise MdmError(f"{path}: not the results of a run ({error})") from error

    @contextmanager
    def writing(self) -> Iterator[ArmLog]:
        """Repair what a death left behind, then append. An outcome's trace comes first, so a torn one is orphaned."""
        with files.spoken(self.folder, "create"):
            self.folder.mkdir(parents=True, exist_ok=True)
        files.keep_lines(self.folder / "results.jsonl", lambda record: True)
        files.keep_lines(self.folder / "trace.jsonl", lambda record: record["row"] in self.outcomes)
        log = ArmLog(self, files.Log(self.folder / "trace.jsonl"), files.Log(self.folder / "results.jsonl"))
        try:
            yield log
        finally:
            log.trace.close()
            log.results.close()


@dataclass(frozen=True)
class ArmLog:
    """The open files of an arm."""

    arm: Arm
    trace: files.Log
    results: files.Log

    def add(self, outcome: Outcome, trace: Iterable[Mapping[str, Any]]) -> None:
        """One finished example: in the files before this returns."""
        self.trace.append(*({**line, "row": outcome.row} for line in trace))
        self.results.append({key: value for key, value in asdict(outcome).items() if key != "error" or value})
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


def _withdraw(path: Path) -> None:
    """Leave nothing of a run that was refused before its first result."""
    if any(found.stat().st_size for found in path.glob("**/results.jsonl")):
        return
    with suppress(OSError):
        for name in ("config.yaml", "environment.json", "results.jsonl", "trace.jsonl"):
            for found in path.glob(f"**/{name}"):
                found.unlink()
        for folder in [*(found for found in path.iterdir() if found.is_dir()), path]:
            folder.rmdir()


def _same_run(path: Path, settled: RunConfig, environment: Mapping[str, Any]) -> None:
    there, here = config.parse(RunConfig, path / "config.yaml").model_dump(mode="json"), settled.model_dump(mode="json")
    difference = _first_difference(there, here)
    if difference:
        raise MdmError(f"{path} holds another run: {difference}; choose another --out")
    digest = files.read_json(path / "environment.json").get("data_sha256")
    if digest != environment.get("data_sha256"):
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
