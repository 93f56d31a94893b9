"""TensorBoard: event files, written by tensorboard's own record writer and read back by its own loader.

A row is one record with a checksum: a file that was cut off in the middle of one ends with the row before. A process
writes files of its own and never appends to those of an earlier one.
"""

import io
import re
import time
from pathlib import Path
from typing import Any

import msgspec

from ebbtide.follow.events import Event
from ebbtide.follow.optional import load
from ebbtide.follow.series import Row, Series
from ebbtide.runs.output import check_output_folder

FILES = "events.out.tfevents.*"
SHORT = 12
"""Digits of a series' key that its folder has in its name, by which it is found again."""


class TensorBoard:
    """A folder with a folder of event files for every series."""

    def __init__(self, project: str | None, out: Path | None):
        """Raises `InputError` when tensorboard is not installed, or `out` cannot be a folder."""
        self._events = load("tensorboard", "tensorboard.compat.proto.event_pb2")
        self._records = load("tensorboard", "tensorboard.summary.writer.record_writer")
        self._loader = load("tensorboard", "tensorboard.backend.event_processing.event_file_loader")
        self._text = load("tensorboard", "tensorboard.plugins.text.summary_v2").text_pb
        self._hparams = load("tensorboard", "tensorboard.plugins.hparams.summary_v2").hparams_pb
        self.home = (out or Path("tensorboard")) / (project or "")
        check_output_folder(self.home)
        self.place = str(self.home)
        self._files: dict[str, Path] = {}
        self._start: dict[str, list[Any]] = {}
        self._alerts: dict[str, set[str]] = {}

    def open(self, series: Series) -> set[int]:
        """Reads the event files that are there."""
        known: set[int] = set()
        alerts, described = set(), False
        folder = self._folder(series)
        older = sorted(folder.glob(FILES))
        for file in older:
            for one in self._loader.LegacyEventFileLoader(str(file)).Load():
                for value in one.summary.value:
                    if value.HasField("simple_value"):
                        known.add(one.step)
                    elif value.tag.startswith("event/"):
                        alerts.update(text.decode(errors="replace") for text in value.tensor.string_val)
                    described |= value.tag == "config"
        self._alerts[series.key] = alerts
        self._files[series.key] = folder / f"events.out.tfevents.{int(time.time()):010d}.{len(older):06d}.ebbtide"
        start = [self._event(file_version="brain.Event:2")]
        if not described:
            start.append(self._event(summary=self._text("config", as_text(_json(series.config)))))
            start.append(self._event(summary=self._hparams(series.config, trial_id=series.key)))
        self._start[series.key] = start
        return known

    def send(self, series: Series, rows: list[Row]) -> None:
        """Appends the records in one write."""
        found = []
        for row in rows:
            one = self._event(step=row.sequences)
            for name, value in row.values.items():
                one.summary.value.add(tag=name, simple_value=value)
            found.append(one)
        self._append(series, found)

    def alert(self, series: Series, event: Event, fresh: bool) -> None:
        """Appends the event as a text, with the tag `event/KIND`."""
        text = as_text(event.text)
        if text not in self._alerts[series.key]:
            summary = self._text(f"event/{event.kind}", text)
            self._append(series, [self._event(step=event.sequences, summary=summary)])
            self._alerts[series.key].add(text)

    def close(self, stopped: bool) -> None:
        """Everything is written already."""

    def _event(self, **fields: Any) -> Any:
        return self._events.Event(wall_time=time.time(), **fields)

    def _append(self, series: Series, found: list[Any]) -> None:
        buffer = io.BytesIO()
        writer = self._records.RecordWriter(buffer)
        for one in [*self._start.pop(series.key, []), *found]:  # what every file begins with, once there is more
            writer.write(one.SerializeToString())
        self._files[series.key].parent.mkdir(parents=True, exist_ok=True)
        with self._files[series.key].open("ab") as file:
            file.write(buffer.getvalue())

    def _folder(self, series: Series) -> Path:
        """The folder of a series, also where its run was renamed since."""
        end = series.key[:SHORT]
        there = sorted(self.home.glob(f"*/*-{end}"))
        return there[0] if there else self.home / safe_name(series.group) / f"{safe_name(series.name)}-{end}"


def safe_name(text: str) -> str:
    """The text as the name of a folder: letters, digits and `_ . -`, at most 80 of them, no dot in front."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:80].lstrip(".") or "_"


def as_text(text: str) -> str:
    """The text as a block of code in Markdown, in which nothing has a meaning."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _json(data: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()
