"""Makes images/live.svg and images/compare.svg, of real runs: the live view in a terminal, the plot of `mdm compare`.

    python docs/make_screenshots.py [live] [compare]

The terminal's picture is one frame of what `mdm run --live` wrote into a terminal of its own.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
MDM = [sys.executable, "-m", "mdm"]
COLUMNS, LINES = 78, 24
LIVE = ["run", "--model", "tiny-countdown", "--task", "countdown", "--limit", "1", "--live"]
PACES = "run --task sudoku --limit 100 --sampler confidence --sampler info-gain --sampler random"
AGAIN = re.compile(r"(?:\r|\x1b\[\d*A|\x1b\[2K)+")
"""What a terminal is told where a frame begins anew."""
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="mdm run --live">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, monospace; font-size: {char_height}px;
  line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""
"""rich's own, without the fonts that it fetches from the network."""


def on_terminal(command: list[str]) -> str:
    """What a command writes to a terminal of 24-bit colour."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = bytearray()
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode().replace("\r\n", "\n")


def live() -> None:
    from rich.console import Console
    from rich.text import Text

    with tempfile.TemporaryDirectory() as folder:
        frames = AGAIN.split(on_terminal([*MDM, *LIVE, "--out", f"{folder}/run"]))
    seen = [frame for frame in frames if "▶" in frame]
    frame = seen[len(seen) * 5 // 6].strip("\n")
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(frame))
    picture = console.export_svg(title="mdm run --live", code_format=SVG, unique_id="live")
    (IMAGES / "live.svg").write_text(picture, encoding="utf-8")


def compare() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paces = [part for pace in ("1", "2", "4") for part in ("--tokens-per-step", pace)]
        subprocess.run([*MDM, *PACES.split(), *paces, "--out", f"{folder}/run"], check=True)
        subprocess.run([*MDM, "compare", f"{folder}/run", "--plot", str(IMAGES / "compare.svg")], check=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or ("live", "compare"):
        {"live": live, "compare": compare}[name]()
