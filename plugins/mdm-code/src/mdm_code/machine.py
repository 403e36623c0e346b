"""What this machine gives to a sandbox, for ``mdm doctor``."""

from __future__ import annotations

import os

from mdm.errors import MdmError

from mdm_code.sandbox import Job, run

MISSING = {
    "process namespace": "no process namespace: signals and scheduling are refused by the filter alone",
    "bounded files": "no file system of its own: room on disk is only watched, and files that are read are not hidden",
    "network namespace": "no network namespace: sockets are refused by the filter alone",
    "Landlock": "no Landlock: files outside are kept by the file system of its own alone",
    "libseccomp": "no libseccomp.so.2: our own filter stands in for it",
    "bubblewrap": "no bubblewrap",
}
"""Layer -> what is to be said where it is missing."""
UNPROTECTED = (
    "neither a file system of its own nor Landlock: programs read what this user may, and write no file at all"
)


def finding() -> tuple[bool, str]:
    """Whether a right program passes here, the layers that it was confined by, and what is missing."""
    try:
        verdict = run(Job("def f(): return 1", ["assert f() == 1"], {"f": "f"}))
    except MdmError as error:
        return True, f"{error}; only tasks that run generated code need it"
    if not verdict.passed:
        return False, f"a right program does not pass: {verdict.reason}"
    text = ", ".join(verdict.layers)
    missing = {layer: said for layer, said in MISSING.items() if layer not in text}
    if {"Landlock", "bounded files", "bubblewrap"} <= missing.keys():
        missing = {layer: said for layer, said in missing.items() if layer not in ("Landlock", "bounded files")}
        missing["files"] = UNPROTECTED
    if os.geteuid() == 0 and "user" not in text.replace("user namespace", ""):
        missing["user"] = "programs run as root: another user cannot read this interpreter"
    return True, "; ".join([f"programs are confined by {text}", *missing.values()])
