"""A run that the arms of an experiment start from; it is trained before them."""

from pathlib import Path
from typing import Any, NamedTuple

from msgspec import to_builtins

from ebbtide.errors import require
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.records import HEADER
from ebbtide.sweeps.axes import Point
from ebbtide.training.fields import assign_all, value_in
from ebbtide.training.spec import Spec, from_builtins
from ebbtide.training.start import Start

SHARED = ("source", "task", "model", "optimizer", "batch", "distinct")
"""Fields that a donor has in common with its arms. How long it trains, what watches it and where it keeps checkpoints
are its own."""
SEEDS = ("seeds.init", "seeds.data", "seeds.evaluation")
WORLD = "seeds.world"


class Donor(NamedTuple):
    """The run `spec` in the folder runs/NAME-DIGEST, where `ebbtide run STUDY --experiment NAME` trains it unless it is
    there. A member of an arm starts from its member of the same number; its `label` is what the run's header says."""

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

    def overridden(self, base: dict[str, Any], owned: set[str], overrides: Point) -> "Donor":
        """The donor of arms of which a user has changed fields; `base` is the arms' spec without `overrides`, in
        builtins, `owned` are fields that arms have values of their own for. A field of `SHARED` in which donor and arms
        agree is changed in the donor too, unless arms own it, and so is the world; a seed is moved by as much as the
        arms' is, so that two different streams stay different. Raises `InputError` for a struct of which arms own a
        field."""
        own = self.spec.builtins()
        both: Point = {}
        for name, value in overrides.items():
            mine, theirs = value_in(own, name), value_in(base, name)
            if name in SEEDS and isinstance(value, int | float):
                both[name] = value + mine - theirs
            elif (name == WORLD or name.partition(".")[0] in SHARED) and mine == theirs and name not in owned:
                parts = sorted(one for one in owned if one.startswith(f"{name}."))
                allowed = (
                    f"cannot be given whole: arms have {', '.join(parts)} of their own; give its fields one by one"
                )
                require(not parts, name, value, allowed)
                both[name] = value
        assign_all(Spec, own, both)
        spec = from_builtins(own)
        if spec == self.spec:
            return self
        preset = self.label.get("preset")
        return self._replace(spec=spec, label=self.label | ({"preset": f"{preset}*"} if preset else {}))

    def ready(self) -> bool:
        """Whether the run is there and complete. Raises `InputError` when its folder holds another run."""
        if not (Path(self.path) / HEADER).exists():
            return False
        found = RunFolder(self.path)
        allowed = "holds a run of another spec; move it away, and it will be trained"
        require(found.header.digest == self.spec.digest(), "donor", self.path, allowed)
        return found.status() == "complete"
