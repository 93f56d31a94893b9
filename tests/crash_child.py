"""A process that trains a run and kills itself with SIGKILL at a named point of the commit protocol.

    python crash_child.py FOLDER SPEC [DEFECT]     one attempt for each line of standard input
    python crash_child.py FOLDER SPEC --processes 2    one attempt, killed from outside

Every attempt is a process of its own, forked from one that has imported everything but has not started
XLA: an import costs more than the attempt. A line is `POINT N`: die at the N-th passing of the point
(`- 0`: at none). After an attempt, a line tells how it ended and the steps it trained from and to.
"""

import os
import signal
import sys
import traceback
from pathlib import Path

from ebbtide.runs import atomic, writer
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.records import CHECKPOINTS, HEADER, Header
from ebbtide.training import driver, members
from ebbtide.training.spec import Spec, from_json

SLICE_SECONDS, SAVE_SECONDS = 0.05, 0.2
"""For the run that is killed from outside: as in the product but shorter, so that there is more to interrupt."""


class Hook:
    """Stands in for `atomic.crash_point`."""

    def __init__(self, point: str, nth: int):
        self.point, self.left = point, nth

    def __call__(self, point: str) -> None:
        self.left -= point == self.point
        if point == self.point and self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Steps:
    """Where the members of this attempt started and how far they came, also when it dies."""

    def __init__(self, pipe: int):
        begin, train = members.Members.__init__, members.Members.train

        def begun(self: members.Members, *arguments, **options) -> None:
            begin(self, *arguments, **options)
            os.write(pipe, b"%d\n" % self.step)

        def trained(self: members.Members, step: int) -> None:
            train(self, step)
            os.write(pipe, b"%d\n" % step)

        members.Members.__init__, members.Members.train = begun, trained


def attempt(folder: Path, spec: Spec, point: str, nth: int, pipe: int) -> None:
    """One step to a slice and a commit after each, so that the run passes every point many times."""
    Steps(pipe)
    driver.SLICE_SECONDS, driver.SAVE_SECONDS = 1e-9, -1.0
    atomic.crash_point = Hook(point, nth)
    driver.train(spec, folder, processes=0)


def serve(folder: Path, spec: Spec) -> None:
    for line in sys.stdin:
        point, nth = line.split()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(reading)
                attempt(folder, spec, point, int(nth), writing)
                code = 0
            except Exception:  # a fork must never return into the parent's loop; the parent sees code 1
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as steps:
            seen = [int(step) for step in steps] or [-1]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, seen[0], seen[-1], flush=True)  # noqa: T201


def header_in_place() -> None:
    """Defect: run.json without a temporary."""
    write_file = atomic.write_file

    def write(path: Path, data: bytes, what: str = "file") -> None:
        if path.name == HEADER:
            atomic.write_synced(path, data, what)
        else:
            write_file(path, data, what)

    atomic.write_file = write


def checkpoint_in_place() -> None:
    """Defect: a checkpoint is renamed into place before it is written."""
    make_folder, write_synced, rename = atomic.make_folder, atomic.write_synced, atomic.rename
    moved: dict[Path, Path] = {}

    def make(path: Path) -> None:
        make_folder(path)
        if path.parent.name == CHECKPOINTS:
            target = path.with_name(path.name.removeprefix(atomic.TEMPORARY))
            path.rename(target)
            moved[path] = target

    def write(path: Path, data: bytes, what: str) -> None:
        write_synced(moved.get(path.parent, path.parent) / path.name, data, what)

    atomic.make_folder, atomic.write_synced = make, write
    atomic.sync_folder = lambda folder: None
    atomic.rename = lambda a, b, what: None if a in moved and moved[a] == b else rename(a, b, what)


def drop_before_commit() -> None:
    """Defect: the older rolling checkpoints go before the new one is committed."""
    commit = writer.Writer.commit

    def early(self: writer.Writer, **options) -> None:
        newest, self.checkpoint = self.checkpoint, None
        self._drop_rolling()
        self.checkpoint = newest
        commit(self, **options)

    writer.Writer.commit = early


def rows_again() -> None:
    """Defect: opening does not go back to the checkpoint but takes in the segment beyond it."""
    uncommitted_files = writer.uncommitted_files

    def keep(self: writer.Writer, header: Header, found) -> None:
        opened(self, header, found)
        for path in sorted((self.path / "metrics").iterdir()):
            known = {segment.file.path for segment in self.segments}
            if (name := f"metrics/{path.name}") not in known and not path.name.startswith(atomic.TEMPORARY):
                first, last = (int(part) for part in path.stem.split("-"))
                data = path.read_bytes()
                record = writer.FileRecord(name, len(data), atomic.sha256(data))
                self.segments.append(writer.Segment(first, last, record))

    opened = writer.Writer._open
    writer.Writer._open = keep
    writer.uncommitted_files = lambda path, checkpoint, segments: [
        p for p in uncommitted_files(path, checkpoint, segments) if p.is_dir()
    ]


DEFECTS = {one.__name__: one for one in (header_in_place, checkpoint_in_place, drop_before_commit, rows_again)}


def killed_from_outside(folder: Path, spec: Spec, processes: int) -> int:
    """Prints the sequences trained so far at every report; exit code 1 and one line if a worker dies."""
    from ebbtide.training.team import WorkerError

    driver.SLICE_SECONDS, driver.SAVE_SECONDS = SLICE_SECONDS, SAVE_SECONDS
    start = RunFolder(folder).sequences() if (folder / HEADER).exists() else 0
    print(start, flush=True)  # noqa: T201
    try:
        driver.train(spec, folder, processes=processes, report=lambda p: print(p.sequences, flush=True))  # noqa: T201
    except WorkerError as error:
        sys.stderr.write(str(error).splitlines()[0] + "\n")
        return 1
    return 0


if __name__ == "__main__":
    run_folder, run_spec = Path(sys.argv[1]), from_json(sys.argv[2].encode())
    if sys.argv[3:4] == ["--processes"]:
        sys.exit(killed_from_outside(run_folder, run_spec, int(sys.argv[4])))
    for defect in sys.argv[3:]:
        DEFECTS[defect]()
    serve(run_folder, run_spec)
