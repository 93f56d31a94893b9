"""A process that commits to a run folder, once for every character that it is given, until it is killed.

    python writer_child.py FOLDER HEADER [DEFECT]

Row i holds the value i everywhere. Prints a line for every commit.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np

from ebbtide.runs import atomic
from ebbtide.runs.records import Header
from ebbtide.runs.writer import Writer


def rows(head: Header, first: int, count: int) -> dict[str, np.ndarray]:
    at = np.arange(first, first + count)
    shape = (head.spec["members"], count, len(head.instruments), len(head.metrics), 2)
    values = np.broadcast_to(at[None, :, None, None, None], shape).astype(np.float32)
    return {"sequences": at.astype(np.int64), "train_loss": values[:, :, 0, 0, 0].copy(), "values": values}


def segment_late() -> None:
    """Defect: a checkpoint names a segment that comes into its place only with the next one."""
    write_file = atomic.write_file
    late: list[tuple[Path, bytes]] = []

    def write(path: Path, data: bytes, what: str = "file") -> None:
        if what == "segment":
            for one in late:
                write_file(*one, what)
            late[:] = [(path, data)]
        else:
            write_file(path, data, what)

    atomic.write_file = write


def segment_in_pieces() -> None:
    """Defect: each commit writes its rows into the segment of the one before, in place, and leaves them there until
    the next."""
    write_file = atomic.write_file
    whole: list[tuple[Path, bytes]] = []

    def write(path: Path, data: bytes, what: str = "file") -> None:
        if what == "segment":
            for before, held in whole[-2:-1]:
                before.write_bytes(held)
            for before, held in whole[-1:]:
                before.write_bytes(held + data)
            whole.append((path, data))
        write_file(path, data, what)

    atomic.write_file = write


DEFECTS = {one.__name__: one for one in (segment_late, segment_in_pieces)}


def main(folder: Path, head: Header) -> None:
    writer = Writer(folder, head)
    i = writer.manifest.sequences + 1 if writer.manifest else 0
    while sys.stdin.read(1):
        state = {"w": np.full((head.spec["members"], 1000), i, np.float32)}
        writer.commit(
            sequences=i,
            state=state,
            evaluations=rows(head, writer.rows, 1 + i % 2) if i % 3 == 0 else None,
            kept=i % 50 == 0,
            finished=False,
            seconds=0.0,
        )
        print(i, flush=True)  # noqa: T201
        i += 1


if __name__ == "__main__":
    for defect in sys.argv[3:]:
        DEFECTS[defect]()
    main(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Header))
