"""The judge's endpoint. The API key is taken from the environment and written nowhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from mdm.errors import MdmError

KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Answer:
    """An answer, and the tokens it cost (0 where the endpoint does not say)."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Endpoint:
    """A chat model at an OpenAI-compatible endpoint. The `openai` client brings retries and their waiting times.

    Args:
        base_url: of the endpoint; None: OpenAI's own.
        key_variable: the environment variable that holds the key. A local endpoint may do without.
        retries: after a lost connection, 408, 409, 429 and 5xx, each after a longer wait or as long as it says.
        timeout: of one request, in seconds.

    Raises:
        MdmError: no key for OpenAI's own endpoint.
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
        self._errors = openai.OpenAIError
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=base_url, max_retries=retries, timeout=timeout
        )

    @property
    def name(self) -> str:
        """Identifies this judge among others."""
        return f"{self.model}\0{self.base_url or ''}"

    def ask(self, text: str, temperature: float | None) -> Answer:
        """One question, one answer.

        Raises:
            MdmError: the endpoint refuses, or is still failing after all retries.
        """
        sampling: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        try:
            reply = self._client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": text}], **sampling
            )
            content, usage = reply.choices[0].message.content or "", reply.usage
        except self._errors as error:
            raise MdmError(f"judge {self.model!r}: {self._hidden(_line(error))}") from None
        except (AttributeError, TypeError, IndexError):
            raise MdmError(f"judge {self.model!r}: the endpoint did not answer with a chat completion") from None
        return Answer(
            self._hidden(content), usage.prompt_tokens if usage else 0, usage.completion_tokens if usage else 0
        )

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
