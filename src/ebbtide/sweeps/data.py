"""A check that all tasks of a sweep read the same data: members are identified by specs, which hold only file names."""

from collections import defaultdict

from ebbtide.errors import InputError, one_line
from ebbtide.runs.identity import INPUT_NAME
from ebbtide.runs.signed import DamagedError
from ebbtide.sweeps.folder import SweepFolder

MOST_NAMED = 8
"""Largest number of tasks that a sentence names for one content of a file."""


def different_data(folder: SweepFolder) -> list[str]:
    """A sentence for every data file, and every checkpoint to start from, whose content differed between tasks, or
    before and after an interruption. Runs that do not record their data are skipped."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for task in sorted(folder.specs):
        try:
            run = folder.run(task)
            later = [manifest.identity for _, manifest in run.manifests()] if run else []
        except (InputError, DamagedError, OSError):
            continue
        if run is None:
            continue
        start = run.header.spec.get("start")
        origin = f"{start.get('run')} at {start.get('sequences')} sequences" if isinstance(start, dict) else ""
        for identity in (run.header.identity, *later):
            names = {"source_sha256": str(identity.get(INPUT_NAME)), "start_sha256": origin}
            for key, name in names.items():
                if key in identity and task not in found[name][one_line(str(identity[key]))]:
                    found[name][one_line(str(identity[key]))].append(task)
    return [_sentence(name, contents) for name, contents in found.items() if len(contents) > 1]


def _sentence(name: str, contents: dict[str, list[str]]) -> str:
    each = [f"{digest[:12]} in {_name_tasks(tasks)}" for digest, tasks in contents.items()]
    return f"{one_line(name)} had other content in some tasks than in others (SHA-256): {'; '.join(each)}"


def _name_tasks(tasks: list[str]) -> str:
    more = len(tasks) - MOST_NAMED
    return ", ".join(tasks[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
