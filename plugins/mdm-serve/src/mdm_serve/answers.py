"""Answers as OpenAI writes them, whole and in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from mdm_serve.schema import Job

if TYPE_CHECKING:
    from mdm.api import Result

    from mdm_serve.worker import Ended

Kind = Literal["chat", "text"]
OBJECTS = {"chat": "chat.completion", "text": "text_completion"}
CHUNKS = {"chat": "chat.completion.chunk", "text": "text_completion"}


class Answer:
    """The answer to one request.

    Args:
        defaults: arguments of ``mdm.decode`` that hold where the request says nothing.
    """

    def __init__(self, kind: Kind, model: str, job: Job, defaults: Mapping[str, Any]) -> None:
        self.kind, self.job = kind, job
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        self._head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._policy = {name: job.arguments.get(name, defaults.get(name)) for name in ("sampler", "cache")}
        self._start = time.perf_counter()

    def whole(self, ends: Sequence[Ended], traces: Sequence[Any]) -> dict[str, Any]:
        """The answer in one: how each choice ended, and its trace where that is to be shown."""
        choices = [self._choice(i, end) for i, end in enumerate(ends)]
        results = [end.result for end in ends]
        costs = self.costs(results) | ({"trace": traces} if self.job.show_trace else {})
        return self._head | {
            "object": OBJECTS[self.kind],
            "choices": choices,
            "usage": self.usage(results),
            "mdm": costs,
        }

    def role(self, choice: int) -> dict[str, Any]:
        """A chat's first chunk of a choice."""
        return self._chunk([self._part(choice, {"role": "assistant", "content": ""}, None, None)])

    def text(self, choice: int, text: str) -> dict[str, Any]:
        """A chunk that adds to a choice's text."""
        return self._chunk([self._part(choice, self._said(text), None, None)])

    def end(self, choice: int, end: Ended) -> dict[str, Any]:
        """A choice's last chunk. Log-probabilities come with it, since they are known of whole answers."""
        part = self._part(choice, {} if self.kind == "chat" else "", end.finish, self._logprobs(end))
        return self._chunk([part]) | {"mdm": self.costs([end.result])}

    def total(self, ends: Sequence[Ended]) -> dict[str, Any]:
        """The chunk behind all choices that says what they cost."""
        results = [end.result for end in ends]
        return self._chunk([]) | {"usage": self.usage(results), "mdm": self.costs(results)}

    def event(self, **data: Any) -> dict[str, Any]:
        """The data of a named event, in the shape of a chunk without choices: OpenAI's own client reads it as one."""
        return self._head | {"object": CHUNKS[self.kind], "choices": []} | data

    def usage(self, results: Sequence[Result]) -> dict[str, int]:
        """Tokens of the prompts, each counted once, and of the answers up to their ends."""
        shown = sum(result.prompt_tokens for result in results[:: self.job.n])
        written = sum(result.completion_tokens for result in results)
        return {"prompt_tokens": shown, "completion_tokens": written, "total_tokens": shown + written}

    def costs(self, results: Sequence[Result]) -> dict[str, Any]:
        """What some choices took, and how they were decoded."""
        return {
            "forwards": sum(result.forwards for result in results),
            "rows": sum(result.rows for result in results),
            "steps": sum(sum(result.block_steps) for result in results),
            "seconds": round(time.perf_counter() - self._start, 6),
        } | self._policy

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self.job.include_usage else {}
        return self._head | {"object": CHUNKS[self.kind], "choices": choices} | usage

    def _choice(self, index: int, end: Ended) -> dict[str, Any]:
        text = end.result.text or ""
        message = {"message": {"role": "assistant", "content": text, "refusal": None}}
        said = message if self.kind == "chat" else {"text": text}
        return {"index": index, **said, "logprobs": self._logprobs(end), "finish_reason": end.finish}

    def _part(self, index: int, said: Any, finish: str | None, logprobs: Any) -> dict[str, Any]:
        name = "delta" if self.kind == "chat" else "text"
        return {"index": index, name: said, "logprobs": logprobs, "finish_reason": finish}

    def _said(self, text: str) -> Any:
        return {"content": text} if self.kind == "chat" else text

    def _logprobs(self, end: Ended) -> dict[str, Any] | None:
        """Of each token up to the end the logarithm of its probability when it was committed."""
        if not self.job.logprobs:
            return None
        texts, values = list(end.token_texts), list(end.logprobs)
        if self.kind == "text":
            offsets = list(accumulate(map(len, texts), initial=0))[:-1]
            return {"tokens": texts, "token_logprobs": values, "top_logprobs": None, "text_offset": offsets}
        tokens = [
            {"token": text, "logprob": value, "bytes": list(text.encode("utf-8", "replace")), "top_logprobs": []}
            for text, value in zip(texts, values, strict=True)
        ]
        return {"content": tokens, "refusal": None}
