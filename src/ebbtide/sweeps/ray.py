"""Tasks on a Ray cluster: one Ray task is one try of one task.

Ray places the tasks and reports lost workers and nodes; retries are decided by the sweep's driver. Members train for
minutes, so one Ray task never is a single tiny model.
"""

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebbtide.errors import InputError, one_line
from ebbtide.sweeps.attempt import Attempt, Outcome
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.sweep import Resources

STOP_SECONDS = 90.0
POLL_SECONDS = 0.1
RAY_ADDRESS = "RAY_ADDRESS"


class Ray:
    """A Ray cluster: the one that RAY_ADDRESS or `address` names, or one started on this machine for this driver."""

    here = False

    def __init__(
        self,
        folder: Path,
        resources: Resources,
        jobs: int | None,
        address: str | None = None,
        code: Sequence[str] = (),
    ):
        """Raises `InputError` when Ray is not installed, the cluster cannot be reached, or an option is unknown."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise InputError("executor", "ray", "needs Ray: pip install 'ebbtide[ray]'") from error
        self.ray: Any = ray
        self.folder, self.resources, self.jobs, self.code = folder.absolute(), resources, jobs, tuple(code)
        self.ours = not ray.is_initialized()
        if self.ours:
            where = address or os.environ.get(RAY_ADDRESS)
            try:
                dashboard = None if where else False  # none of a cluster of our own
                ray.init(address=where, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(RAY_ADDRESS, where, one_line(str(error))) from error
        options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": 0}
        if resources.memory_gb is not None:
            options["memory"] = int(resources.memory_gb * 1e9)
        try:
            self._try = ray.remote(_try).options(**(options | resources.ray))
        except (ValueError, TypeError) as error:
            raise InputError("resources.ray", resources.ray, one_line(str(error))) from error
        fits = int(ray.cluster_resources().get("CPU", 1) // resources.cpus)
        self.slots = jobs or max(1, fits)
        self.active: dict[Any, str] = {}

    def room(self) -> int:
        return self.slots - len(self.active)

    def submit(self, tasks: list[str]) -> None:
        for task in tasks:
            self.active[self._try.remote(str(self.folder), task, self.resources, self.code)] = task

    def finished(self) -> list[tuple[str, Outcome]]:
        if not self.active:
            return []
        done, _ = self.ray.wait(list(self.active), num_returns=len(self.active), timeout=0)
        return [(task, self._outcome(task, one)) for one in done for task in [self.active.pop(one)]]

    def stop(self) -> int:
        """Lets running tasks save and end; returns how many have not after a minute and a half (they end by
        themselves)."""
        for one in self.active:
            self.ray.cancel(one, force=False)  # an exception in the worker: the task saves and ends
        left = []
        if self.active:
            _, left = self.ray.wait(list(self.active), num_returns=len(self.active), timeout=STOP_SECONDS)
        self.active.clear()
        if self.ours:
            self.ray.shutdown()
        return len(left)

    def _outcome(self, task: str, one: Any) -> Outcome:
        """The outcome that the task returned; a lost worker or node returns none, so the failure is recorded here."""
        try:
            return Outcome(*self.ray.get(one))
        except self.ray.exceptions.TaskCancelledError as error:
            return Outcome("stopped", str(error))
        except self.ray.exceptions.RayError as error:
            text = str(error)[-4000:]
            SweepFolder(self.folder).note(task, "killed", text)
            return Outcome("killed", text)


def _try(folder: str, task: str, resources: Resources, code: Sequence[str]) -> tuple[str, str]:
    """The try of a task inside a Ray worker; when Ray cancels it, the task saves first."""
    # Ray cancels by an interrupt, and its workers inherit SIGINT as ignored where a shell started us in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    attempt = Attempt(Path(folder), task, resources, code)
    try:
        outcome = attempt.wait()
        assert outcome is not None
        return outcome.kind, outcome.text
    finally:
        if attempt.running():
            attempt.stop()
