"""The pages and the data of the dashboard by their addresses."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ebbtide.dashboard.answer_cache import AnswerCache
from ebbtide.dashboard.answers import (
    JSON,
    answer,
    count,
    is_known,
    long,
    one,
    refusal,
    several,
    shortly,
    start_long,
    tag_of,
)
from ebbtide.dashboard.arrays import Arrays
from ebbtide.dashboard.catalog import Catalog, look
from ebbtide.dashboard.curves import curves_of
from ebbtide.dashboard.guard import Guard
from ebbtide.dashboard.places import Root
from ebbtide.dashboard.rows import BROKEN
from ebbtide.runs.folder import RunFolder

STATIC = Path(__file__).with_name("static")
HTML = "text/html"


def make_app(
    root: Root, *, port: int, token: str | None = None, names: Iterable[str] = (), more: Sequence[BaseRoute] = ()
) -> Guard:
    """The application over a root, behind its guard; `more` are routes of other modules."""
    catalog, arrays, cache = Catalog(root), Arrays(), AnswerCache()
    warm = _Warm(catalog)

    async def runs(request: Request) -> Response:
        tag, body = await shortly(catalog.listing)
        warm.begin()
        return answer(request, body, tag)

    async def curves(request: Request) -> Response:
        def read() -> Response:
            name = one(request, "name")
            path = root.find(name)
            run = RunFolder(path)
            tag = tag_of(request, f"{run.header.digest} {run.snapshot().state}")
            if is_known(request, tag):
                return answer(request, b"", tag)
            first, last = count(request, "from", 0) or 0, count(request, "to", None)
            found = curves_of(arrays, path, several(request, "curve"), first, last)
            return answer(request, msgspec.json.encode(found | {"name": name}), tag)

        return await shortly(read)

    def about(make: Callable[[Request, str, Path], bytes], kind: str = JSON) -> Callable[[Request], Any]:
        """A handler that answers about one folder in a thread of its own; made again when the folder has changed."""

        async def handle(request: Request) -> Response:
            def read() -> Response:
                name = one(request, "name")
                path = root.find(name)
                tag = tag_of(request, look(path))
                if is_known(request, tag):
                    return answer(request, b"", tag)
                return answer(request, cache.get_or_make(tag, lambda: make(request, name, path)), tag, kind)

            return await long(read)

        return handle

    def details(request: Request, name: str, path: Path) -> bytes:
        from ebbtide.dashboard.details import details_of

        return msgspec.json.encode(details_of(root, name, path))

    def sweep(request: Request, name: str, path: Path) -> bytes:
        from ebbtide.dashboard.sweeps import sweep_of

        return msgspec.json.encode(sweep_of(root, name, path))

    def probe(request: Request, name: str, path: Path) -> bytes:
        from ebbtide.dashboard.probes import probe_of

        ranked = one(request, "ranked", "1") not in ("0", "false", "")
        return msgspec.json.encode(probe_of(path, one(request, "probe"), ranked) | {"run": name})

    def report(request: Request, name: str, path: Path) -> bytes:
        from ebbtide.dashboard.reports import report_of

        return report_of(root, name, path)

    routes = [
        Route("/", _page),
        Route("/api/runs", runs),
        Route("/api/run", about(details)),
        Route("/api/curves", curves),
        Route("/api/sweep", about(sweep)),
        Route("/api/probe", about(probe)),
        Route("/report", about(report, HTML)),
        *more,
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers: Any = dict.fromkeys((*BROKEN, HTTPException, Exception), _refuse)
    return Guard(Starlette(routes=routes, exception_handlers=handlers), port=port, token=token, names=names)


async def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", media_type=HTML)


async def _refuse(request: Request, error: Exception) -> Response:
    return refusal(request, error)


class _Warm:
    """Imports what is slow to import, in a thread, once the list has been read: the first look at a run is fast then,
    and the list does not wait."""

    def __init__(self, catalog: Catalog):
        self._catalog, self._begun = catalog, False

    def begin(self) -> None:
        """Begins, where the list has been read and this is the first call."""
        if self._catalog.is_read() and not self._begun:
            self._begun = True
            start_long(_import_slow)


def _import_slow() -> None:
    import ebbtide.dashboard.reports
    import ebbtide.dashboard.sweeps  # noqa: F401
