"""What a server lets its clients do, and who they have to be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a server."""

    queue: int = 256
    """Rows that may wait for room."""
    timeout: float = 600.0
    """Seconds that a request may take, waiting included."""
    max_body: int = 2**21
    """Bytes of a request's body."""
    key: str | None = None
    """What clients have to send; None: nothing."""
    loopback: bool = True
    """Whether only programs of this machine are served, whatever name a page of another site gives to it."""
    max_length: int | None = None
    """Tokens of a request's canvas; None: as many as the model was trained on."""
    log_prompts: bool = False
    """Whether the log shows what is asked."""
