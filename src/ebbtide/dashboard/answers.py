"""Answers to requests: JSON with a tag, an error in one line, and the threads that read for them."""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ebbtide import __version__
from ebbtide.dashboard.places import NotThereError
from ebbtide.dashboard.rows import BROKEN, reason
from ebbtide.errors import InputError, one_line, visible

T = TypeVar("T")
JSON = "application/json"
LARGEST_ANSWER = 2**26
"""Largest number of bytes of an answer."""
MOST_PARAMETERS = 100
"""Largest number of values of one parameter of a request."""

_LONG = ThreadPoolExecutor(2, thread_name_prefix="long")
"""Threads for what may take seconds: sweeps, reports, whatever imports JAX. Few, so that the rest is answered."""


async def shortly(work: Callable[..., T], *arguments: Any) -> T:
    """The result of work that takes milliseconds, done in a thread."""
    return await run_in_threadpool(work, *arguments)


async def long(work: Callable[..., T], *arguments: Any) -> T:
    """The result of work that may take seconds, done in one of two threads."""
    return await asyncio.get_running_loop().run_in_executor(_LONG, work, *arguments)


def start_long(work: Callable[[], None]) -> None:
    """Begins work that may take seconds; nobody waits for it."""
    _LONG.submit(work)


def one(request: Request, name: str, default: str | None = None) -> str:
    """The value of a parameter. Raises `InputError` where it is given twice, or is missing without a default."""
    found = several(request, name)
    if not found and default is not None:
        return default
    if len(found) != 1:
        raise InputError(name, f"{len(found)} values", "must be given once")
    return found[0]


def several(request: Request, name: str) -> list[str]:
    """All values of a parameter. Raises `InputError` for very many."""
    found = request.query_params.getlist(name)
    if len(found) > MOST_PARAMETERS:
        raise InputError(name, f"{len(found)} values", f"at most {MOST_PARAMETERS}")
    return found


def count(request: Request, name: str, default: int | None) -> int | None:
    """The whole number that a parameter gives. Raises `InputError` for anything else."""
    text = one(request, name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InputError(name, visible(text[:40]), "must be a whole number from 0")
    return int(text)


def is_known(request: Request, tag: str) -> bool:
    """Whether the browser has the answer with this tag already."""
    given = request.headers.get("if-none-match", "")
    return tag in [part.strip().removeprefix("W/") for part in given.split(",")]


def answer(request: Request, body: bytes, tag: str | None = None, kind: str = JSON) -> Response:
    """An answer with its tag, or only that the browser has it already."""
    headers = {"cache-control": "private, no-cache", **({"etag": tag} if tag else {})}
    if tag and is_known(request, tag):
        return Response(status_code=304, headers=headers)
    if len(body) > LARGEST_ANSWER:
        words = f"the answer has {len(body):,} bytes; at most {LARGEST_ANSWER:,} are sent"
        return Response(msgspec.json.encode({"error": words}), 413, media_type=JSON)
    return Response(body, headers=headers, media_type=kind)


def tag_of(request: Request, state: str) -> str:
    """The tag of the answer to a request about something in this state."""
    text = f"{__version__} {request.url.path}?{request.url.query} {state}"
    return f'"{hashlib.sha256(text.encode(errors="replace")).hexdigest()[:24]}"'


def refusal(request: Request, error: Exception) -> Response:
    """The answer to a request that cannot be answered: one line."""
    status = 404 if isinstance(error, NotThereError) else 400 if isinstance(error, InputError) else 409
    text = str(error) if isinstance(error, InputError) else reason(error)
    if isinstance(error, HTTPException):
        status, text = error.status_code, "there is no such page" if error.status_code == 404 else error.detail
    elif not isinstance(error, BROKEN):
        status, text = 500, "a fault of the dashboard; its output says more"
    body = msgspec.json.encode({"error": one_line(text)})
    return Response(body, status, media_type=JSON)
