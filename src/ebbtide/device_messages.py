"""Messages of JAX and XLA about this machine's devices: none while all is well, one line where an accelerator cannot be
used, and the CPU in its place."""

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import TypeVar

from ebbtide.errors import InputError, one_line

T = TypeVar("T")
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""The environment variable by which XLA is told what to log. Whoever sets it gets every message as it is."""
FATAL_ONLY = "3"
"""Its value for no warnings of timers, compilers and libraries. Whatever fails raises an error all the same."""
PLATFORMS = "JAX_PLATFORMS"
LOGGER = "jax._src.xla_bridge"
"""The logger with which JAX tells what it finds when it looks for devices."""
NOT_STARTED = "Unable to initialize backend"
"""How an error of JAX begins when a device's library was found and does not start."""
WRONG = ("configuration error", "failed to initialize")
"""Words of JAX's warnings about something that is broken; its others are about what is not installed."""


def quiet_devices(environment: MutableMapping[str, str]) -> None:
    """Silences XLA in this process, if `environment` is its own, and those that it starts, and gives JAX's messages
    about broken accelerators one line. Does nothing where the user has chosen what XLA logs."""
    if LOG_LEVEL in environment:
        return
    environment[LOG_LEVEL] = FATAL_ONLY
    logging.getLogger(LOGGER).addFilter(BrokenDevices())


class BrokenDevices(logging.Filter):
    """A filter that writes the first message about a broken accelerator as one line on standard error, and drops the
    others, tracebacks and what is only missing included. Messages below warnings pass."""

    told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is written as it is."""
        if record.levelno < logging.WARNING:
            return True
        message = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            message = f"{message}: {type(error).__name__}: {error}"
        broken = error is not None or record.levelno > logging.WARNING or any(words in message for words in WRONG)
        if broken and not self.told:
            self.told = True
            _tell(message)
        return False


def call_with_fallback(call: Callable[[], T]) -> T:
    """The result of `call`. Where JAX finds an accelerator's library in it that does not start, this is written as one
    line, and `call` is made again on the CPU. Raises `InputError` where the user has asked for that accelerator."""
    try:
        return call()
    except Exception as error:  # JAX wraps the failure of a device in errors of several types; all others go on
        reason = _reason_not_started(error)
        if reason is None:
            raise
        chosen = os.environ.get(PLATFORMS)
        if chosen:
            allowed = f"cannot be used here ({_flat(reason)}); leave it unset, or set it to cpu"
            raise InputError(PLATFORMS, chosen, allowed) from error
        import jax

        _tell(reason)
        os.environ[PLATFORMS] = "cpu"  # for processes that this one starts
        jax.config.update("jax_platforms", "cpu")
    return call()


def _reason_not_started(error: BaseException) -> str | None:
    """What JAX says of an accelerator that does not start, if an error or one of its causes says so, else None."""
    while not (isinstance(error, RuntimeError) and str(error).startswith(NOT_STARTED)):
        if error.__cause__ is None:
            return None
        error = error.__cause__
    return str(error)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _tell(message: str) -> None:
    sys.stderr.write(f"ebbtide: an accelerator cannot be used, the CPU takes its place: {one_line(_flat(message))}\n")
