"""trackio: its database on this machine, through its own storage class.

Every row and every alert has a name that follows from what it is; the database has a unique index over these names and
ignores a second row of the same name. Rows are added by one transaction.
"""

import os
from pathlib import Path
from typing import Any

from ebbtide.errors import InputError, require
from ebbtide.follow.events import Event
from ebbtide.follow.optional import load
from ebbtide.follow.series import Row, Series
from ebbtide.runs.output import check_output_folder


class Trackio:
    """A project of trackio's local storage."""

    def __init__(self, project: str, out: Path | None):
        """Raises `InputError` when trackio is not installed, does not take the project's name, or would not write to
        a database."""
        if out is not None:
            check_output_folder(out)
            os.environ["TRACKIO_DIR"] = str(out)  # read by trackio when it is imported
        storage = load("trackio", "trackio.sqlite_storage")
        self._storage: Any = storage.SQLiteStorage
        self._reserved = set(load("trackio", "trackio.utils").RESERVED_KEYS)
        self.home = Path(storage.TRACKIO_DIR)
        allowed = "is on a network file system, where trackio has no database; give --out on a local disk"
        require(load("trackio", "trackio.utils").get_storage_mode() == "sqlite", "out", str(self.home), allowed)
        try:
            self._storage.validate_project_name(project)
        except ValueError as error:
            raise InputError("project", project, str(error)) from error
        self._project = project
        self.place = f"project {project} in {self.home}"

    def open(self, series: Series) -> range:
        """Asks for the last step: a transaction holds all rows before its own or is not there."""
        last = self._storage.get_max_step_for_run(self._project, series.name, run_id=series.key)
        return range(0 if last is None else last + 1)

    def send(self, series: Series, rows: list[Row]) -> None:
        """Adds the rows, with the config, in one transaction."""
        self._storage.bulk_log(
            project=self._project,
            run=series.name,
            run_id=series.key,
            metrics_list=[{self._text(name): value for name, value in row.values.items()} for row in rows],
            steps=[row.sequences for row in rows],
            config={**series.config, "_Created": series.config["created"], "_Group": series.group},
            log_ids=[f"{series.key}-{row.sequences}" for row in rows],
        )

    def alert(self, series: Series, event: Event, fresh: bool) -> None:
        """Adds the event; a second one of the same name is ignored."""
        self._storage.bulk_alert(
            project=self._project,
            run=series.name,
            run_id=series.key,
            titles=[event.kind],
            texts=[event.text],
            levels=[event.level],
            steps=[event.sequences],
            alert_ids=[event.id],
        )

    def close(self, stopped: bool) -> None:
        """Everything is written already."""

    def _text(self, name: str) -> str:
        """The name of a curve as trackio's own client stores it."""
        return f"__{name}" if name in self._reserved or name.startswith("__") else name
