"""A run folder read as it grows: of every commit only the evaluations that are new."""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ebbtide.errors import require
from ebbtide.runs.folder import RunFolder, checkpoint_names
from ebbtide.runs.reading import load_record
from ebbtide.runs.records import CHECKPOINTS, MANIFEST, Segment

State = Literal["running", "interrupted", "complete"]


class Tail:
    """What is committed of a run, as of the last `read`: `sequences` [evaluation], `loss` [member, evaluation] and
    `values` [member, evaluation, evaluator, metric], means without their standard errors.

    `finished` says that the run has ended. Raises `InputError` when the folder is no run folder.
    """

    def __init__(self, path: Path):
        self.run = RunFolder(path)
        self.header = self.run.header
        self._segments: list[Segment] = []
        self._seen: tuple[str, int, int] | None = None
        self._forget()

    def _forget(self) -> None:
        head, self._segments, self.finished = self.header, [], False
        members = head.spec["members"]
        self.sequences: Int[np.ndarray, " evaluation"] = np.zeros(0, np.int64)
        self.loss: Float[np.ndarray, "member evaluation"] = np.zeros((members, 0), np.float32)
        self.values: Float[np.ndarray, "member evaluation evaluator metric"] = np.zeros(
            (members, 0, len(head.instruments), len(head.metrics)), np.float32
        )

    def read(self) -> bool:
        """Reads what was committed since the last call; whether there was something.

        Only segments that were not read before are opened. A run whose newest checkpoint was damaged goes on from an
        older one and makes the later evaluations again; then everything is read anew. Raises `DamagedError` when a new
        segment does not verify, `InputError` when the folder has become another run's.
        """
        now = self._newest_name()
        if now is None or now == self._seen:
            return False
        newest = next(self.run.manifests(), None)
        if newest is None:
            return False
        manifest = newest[1]
        if manifest.segments[: len(self._segments)] != self._segments:
            head = RunFolder(self.run.path).header
            same = (head.digest, head.created) == (self.header.digest, self.header.created)
            require(same, "run", str(self.run.path), "has become another run; start anew")
            self._forget()
        self.run.check_belongs(manifest)
        new = manifest.segments[len(self._segments) :]
        for segment in new:
            self.run.check_segment(segment)
        arrays = [load_record(self.run.path, segment.file) for segment in new]
        self.sequences = np.concatenate([self.sequences, *(one["sequences"] for one in arrays)])
        self.loss = np.concatenate([self.loss, *(one["train_loss"] for one in arrays)], axis=1)
        self.values = np.concatenate([self.values, *(one["values"][..., 0] for one in arrays)], axis=1)
        self._segments += new
        self.finished = manifest.finished
        self._seen = now
        return True

    def _newest_name(self) -> tuple[str, int, int] | None:
        """Name, time and file number of the newest checkpoint's manifest: while they stay, nothing was committed."""
        names = checkpoint_names(self.run.path)
        try:
            found = (self.run.path / CHECKPOINTS / names[-1] / MANIFEST).stat() if names else None
        except OSError:  # dropped since it was listed: a newer one is there
            return ("", 0, 0)
        return (names[-1], found.st_mtime_ns, found.st_ino) if found else None

    def state(self) -> State:
        """Reads, and says whether the run is being written, has ended, or was left before its end."""
        writing = self.run.running()  # asked first: a writer that ends in between has committed its last checkpoint
        self.read()
        return "complete" if self.finished else "running" if writing else "interrupted"

    def curves(self, member: int | slice = slice(None)) -> dict[str, Float[np.ndarray, "*member evaluation"]]:
        """The curves of a member (or of all) by the names of `Run.metrics`, without `sequences`, `steps` and the
        standard errors."""
        out = {"train_loss": self.loss[member]}
        for i, one in enumerate(self.header.instruments):
            for j, metric in enumerate(self.header.metrics):
                out[f"{one.name}/{metric}"] = self.values[member, :, i, j]
            out[one.name] = out[f"{one.name}/{one.headline}"]
        return out
