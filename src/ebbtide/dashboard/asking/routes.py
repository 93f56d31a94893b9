"""The addresses under which the page asks about prompts.

- `/api/prompts/about?name=`: evaluators, checkpoints and sizes of a run (`about.describe`); read without JAX.
- `/api/prompt?name=&evaluator=&index=&member=&at=`: a prompt and the answers to it (`Question.what` = "prompt").
- `/api/prompts/others?` the same parameters: the answers of members that have prompts of their own.
- `/api/prompts/summary?name=&evaluator=&member=&at=`: the answers to all prompts of an evaluator.

The last three are answered for a block of checkpoints around `at`: `first` of `of` in all, and their `checkpoints`.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ebbtide.dashboard.answer_cache import AnswerCache
from ebbtide.dashboard.answers import JSON, answer, count, is_known, one, shortly, tag_of
from ebbtide.dashboard.asking.about import check_question, describe
from ebbtide.dashboard.asking.asker import Asker, NoAnswerError
from ebbtide.dashboard.asking.question import Question
from ebbtide.dashboard.places import Root
from ebbtide.errors import require
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.records import HEADER

T = TypeVar("T")


def routes(root: Root, asker: Asker | None = None) -> list[Route]:
    """The routes over a root; they share one process that answers and one store of answers."""
    own, cache = asker or Asker(), AnswerCache()

    def run_of(request: Request) -> RunFolder:
        name = one(request, "name")
        path = root.find(name)
        require((path / HEADER).is_file(), "name", name, "is no run, so it has no models to ask")
        return RunFolder(path)

    async def about(request: Request) -> Response:
        def read() -> Response:
            return answer(request, msgspec.json.encode(describe(run_of(request))))

        return await shortly(read)

    def asked(what: Literal["prompt", "others", "summary"]) -> Callable[[Request], Any]:
        def reply(request: Request) -> Response:
            run = run_of(request)
            question = read_question(request, run, what)
            snapshot = run.snapshot()
            tag = tag_of(request, f"{run.header.digest} {snapshot.state}")
            if is_known(request, tag):
                return answer(request, b"", tag)
            key = (run.header.digest, snapshot, question)
            try:
                body = cache.get_or_make(key, lambda: own.ask(question))
            except NoAnswerError as error:
                return Response(msgspec.json.encode({"error": str(error)}), 409, media_type=JSON)
            return answer(request, body, tag)

        async def handle(request: Request) -> Response:
            return await _patiently(lambda: reply(request))

        return handle

    return [
        Route("/api/prompts/about", about),
        Route("/api/prompt", asked("prompt")),
        Route("/api/prompts/others", asked("others")),
        Route("/api/prompts/summary", asked("summary")),
    ]


def read_question(request: Request, run: RunFolder, what: Literal["prompt", "others", "summary"]) -> Question:
    """The question in a request. Raises `InputError` for parameters that cannot be, so that no process is started for
    them."""
    evaluator = one(request, "evaluator")
    index = 0 if what == "summary" else count(request, "index", 0) or 0
    member, at = count(request, "member", 0) or 0, count(request, "at", None)
    check_question(run, evaluator, index, member)
    require(at is None or at < 2**32, "at", at, "must be a number of sequences")
    folder = str(run.path.resolve())
    return Question(what=what, folder=folder, evaluator=evaluator, index=index, member=member, at=at)


async def _patiently(work: Callable[[], T]) -> T:
    """The result of work that may take a minute, done in a thread that does not keep the server from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(method: Callable[[Any], None], value: Any) -> None:
        if not future.done():  # nobody waits any more
            method(value)

    def run() -> None:
        try:
            outcome: tuple[Any, Any] = (future.set_result, work())
        except Exception as error:  # raised again where it is awaited
            outcome = (future.set_exception, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, daemon=True, name="asks").start()
    return await future
