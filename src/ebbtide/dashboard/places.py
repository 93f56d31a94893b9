"""Names of folders below a root: what a browser may ask for, and where it lies. No name leads out of the root."""

import os
from pathlib import Path
from typing import NamedTuple

from ebbtide.errors import InputError, require, visible
from ebbtide.runs.records import HEADER

SWEEP, COMPUTED = "sweep.json", "computed.json"
MARKS = (COMPUTED, SWEEP, HEADER)
"""Files of which one says what a folder is, the first that is there."""
RUNS, PLANS, FAILURES = "runs", "plans", "failures"
"""Folders of a sweep: the runs of its tasks, the plans, the failed tries."""
PROBES = "probes"
"""Folder of a run that holds what `ebbtide probe` wrote."""
LONGEST_NAME = 600
"""Largest number of characters of a name that is looked up."""
OUTSIDE = "is a link that leads out of the root; it is not followed"


class NotThereError(InputError):
    """A name of which there is no folder below the root."""


class Root(NamedTuple):
    """The folder that is shown: `path` without links, `given` as the user wrote it."""

    path: Path
    given: str

    def find(self, name: str) -> Path:
        """The run, sweep or computation of this name: a folder of the root, or `SWEEP/runs/TASK`.

        Raises `InputError` for a name that can be no folder's, `NotThereError` where there is no folder of this name,
        and `InputError` where it is a link that leads out of the root.
        """
        parts = check_name(name)
        path = self.path.joinpath(*parts)
        try:
            real = path.resolve(strict=True)
            there = real.is_dir()
        except (OSError, RuntimeError, ValueError) as error:  # missing, closed, a circle of links
            raise NotThereError("name", name, "no such folder in the root") from error
        require(real.is_relative_to(self.path) and real != self.path, "name", name, OUTSIDE)
        if not there:
            raise NotThereError("name", name, "no such folder in the root")
        return path

    def leads_out(self, path: str | os.PathLike[str]) -> bool:
        """Whether something below the root is a link to a place outside of it."""
        return not Path(os.path.realpath(path)).is_relative_to(self.path)

    def check_runs_of(self, sweep: Path) -> None:
        """Raises `InputError` when the runs of a sweep are links that lead out of the root: whoever reads the sweep
        would follow them."""
        try:
            links = [sweep / RUNS] if (sweep / RUNS).is_symlink() else []
            with os.scandir(sweep / RUNS) as found:
                links += [Path(one.path) for one in found if one.is_symlink()]
        except OSError:
            links = []
        bad = [one.name for one in links if self.leads_out(one)]
        require(not bad, "sweep", sweep.name, f"{visible(bad[0]) if bad else ''} {OUTSIDE}")


def root_at(given: str, missing: bool = False) -> Root:
    """The root at a path; with `missing` it need not be there yet. Raises `InputError` for what is no folder, or is
    itself a run or a sweep."""
    path = Path(given)
    require("\0" not in given and (path.is_dir() or (missing and not path.exists())), "root", given, "no such folder")
    real = path.resolve()
    own = [name for name in MARKS if (real / name).exists()]
    what = f"is itself a run or sweep (it has {own[0] if own else ''}); give the folder that holds it"
    require(not own, "root", given, what)
    return Root(real, given)


def check_name(name: str) -> list[str]:
    """The parts of a name. Raises `InputError` for a name that can be no folder's: absolute, with empty, hidden or `..`
    parts, with characters that cannot be printed."""
    parts = name.split("/")
    allowed = "must be the name of a folder in the root, or SWEEP/runs/TASK"
    sound = 0 < len(name) <= LONGEST_NAME and is_plain(name) and "\\" not in name
    sound = sound and all(part and not part.startswith(".") for part in parts)
    require(sound and (len(parts) == 1 or (len(parts) == 3 and parts[1] == RUNS)), "name", name, allowed)
    return parts


def names_in(folder: Path) -> list[str]:
    """The names of a folder's entries. Raises `OSError` where it cannot be read."""
    with os.scandir(folder) as found:
        return [one.name for one in found]


def is_plain(name: str) -> bool:
    """Whether a name can be shown and asked for as it is: every character is printable."""
    return name.isprintable()
