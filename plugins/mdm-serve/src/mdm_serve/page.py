"""The page of a server, at ``/``: plain files that speak to the server they come from and to nothing else."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import JSONResponse

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""No script, style or address but the server's own, no frame around it, and no guess of a file's type."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
"""Kinds of files that the page is made of; a machine's own table of types may say otherwise."""


def router(describe: Callable[[], dict[str, Any]]) -> APIRouter:
    """The page, the files that it is made of, and ``/mdm/describe``, which fills its menus.

    Args:
        describe: what ``mdm_serve.describe.describe`` returns, asked for with each request.
    """
    files = _files()
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def index() -> Response:
        return Response(*files["index.html"])

    @routes.get("/site/{name}")
    async def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, f"the page has no file {name!r}")
        return Response(*files[name])

    @routes.get("/mdm/describe")
    def described() -> Response:
        return JSONResponse(describe(), headers=HEADERS)

    return routes


def _files() -> dict[str, tuple[bytes, int, dict[str, str]]]:
    """Name of each of the page's files -> content, status and headers; read once, so that a request names no path."""
    return {
        file.name: (file.read_bytes(), 200, {**HEADERS, "Content-Type": TYPES[Path(file.name).suffix]})
        for file in resources.files(__package__).joinpath("site").iterdir()
    }
