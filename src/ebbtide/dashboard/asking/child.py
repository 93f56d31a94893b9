"""The process that answers questions about prompts: `python -m ebbtide.dashboard.asking.child PARENT SECONDS`.

It reads questions from standard input and answers on standard output, one after the other. It ends when its parent has
ended, however that happened, and after so many seconds without a question.
"""

import os
import select
import sys
import traceback
from typing import IO, Any

import msgspec

from ebbtide.dashboard.asking.question import Question
from ebbtide.errors import InputError, one_line
from ebbtide.runs.signed import DamagedError
from ebbtide.training.wire import receive, send
from ebbtide.training.worker import end_with, out_of_memory

NICENESS = 5
"""By how much the process gives way to others: a run that trains here comes first."""


def serve(questions: IO[bytes], answers: IO[bytes], seconds: float) -> None:
    """Answers questions in order until the stream ends, or none has come for so many seconds."""
    while select.select([questions], [], [], seconds)[0]:
        message = receive(questions)
        if message is None:
            return
        send(answers, reply(message))


def reply(message: dict[str, Any]) -> dict[str, Any]:
    """The answer to a message as JSON in bytes, or an error in one line."""
    question = msgspec.convert(message, Question)
    try:
        from ebbtide.dashboard.asking.answer import answer

        return {"answer": msgspec.json.encode(answer(question))}
    except (InputError, DamagedError) as error:
        return {"error": one_line(str(error))}
    except OSError as error:
        return {"error": one_line(f"{error.filename or question.folder}: {error.strerror}")}
    except Exception as error:  # a foreign folder may make JAX raise anything; the server lives on
        if out_of_memory(error):
            return {"error": "there is not enough memory to answer this"}
        traceback.print_exc()
        return {"error": one_line(f"this could not be computed ({type(error).__name__}: {error})")}


def main() -> None:
    """Serves the parent, whose process number is the first argument, over the standard streams."""
    end_with(int(sys.argv[1]))
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not break the protocol
    serve(sys.stdin.buffer, answers, float(sys.argv[2]))


if __name__ == "__main__":
    main()
