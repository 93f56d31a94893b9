"""Foreign runs: folders with the curves of models that ebbtide has not trained, without spec, models or checkpoints."""

import math
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.errors import InputError, require
from ebbtide.runs import atomic
from ebbtide.runs.atomic import TEMPORARY
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.output import check_output_folder
from ebbtide.runs.records import MOST_COUNT, Header, Instrument
from ebbtide.runs.signed import SCHEMA
from ebbtide.runs.writer import Writer

MOST_MEMBERS, MOST_EVALUATIONS, MOST_NAMES, MOST_NUMBERS = 10_000, 1_000_000, 100, 2**26
"""Largest numbers of members, of evaluations, of evaluators (and of metrics, and of varied fields), and of numbers in
all."""
MOST_FLOAT = float(np.finfo(np.float32).max)
NAME = re.compile(r"[A-Za-z0-9_.:=+-]{1,100}")
TAKEN = ("sequences", "steps", "train_loss", "error")
"""Names that a run's curves have beside evaluators and metrics."""
PARTS = ("source", "task", "model", "optimizer")
"""Parts of a spec that readers of run.json expect; those of a foreign run are empty."""


class ForeignCurves(NamedTuple):
    """The curves of a foreign run.

    Args:
        file: the name of the file that they were read from.
        digest: SHA-256 of what was read.
        sequences: times of the evaluations, in sequences, from 0, increasing.
        train_loss: mean loss of the training batches since the evaluation before; nan where it is not known, infinite
            where a member diverged.
        values: (mean, standard error) of every metric of every evaluator. nan: of a member that diverged, of a metric
            that an evaluator does not have, of an error that is not known.
        instruments: the evaluators; a chance level that is not known is None.
        metrics: names of the metrics.
        batch: sequences of a step (1 where it is not known: then steps are sequences).
        vary: by the name of a field, its value for every member.
    """

    file: str
    digest: str
    sequences: Int[np.ndarray, " evaluation"]
    train_loss: Float[np.ndarray, "member evaluation"]
    values: Float[np.ndarray, "member evaluation evaluator metric two"]
    instruments: list[Instrument]
    metrics: list[str]
    batch: int
    vary: dict[str, list[float]]

    def check(self) -> None:
        """Raises `InputError` for what no run can have: sizes, names, an order of times, numbers that are not
        finite."""
        members, rows, evaluators, metrics, _ = self.values.shape
        check_sizes(self.file, members, rows, evaluators, metrics)
        check_names(self.file, "evaluator", [one.name for one in self.instruments])
        check_names(self.file, "metric", self.metrics)
        check_names(self.file, "column", list(self.vary))
        check_times(self.file, self.sequences)
        steps = f"must be from 1, and divide the sequences of every evaluation ({self.file})"
        whole = 0 < self.batch < MOST_COUNT and not (self.sequences % self.batch).any()
        require(whole, "batch", self.batch, steps)
        finite = "holds infinite numbers; nan is read as a member that diverged"
        require(not (np.abs(self.values) > MOST_FLOAT).any(), "from", self.file, finite)
        levels = [one.chance for one in self.instruments if one.chance is not None]
        numbers = [*levels, *(value for values in self.vary.values() for value in values)]
        require(all(map(math.isfinite, numbers)), "from", self.file, "chance levels and columns must be finite numbers")


def check_sizes(file: str, members: int, evaluations: int, evaluators: int, metrics: int) -> None:
    """Raises `InputError` where curves have no extent, or more than memory should be taken for."""
    for what, count, most in (
        ("members", members, MOST_MEMBERS),
        ("evaluations", evaluations, MOST_EVALUATIONS),
        ("evaluators", evaluators, MOST_NAMES),
        ("metrics", metrics, MOST_NAMES),
        ("numbers", members * evaluations * evaluators * metrics, MOST_NUMBERS),
    ):
        require(1 <= count <= most, "from", file, f"has {count} {what}; from 1 to {most} can be read")


def check_names(file: str, what: str, names: list[str]) -> None:
    """Raises `InputError` for too many names, one that is there twice, or one that cannot be the name of a curve."""
    require(len(names) <= MOST_NAMES, "from", file, f"has {len(names)} {what}s; at most {MOST_NAMES} can be read")
    allowed = f"must be letters, digits and _ . : = + - (at most 100), and none of {', '.join(TAKEN)} ({file})"
    for name in names:
        require(NAME.fullmatch(name) is not None and name not in TAKEN, what, name, allowed)
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    require(twice is None, what, twice, f"is there twice ({file})")


def check_times(file: str, sequences: np.ndarray) -> None:
    """Raises `InputError` unless times are whole numbers from 0, increasing, and the last one above 0."""
    whole = sequences.dtype.kind in "iu" and len(sequences) > 0
    good = whole and bool((sequences[1:] > sequences[:-1]).all() and 0 <= sequences[0] < sequences[-1] < MOST_COUNT)
    good = good or (whole and len(sequences) == 1 and bool(0 < sequences[0] < MOST_COUNT))
    allowed = (
        f"its evaluations must be at whole numbers of sequences, increasing, the last from 1 and below {MOST_COUNT}"
    )
    require(good, "from", file, allowed)


def write_foreign(curves: ForeignCurves, out: Path) -> RunFolder:
    """The folder of a foreign run, written completely or not at all. Raises `InputError` where the curves are none that
    a run can have, or `out` exists."""
    curves.check()
    check_output_folder(out)
    require(not os.path.lexists(out), "out", str(out), "exists; give the name of a new folder")
    require(out.parent.is_dir(), "out", str(out), f"the folder {out.parent} does not exist")
    members, last = len(curves.values), int(curves.sequences[-1])
    counts = {"members": members, "sequences": last, "batch": curves.batch}
    spec = counts | {part: {} for part in PARTS} | ({"vary": curves.vary} if curves.vary else {})
    header = Header(
        schema=SCHEMA,
        digest=curves.digest,
        spec=spec,
        instruments=curves.instruments,
        metrics=curves.metrics,
        identity={},
        label={"kind": "foreign", "from": curves.file},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        foreign=curves.file,
    )
    temporary = out.with_name(TEMPORARY + out.name)
    if os.path.lexists(temporary):
        atomic.remove(temporary)
    try:
        writer = Writer(temporary, header)
        try:
            with np.errstate(over="ignore"):  # a loss may be infinite
                rows = {
                    "sequences": curves.sequences.astype(np.int64),
                    "train_loss": curves.train_loss.astype(np.float32),
                    "values": curves.values.astype(np.float32),
                }
            writer.commit(sequences=last, state={}, evaluations=rows, kept=True, finished=True, seconds=0.0)
        finally:
            writer.close()
        atomic.rename(temporary, out, "import")
    except BaseException:
        if os.path.lexists(temporary):
            atomic.remove(temporary)
        raise
    return RunFolder(out)


def check_file_name(path: Path) -> str:
    """The name of the file that is read, as run.json stores it. Raises `InputError` for one that cannot be shown."""
    name = path.resolve().name
    if not (name.isprintable() and 0 < len(name) <= 255):
        raise InputError("from", str(path), "has a name that is not printable")
    return name
