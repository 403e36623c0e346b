"""The pictures of an image run as the page holds them: PNG files as data URIs, of a bounded size together."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

SIGNATURE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
LARGEST = 4 << 20
"""Bytes of one picture; a picture of 512 × 512 pixels has at most 0.8 million."""
LONGEST = 4096
"""Pixels of a side: a small file may hold a picture that fills a browser's memory."""


@dataclass
class Album:
    """Embeds pictures until ``room`` bytes are used."""

    room: int = 24 << 20

    def embed(self, folder: Path, name: str) -> dict[str, str]:
        """The picture ``name`` below ``folder``: ``name``, and ``uri`` or the ``fault`` for which it is left out."""
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            return {"name": name, "fault": "lies outside of the run"}
        if not path.is_file():
            return {"name": name, "fault": "is missing"}
        if path.stat().st_size > LARGEST:
            return {"name": name, "fault": f"has more than {LARGEST >> 20} MiB"}
        try:
            content = path.read_bytes()
        except OSError as error:
            return {"name": name, "fault": f"cannot be read ({error.strerror})"}
        if not _is_png(content):
            return {"name": name, "fault": "is not a whole PNG file"}
        if max(int.from_bytes(content[at : at + 4], "big") for at in (16, 20)) > LONGEST:
            return {"name": name, "fault": f"has a side of more than {LONGEST} pixels"}
        if len(content) > self.room:
            return {"name": name, "fault": "found no more room in this page: name its example with --example"}
        self.room -= len(content)
        return {"name": name, "uri": "data:image/png;base64," + b64encode(content).decode()}


def _is_png(content: bytes) -> bool:
    """Whether all chunks of a PNG file are there, and as they were written."""
    at = 8 if content.startswith(SIGNATURE) else len(content)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if crc32(content[at + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return False
        if content[at + 4 : at + 8] == b"IEND":
            return end == len(content)
        at = end
    return False
