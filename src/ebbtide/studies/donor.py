"""A run that the arms of an experiment start from; it is trained before them."""

from pathlib import Path
from typing import NamedTuple

from msgspec import to_builtins

from ebbtide.errors import require
from ebbtide.runs.folder import HEADER, Run
from ebbtide.sweeps.axes import Point
from ebbtide.training.spec import Spec
from ebbtide.training.start import Start


class Donor(NamedTuple):
    """The run `spec` in the folder runs/NAME-DIGEST, where `ebbtide run STUDY --experiment NAME` trains it unless it is
    there. Member m of an arm starts from its member m; its `label` is what the run's header says."""

    name: str
    spec: Spec
    label: dict[str, str]

    @property
    def path(self) -> str:
        """The run's folder: the name tells which spec, so a changed one is another run."""
        return f"runs/{self.name}-{self.spec.digest()[:8]}"

    def start(self, sequences: int, parts: tuple[str, ...] = ("*",), skip: int = 0) -> Point:
        """The field of an arm that starts from the checkpoint at `sequences`, with the parameters that the globs
        `parts` name, of its model without the first `skip` layers."""
        return {"start": to_builtins(Start(run=self.path, sequences=sequences, parts=parts, skip=skip))}

    def graft(self, sequences: int, parts: tuple[str, ...], skip: int = 0) -> Point:
        """The fields of an arm that has these parts from the checkpoint, and leaves them as they are."""
        return self.start(sequences, parts, skip) | {"freeze": list(parts)}

    def ready(self) -> bool:
        """Whether the run is there and complete. Raises `InputError` when its folder holds another run."""
        if not (Path(self.path) / HEADER).exists():
            return False
        found = Run(self.path)
        allowed = "holds a run of another spec; move it away, and it will be trained"
        require(found.header.digest == self.spec.digest(), "donor", self.path, allowed)
        return found.status() == "complete"
