"""Run folders written by hand, commit by commit: what a commit holds depends on its number alone."""

from pathlib import Path

import numpy as np

from ebbtide.runs.writer import Writer
from tiny import evaluations, header

HEAD = header()
KEPT = {0, 512}
"""Of the checkpoints at 0, 256, 512 and 768 these are kept; the others roll."""


def commit(writer: Writer, i: int, rows: int = 1, kept: bool | None = None) -> None:
    """The i-th commit: a checkpoint at 256 i; the fourth finishes the run."""
    first = writer.rows
    at = 256 * np.arange(first, first + rows)
    curves = {n: np.tile(at / 1000, (2, 1)) for n in ("icl", "iwl")}
    found = evaluations(HEAD, curves, np.tile(at, (2, 1)), at) if rows else None
    writer.commit(
        sequences=256 * i,
        state={"w": np.full((2, 40), i, np.float32)},
        evaluations=found,
        kept=256 * i in KEPT if kept is None else kept,
        finished=i == 3,
        seconds=float(i),
    )


def play(path: Path, upto: int = 4, kept: bool | None = None) -> None:
    """Opens the folder and makes the commits it still lacks."""
    writer = Writer(path, HEAD)
    try:
        done = writer.manifest.sequences // 256 + 1 if writer.manifest else 0
        for i in range(done, upto):
            commit(writer, i, kept=kept)
    finally:
        writer.close()


def checkpoints(path: Path) -> list[int]:
    return sorted(int(p.name) for p in (path / "checkpoints").iterdir())
