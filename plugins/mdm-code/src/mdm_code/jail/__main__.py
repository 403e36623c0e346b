"""Judge one program: the tests run here, the program in a child that cannot reach this process.

A job comes as JSON on stdin, the verdict goes as JSON to stdout. The child is forked before the job is read, so neither
the tests nor what they expect is ever in its memory: it gets the program, is asked to call this or that with plain
values, and answers with plain values. No exit code, no output and no object of the program counts as a pass.

Each process of the chain (the keeper, where there are namespaces; the judge, process 1 of its own; the program) is
killed by the kernel when the one before it ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any

import calls
import kernel
import landlock
import limits
import namespaces
import removal
import seccomp
from judge import judge
from player import play
from wire import Closed, Wire


def main() -> None:
    plan = json.loads(sys.argv[1])
    parent = Parent(plan["parent"])
    parent.end_with_it()
    sys.path.pop(0)
    os.environ.pop("PWD", None)  # from bubblewrap
    os.umask(0o022)
    number = os.getpid()
    had = namespaces.enter() if plan["namespaces"] else []
    limits.limit(cpu=plan["cpu"], memory=plan["memory"], file=plan["file"])
    kernel.hide_memory()
    if "process" in had:
        parent = become_first()
    layers = confine_both(plan, number, had)
    parent.end_with_it()  # a change of user has undone it
    kernel.hide_memory()
    verdict = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    (judge_in, player_out), (player_in, judge_out) = os.pipe(), os.pipe()
    this = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            Parent(this).end_with_it()
            run_program(plan, layers, null, player_in, player_out)
        finally:
            os._exit(1)
    os.close(player_in)
    os.close(player_out)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.setitimer(signal.ITIMER_REAL, plan["wall"] + 5)  # for a runner that ended before we could end with it
    job = json.loads(sys.stdin.buffer.read())
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    confine(plan, None, child, layers)
    wire = Wire(judge_in, judge_out)
    os.write(verdict, json.dumps(answer(job, wire, child)).encode())
    os._exit(0)


class Parent:
    """The process that this one is to end with: by its ``number``, or by the pipe ``end`` that closes when it ends."""

    def __init__(self, number: int | None = None, end: int | None = None) -> None:
        self._number, self._pipe = number, select.poll()
        if end is not None:
            self._pipe.register(end, 0)

    def end_with_it(self) -> None:
        """Ask the kernel for that; end at once where the parent was faster."""
        kernel.die_with_parent()
        if self._number not in (None, os.getppid()) or self._pipe.poll(0):
            os._exit(1)


def become_first() -> Parent:
    """Go on as process 1 of the namespace; the process that was started only waits for it."""
    end, kept = os.pipe()
    first = os.fork()
    if first:
        os.closerange(0, 3)
        os.waitpid(first, 0)
        os._exit(0)
    os.close(kept)
    return Parent(end=end)


def confine_both(plan: dict[str, Any], number: int, had: list[str]) -> list[str]:
    """Change root and user, where that can be done, and go to the working folder.

    Returns:
        The layers that are there by now.
    """
    folder = plan["folder"]
    layers = [*plan["outer"], *(f"{kind} namespace" for kind in had)]
    if "mount" in had and namespaces.own_root(folder, plan["disk"]):
        layers.append("bounded files")
    parts = [f"{folder}/work", f"{folder}/removed"]
    for part in parts:
        os.mkdir(part, 0o700)
    os.chmod(folder, 0o711)  # another user passes through it
    if user := limits.own_user(number, *parts):
        layers.append("own user" if user == "own" else "other user")
    os.chdir(parts[0])
    return layers


def confine(plan: dict[str, Any], folder: str | None, child: int | None, layers: list[str]) -> list[str]:
    """Give up what is left but the ``folder``, and signals to this process and to the ``child``; there is no way back.

    Returns:
        All layers.

    Raises:
        OSError: the system refused the filter of system calls.
    """
    kernel.give_up_privileges()
    version = landlock.restrict(folder, signals=child is not None, newest=plan["landlock"])
    files: calls.Files = "read"
    if folder and (version or {"bounded files", "bubblewrap"} & {*layers}):
        files = "bounded" if "bounded files" in layers else "watched"
    ways = calls.allowed(os.getpid(), child, files)
    filtered = f"filter by {seccomp.restrict(ways, library=plan['libseccomp'])}"
    return [*layers, *([f"Landlock {version}"] if version else []), filtered]


def run_program(plan: dict[str, Any], layers: list[str], null: int, incoming: int, outgoing: int) -> None:
    """Answer for the program; the first message says what it is confined by, or why it cannot be."""
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in set(range(3, limits.OPEN_FILES)) - {incoming, outgoing}:
        try:
            os.close(fd)
        except OSError:
            continue
    wire = Wire(incoming, outgoing)
    # Opened here: the filter may refuse to write any file.
    source = open("solution.py", "w", encoding="utf-8")  # noqa: SIM115
    if "own user" in layers:
        limits.limit_threads(plan["threads"])
    if "bounded files" not in layers:
        removal.move_aside(f"{plan['folder']}/removed")
    try:
        wire.send([True, confine(plan, plan["folder"], None, layers)])
    except OSError as error:
        wire.send([False, str(error)])
        return
    play(wire, source)


def answer(job: dict[str, Any], wire: Wire, child: int) -> dict[str, Any]:
    """The verdict, or why none can be given."""
    try:
        confined, layers = wire.receive()
    except Closed:
        confined, layers = False, "it ended before it was confined"
    if not confined:
        return {"unconfined": layers}
    reason = judge(job, wire)
    if isinstance(reason, Closed):
        reason = ended(child)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {"passed": reason is None, "reason": reason or "", "layers": layers}


def ended(child: int) -> str:
    """Why the program is gone."""
    for _ in range(100):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "it closed its connection to the tests"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "time" if number in (signal.SIGXCPU, signal.SIGKILL) else f"killed by {signal.Signals(number).name}"
    return f"it exited with {os.WEXITSTATUS(status)} before the tests were done"


main()
