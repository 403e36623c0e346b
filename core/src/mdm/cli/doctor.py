"""``mdm doctor``: whether this machine and this installation can decode."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from typing import NamedTuple

import click
from mdm import registry
from mdm.errors import MdmError, one_line
from mdm.runs.files import to_json

NEWEST_TESTED = {"python": "3.13", "torch": "2.14", "transformers": "5.24"}
"""The newest that an environment of tox.ini runs; the oldest is what mdm-core requires."""


class Finding(NamedTuple):
    """The result of one check."""

    name: str
    ok: bool
    detail: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def doctor(as_json: bool) -> int:
    """Check the installation; exit code 1 if something is wrong."""
    findings = [_python(), _core(), *map(_package, ("torch", "transformers")), _devices(), _plugins(), _disk()]
    findings += map(_brought, registry.entries("finding"))
    well = all(finding.ok for finding in findings)
    if as_json:
        click.echo(to_json({"ok": well, "findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.ok else 'wrong'}  {finding.name}: {finding.detail}")
    return int(not well)


def _python() -> Finding:
    return _judged("python", platform.python_version(), f" at {sys.executable}")


def _core() -> Finding:
    try:
        version = metadata.version("mdm-core")
    except metadata.PackageNotFoundError:
        return Finding("mdm-core", False, "runs from a folder that is not installed: pip install -e core")
    if version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 1:
        return Finding("mdm-core", True, version)
    return Finding("mdm-core", False, f"{version} is the unrelated package of that name on PyPI: uninstall it")


def _package(name: str) -> Finding:
    try:
        __import__(name)
    except Exception as error:
        return Finding(name, False, f"does not import: {error}")
    return _judged(name, metadata.version(name))


def _judged(name: str, version: str, where: str = "") -> Finding:
    """Whether mdm-core allows ``version``, with a word where nobody has tried one so new."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    with suppress(metadata.PackageNotFoundError):  # which ``_core`` says
        core = metadata.distribution("mdm-core")
        for wanted in map(Requirement, [f"python{core.metadata['Requires-Python'] or ''}", *(core.requires or ())]):
            if wanted.name == name and not wanted.specifier.contains(version, prereleases=True):
                return Finding(name, False, f"{version}{where}: mdm-core needs {wanted.specifier}")
    newer = Version(version).release[:2] > Version(NEWEST_TESTED[name]).release
    return Finding(name, True, version + where + newer * f", newer than what is tested (up to {NEWEST_TESTED[name]})")


def _devices() -> Finding:
    try:
        import torch
    except Exception as error:
        return Finding("devices", False, f"no torch: {error}")
    gpus = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    names = [f"cuda:{index} ({gpu.name}, {gpu.total_memory / 2**30:.0f} GiB)" for index, gpu in enumerate(gpus)]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return Finding("devices", True, ", ".join([f"cpu ({torch.get_num_threads()} threads)", *names, *mps]))


def _plugins() -> Finding:
    checked = registry.check()
    broken = [error for _, error in checked if error]
    if broken:
        return Finding("plugins", False, f"{len(broken)} of {len(checked)} broken: {'; '.join(broken)}")
    return Finding("plugins", True, f"{len(checked)} installed, all load")


def _brought(entry: registry.Entry) -> Finding:
    """What an installed package says of this machine: a function without arguments returns ``ok`` and ``detail``."""
    try:
        ok, detail = registry.in_time(f"{entry.package} cannot say", lambda: registry.load(entry)())
    except (MdmError, TypeError, ValueError) as error:
        return Finding(entry.name, False, one_line(str(error)))
    if not isinstance(ok, bool) or not isinstance(detail, str):
        return Finding(entry.name, False, f"{entry.package} answers with neither True or False and a text")
    return Finding(entry.name, ok, one_line(detail))


def _disk() -> Finding:
    try:
        with tempfile.NamedTemporaryFile():
            free = shutil.disk_usage(tempfile.gettempdir()).free
    except OSError as error:
        return Finding("temporary files", False, f"cannot write to {tempfile.gettempdir()}: {error}")
    return Finding("temporary files", True, f"{tempfile.gettempdir()}, {free / 2**30:.1f} GiB free")
