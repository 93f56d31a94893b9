"""The dashboard's application asked without a network, and roots that it shows."""

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import numpy as np

from ebbtide.dashboard.app import make_app
from ebbtide.dashboard.guard import Guard
from ebbtide.dashboard.places import root_at
from tiny import write_run

PORT = 8642
HERE = {"host": f"127.0.0.1:{PORT}"}
CURVE = np.linspace(0.2, 0.9, 5)


class Answer(NamedTuple):
    """An answer: status, headers in small letters, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as data."""
        return msgspec.json.decode(self.body)


def ask(
    app: Guard,
    path: str,
    query: str = "",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | list[tuple[str, str]] = HERE,
    kind: str = "http",
) -> Answer:
    """The answer of an application to one request; `path` is what a server makes of the address, already decoded."""
    sent: list[Any] = []
    pairs = list(headers.items()) if isinstance(headers, Mapping) else headers
    scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(key.encode("latin-1"), value.encode("latin-1")) for key, value in pairs],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", PORT),
        "state": {},
    }

    heard: list[bool] = []

    async def receive() -> dict[str, Any]:
        if heard:
            await asyncio.Event().wait()  # the browser waits for its answer
        heard.append(True)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start = sent[0]
    found = {key.decode().lower(): value.decode() for key, value in start.get("headers", [])}
    return Answer(start.get("status", 0), found, b"".join(one.get("body", b"") for one in sent[1:]))


def get(app: Guard, path: str, **parameters: Any) -> Answer:
    """The answer to a request with these parameters, from this machine's own page."""
    return ask(app, path, urlencode(parameters, doseq=True))


def whole_list(app: Guard) -> Answer:
    """The answer to `/api/runs` once every folder has been read."""
    until = time.monotonic() + 120
    while True:
        found = get(app, "/api/runs")
        reading = found.json()["reading"]
        if found.json()["rows"] and reading["done"] == reading["of"]:
            return found
        assert time.monotonic() < until, "the list was not read in two minutes"


def app_over(folder: Path, **how: Any) -> Guard:
    """The application over a folder."""
    return make_app(root_at(str(folder)), port=PORT, **how)


def simple_run(path: Path, members: int = 2, **changes: Any) -> None:
    """A finished run of five evaluations."""
    write_run(path, {"icl": [CURVE] * members, "iwl": [CURVE] * members}, [[4, 3, 2, 1, 1]] * members, **changes)


def copy(source: Path, target: Path) -> Path:
    """A copy of a folder, with its times."""
    return Path(shutil.copytree(source, target, symlinks=True))
