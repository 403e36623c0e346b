"""The judge's endpoint. The API key is taken from the environment and written nowhere.

An endpoint is a stranger: what it sends is bounded in time and size before it is read, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from typing import Annotated, Any, Self
from urllib.parse import unquote

from mdm.errors import MdmError, explain
from pydantic import BaseModel, ConfigDict, Field, ValidationError

KEY = "OPENAI_API_KEY"
LARGEST, LARGEST_ERROR = 2**22, 2**16
"""Bytes of a reply that are read, and of a refusal."""
KEPT_HEADERS = (b"location", b"retry-after", b"retry-after-ms", b"x-should-retry")
"""What is read of a reply's headers; among the others are codecs that may cost any time and memory."""
_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")
CLOSING = 2.0
"""Seconds that connections are given to close."""

Count = Annotated[int, Field(ge=0, le=10**12)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Message(_Strict):
    content: str | None = None


class _Choice(_Strict):
    message: _Message


class _Reply(_Strict):
    """What is read of a chat completion. One answer was asked for."""

    choices: Annotated[list[_Choice], Field(min_length=1, max_length=1)]
    usage: Any = None


class _Usage(_Strict):
    prompt_tokens: Count
    completion_tokens: Count


@dataclass(frozen=True)
class Answer:
    """An answer, and the tokens it cost (None where the endpoint does not say it in plain numbers)."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    fault: str | None = None
    """Why the reply is no chat completion; ``text`` is then the reply itself."""


class Endpoint:
    """A chat model at an OpenAI-compatible endpoint. The `openai` client brings retries and their waiting times.

    Requests run on an event loop in a thread of their own, so that each can be given up at any moment. As a context
    manager, it gives up those that are left in the end.

    Args:
        base_url: of the endpoint; None: OpenAI's own.
        key_variable: the environment variable that holds the key. A local endpoint may do without.
        retries: after a lost connection, 408, 409, 429 and 5xx, each after a longer wait or as long as it says. A reply
            that has begun with success is never asked for again.
        timeout: of one request from its beginning to the end of the reply, in seconds.

    Raises:
        MdmError: no key for OpenAI's own endpoint, a key that no header can hold, or an impossible address.
    """

    def __init__(
        self, model: str, base_url: str | None, *, key_variable: str = KEY, retries: int = 6, timeout: float = 120.0
    ) -> None:
        import openai

        self.model, self.base_url = model, base_url
        self._key = os.environ.get(key_variable, "")
        if not self._key and base_url is None:
            raise MdmError(f"judge {model!r}: the environment variable {key_variable} holds no key, and none is needed "
                           "only where --judge-base-url names an endpoint of your own")  # fmt: skip
        if self._key and not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise MdmError(f"judge {model!r}: the environment variable {key_variable} holds no key: there are spaces, "
                           "line breaks or characters beyond ASCII in it")  # fmt: skip
        self._status_error = openai.APIStatusError
        try:
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none", base_url=base_url, max_retries=retries, timeout=timeout,
                http_client=_bounded_client(timeout),
            )  # fmt: skip
        except Exception as error:
            raise MdmError(f"judge {model!r}, endpoint {base_url}: {self._hidden(_line(error))}") from None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._give_up(), self._loop).result(CLOSING)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSING)

    @property
    def name(self) -> str:
        """Identifies this judge among others."""
        return f"{self.model}\0{self.base_url or ''}"

    def ask(self, text: str, temperature: float | None) -> Future[Answer]:
        """Ask one question. Cancelling the future gives the request up.

        The future raises an MdmError where the endpoint refuses, or is still failing after all retries.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(text, temperature), self._loop)

    async def _ask(self, text: str, temperature: float | None) -> Answer:
        sampling: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        try:
            reply = await self._client.chat.completions.with_raw_response.create(
                model=self.model, messages=[{"role": "user", "content": text}], **sampling
            )
        except self._status_error as error:
            says = _line(error)
            if 300 <= error.status_code < 400:
                says = (f"it redirects to {error.response.headers.get('location')}, which is not followed: "
                        "--judge-base-url names the endpoint itself")  # fmt: skip
            raise MdmError(f"judge {self.model!r}: {self._hidden(says)}") from None
        except Exception as error:
            raise MdmError(f"judge {self.model!r}: {self._hidden(_line(error))}") from None
        return self._read(reply.content)

    def _read(self, body: bytes) -> Answer:
        """What a reply says, whatever was sent."""
        try:
            reply = _Reply.model_validate_json(body.removeprefix(codecs.BOM_UTF8))
        except ValidationError as error:
            text = body.decode("utf-8", "backslashreplace")
            return Answer(self._hidden(text), None, None, self._hidden(explain(error, "reply: ", _Reply)))
        try:
            usage = _Usage.model_validate(reply.usage)
            tokens: tuple[int | None, int | None] = usage.prompt_tokens, usage.completion_tokens
        except ValidationError:
            tokens = None, None
        return Answer(self._hidden(reply.choices[0].message.content or ""), *tokens)

    async def _give_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    def _hidden(self, text: str) -> str:
        """``text`` without the key, in whatever escapes the endpoint has written it back."""
        if not self._key:
            return text
        text = text.replace(self._key, "***")
        plain = unescape(unquote(_ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)))
        return "*** (what was sent holds the key)" if self._key in plain.replace("\\", "") else text


def _bounded_client(limit: float) -> Any:
    """What the `openai` client sends its requests with.

    Each gets ``limit`` seconds in all, and what has come of a reply until then, or within its size, is the reply.
    """
    import openai

    Client: Any = openai.DefaultAsyncHttpxClient
    httpx: Any = sys.modules[Client.__base__.__module__.partition(".")[0]]  # a newer `openai` has it as httpx2

    class Bounded(Client):
        async def send(self, request: Any, **options: Any) -> Any:
            deadline = asyncio.get_running_loop().time() + limit
            request.headers["accept-encoding"] = "identity"
            try:
                async with asyncio.timeout_at(deadline):
                    reply = await super().send(request, **options | {"stream": True, "follow_redirects": False})
            except TimeoutError:
                raise httpx.ReadTimeout(f"no reply within {limit:g} s", request=request) from None
            body = bytearray()
            try:
                with suppress(TimeoutError, httpx.TransportError):  # a reply that has begun has been paid for
                    async with asyncio.timeout_at(deadline):
                        await _fill(body, reply, LARGEST if reply.is_success else LARGEST_ERROR)
            finally:
                with suppress(Exception):
                    async with asyncio.timeout(CLOSING):
                        await reply.aclose()
            headers = [(name, value) for name, value in reply.headers.raw if name.lower() in KEPT_HEADERS]
            return httpx.Response(reply.status_code, headers=headers, content=bytes(body), request=request)

    return Bounded()


async def _fill(body: bytearray, reply: Any, largest: int) -> None:
    """Read a reply, packed or not as it was sent, up to a size."""
    async for chunk in reply.aiter_raw():
        body += chunk[: largest - len(body)]
        if len(body) >= largest:
            return


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:1000] or type(error).__name__
