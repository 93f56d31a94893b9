"""Tasks as SLURM jobs by submitit, or as submitit's local jobs, with which this is tested without a cluster.

A job tries one task, as in every executor. When it is preempted or out of time, the task saves and the job is queued
again. Outcomes are read from the sweep's folder and from a record that the job leaves there, never from pickles.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ebbtide.errors import InputError, one_line
from ebbtide.runs.atomic import write_file
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import DamagedError
from ebbtide.sweeps.attempt import Attempt, Outcome
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.sweep import Resources
from ebbtide.training.layout import cores

FOLDER, JOBS = "submitit", "jobs.json"
QUEUED = 16
"""Tasks assumed to run at a time on a cluster, where `jobs` is not given."""
TIMEOUTS = 1000
"""Largest number of times that a job may run out of time and be queued again."""
LARGEST_RECORD = 2**24
STOP_SECONDS = 90.0


class Job:
    """The callable that submitit runs: one try of one task. It holds only names and numbers, so that it can be queued
    again."""

    def __init__(self, folder: str, task: str, resources: Resources, code: Sequence[str] = ()):
        self.folder, self.task, self.resources, self.code = folder, task, resources, tuple(code)
        self._attempt: Attempt | None = None

    def __call__(self) -> str:
        """Tries the task and leaves a record of the outcome."""
        self._attempt = Attempt(Path(self.folder), self.task, self.resources, self.code)
        outcome = self._attempt.wait()
        assert outcome is not None
        write_file(_record(Path(self.folder), self.task), msgspec.json.encode(outcome))
        return outcome.kind

    def checkpoint(self) -> Any:
        """The job to queue again. submitit calls this when the job is preempted or out of time; the task saves."""
        from submitit.helpers import DelayedSubmission

        if self._attempt is not None:
            self._attempt.stop()
        return DelayedSubmission(Job(self.folder, self.task, self.resources, self.code))


class Slurm:
    """SLURM, or with `local` submitit's processes on this machine.

    Jobs of a cluster outlive the driver: a driver that is started again finds those that are still queued or running.
    """

    def __init__(self, folder: Path, resources: Resources, jobs: int | None, *, local: bool, code: Sequence[str] = ()):
        """Raises `InputError` when submitit or SLURM is not installed, or does not know an option."""
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise InputError("executor", "slurm", "needs submitit: pip install 'ebbtide[slurm]'") from error
        self.folder, self.resources, self.local, self.jobs = folder.absolute(), resources, local, jobs
        self.here, self.code = local, code
        kind = submitit.LocalExecutor if local else submitit.SlurmExecutor
        try:
            self._executor: Any = kind(self.folder / FOLDER / "%j", max_num_timeout=TIMEOUTS)
        except RuntimeError as error:
            raise InputError("executor", "slurm", one_line(str(error))) from error
        try:
            self._executor.update_parameters(**(self._local_parameters() if local else self._parameters()))
        except (ValueError, TypeError) as error:
            raise InputError("resources.slurm", resources.slurm, one_line(str(error))) from error
        self.slots = jobs or (max(1, cores() // resources.cpus) if local else QUEUED)
        self.active: dict[str, Any] = {}
        if not local:
            self._adopt()

    def room(self) -> int:
        return self.slots - len(self.active) if self.local else 1_000_000

    def submit(self, tasks: list[str]) -> None:
        """Queues one array job for all tasks; tasks that an earlier driver queued are left alone."""
        fresh = [task for task in tasks if task not in self.active]
        for task in fresh:
            _record(self.folder, task).unlink(missing_ok=True)
        jobs = [Job(str(self.folder), task, self.resources, self.code) for task in fresh]
        if not jobs:
            return
        if self.local:  # submitit's local jobs start at once, one by one
            self.active |= {task: self._executor.submit(job) for task, job in zip(fresh, jobs, strict=True)}
            return
        self.active |= dict(zip(fresh, self._executor.submit_array(jobs), strict=True))
        known = {task: job.job_id for task, job in self.active.items()}
        write_file(self.folder / FOLDER / JOBS, msgspec.json.encode(known))

    def finished(self) -> list[tuple[str, Outcome]]:
        ended = [task for task, job in self.active.items() if _record(self.folder, task).exists() or job.done()]
        return [(task, self._outcome(task, self.active.pop(task))) for task in ended]

    def stop(self) -> int:
        """Lets local jobs save and end. Jobs of a cluster go on: the driver only observes them (`scancel` ends them;
        they save). Returns how many local ones have not ended after a minute and a half."""
        if not self.local:
            return 0
        for job in self.active.values():
            job.cancel()  # ends submitit's processes; the task itself notices, saves and ends
        folder, until, left = SweepFolder(self.folder), time.monotonic() + STOP_SECONDS, self.active
        while left and time.monotonic() < until:
            time.sleep(0.1)
            left = {t: job for t, job in left.items() if not job.done() or folder.state(t) == "running"}
        self.active.clear()
        return len(left)

    def _outcome(self, task: str, job: Any) -> Outcome:
        """The outcome that the job recorded; a cancelled job or a lost node records none, so the failure is recorded
        here."""
        try:
            name = str(_record(self.folder, task).relative_to(self.folder))
            return msgspec.json.decode(read_bounded(self.folder, name, LARGEST_RECORD), type=Outcome)
        except (DamagedError, msgspec.MsgspecError):
            text = f"the job {job.job_id} ended as {job.state}\n{(job.stderr() or '')[-2000:]}"
            SweepFolder(self.folder).note(task, "killed", text)
            return Outcome("killed", text)

    def _parameters(self) -> dict[str, Any]:
        ours = {
            "job_name": self.folder.name,
            "time": self.resources.minutes,
            "cpus_per_task": self.resources.cpus,
            "gpus_per_node": self.resources.gpus or None,
            "mem": None if self.resources.memory_gb is None else f"{round(self.resources.memory_gb * 1024)}MB",
            "partition": self.resources.partition,
            "array_parallelism": self.jobs,
        }
        return {name: value for name, value in ours.items() if value is not None} | self.resources.slurm

    def _local_parameters(self) -> dict[str, Any]:
        gpus = {"gpus_per_node": self.resources.gpus} if self.resources.gpus else {}
        return {"timeout_min": self.resources.minutes, **gpus}

    def _adopt(self) -> None:
        """Finds the jobs of an earlier driver that are still queued or running."""
        import submitit

        try:
            known = msgspec.json.decode((self.folder / FOLDER / JOBS).read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            return
        jobs = {task: submitit.SlurmJob(self.folder / FOLDER / "%j", job_id) for task, job_id in known.items()}
        self.active = {t: job for t, job in jobs.items() if not _record(self.folder, t).exists() and not job.done()}


def _record(folder: Path, task: str) -> Path:
    return folder / FOLDER / f"{task}.json"
