"""The process of one try of a task: `python -m ebbtide.sweeps.task FOLDER TASK [--processes=N] [--code=SHA256:FILE]`.

Trains the task's run, or continues it. The exit code is 0 (done) or one of the codes in `attempt`; an error's traceback
goes to standard error. When standard input closes (the parent has died, or requests a stop), it saves and ends.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ebbtide.errors import Interrupted, one_line
from ebbtide.places import looking_in
from ebbtide.runs.lock import BusyError
from ebbtide.sweeps.attempt import BUSY, FULL, STOPPED
from ebbtide.sweeps.folder import SweepFolder, places
from ebbtide.user_code import load_words

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(folder: Path, task: str, processes: int | None, code: Sequence[str] = ()) -> int:
    """The exit code after training the task; `code` names the files of the user that it needs (`user_code`)."""
    from ebbtide.machine import peak_memory
    from ebbtide.sweeps.estimate import Cost, remember
    from ebbtide.training.device import here
    from ebbtide.training.driver import train

    began, rates = time.monotonic(), []
    try:
        load_words(code)
        sweep = SweepFolder(folder)
        spec, fresh = sweep.spec(task), sweep.run(task) is None
        label = {"sweep": sweep.sweep.name, "task": task}
        with looking_in(places(folder, sweep.sweep)):
            device = here() if processes is None else None  # a task that asked for accelerators
            how = {"processes": processes, "device": device, "label": label}
            train(spec, sweep.run_path(task), **how, report=lambda progress: rates.append(progress.rate))
        if fresh and rates and processes == 0:  # one core, from the start to the end
            start = time.monotonic() - began - spec.members * spec.sequences / rates[-1]
            remember(spec, Cost(rates[-1], start, peak_memory()))
    except BusyError:
        return BUSY
    except Interrupted:
        return STOPPED
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        with contextlib.suppress(OSError):  # what it says goes to a file, too
            os.write(sys.stderr.fileno(), f"{one_line(str(error))}\n".encode())
        return FULL
    return 0


def _obey_parent() -> None:
    """Sends SIGTERM to this process once standard input ends."""
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """The exit code of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ebbtide.sweeps.task")
    parser.add_argument("folder", type=Path)
    parser.add_argument("task")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--code", action="append", default=[])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(STOPPED))  # until the training takes over
    threading.Thread(target=_obey_parent, daemon=True).start()
    return run(options.folder, options.task, options.processes, options.code)


if __name__ == "__main__":
    sys.exit(main())
