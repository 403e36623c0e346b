"""What a client is told of a failure: one line in OpenAI's shape, never a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mdm.errors import MdmError, one_line
from starlette.responses import JSONResponse

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    **dict.fromkeys(range(500, 600), "server_error"),
}
"""Status -> OpenAI's type of the error; every other one is an ``invalid_request_error``."""


class ApiError(Exception):
    """A request that is refused, or cannot be answered.

    Args:
        status: of the HTTP answer.
        message: one line that names the culprit and the way out.
        param: the field of the body that is to blame.
        code: OpenAI's name for what happened, where it has one.
        headers: further headers of the answer.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        """The JSON document that the client gets."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": one_line(str(self)), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body, self.status, self.headers)


def refused(error: MdmError, fields: Iterable[str]) -> ApiError:
    """A request that the decoder refuses: its line, in the names of the request.

    Args:
        fields: the names in the request's body.
    """
    message = re.sub(r"^prompt \d+: ", "", str(error)).replace("gen_length", "max_tokens")
    names = set(fields)
    param = next((word for word in re.findall(r"\w+", message)[:3] if word in names), None)
    return ApiError(400, message, param=param)


def out_of_memory(message: str) -> ApiError:
    """The device has no room for a row; others are decoded on."""
    return ApiError(503, message, code="out_of_memory", headers={"Retry-After": "5"})


def timed_out(seconds: float) -> ApiError:
    """A request was not done in time, waiting included."""
    message = f"not done within {seconds:g} s, waiting included: ask for fewer tokens or steps, or try later"
    return ApiError(504, message, code="timeout")


def queue_full(waiting: int) -> ApiError:
    """As many rows wait already as the server lets wait."""
    message = f"{waiting} rows wait already: try again soon"
    return ApiError(429, message, code="queue_full", headers={"Retry-After": "1"})


def draining() -> ApiError:
    """The server is about to end."""
    return ApiError(503, "the server is shutting down", code="draining", headers={"Retry-After": "30"})
