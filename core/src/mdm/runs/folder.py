"""Begins a run's folder, or goes on with the run in it, with more examples, repeats or variants where these are asked.

What is decoded stays where it lies: a variant that is called otherwise in the greater run keeps its folder, which
``config.yaml`` then names. So one atomic write of that file turns the run into the greater one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs import config as configs, files
from mdm.runs.config import RunConfig
from mdm.runs.results import PARTS, read_environment
from mdm.runs.variants import Variant, variants

LISTS = ("model", "sampler", "tokens_per_step", "autoregressive")
"""Fields of which a run may get further values."""
SIZES = ("limit", "repeats")
"""Fields that may grow."""
FREE = ("offline", "threads", "folders", "swept")
"""Fields that do not say what a run is: how it gets its models and computes, and what follows from the others."""


@contextmanager
def run_folder(
    path: Path, config: RunConfig, environment: Mapping[str, Any], warn: Callable[[str], None]
) -> Iterator[RunConfig]:
    """Begin, resume or extend a run in ``path``, lock it against other processes, and yield its configuration.

    Where an MdmError ends a new run before its first result, what the run created is removed again.

    Args:
        warn: is told where the run keeps more than ``config`` asks for.

    Raises:
        MdmError: the folder holds a run of another configuration, or something else, or is in use.
    """
    if path.exists() and not path.is_dir():
        raise MdmError(f"{path} is a file, not a folder")
    is_new_folder = not path.exists()
    with files.os_errors_as_mdm_errors(path, "read"):
        names = set() if is_new_folder else {entry.name for entry in path.iterdir()}
    if "config.yaml" not in names and any(not name.startswith(".") for name in names - {"environment.json"}):
        raise MdmError(f"{path} is not empty and not a run's folder: choose another --out")
    with files.os_errors_as_mdm_errors(path, "create"):
        path.mkdir(parents=True, exist_ok=True)
    with files.exclusive_lock(path):
        is_new_run = not (path / "config.yaml").exists()
        files.remove_parts(path, PARTS)
        try:
            if is_new_run:
                files.write_json(path / "environment.json", environment)
                files.write_text_atomic(path / "config.yaml", configs.to_yaml(config))
            else:
                config = _go_on(path, config, environment, warn)
            yield config
        except MdmError:
            if is_new_run:
                _remove_new_run(path, is_new_folder)
            raise


def _remove_new_run(path: Path, is_new_folder: bool) -> None:
    """Remove a run that was refused before its first result.

    Where the folder was there before the run, it stays, and so do the hidden files and folders in it: all else in it is
    the run's.
    """
    with suppress(OSError):
        subfolders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        if any(results.stat().st_size for folder in (path, *subfolders) for results in folder.glob("results*.jsonl")):
            return
        for folder in (*subfolders, path):
            for file in chain(*map(folder.glob, ("config.yaml", "environment.json", "results*.jsonl", "trace*.jsonl"))):
                file.unlink()
            if folder != path or is_new_folder:
                folder.rmdir()


def _go_on(path: Path, config: RunConfig, environment: Mapping[str, Any], warn: Callable[[str], None]) -> RunConfig:
    """The configuration of the run in ``path``, extended by what ``config`` asks for beyond it."""
    earlier = configs.parse(RunConfig, path / "config.yaml")
    digest = read_environment(path).data_sha256
    same_data = digest == environment.get("data_sha256")
    if digest and same_data:  # the same bytes under another name are the same data
        earlier = earlier.model_copy(update={"data": config.data})
    old, new = _comparable(earlier, config), _comparable(config, earlier)
    difference = _first_difference(old, new)
    if difference:
        raise MdmError(f"{path} holds another run: {difference}; choose another --out")
    if not same_data:
        raise MdmError(f"{path} was begun with other data: {config.data} has changed; choose another --out")
    greater = _extended(earlier, config, path)
    for name in SIZES:
        if getattr(config, name) != (kept := getattr(greater, name)):
            warn(f"{path} keeps what it has: {name} is {'all' if kept is None else kept} there")
    if any(getattr(greater, name) != getattr(earlier, name) for name in (*LISTS, *SIZES, "options")):
        with files.os_errors_as_mdm_errors(path, "write into"):
            (path / "summary.json").unlink(missing_ok=True)  # it may call the run complete
        files.write_text_atomic(path / "config.yaml", configs.to_yaml(greater))
    return greater


def _extended(earlier: RunConfig, config: RunConfig, path: Path) -> RunConfig:
    """The run in ``path`` with what ``config`` has beyond it, and with the folders that its variants have."""
    changes: dict[str, Any] = {
        "limit": None if None in (earlier.limit, config.limit) else max(earlier.limit or 0, config.limit or 0),
        "repeats": max(earlier.repeats, config.repeats),
        "options": {key: dict(values) for key, values in config.options.items()},
        "swept": {},
    }
    for name in LISTS:
        old, new = getattr(earlier, name), getattr(config, name)
        changes[name] = None if new is None else _joined(old, new)
    for key, name in _swept(earlier, config):
        if key in earlier.options:
            both = (_listed(one.options[key][name]) for one in (earlier, config))
            changes["options"][key][name] = _joined(*both)
        changes["swept"].setdefault(key, []).append(name)
    greater = config.model_copy(update=changes | {"folders": {}})
    variants_of = [[(_policy(one, variant), variant) for variant in variants(one, path)] for one in (earlier, greater)]
    kept = [
        (variant, old.results.folder)
        for policy, old in variants_of[0]
        for other, variant in variants_of[1] if other == policy
    ]  # fmt: skip
    if all(variant.results.folder == folder for variant, folder in kept):
        return greater
    folders = {variant.label: str(folder.relative_to(path)) for variant, folder in kept}
    return greater.model_copy(update={"folders": folders})


def _policy(config: RunConfig, variant: Variant) -> tuple[Any, ...]:
    """What a variant decodes with."""
    own = variant.settled(config)
    options = own.options_of("sampler", variant.sampler), own.options_of("cache", own.cache)
    return variant.model, variant.sampler, variant.tokens_per_step, *options


def _swept(*runs: RunConfig) -> list[tuple[str, str]]:
    """Plugins' keys and options of which one of the runs tries several values."""
    return list(dict.fromkeys((key, name) for run in runs for key, names in run.swept.items() for name in names))


class _Values(list[Any]):
    """Values of which a run may get further ones."""


def _joined(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    return [*old, *(value for value in new if value not in old)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _comparable(config: RunConfig, other: RunConfig) -> dict[str, Any]:
    """What must be alike in two runs for one to go on as the other."""
    plain = config.model_dump(mode="json", exclude={*FREE, *SIZES})
    plain |= {name: _Values(plain[name]) for name in LISTS if plain[name] is not None}
    plain["revisions"] = {model: commit for model, commit in config.revisions.items() if model in other.model}
    new = {key for plugin in {*config.plugins()} - {*other.plugins()} for key in (plugin[1], ".".join(plugin))}
    options = plain["options"] = {key: values for key, values in plain["options"].items() if key not in new}
    for key, name in _swept(config, other):
        if name in options.get(key, {}):
            options[key][name] = _Values(_listed(options[key][name]))
    return plain


def _first_difference(old: Any, new: Any, key: str = "") -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        prefix = f"{key}." if key else ""
        differences = (_first_difference(old.get(name), new.get(name), f"{prefix}{name}") for name in old | new)
        return next(filter(None, differences), None)
    if isinstance(old, _Values) and isinstance(new, _Values):
        if all(value in new for value in old):
            return None
        return f"{key} is {_display(old)} there, {_display(new)} here (name all of them to add to the run)"
    return None if old == new else f"{key} is {_display(old)} there, {_display(new)} here"


def _display(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
