# ruff: noqa: E501
"""Tricks against the sandbox, as root and as an ordinary user, on machines with and without each layer: none gets through.

A trick is a program whose ``f`` returns True where the trick was refused. What it does is watched from outside too:
processes, files, room on disk and memory.
"""

from __future__ import annotations

import os
from functools import cache

import pytest
from mdm_code.jail import kernel
from sandboxes import ALONE, BARE, LAYERED, MACHINES, judged, settings

if not kernel.supported():
    pytest.skip("code is confined on Linux only", allow_module_level=True)

COLUMN = kernel.MACHINES.index(os.uname().machine)
CALLS = {
    "signals": {
        "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
        "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "timer_create": (222, 107), "mq_notify": (244, 184),
        "perf_event_open": (298, 241), "process_mrelease": (448, 448),
    },
    "scheduling and ids": {
        "sched_setscheduler": (144, 119), "sched_getscheduler": (145, 120), "sched_setattr": (314, 274),
        "sched_getattr": (315, 275), "sched_setparam": (142, 118), "sched_getparam": (143, 121),
        "sched_rr_get_interval": (148, 127), "sched_setaffinity": (203, 122), "setpriority": (141, 140),
        "getpriority": (140, 141), "ioprio_set": (251, 30), "ioprio_get": (252, 31), "kcmp": (312, 272),
        "get_robust_list": (274, 100), "process_madvise": (440, 440), "migrate_pages": (256, 238),
        "move_pages": (279, 239), "setsid": (112, 157), "setpgid": (109, 154), "setuid": (105, 146),
        "setgid": (106, 144), "setresuid": (117, 147), "setgroups": (116, 159), "capset": (126, 91),
        "personality": (135, 92),
    },
    "memory": {
        "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
        "semget": (64, 190), "mq_open": (240, 180), "mlock": (149, 228), "mlock2": (325, 284), "mlockall": (151, 230),
        "remap_file_pages": (216, 234), "set_mempolicy": (238, 237), "mbind": (237, 235), "pkey_alloc": (330, 289),
        "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "bpf": (321, 280), "add_key": (248, 217),
        "request_key": (249, 218), "keyctl": (250, 219), "splice": (275, 76), "vmsplice": (278, 75), "tee": (276, 77),
        "mincore": (27, 232), "cachestat": (451, 451),
    },
    "foreign files and disk": {
        "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
        "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54), "utime": (132, None),
        "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "link": (86, None),
        "linkat": (265, 37), "mknod": (133, None), "mknodat": (259, 33), "setxattr": (188, 5), "fsetxattr": (190, 7),
        "removexattr": (197, 14), "flock": (73, 32), "quotactl": (179, 60), "sync": (162, 81), "syncfs": (306, 267),
        "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "swapon": (167, 224), "acct": (163, 89),
        "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    },
    "other processes": {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "execve": (59, 221),
        "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "clone": (56, 220),
    },
    "network": {
        "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept4": (288, 242),
        "sendmsg": (46, 211), "sendmmsg": (307, 269), "recvmsg": (47, 212), "setsockopt": (54, 208),
    },
    "the system": {
        "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "fsopen": (430, 430),
        "fsmount": (432, 432), "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442),
        "pivot_root": (155, 41), "chroot": (161, 51), "seccomp": (317, 277), "landlock_create_ruleset": (444, 444),
        "landlock_restrict_self": (446, 446), "clock_settime": (227, 112), "settimeofday": (164, 170),
        "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162), "reboot": (169, 142),
        "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
        "syslog": (103, 116), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
        "arch_prctl": (158, None), "vhangup": (153, 58), "lookup_dcookie": (212, 18), "no such call": (999, 999),
    },
}  # fmt: skip
NUMBERED = {name: numbers[COLUMN] for calls in CALLS.values() for name, numbers in calls.items()}

PRELUDE = "import ctypes, fcntl, mmap, os, signal, struct, sys, time\nL = ctypes.CDLL(None, use_errno=True)\n"
NUMBERS = PRELUDE + (
    f"numbers = { ({name: number for name, number in NUMBERED.items() if number is not None}) }\n"
    "def f(): return [n for n, number in numbers.items() if (L.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()) != (-1, 1)]\n"
)


def refused(body: str) -> str:
    """A program whose ``f`` returns True where the lines of ``body`` raise, or leave ``got`` false or -1."""
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    return (
        PRELUDE
        + "import itertools\ngot = True\ntry:\n"
        + lines
        + "except (OSError, MemoryError, ValueError, OverflowError, RuntimeError, AttributeError): got = False\n"
        "def f(): return got in (False, -1)\n"
    )


TRICKS = {
    "signals": {
        "F_SETOWN": "r, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())",
        "F_SETOWN, upper half of the number set": "r, w = os.pipe()\ngot = L.syscall({fcntl}, r, ctypes.c_long(8 | 1 << 32), 1)",
        "F_SETOWN of its own group": "r, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, 0)",
        "F_SETSIG": "r, w = os.pipe()\nfcntl.fcntl(r, 10, 9)",
        "F_SETOWN_EX": "r, w = os.pipe()\nfcntl.fcntl(r, 15, struct.pack('ii', 1, 1))",
        "F_GETOWN_EX": "r, w = os.pipe()\nfcntl.fcntl(r, 16, bytes(8))",
        "O_ASYNC": "r, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)",
        "O_ASYNC with other bits": "r, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)",
        "FIOASYNC": "r, w = os.pipe()\nfcntl.ioctl(r, 0x5452, struct.pack('i', 1))",
        "FIOSETOWN on a socket": "import socket\na, b = socket.socketpair()\nfcntl.ioctl(a, 0x8901, struct.pack('i', 1))",
        "SIOCSPGRP on a socket": "import socket\na, b = socket.socketpair()\nfcntl.ioctl(a, 0x8902, struct.pack('i', 1))",
        "a lease": "f = open('a', 'w')\nfcntl.fcntl(f, 1024, fcntl.F_WRLCK)",
        "dnotify": "d = os.open('.', os.O_RDONLY)\nfcntl.fcntl(d, 1026, 2)",
        "TIOCSTI": "fcntl.ioctl(0, 0x5412, b'x')",
        "TIOCSCTTY": "fcntl.ioctl(0, 0x540E, 0)",
        "TIOCSPGRP": "fcntl.ioctl(0, 0x5410, struct.pack('i', 1))",
        "kill of its judge": "os.kill(os.getppid(), 9)",
        "kill of process 1": "os.kill(1, 9)",
        "kill of its group": "os.kill(0, 9)",
        "kill of everybody": "os.kill(-1, 9)",
        "kill of a group by number": "os.killpg(os.getpgrp() or 1, 9)",
        "kill 0 as a question": "os.kill(os.getppid(), 0)",
        "kill with an upper half": "got = L.syscall({kill}, ctypes.c_long(os.getppid() | 1 << 40), 0)",
        "tgkill of its judge": "got = L.syscall({tgkill}, os.getppid(), os.getppid(), 9)",
        "pthread_kill of nobody": "got = L.syscall({tgkill}, 1, 1, 0)",
        "a pidfd": "os.pidfd_open(os.getpid())",
        "a parent-death signal of its own": "got = L.prctl(1, 0, 0, 0, 0)",
        "dumpable again": "got = L.prctl(4, 1, 0, 0, 0)",
        "a subreaper": "got = L.prctl(36, 1, 0, 0, 0)",
        "ptrace allowed to anybody": "got = L.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)",
    },
    "scheduling and ids": {
        "asks for the scheduler of others": "got = any(L.sched_getscheduler(i) != -1 for i in range(1000))",
        "asks for the cores of another": "os.sched_getaffinity(1)",
        "asks for the group of another": "os.getpgid(os.getppid() or 1)",
        "asks for the session of another": "os.getsid(1 if os.getpid() != 1 else 2)",
        "asks for the priority of others": "os.getpriority(os.PRIO_USER, 0)",
        "is nicer": "os.nice(1)",
        "raises its limits": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        "limits of its judge": "import resource\nresource.prlimit(os.getppid() or 1, resource.RLIMIT_CPU, (1, 1))",
        "reads limits of its judge": "import resource\nresource.prlimit(os.getppid() or 1, resource.RLIMIT_CPU)",
        "becomes root": "os.setuid(0)",
        "a user namespace": "got = L.unshare(0x10000000)",
        "a thread in a namespace": "got = L.syscall({clone}, 0x10000 | 0x800 | 0x100 | 0x20000000, 0, 0, 0, 0)",
        "clone3": "got = L.syscall(435, bytes(88), 88)",
        "lists processes": "os.listdir('/proc')",
        "reads its judge's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
        "reads its judge's environment": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
        "lists its judge's descriptors": "os.listdir(f'/proc/{os.getppid()}/fd')",
        "opens its judge's descriptors": "for n in range(64):\n    with __import__('contextlib').suppress(OSError): os.open(f'/proc/{os.getppid()}/fd/{n}', os.O_RDONLY); break\nelse: got = False",
        "reads another's command line": "open('/proc/1/cmdline').read()",
    },
    "memory": {
        "memfd": "os.memfd_create('a')",
        "shared memory by name": "from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=4096)",
        "a file in /dev/shm": "open('/dev/shm/mdm-was-here', 'w')",
        "a semaphore by name": "import multiprocessing\nmultiprocessing.Lock()",
        "huge pages": "mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | 0x20 | 0x40000)",
        "larger pipes": "r, w = os.pipe()\nfcntl.fcntl(w, 1031, 1 << 20)",
        "locked memory": "m = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | 0x20 | 0x2000)",
        "larger buffers of sockets": "import socket\na, b = socket.socketpair()\na.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)",
        "descriptors kept in a socket": "import socket\na, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [0])",
        "poisons memory": "m = mmap.mmap(-1, 1 << 20)\nm.madvise(100)",
        "more descriptors than it may": "kept = [os.open('/dev/null', 0) for _ in range(100)]",
        "memory shared between mappings": "kept = [mmap.mmap(-1, 1 << 28) for _ in range(4)]",
        "a stack for each of many threads": "import threading\nthreading.stack_size(1 << 26)\nkept = [threading.Thread(target=time.sleep, args=(1,), daemon=True).start() for _ in range(20)]",
        "a core dump": "import resource\ngot = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0",
    },
    "disk": {
        "O_TMPFILE": "os.open('.', os.O_TMPFILE | os.O_RDWR)",
        "O_TMPFILE by its one bit": "os.open('.', 0x400000 | os.O_DIRECTORY | os.O_RDWR, 0o600)",
        "room behind the end of a file": "f = open('a', 'wb')\ngot = L.fallocate(f.fileno(), 1, ctypes.c_long(0), ctypes.c_long(1 << 30))",
        "room by fallocate": "f = open('a', 'wb')\nos.posix_fallocate(f.fileno(), 0, 1 << 30)",
        "a longer file by ftruncate": "f = open('a', 'wb')\nf.truncate(1 << 30)",
        "a folder that cannot be listed": "os.mkdir('a', 0o300)",
        "a folder without rights": "os.mkdir('a', 0)",
        "a folder without rights, by descriptor": "d = os.open('.', os.O_RDONLY)\nos.mkdir('a', 0o300, dir_fd=d)",
        "a mask that makes such folders": "os.umask(0o777)",
        "takes rights away": "os.mkdir('a')\nos.chmod('a', 0o300)",
        "a named pipe": "os.mkfifo('a')",
        "a hard link": "open('a', 'w').close()\nos.link('a', 'b')",
        "an attribute": "open('a', 'w').close()\nos.setxattr('a', 'user.a', b'x')",
        "locks its folder": "d = os.open('..', os.O_RDONLY)\nfcntl.flock(d, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "locks a range": "f = open('a', 'wb')\nfcntl.lockf(f, fcntl.LOCK_EX)",
        "a file outside": "open('/tmp/mdm-was-here', 'w')",
        "a file in the root": "open('/mdm-was-here', 'w')",
        "a folder in the interpreter": "os.mkdir(os.path.dirname(os.__file__) + '/mdm-was-here')",
        "a file in the interpreter": "open(os.path.dirname(os.__file__) + '/mdm-was-here', 'w')",
        "a file of the interpreter emptied": "open(os.path.dirname(os.__file__) + '/json/__init__.py', 'r+')",
        "copies a disk": "open('/dev/vda', 'rb').read(1)",
    },
    "network": {
        "TCP": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
        "UDP": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "raw": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW)",
        "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "packets": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "virtual machines": "import socket\nsocket.socket(40, socket.SOCK_STREAM)",
        "an abstract name": "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0mdm')",
        "a pair of datagrams": "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "a pair of packets": "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)",
        "a name for one of a pair": "import socket\na, b = socket.socketpair()\na.bind('\\0mdm')",
        "a pair that connects": "import socket\na, b = socket.socketpair()\na.connect('\\0mdm')",
        "an address to send to": "import socket\na, b = socket.socketpair()\na.sendto(b'x', '\\0mdm')",
        "a pair of another family": "import socket\nsocket.socketpair(socket.AF_INET, socket.SOCK_STREAM)",
        "names of hosts": "import socket\nsocket.getaddrinfo('mdm.invalid', 80)",
    },
    "other processes": {
        "fork": "os.fork()",
        "subprocess": "import subprocess\nsubprocess.Popen(['true'])",
        "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
        "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        "system": "got = os.system('true') == 0",
        "exec": "os.execv('/bin/true', ['true'])",
        "inherited descriptors": "got = sum(L.fcntl(n, 1) != -1 for n in range(3, 64)) > 2",
        "a pseudo-terminal": "os.openpty()",
        "the environment": "got = bool(set(os.environ) - {'PYTHONHASHSEED', 'PYTHONIOENCODING', 'LC_CTYPE'})",
        "its terminal": "os.open('/dev/tty', os.O_RDWR)",
        "the kernel's log": "open('/dev/kmsg', 'w')",
        "another clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
        "another host name": "import socket\nsocket.sethostname('mdm')",
        "a change of root": "os.chroot('.')",
    },
}  # fmt: skip
BY_NUMBER = {"fcntl": (72, 25), "kill": (62, 129), "tgkill": (234, 131), "clone": (56, 220)}
UNHIDDEN = ("our own filter alone", "bubblewrap alone")
READING = {
    "lists processes",
    "reads another's command line",
    "names of hosts",
    "reads its judge's environment",
    "lists its judge's descriptors",
}
"""Tricks that only read: without a root of its own and without Landlock a program reads what its user may."""


def numbered(body: str) -> str:
    for name, numbers in BY_NUMBER.items():
        body = body.replace("{" + name + "}", str(numbers[COLUMN]))
    return body


PROGRAMS = {(kind, name): refused(numbered(body)) for kind, tricks in TRICKS.items() for name, body in tricks.items()}

RIGHT = {
    "threads": "from concurrent.futures import ThreadPoolExecutor\ndef f():\n    with ThreadPoolExecutor(20) as p: return sum(p.map(abs, range(5))) == 10",
    "random numbers": "import random, secrets, uuid\ndef f(): return 0 <= random.random() < 1 and len(secrets.token_bytes(4)) == 4 and bool(uuid.uuid4())",
    "an event loop": "import asyncio\nasync def g():\n    await asyncio.sleep(0.001)\n    return await asyncio.to_thread(lambda: True)\ndef f(): return asyncio.run(g())",
    "queues of tasks": "import asyncio\nasync def g():\n    q = asyncio.Queue()\n    await asyncio.gather(q.put(1), q.put(2))\n    return q.qsize() == 2\ndef f(): return asyncio.run(g())",
    "deep recursion": "import sys\nsys.setrecursionlimit(20000)\ndef g(n): return n and 1 + g(n - 1)\ndef f(): return g(9000) == 9000",
    "time": "import time, datetime, zoneinfo\ndef f():\n    time.sleep(0.001)\n    return datetime.datetime.now().year > 2000 and time.perf_counter() > 0 and bool(time.localtime())",
    "zones": "import datetime, zoneinfo\ndef f():\n    try: zone = zoneinfo.ZoneInfo('Europe/Berlin')\n    except zoneinfo.ZoneInfoNotFoundError: return True\n    return datetime.datetime(2024, 7, 1, tzinfo=zone).utcoffset().seconds == 7200",
    "files": "import os, pathlib\ndef f():\n    p = pathlib.Path('a'); p.write_text('x'); q = p.rename('b'); r = q.read_text() == 'x'\n    q.unlink(); return r and os.listdir('.') == ['solution.py'] and not p.exists()",
    "a file that replaces another": "import os\ndef f():\n    for n in 'ab':\n        with open(n, 'w') as file: file.write(n)\n    os.replace('a', 'b')\n    return open('b').read() == 'a' and not os.path.exists('a')",
    "folders": "import os, shutil\ndef f():\n    os.makedirs('a/b/c'); open('a/b/d', 'w').close(); shutil.move('a/b', 'e'); shutil.rmtree('a'); os.rename('e', 'g'); r = os.path.exists('g/d'); shutil.rmtree('g')\n    return r and not os.path.exists('a') and not os.path.exists('g')",
    "temporary files": "import os, tempfile\ndef f():\n    with tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile('w+', dir=d) as t, tempfile.TemporaryFile() as u:\n        t.write('x'); u.write(b'y'); t.seek(0); r = t.read() == 'x'\n    return r and not os.path.exists(d)",
    "a mapped file": "import mmap\ndef f():\n    with open('a', 'wb+') as file:\n        file.write(bytes(8192)); file.flush()\n        with mmap.mmap(file.fileno(), 0) as m: m[:2] = b'ab'; m.flush()\n    return open('a', 'rb').read(2) == b'ab'",
    "a copy": "import shutil\ndef f():\n    open('a', 'w').write('x'); shutil.copyfile('a', 'b')\n    return open('b').read() == 'x'",
    "numbers": "import decimal, fractions, math, statistics, cmath\ndef f(): return decimal.Decimal('0.1') * 3 == decimal.Decimal('0.3') and math.isclose(statistics.mean([1, 2]), 1.5)",
    "texts": "import re, json, csv, io, string, textwrap, unicodedata, difflib\ndef f(): return json.loads(json.dumps({'a': [1]})) == {'a': [1]} and bool(re.fullmatch(r'\\w+', 'äb'))",
    "containers": "import itertools, collections, heapq, bisect, functools, array, queue\ndef f(): return list(itertools.accumulate([1, 2])) == [1, 3] and collections.Counter('aa')['a'] == 2",
    "digests": "import hashlib, hmac, base64, zlib, binascii\ndef f(): return len(hashlib.sha256(b'').hexdigest()) == 64 and zlib.decompress(zlib.compress(b'a')) == b'a'",
    "archives": "import zipfile, tarfile, gzip, io\ndef f():\n    with zipfile.ZipFile('a.zip', 'w') as z: z.writestr('x', 'y')\n    return zipfile.ZipFile('a.zip').read('x') == b'y'",
    "a data base": "import sqlite3\ndef f():\n    c = sqlite3.connect(':memory:'); c.execute('create table t (a)'); c.execute('insert into t values (1)')\n    return c.execute('select a from t').fetchall() == [(1,)]",
    "a timer": "import signal, time\nhits = []\ndef f():\n    signal.signal(signal.SIGALRM, lambda *a: hits.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.05)\n    return hits == [1]",
    "a signal to itself": "import os, signal\nhits = []\ndef f():\n    signal.signal(signal.SIGUSR1, lambda *a: hits.append(1)); os.kill(os.getpid(), signal.SIGUSR1); signal.raise_signal(signal.SIGUSR1)\n    return len(hits) == 2",
    "pipes": "import os, select\ndef f():\n    r, w = os.pipe(); os.set_blocking(r, False); os.write(w, b'x')\n    return select.select([r], [], [], 1)[0] == [r] and os.read(r, 1) == b'x'",
    "the platform": "import os, platform, sys, getpass, locale\ndef f(): return platform.system() == 'Linux' and os.cpu_count() >= 1 and os.getpid() > 0 and sys.stdout.isatty() is False",
    "limits and usage": "import resource, os\ndef f(): return resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 64 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0 and os.times().user >= 0",
    "modules of its own": "import importlib, pathlib, sys\ndef f():\n    pathlib.Path('mine.py').write_text('x = 3'); sys.path.insert(0, '.')\n    return importlib.import_module('mine').x == 3",
    "a symbolic link": "import os\ndef f():\n    open('a', 'w').write('x'); os.symlink('a', 'b')\n    return os.path.islink('b') and open('b').read() == 'x'",
    "tests of its own": "import unittest, doctest, io\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1, 1)\ndef f(): return unittest.TextTestRunner(io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(T)).wasSuccessful()",
    "much memory that it may have": "def f(): return sum(len(bytearray(10 ** 6)) for _ in range(200)) == 2 * 10 ** 8",
}  # fmt: skip


WRITING = {
    "files", "a file that replaces another", "folders", "temporary files", "a mapped file", "a copy", "archives",
    "modules of its own", "a symbolic link",
}  # fmt: skip


# What was not refused is wanted by name.
NUMBERS += "def f(g=f):\n    left = g()\n    if left: raise ValueError(' '.join(left))\n    return True\n"


@cache
def table(what: str, who: str, machine: str) -> dict[object, tuple[bool, str]]:
    programs = {"calls": {"numbers": NUMBERS}, "tricks": PROGRAMS, "right": RIGHT}[what]
    verdicts = judged(who, machine, list(programs.values()))
    return {key: (passed, reason) for key, (passed, reason, _) in zip(programs, verdicts, strict=True)}


def marked(kind: str, *values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.attack(f"sandbox: {kind}"), id=" ".join(map(str, values)))


@pytest.mark.parametrize(("who", "machine"), settings(LAYERED, ALONE))
@pytest.mark.parametrize("name", [marked(kind, name) for kind, calls in CALLS.items() for name in calls])
def test_a_call_is_refused(name, who, machine):
    if NUMBERED[name] is None:
        pytest.skip("no such call on this machine")
    passed, reason = table("calls", who, machine)["numbers"]
    assert passed or (reason.startswith("ValueError: ") and name not in reason.split()), reason


@pytest.mark.parametrize(("who", "machine"), settings(ALONE))
@pytest.mark.parametrize(("kind", "name"), [marked(kind, kind, name) for kind, name in PROGRAMS])
def test_a_trick_is_refused(kind, name, who, machine):
    if name in READING and machine in UNHIDDEN:
        pytest.skip("reading is not confined there")
    assert table("tricks", who, machine)[kind, name] == (True, ""), PROGRAMS[kind, name]


@pytest.mark.parametrize(("who", "machine"), settings(LAYERED))
@pytest.mark.parametrize("name", [marked("right programs", name) for name in RIGHT])
def test_a_right_program_passes(name, who, machine):
    """Without a root of its own and without Landlock no file can be written: that is an error of the program, then."""
    passed, reason = table("right", who, machine)[name]
    if name in WRITING and MACHINES[machine] == BARE:
        assert not passed and ("Error" in reason), reason
    else:
        assert passed, reason
