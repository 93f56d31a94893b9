"""The description of a sweep: a base spec, axes over its fields, and the resources of each task."""

import itertools
import math
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from ebbtide.errors import InputError, one_line, require
from ebbtide.places import working_folder
from ebbtide.sweeps.axes import MOST_POINTS, Axis, Point, product, repeated
from ebbtide.sweeps.bases import preset_of
from ebbtide.training.fields import assign_all, explain, in_full
from ebbtide.training.spec import Spec, from_builtins

LARGEST_FILE = 10_000_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The resources of one task, on every executor.

    `cpus` worker processes of one thread train its members; with `gpus` (or other accelerators) one process does.
    `memory_gb`, `minutes` (wall time) and `partition` are for the cluster's scheduler; `slurm` and `ray` hold further
    options that are passed on unchanged.

    >>> eb.Resources(cpus=4, minutes=60).gpus
    0
    """

    cpus: Positive = 1
    gpus: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory_gb: Annotated[float, msgspec.Meta(gt=0)] | None = None
    minutes: Positive = 240
    partition: str | None = None
    slurm: dict[str, Any] = {}
    ray: dict[str, Any] = {}


OF_A_FOLDER = ("resolved", "origin", "made_in")
"""Fields that only the description in a sweep's folder has."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The experiment of `Sweep.study` that made a sweep, and its preset; `arms` name equal parts of the points, in
    their order."""

    experiment: str
    preset: str
    arms: tuple[str, ...]


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A grid of members: the product of `axes` over the fields of a base spec.

    Args:
        name: the name of the sweep, also of its folder.
        study: the study whose preset is the base; None: the default spec.
        preset: the name of the study's preset.
        base: fields that are set in the base, by dotted name.
        axes: the axes; an axis may set any field except `members` and `vary`, since every point becomes a member.
        resources: what each task asks of a cluster.
        task_minutes: the training time of one task, in minutes, by which members are grouped into tasks.
        task_members: the number of members of one task, in place of `task_minutes` (for accelerators, which train many
            side by side).
        tries: the number of tries without progress after which a task is set aside.
        resolved: the complete base at the time when the sweep's folder was made, so that a later change of the study's
            preset does not change the sweep; written to a sweep's own folder only, as are the next two.
        origin: the experiment that made the sweep.
        made_in: the working folder to which relative paths in the specs refer.

    >>> sweep = eb.Sweep(name="rates", axes=(eb.Axis(field="optimizer.lr", values=[1e-3, 1e-4]), eb.Axis(seeds=3)))
    >>> sweep.size(), sweep.fields()
    (6, ['optimizer.lr', 'seeds.member'])
    """

    name: str
    study: str | None = None
    preset: str = "quick"
    base: dict[str, Any] = {}
    axes: tuple[Axis, ...] = ()
    resources: Resources = Resources()
    task_minutes: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    task_members: Positive | None = None
    tries: Positive = 3
    resolved: dict[str, Any] | None = None
    origin: Origin | None = None
    made_in: str | None = None

    def check(self) -> None:
        """Raises `InputError` in one line if this describes no grid. The specs themselves are checked with the plan."""
        allowed = "must be 1 to 64 letters, digits, '-', '_' or '.', and begin with a letter or digit"
        require(bool(NAME.fullmatch(self.name)), "name", self.name, allowed)
        for i, axis in enumerate(self.axes):
            axis.check(f"axes.{i}")
        names = [name for axis in self.axes for name in dict.fromkeys(axis.every_field())]
        twice = repeated(names)
        require(not twice, "axes", ", ".join(twice), "is a field of two axes; join them by zip or chain")
        for name in ("members", "vary"):
            taken = name in self.base or name in names
            require(not taken, name, "given", "is made by the sweep; use axes (seeds = 4) in its place")
        require(self.size() <= MOST_POINTS, "axes", self.size(), f"points; at most {MOST_POINTS}")
        self.spec()

    def size(self) -> int:
        """The number of points."""
        return math.prod(axis.size() for axis in self.axes)

    def fields(self) -> list[str]:
        """The fields that differ between points, in the order of the axes: the columns of the table."""
        return list(dict.fromkeys(name for axis in self.axes for name in axis.every_field()))

    def points(self) -> list[Point]:
        """All points in the canonical order: the last axis runs fastest."""
        return list(itertools.islice(product(self.axes), MOST_POINTS))

    def spec(self) -> Spec:
        """The base spec."""
        return from_builtins(self.builtins())

    def builtins(self) -> dict[str, Any]:
        """The base spec in builtins, for `assign_all`."""
        if self.resolved is not None:
            return from_builtins(self.resolved).builtins()
        spec = Spec()
        if self.study is not None:
            spec = preset_of(self.study, self.preset)
        data = replace(spec, members=1, vary={}).builtins()
        assign_all(Spec, data, self.base)
        return data

    def resolve(self) -> "Sweep":
        """This sweep with its complete base and the working folder, for its own folder; a class in a user's file is
        written with the file's hash."""
        if self.resolved is not None:
            return self
        base = {name: in_full(name, value) for name, value in self.base.items()}
        axes = tuple(_in_full(axis) for axis in self.axes)
        return replace(self, base=base, axes=axes, resolved=self.spec().builtins(), made_in=working_folder())

    def standalone(self) -> "Sweep":
        """The same grid described without a study, so that no change of a preset can alter it."""
        base = {name: value for name, value in self.builtins().items() if name not in ("members", "vary")}
        return replace(self, study=None, preset="quick", base=base, **dict.fromkeys(OF_A_FOLDER))

    def to_json(self) -> bytes:
        """Canonical JSON of the description, which `read_sweep` can read."""
        described = replace(self, **dict.fromkeys(OF_A_FOLDER))
        return msgspec.json.format(msgspec.json.encode(described, order="sorted"), indent=1)


def _in_full(axis: Axis) -> Axis:
    """An axis whose values are written in full (`fields.in_full`)."""
    inner = {way: getattr(axis, way) for way in ("zip", "product", "chain")}
    found: dict[str, Any] = {way: tuple(map(_in_full, parts)) for way, parts in inner.items() if parts}
    if axis.values is not None:
        found["values"] = [in_full(str(axis.field), value) for value in axis.values]
    return replace(axis, **found)


def read_sweep(path: str | os.PathLike[str]) -> Sweep:
    r"""The sweep in a `.toml` or `.json` file, checked.

    A sweep written in Python is a script of its own, which makes a `Sweep` and calls `run_sweep`; this function never
    executes a file. Raises `InputError` in one line when the file cannot be read as a sweep.

    >>> from pathlib import Path
    >>> text = 'name = "rates"\n[[axes]]\nfield = "optimizer.lr"\nvalues = [1e-3, 1e-4]\n'
    >>> _ = Path("rates.toml").write_text(text)
    >>> eb.read_sweep("rates.toml").size()
    2
    """
    file = Path(path)
    scripts = f"a sweep in Python is a script that calls ebbtide.run_sweep(ebbtide.Sweep(...), folder): python {file}"
    require(file.suffix != ".py", "sweep", str(file), scripts)
    require(file.suffix in (".toml", ".json"), "sweep", str(file), "must be a .toml or .json file")
    require(file.is_file(), "sweep", str(file), "no such file")
    require(file.stat().st_size <= LARGEST_FILE, "sweep", str(file), f"is larger than {LARGEST_FILE} bytes")
    try:
        text = file.read_bytes().decode()
        data = tomllib.loads(text) if file.suffix == ".toml" else msgspec.json.decode(text)
    except (tomllib.TOMLDecodeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("sweep", str(file), one_line(f"is not {file.suffix[1:].upper()}: {error}")) from error
    sweep = from_data(data)
    for name in OF_A_FOLDER:
        given = getattr(sweep, name)
        require(given is None, name, given, "is written by ebbtide into a sweep's folder; use study, preset and base")
    sweep.check()
    return sweep


def from_data(data: Any) -> Sweep:
    """The sweep in dicts, lists and scalars. Raises `InputError` in one line for invalid data."""
    try:
        return msgspec.convert(data, Sweep)
    except msgspec.ValidationError as error:
        raise explain(error, data, Sweep) from error
