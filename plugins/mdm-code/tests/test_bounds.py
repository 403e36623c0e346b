# ruff: noqa: E501
"""What programs do to the world outside their sandbox, seen from there: to processes, files, room, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from mdm_code import folders
from mdm_code.jail import kernel
from mdm_code.sandbox import Job, Limits, Machine, run
from sandboxes import ALL, ALONE, BARE, LAYERED, MACHINES, USER, command, judged, settings

if not kernel.supported():
    pytest.skip("code is confined on Linux only", allow_module_level=True)

WATCHED = {"bubblewrap": False, "namespaces": False}
"""A machine without namespaces, where files are only watched."""
BOTH = pytest.mark.parametrize("machine", [ALL, WATCHED], ids=["all layers", "no namespaces"])
WIDE = pytest.mark.wide


def attack(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.attack(f"sandbox: {kind}")


def as_user(who: str) -> list[str]:
    return (
        ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
        if who == "user" and os.geteuid() == 0
        else []
    )


SIGNALS = """
import ctypes, fcntl, os, struct, time, contextlib
L, victim = ctypes.CDLL(None), {victim}
def by(line):
    with contextlib.suppress(Exception): exec(line, globals())
for own in ("fcntl.fcntl(r, 8, victim)", "fcntl.fcntl(r, 15, struct.pack('ii', 1, victim))", "fcntl.ioctl(r, 0x8901, struct.pack('i', victim))"):
    r, w = os.pipe()
    by(own); by("fcntl.fcntl(r, 10, 9)"); by("fcntl.fcntl(r, 4, os.O_ASYNC)"); os.write(w, b"x")
for line in ("os.kill(victim, 9)", "os.killpg(victim, 9)", "L.tgkill(victim, victim, 9)", "os.kill(-1, 9)", "os.sched_setaffinity(victim, {0})",
             "os.setpriority(0, victim, 19)", "os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0))", "L.ptrace(16, victim, 0, 0)"):
    by(line)
time.sleep(0.05)
def f(): return True
"""


@attack("signals")
@pytest.mark.parametrize(("who", "machine"), settings(LAYERED, ALONE))
def test_no_signal_reaches_a_process_outside(who, machine):
    victim = subprocess.Popen([*as_user(who), "sleep", "60"], start_new_session=True)
    try:
        before = (
            os.getpriority(os.PRIO_PROCESS, victim.pid),
            os.sched_getaffinity(victim.pid),
            os.sched_getscheduler(victim.pid),
        )
        ((passed, reason, _),) = judged(who, machine, [SIGNALS.replace("{victim}", str(victim.pid))])
        assert passed, reason
        assert victim.poll() is None
        assert "S" in Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert before == (
            os.getpriority(os.PRIO_PROCESS, victim.pid),
            os.sched_getaffinity(victim.pid),
            os.sched_getscheduler(victim.pid),
        )
    finally:
        victim.kill()
        victim.wait()


FILES = """
import os, contextlib, shutil
path = {path!r}
def by(line):
    with contextlib.suppress(Exception): exec(line, globals())
os.symlink(path, "here") if {links} else None
for p in (path, "here", "/proc/self/root" + path, "../.." + path, "../../.." + path):
    for line in ("os.truncate(p, 0)", "open(p, 'w').write('y')", "open(p, 'a').write('y')", "open(p, 'r+').write('y')", "os.open(p, os.O_TRUNC)",
                 "os.unlink(p)", "os.rename(p, p + '2')", "os.replace('solution.py', p)", "os.chmod(p, 0)", "os.utime(p, (1, 1))", "os.link(p, p + '3')",
                 "shutil.rmtree(os.path.dirname(p))", "os.setxattr(p, 'user.a', b'x')", "os.rename(os.path.dirname(p), os.path.dirname(p) + '2')",
                 "os.mkdir(p + '4')", "os.symlink('a', p + '5')", "os.mkfifo(p + '6')", "os.creat(p + '7')"):
        by(line)
def f(): return True
"""


@attack("foreign files")
@pytest.mark.parametrize(("who", "machine"), settings(LAYERED, ALONE))
def test_no_file_outside_is_changed(who, machine):
    with tempfile.TemporaryDirectory(prefix="foreign-", ignore_cleanup_errors=True) as parent:
        os.chmod(parent, 0o777)
        folder = Path(parent, "theirs")
        folder.mkdir()
        (folder / "file").write_text("kept")
        if who == "user" and os.geteuid() == 0:
            os.chown(folder, USER, USER)
            os.chown(folder / "file", USER, USER)
        before = os.stat(folder / "file"), sorted(os.walk(parent))
        program = FILES.format(path=str(folder / "file"), links=MACHINES[machine] != BARE)
        ((passed, reason, _),) = judged(who, machine, [program])
        assert passed, reason
        after = os.stat(folder / "file")
        assert (folder / "file").read_text() == "kept" and sorted(os.walk(parent)) == before[1]
        assert (after.st_mode, after.st_mtime, after.st_ino, after.st_nlink) == (
            before[0].st_mode,
            before[0].st_mtime,
            before[0].st_ino,
            before[0].st_nlink,
        )


LARGE = 1 << 20
ROOM = {
    "unlinked, open": "fd = os.open(f'u{i}', os.O_CREAT | os.O_RDWR)\nfill(fd)\nos.unlink(f'u{i}')",
    "unlinked before it is filled": "fd = os.open('u', os.O_CREAT | os.O_RDWR)\nos.unlink('u')\nfill(fd)",
    "unlinked, mapped": "fd = os.open('u', os.O_CREAT | os.O_RDWR)\nfill(fd)\nkept.append(mmap.mmap(fd, 4096))\nos.unlink('u')\nos.close(fd)",
    "unlinked by the call itself": "fd = os.open(f'u{i}', os.O_CREAT | os.O_RDWR)\nL.unlink(f'u{i}'.encode())\nfill(fd)",
    "replaced, open": "fd = os.open(f'v', os.O_CREAT | os.O_RDWR)\nfill(fd)\nos.close(os.open('w', os.O_CREAT | os.O_RDWR))\nos.replace('w', 'v')",
    "exchanged": "fd = os.open(f'v{i}', os.O_CREAT | os.O_RDWR)\nfill(fd)\nos.close(fd)\nL.renameat2(-100, b'v0', -100, f'v{i}'.encode(), 2)",
    "a path too long": "os.mkdir('d' * 200)\nos.chdir('d' * 200)\nfd = os.open('u', os.O_CREAT | os.O_RDWR)\nfill(fd)\nos.close(fd)",
    "a folder that cannot be listed": "import contextlib\nwith contextlib.suppress(OSError): os.umask(0o777)\nos.makedirs(f'd{i}', 0o300, exist_ok=True)\nfd = os.open(f'd{i}/u', os.O_CREAT | os.O_RDWR, 0o700)\nfill(fd)\nos.close(fd)",
    "visible": "fd = os.open(f'u{i}', os.O_CREAT | os.O_RDWR)\nfill(fd)\nos.close(fd)",
    "behind the end": "fd = os.open(f'u{i}', os.O_CREAT | os.O_RDWR)\nif L.fallocate(fd, 1, ctypes.c_long(0), ctypes.c_long(1 << 24)): raise OSError\ngot += 16\nos.close(fd)",
    "allocated": "fd = os.open(f'u{i}', os.O_CREAT | os.O_RDWR)\nos.posix_fallocate(fd, 0, 1 << 24)\ngot += 16\nos.close(fd)",
    "written through a mapping": "fd = os.open(f'u{i}', os.O_CREAT | os.O_RDWR)\nos.ftruncate(fd, 1 << 20)\nm = mmap.mmap(fd, 1 << 20)\nm[:] = bytes(1 << 20)\ngot += 1\nos.close(fd)",
    "small files": "for j in range(1000):\n    with open(f'{i}-{j}', 'wb') as file: file.write(b'x' * 4096)\ngot += 4",
    "empty files": "for j in range(1000): os.close(os.open(f'{i}-{j}', os.O_CREAT | os.O_WRONLY))\ngot += 4",
    "links": "for j in range(1000): os.symlink('x' * 4000, f'{i}-{j}')\ngot += 4",
    "many threads": "import threading\nbefore = got\ndef g(n):\n    global got\n    try:\n        fd = os.open(f'u{i}-{n}', os.O_CREAT | os.O_RDWR)\n        fill(fd)\n        os.close(fd)\n    except OSError: pass\nts = [threading.Thread(target=g, args=(n,)) for n in range(4)]\n[t.start() for t in ts]; [t.join() for t in ts]\nif got == before: raise OSError",
    "a folder that moves": "os.rename('a', 'b') if os.path.exists('a') else os.makedirs('a' if not os.path.exists('b') else 'c', exist_ok=True)\nfd = os.open(f'u{i}', os.O_CREAT | os.O_RDWR)\nfill(fd)\nos.close(fd)",
}  # fmt: skip
"""Each is repeated; ``fill`` writes 4 MiB in a descriptor, ``got`` counts MiB."""


def filling(body: str) -> str:
    lines = "".join(f"            {line}\n" for line in body.split("\n"))
    return (
        "import ctypes, mmap, os, time\nL, kept, got, data = ctypes.CDLL(None), [], 0, bytes(1 << 20)\n"
        "def fill(fd):\n    global got\n    for _ in range(4):\n        if os.write(fd, data) < len(data): raise OSError\n        got += 1\n"
        "def f():\n    global got\n    i = 0\n    while got < 400:\n        try:\n"
        + lines
        + "        except (OSError, ValueError): break\n"
        "        i += 1\n    time.sleep(0.2)\n    return got <= 17\n"
    )


@contextmanager
def small_disk(folder: Path):
    """A file system of its own, so that what others write is not counted; gives the most that was used in it, in MiB."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600m,mode=777", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    most, end = [0], threading.Event()

    def watch() -> None:
        while not end.wait(0.002):
            status = os.statvfs(folder)
            most[0] = max(most[0], (status.f_blocks - status.f_bfree) * status.f_frsize >> 20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
        assert os.listdir(folder) == []
    finally:
        end.set()
        watcher.join()
        subprocess.run(["umount", "-l", str(folder)], check=True)


ROOMY = Limits(cpu=5, wall=15, memory=512 * 2**20, disk=16 * 2**20)


@attack("disk")
@pytest.mark.parametrize("machine", [pytest.param(ALL, marks=WIDE), WATCHED], ids=["all layers", "no namespaces"])
@pytest.mark.parametrize("name", ROOM)
def test_room_on_disk_is_bounded(name, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with small_disk(tmp_path) as most:
        verdict = run(Job(filling(ROOM[name]), ["assert f()"], {"f": "f"}), ROOMY, Machine(**machine))
    assert (
        verdict.passed
        or verdict.reason in ("too much written", "MemoryError: ")
        or "Errno" in verdict.reason
        or verdict.reason == "killed by SIGBUS"
    ), verdict
    # Where it is watched only, some time passes between two looks.
    assert most[0] <= (1 if machine == ALL else 200), (most, verdict)


@attack("threads")
@BOTH
@pytest.mark.parametrize("size", [32768, 1 << 20])
def test_threads_are_bounded(size, machine):
    program = (
        f"import threading, time\nthreading.stack_size({size})\nn = 0\ndef f():\n    global n\n    try:\n        for n in range(3000):\n"
        "            threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n    except (RuntimeError, MemoryError): pass\n    time.sleep(0.2)\n    return n < 256\n"
    )
    verdict = run(Job(program, ["assert f()"], {"f": "f"}), ROOMY, Machine(**machine))
    assert verdict.passed or verdict.reason in ("too many threads", "time"), verdict


RUNNER = """
import sys, tempfile
from mdm_code.sandbox import Job, Limits, Machine, run
tempfile.tempdir = sys.argv[1]
print(run(Job("import time\\nopen('a', 'w').close()\\ntime.sleep(60)", [], {}), Limits(wall=60), Machine(**eval(sys.argv[2]))).reason)
"""


def members(folder: Path) -> list[int]:
    """Processes that were started for a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                str(folder).encode() in (process / "cmdline").read_bytes()
                and RUNNER.encode() not in (process / "cmdline").read_bytes()
            ):
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)


def until(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def runner(folder: Path, machine: dict):
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(folder), repr(machine)], stdout=subprocess.PIPE, text=True
    )
    try:
        chain = 3 if machine.get("namespaces", True) else 2
        assert until(lambda: len(members(folder)) >= chain)
        time.sleep(0.1)  # the last of them confines itself
        yield process
    finally:
        process.kill()
        process.communicate()


@attack("leftovers")
@BOTH
@pytest.mark.parametrize("delay", [0.05, *(pytest.param(delay, marks=WIDE) for delay in (0.0, 0.02, 0.1))])
def test_nothing_runs_on_after_a_kill_of_the_runner_and_the_next_start_sweeps(machine, delay, tmp_path, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path), repr(machine)], stdout=subprocess.DEVNULL)
    assert until(lambda: members(tmp_path))
    time.sleep(delay)
    process.kill()
    process.wait()
    assert until(lambda: not members(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders._sweep.cache_clear()
    assert run(Job("def f(): return True", ["assert f()"], {"f": "f"})).passed
    assert list(tmp_path.iterdir()) == []


@attack("leftovers")
@BOTH
@pytest.mark.parametrize("which", [0, pytest.param(1, marks=WIDE), -1], ids=["first", "second", "last"])
def test_a_kill_of_any_process_of_a_sandbox_ends_all_of_it(which, machine, tmp_path):
    with runner(tmp_path, machine) as process:
        os.kill(members(tmp_path)[which], signal.SIGKILL)
        said, _ = process.communicate(timeout=30)
        assert said.strip() in ("the tests came to no end", "time")
        assert not members(tmp_path) and list(tmp_path.iterdir()) == []


@attack("leftovers")
def test_the_sweep_takes_only_what_nobody_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = tmp_path / "theirs"
    target.mkdir()
    (target / "kept").write_text("x")
    (tmp_path / "mdm-code-link").symlink_to(target)
    (tmp_path / "mdm-code-file").write_text("x")
    (tmp_path / "mdm-code-left").mkdir()
    (tmp_path / "mdm-code-left" / "inside").symlink_to(target)
    (tmp_path / "other").mkdir()
    if os.geteuid() == 0:
        (tmp_path / "mdm-code-foreign").mkdir()
        os.chown(tmp_path / "mdm-code-foreign", USER, USER)
    with folders.held() as held:
        folders._sweep.cache_clear()
        with folders.held() as second:
            assert Path(held).is_dir() and Path(second).is_dir()
    names = {"theirs", "mdm-code-link", "mdm-code-file", "other"} | (
        {"mdm-code-foreign"} if os.geteuid() == 0 else set()
    )
    assert {path.name for path in tmp_path.iterdir()} == names and (target / "kept").read_text() == "x"


@attack("leftovers")
@pytest.mark.parametrize("rights", [0o300, *(pytest.param(rights, marks=WIDE) for rights in (0o700, 0o500, 0))])
def test_folders_of_any_depth_and_without_rights_are_counted_and_removed(rights, tmp_path):
    start, _ = command("user")
    code = (
        "import os, sys\nsys.path[:0] = sys.argv[2:]\nfrom mdm_code import folders\nos.chdir(sys.argv[1])\nos.mkdir('top')\nos.chdir('top')\n"
        f"for i in range(300):\n    open('f', 'w').close(); os.mkdir('d' * 200); os.chdir('d' * 200)\n    if i: os.chmod('..', {rights})\n"
        "top = sys.argv[1] + '/top'\nassert folders.written(top, 2 ** 20) > 2 ** 20\nfolders.remove(top)\nassert not os.path.exists(top)\n"
    )
    paths = [str(Path(module.__file__).parents[1]) for module in (folders, sys.modules["mdm.errors"])]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run([*start, "-c", code, folder, *paths], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@attack("wrong passes")
@pytest.mark.parametrize(
    "trick",
    [
        "os._exit(0)", "os.write(1, b'{}')", "[os.write(n, b'\\0\\0\\0\\4true') for n in range(3, 64)]",
        "os.kill(os.getpid(), 9)", pytest.param("os.kill(os.getpid(), 19)", marks=WIDE), "os.closerange(0, 64)", "sys.setprofile(lambda *a: os._exit(0))",
        "threading.Thread(target=lambda: os._exit(0)).start()", "atexit.register(lambda: os._exit(0))", "sys.exit(0)",
        "[os.dup2(0, n) for n in range(3, 64)]", "ctypes.string_at(0)", "gc.get_objects().clear()", "builtins.__dict__.clear()",
        "sys.modules['player'].encode.__code__.replace()", "vars(sys.modules['wire']).update(encode=lambda *a: ['int', '0x4'])",
    ],
)  # fmt: skip
def test_no_program_passes_without_the_right_values(trick):
    program = f"import atexit, builtins, contextlib, ctypes, gc, os, sys, threading\ndef f(x):\n    with contextlib.suppress(Exception): {trick}\n    return x + 1\n"
    tests = ["assert f(2) == 4", "assert f(3) == 9"]
    assert not run(Job(program, tests, {"f": "f"}), Limits(cpu=1, wall=3), Machine(bubblewrap=False)).passed
