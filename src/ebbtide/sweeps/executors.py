"""Executors: where tasks are tried. An executor takes tasks, and reports how they ended."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ebbtide.errors import nearest, require
from ebbtide.sweeps.attempt import GRACE_SECONDS, Attempt, Outcome
from ebbtide.sweeps.sweep import Resources
from ebbtide.training.layout import cores

NAMES = ("local", "slurm", "slurm-local", "ray")
ELSEWHERE = ("slurm", "ray")
"""Executors whose tasks may run on other machines, with other files and more memory than this one."""


@runtime_checkable
class Executor(Protocol):
    """Tries tasks of one sweep somewhere. None of its methods waits for a task, except `stop`."""

    slots: int
    """Tasks that it can run at a time (a hint for the planner)."""

    def room(self) -> int:
        """The number of further tasks that it takes now."""
        ...

    def submit(self, tasks: list[str]) -> None:
        """Starts or queues these tasks."""
        ...

    def finished(self) -> list[tuple[str, Outcome]]:
        """The tasks that ended since the last call, with their outcomes."""
        ...

    def stop(self) -> int:
        """Lets running tasks save and end; returns how many still run after about a minute (they end by themselves)."""
        ...


class Local:
    """This machine: at most `jobs` tasks at a time, each in processes of its own."""

    def __init__(self, folder: Path, resources: Resources, jobs: int | None, code: Sequence[str] = ()):
        require(jobs is None or jobs >= 1, "jobs", jobs, "must be 1 or larger")
        self.folder, self.resources, self.code = folder, resources, code
        self.slots = jobs or max(1, 1 if resources.gpus else cores() // resources.cpus)
        self.active: dict[str, Attempt] = {}

    def room(self) -> int:
        return self.slots - len(self.active)

    def submit(self, tasks: list[str]) -> None:
        for task in tasks:
            self.active[task] = Attempt(self.folder, task, self.resources, self.code)

    def finished(self) -> list[tuple[str, Outcome]]:
        found = [(task, outcome) for task, one in self.active.items() if (outcome := one.poll()) is not None]
        for task, _ in found:
            del self.active[task]
        return found

    def stop(self) -> int:
        for one in self.active.values():
            one.ask_to_stop()
        until = time.monotonic() + GRACE_SECONDS  # for all together
        left = sum(not one.stop(until - time.monotonic()) for one in self.active.values())
        self.active.clear()
        return left


def trains_here(on: str | Executor) -> bool:
    """Whether an executor's tasks run on this machine."""
    if isinstance(on, str):
        return on not in ELSEWHERE
    return getattr(on, "here", True)


def check_name(name: str) -> None:
    """Raises `InputError` for an unknown executor."""
    require(name in NAMES, "executor", name, f"must be one of {', '.join(NAMES)}{nearest(name, NAMES)}")


def make_executor(
    name: str,
    folder: Path,
    resources: Resources,
    jobs: int | None = None,
    code: Sequence[str] = (),
    **options: Any,
) -> Executor:
    """The executor with this name. `jobs` is the most tasks that may run at a time (None: as many as fit); `code` names
    the files of the user that tasks need (`user_code.to_words`)."""
    check_name(name)
    if name == "local":
        return Local(folder, resources, jobs, code)
    if name == "ray":
        from ebbtide.sweeps.ray import Ray

        return Ray(folder, resources, jobs, code=code, **options)
    from ebbtide.sweeps.slurm import Slurm

    return Slurm(folder, resources, jobs, local=name == "slurm-local", code=code, **options)
