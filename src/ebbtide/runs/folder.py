"""Reading a run folder: its checkpoints, evaluations and status. See README.md beside this file."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ebbtide.errors import InputError
from ebbtide.runs import lock
from ebbtide.runs.atomic import TEMPORARY
from ebbtide.runs.reading import ITEM, LARGEST_HEADER, Layout, check_record, load_record
from ebbtide.runs.records import CHECKPOINTS, HEADER, Checkpoint, Manifest, Segment, read_header, read_manifest
from ebbtide.runs.signed import DamagedError

LETTERS = {"<i8": "I64", "<f4": "F32"}
"""Element types of a segment's arrays: NumPy's name and safetensors'."""
CHECKPOINT_NAME = re.compile(r"[0-9]{12}")


class Snapshot(NamedTuple):
    """A run at one moment: its folder, and the SHA-256 of its newest checkpoint's state. As a cache key it tells apart
    two runs that were made in the same folder one after the other."""

    path: Path
    state: str


class UnreadableRun(NamedTuple):
    """A run folder whose run.json cannot be read, with the reason."""

    path: Path
    reason: str


class RunFolder:
    """A run folder, read only: its files without the spec and the models in them, which `eb.Run` adds. It shows what is
    committed, also while the run is being written. Raises `InputError` when the folder is no run folder.

    >>> run = eb.Run("runs/tiny")
    >>> run.status(), run.sequences(), run.metrics()["icl"].shape
    ('complete', 64, (1, 2))
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.header = read_header(self.path)

    def manifests(self) -> Iterator[Checkpoint]:
        """Checkpoints whose manifest is intact, newest first. The files that a manifest names are not read."""
        names = checkpoint_names(self.path)
        fresh = True
        while names:
            path = self.path / CHECKPOINTS / names.pop()
            try:
                manifest = read_manifest(path)
            except DamagedError:
                if fresh and not path.is_dir():  # a rolling one, dropped since we looked: a newer one is there
                    names = checkpoint_names(self.path)
                continue
            yield path, manifest
            fresh = False

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint of which every file verifies; None where there is none."""
        while True:
            for path, manifest in self.manifests():
                try:
                    self.verify(manifest)
                    return path, manifest
                except DamagedError:
                    if not path.is_dir():  # dropped since we looked: look again
                        break
            else:
                return None

    def snapshot(self) -> Snapshot:
        """The run as it is now, as a cache key."""
        return Snapshot(self.path, next((manifest.state.sha256 for _, manifest in self.manifests()), ""))

    def verify(self, manifest: Manifest) -> None:
        """Raises `DamagedError` unless the state and all segments match the manifest."""
        self.check_belongs(manifest)
        for segment in manifest.segments:
            self.check_segment(segment)
        layouts = check_record(self.path, manifest.state)
        self.check_state(manifest, {name: one.shape for name, one in layouts.items()})

    def check_belongs(self, manifest: Manifest) -> None:
        """Raises `DamagedError` when the manifest belongs to another spec."""
        if manifest.digest != self.header.digest:
            raise DamagedError(f"checkpoint {manifest.sequences}: belongs to another spec")

    def check_segment(self, segment: Segment) -> None:
        """Raises `DamagedError` unless the segment's file verifies and holds its rows in the shape of this run."""
        if check_record(self.path, segment.file) != self._layouts(segment):
            raise self._misfit(segment)

    def _layouts(self, segment: Segment) -> dict[str, Layout]:
        """Element types and shapes of the arrays of a segment."""
        head, rows = self.header, segment.last + 1 - segment.first
        members = head.spec["members"]
        return {
            "sequences": Layout("I64", (rows,)),
            "train_loss": Layout("F32", (members, rows)),
            "values": Layout("F32", (members, rows, len(head.instruments), len(head.metrics), 2)),
        }

    def _misfit(self, segment: Segment) -> DamagedError:
        rows = segment.last + 1 - segment.first
        return DamagedError(f"{segment.file.path}: does not hold {rows} rows of this run's evaluations")

    def check_state(self, manifest: Manifest, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raises `DamagedError` unless every array of the state has a leading axis over the members."""
        members = self.header.spec["members"]
        for name, shape in shapes.items():
            if shape[:1] != (members,):
                raise DamagedError(f"{manifest.state.path}: {name[:60]!r} is not an array over {members} members")

    def sequences(self) -> int:
        """Number of sequences that each member was trained on at the newest checkpoint (0 before the first)."""
        return next((m.sequences for _, m in self.manifests()), 0)

    def running(self) -> bool:
        """Whether a process holds the folder's lock now."""
        return lock.holder(self.path) is not None

    def status(self) -> str:
        """`complete`, `running` or `interrupted`: derived from the folder, never stored."""
        newest = next(self.manifests(), None)
        if newest and newest[1].finished:
            return "complete"
        return "running" if self.running() else "interrupted"

    def arrays(self) -> dict[str, np.ndarray]:
        """The committed evaluations as stored: `sequences` [row], `train_loss` [member, row] and `values` [member, row,
        evaluator, metric, (mean, standard error)].

        Raises `DamagedError` when a committed segment does not verify.
        """
        newest = next(self.manifests(), None)
        if newest is None or not newest[1].segments:
            raise InputError("run", str(self.path), "has no committed evaluation yet")
        self.check_belongs(newest[1])
        parts = []
        for segment in newest[1].segments:
            parts.append(self.load_segment(segment))
        return join_segments(parts)

    def load_segment(self, segment: Segment) -> dict[str, np.ndarray]:
        """The rows of one segment, in the form of `arrays`. Raises `DamagedError` when it does not verify."""
        needed = self._layouts(segment)
        if segment.file.size > LARGEST_HEADER + sum(ITEM[one.dtype] * math.prod(one.shape) for one in needed.values()):
            raise self._misfit(segment)  # before memory is taken for it
        arrays = load_record(self.path, segment.file)
        found = {name: Layout(LETTERS.get(one.dtype.str, ""), one.shape) for name, one in arrays.items()}
        if found != needed:
            raise self._misfit(segment)
        return arrays

    def metrics(self) -> dict[str, np.ndarray]:
        """The curves of a run by name.

        `sequences` and `steps` [evaluation]; `train_loss` [member, evaluation], the mean loss of the training batches
        since the previous evaluation (nats; nan at 0); and for every evaluator E the curve `E` (its headline metric),
        `E/error` (the standard error of that mean over the evaluation sequences), `E/metric` and `E/metric/error` for
        every metric, all [member, evaluation].

        Raises `DamagedError` when a committed segment does not verify, `InputError` before the first evaluation.
        """
        return self.name_curves(self.arrays())

    def name_curves(self, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The curves of `metrics` from rows in the form of `arrays`."""
        out = {"sequences": raw["sequences"], "steps": raw["sequences"] // self.header.spec["batch"]}
        out["train_loss"] = raw["train_loss"]
        for i, one in enumerate(self.header.instruments):
            for j, metric in enumerate(self.header.metrics):
                out[f"{one.name}/{metric}"] = raw["values"][:, :, i, j, 0]
                out[f"{one.name}/{metric}/error"] = raw["values"][:, :, i, j, 1]
            out[one.name] = out[f"{one.name}/{one.headline}"]
            out[f"{one.name}/error"] = out[f"{one.name}/{one.headline}/error"]
        return out

    def check_has_models(self) -> None:
        """Raises `InputError` for a foreign run, which has curves alone."""
        if self.header.foreign:
            raise InputError("run", str(self.path), "is foreign: it has curves alone, no spec and no models")

    def best(self) -> dict[str, np.ndarray]:
        """The best model of every member by the headline metric of `keep_best`, as of the newest intact checkpoint.

        `value` (that metric), `sequences` (when it was reached; -1: no evaluation was a number), `stopped_at` (when
        early stopping stopped the member, in sequences; -1: it did not) and the parameters by dotted name, all with a
        leading axis over the members. Raises `InputError` when no checkpoint is intact or the run is foreign, and
        `DamagedError` when the state lacks these arrays.
        """
        self.check_has_models()
        newest = self.latest()
        if newest is None:
            raise InputError("run", str(self.path), "has no good checkpoint")
        state = load_record(self.path, newest[1].state)
        watched = {"value": "best_value", "sequences": "best_at", "stopped_at": "stopped_at"}
        lacking = [key for key in watched.values() if f"watch.{key}" not in state]
        if lacking:
            raise DamagedError(f"{newest[1].state.path}: holds no watch.{lacking[0]}")
        out = {name: state[f"watch.{key}"] for name, key in watched.items()}
        return out | {name.removeprefix("best."): v for name, v in state.items() if name.startswith("best.")}

    def chance(self) -> dict[str, float]:
        """The chance level of every evaluator's headline metric, where it is known."""
        return {one.name: one.chance for one in self.header.instruments if one.chance is not None}


def join_segments(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of several segments in one, in the form of `RunFolder.arrays`."""
    axis = {"sequences": 0, "train_loss": 1, "values": 1}
    return {name: np.concatenate([p[name] for p in parts], axis=a) for name, a in axis.items()}


def inside(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name; none when there is no such folder. Raises `OSError` when there is one
    and it cannot be listed (no permission, too many open files): that says nothing of what is in it."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def checkpoint_names(folder: Path) -> list[str]:
    """The names of all checkpoint folders of a run, oldest first."""
    return [p.name for p in inside(folder / CHECKPOINTS) if CHECKPOINT_NAME.fullmatch(p.name)]


def list_runs(folder: Path) -> list[RunFolder | UnreadableRun]:
    """All runs directly inside `folder`, by name; entries that are no run folder are skipped."""
    if not folder.is_dir():
        return []
    runs: list[RunFolder | UnreadableRun] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(TEMPORARY):
            continue
        try:
            if (path / HEADER).is_file():
                runs.append(RunFolder(path))
        except InputError as error:
            runs.append(UnreadableRun(path, error.allowed))
        except OSError as error:  # closed to this user
            runs.append(UnreadableRun(path, error.strerror or "cannot be read"))
    return runs
