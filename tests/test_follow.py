"""`ebbtide follow` without a tracker: what is read, when it is over, which events there are and how often."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.evaluation.summary import summarise
from ebbtide.follow import follow as loop
from ebbtide.follow import tail as tails
from ebbtide.follow.events import Event, events_of, first_falls
from ebbtide.follow.series import Row, Series, flatten, summary
from ebbtide.follow.sweep import WatchedSweep
from ebbtide.follow.tail import Tail
from ebbtide.follow.told import Told
from ebbtide.runs import atomic
from ebbtide.runs.signed import DamagedError
from follow_tools import EVERY, READERS, Growing, process, rows_of, skip_without
from source_tools import PACKAGE, SOURCES, imports, tree_of
from sweep_tools import SHORT_SWEEP, SWEEP, made
from tiny import SPEC, write_run


class Kept:
    """A tracker in memory that outlives the loop. `fail` makes it end the loop as a killed process ends: after it has
    taken so many rows and alerts."""

    place = "memory"

    def __init__(self, home: Path, fail: int = -1):
        self.home, self.fail = home, fail
        self.rows: dict[str, list[Row]] = {}
        self.names: dict[str, Series] = {}
        self.alerts: list[tuple[str, Event]] = []

    def open(self, series: Series) -> set[int]:
        self.names[series.key] = series
        return {row.sequences for row in self.rows.setdefault(series.key, [])}

    def send(self, series: Series, rows: list[Row]) -> None:
        for row in rows:
            self._live()
            self.rows[series.key].append(row)

    def alert(self, series: Series, event: Event, fresh: bool) -> None:
        if (series.key, event) not in self.alerts:
            self._live()
            self.alerts.append((series.key, event))

    def close(self, stopped: bool) -> None: ...

    def _live(self) -> None:
        if self.fail == 0:
            raise _Killed
        self.fail -= 1

    def values(self) -> list[tuple[str, int, str, float]]:
        return [
            (self.names[key].name, row.sequences, name, value)
            for key, rows in self.rows.items()
            for row in rows
            for name, value in row.values.items()
        ]


class _Killed(BaseException):
    """In place of SIGKILL."""


def follow(path: Path, tracker: Kept, *, once: bool = True, per: str = "member", **options: Any) -> tuple[int, list]:
    """The exit code of the loop and the lines it said."""
    said: list[str] = []
    find = options.pop("find", lambda: path)
    code = loop.follow(find, path.name, lambda: tracker, per=per, once=once, say=said.append, **options)
    return code, said


@pytest.fixture
def waits(monkeypatch) -> list:
    """Steps that are done one after the other in place of waiting."""
    steps: list = []

    def sleep(seconds: float) -> None:
        assert steps, "it waits for something that does not come"
        steps.pop(0)()

    monkeypatch.setattr(loop.time, "sleep", sleep)
    return steps


# what is followed


def test_only_the_command_line_imports_it():
    """So nothing that trains does."""
    users = {path.relative_to(PACKAGE).parts[0] for path in SOURCES if "follow" in imports(tree_of(path))}
    assert users == {"follow", "cli"}


def test_a_run_is_followed_without_jax(tmp_path):
    skip_without("tensorboard")
    run = Growing(tmp_path / "one", total=2)
    run.grow(2)
    run.close()
    words = ["ebbtide", "follow", str(run.path), "--to", "tensorboard", "--out", str(tmp_path / "out")]
    code = f"import sys; sys.argv = {words!r}; from ebbtide.cli import main; main(); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False", done.stdout


def test_every_commit_is_sent_once_and_only_new_segments_are_read(tmp_path, waits, monkeypatch):
    run, read = Growing(tmp_path / "one", total=6), []
    load = tails.load_record
    monkeypatch.setattr(tails, "load_record", lambda path, file: read.append(file.path) or load(path, file))
    waits += [run.grow, lambda: None, lambda: run.grow(2), run.grow, lambda: run.grow(2)]
    tracker = Kept(tmp_path / "home")
    code, said = follow(run.path, tracker, once=False)
    assert code == 0 and said[-1] == "one: complete; 12 evaluations sent" and not waits
    assert sorted(tracker.values()) == sorted(rows_of(Tail(run.path).run).elements())
    assert len(read) == len(set(read)) == 4
    run.close()


def test_before_the_folder_exists_it_waits_with_one_line(tmp_path, waits):
    path, run = tmp_path / "one", []
    waits += [lambda: None, lambda: path.mkdir(), lambda: None, lambda: run.append(Growing(path, total=2))]
    waits += [lambda: run[0].grow(2)]
    code, said = follow(path, Kept(tmp_path / "home"), once=False, find=lambda: path if path.is_dir() else None)
    assert code == 0 and said.count("waiting for one") == 1 and said[-1] == "one: complete; 4 evaluations sent"
    run[0].close()
    with pytest.raises(InputError, match="no run or sweep folder"):
        follow(tmp_path / "two", Kept(tmp_path / "home"), find=lambda: None)


def test_rows_that_a_resume_moves_aside_are_not_sent(tmp_path, waits, monkeypatch):
    run, tracker = Growing(tmp_path / "one", total=6), Kept(tmp_path / "home")

    def die() -> None:
        """The machine dies between the segment and the commit."""

        def crash(point: str) -> None:
            if point == "checkpoint.made":
                raise _Killed

        monkeypatch.setattr(atomic, "crash_point", crash)
        with pytest.raises(_Killed):
            run.grow()
        monkeypatch.setattr(atomic, "crash_point", lambda point: None)
        run.close()
        run.rows -= 1

    def resume() -> None:
        run.curves["icl"][:, 2:] = 0.8  # not what was moved aside
        run.open()
        assert len(list((run.path / "aside").iterdir())) == 1
        run.grow()

    waits += [lambda: run.grow(2), die, lambda: None, resume, lambda: run.grow(2), run.grow]
    code, said = follow(run.path, tracker, once=False)
    assert code == 0 and not waits
    assert sorted(tracker.values()) == sorted(rows_of(Tail(run.path).run).elements())
    assert [text for text in said if "interrupted" in text] == ["one: interrupted at 256 of 1,280 sequences"]
    run.close()


def test_a_run_that_ends_while_it_is_looked_at_was_never_interrupted(tmp_path, monkeypatch):
    run = Growing(tmp_path / "one", total=2)
    run.grow()
    tail = Tail(run.path)
    running = tail.run.running

    def ends_meanwhile() -> bool:
        now = running()
        run.grow()
        run.close()
        return now

    monkeypatch.setattr(tail.run, "running", ends_meanwhile)
    assert tail.state() == "complete"


def test_a_run_that_falls_back_to_an_older_checkpoint_is_not_sent_twice(tmp_path, waits):
    run, tracker = Growing(tmp_path / "one", total=5), Kept(tmp_path / "home")
    run.header = replace(run.header)

    def fall_back() -> None:
        run.close()
        newest = sorted((run.path / "checkpoints").iterdir())[-1]
        segment = sorted((run.path / "metrics").iterdir())[-1]
        segment.unlink()
        for file in newest.iterdir():
            file.unlink()
        newest.rmdir()
        run.open()
        run.rows = 0
        assert run.writer is not None and run.writer.rows == 0
        run.grow(2)

    waits += [lambda: run.grow(3), fall_back, lambda: run.grow(3)]
    code, _ = follow(run.path, tracker, once=False)
    assert code == 0
    values = [(name, at, curve) for name, at, curve, _ in tracker.values()]
    assert len(values) == len(set(values)) and len(values) == rows_of(Tail(run.path).run).total()
    run.close()


def test_another_run_in_the_folder_and_a_damaged_one_are_told_in_one_line(tmp_path, waits):
    path = tmp_path / "one"
    write_run(path, {"icl": np.full((2, 3), 0.5)}, np.ones((2, 3)))
    (path / "metrics/000000-000002.safetensors").write_bytes(b"no")
    with pytest.raises(DamagedError, match="000000-000002"):
        follow(path, Kept(tmp_path / "home"))
    run = Growing(tmp_path / "two", total=4)

    def replaced() -> None:
        run.close()
        for file in sorted(run.path.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        curves = {"icl": np.full((2, 5), 0.5)}
        write_run(run.path, curves, np.ones((2, 5)), spec=replace(SPEC, batch=32), created="2027-01-01T00:00:00+00:00")

    waits += [run.grow, replaced]
    with pytest.raises((InputError, DamagedError), match="another"):
        follow(run.path, Kept(tmp_path / "home"), once=False)


def test_ctrl_c_ends_it_at_once_and_the_rest_is_sent_later(tmp_path):
    skip_without("tensorboard")
    run = Growing(tmp_path / "runs/one", total=4)
    run.grow(2)
    one = process(["one", "--to", "tensorboard", "--out", "out"], tmp_path)
    files = tmp_path / "out"
    until = time.monotonic() + 60
    while len(list(files.rglob("events.out*"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    one.send_signal(signal.SIGINT)
    said, _ = one.communicate(timeout=30)
    assert one.returncode == 130 and "Traceback" not in said and "the same command goes on" in said
    run.grow(2)
    run.close()
    assert main(["follow", str(run.path), "--to", "tensorboard", "--out", str(files), "--once"]) == 0
    assert READERS["tensorboard"](files).values == rows_of(Tail(run.path).run)


@pytest.mark.parametrize("cut", [1, 20, 200, 900])
def test_an_event_file_that_was_cut_off_is_completed_by_the_next(cut, tmp_path):
    skip_without("tensorboard")
    run = Growing(tmp_path / "one", total=6)
    run.grow(6)
    run.close()
    words = ["follow", str(run.path), "--to", "tensorboard", "--out", str(tmp_path / "out"), "--once"]
    assert main(words) == 0
    for file in (tmp_path / "out").rglob("events.out*"):
        os.truncate(file, file.stat().st_size - cut)
    assert main(words) == 0
    found = READERS["tensorboard"](tmp_path / "out")
    assert found.values == rows_of(Tail(run.path).run)
    assert found.alerts == {"complete at 1,280 of 1,280 sequences": 1} and len(found.configs) == 2


def test_a_run_that_was_moved_goes_on_where_it_was(tmp_path):
    skip_without("tensorboard")
    run, out = Growing(tmp_path / "one", total=6), str(tmp_path / "out")
    run.grow(3)
    assert main(["follow", str(run.path), "--to", "tensorboard", "--out", out, "--once"]) == 0
    run.grow(3)
    run.close()
    moved = run.path.rename(tmp_path / "two")
    assert main(["follow", str(moved), "--to", "tensorboard", "--out", out, "--once"]) == 0
    assert READERS["tensorboard"](Path(out)).values == rows_of(Tail(moved).run, "one")


# events


def test_a_fall_is_the_half_decay_of_the_summary():
    rng = np.random.default_rng(1)
    for _ in range(50):
        icl = np.clip(np.sin(np.linspace(0, 4, 20)) * rng.uniform(0.2, 0.5) + 0.5 + rng.normal(0, 0.02, (1, 20)), 0, 1)
        curves = {"sequences": np.arange(20), "train_loss": np.ones((1, 20)), "icl": icl}
        wanted = summarise(curves, {"icl": 0.5})["half_decay_sequences"]
        at, top = first_falls(icl, 0.5, finished=True)
        assert (at[0] == -1 and np.isnan(wanted[0])) or (at[0] == wanted[0] and top[0] < at[0])


def test_events_do_not_depend_on_when_the_folder_was_read():
    rng = np.random.default_rng(2)
    for _ in range(30):
        icl = rng.random((4, 12))
        icl[rng.random((4, 12)) < 0.1] = np.nan
        whole = first_falls(icl, 0.1, finished=True)[0]
        told = np.full(4, -1)
        for rows in range(2, 13):
            now = first_falls(icl[:, :rows], 0.1, finished=rows == 12)[0]
            assert np.array_equal(now[told >= 0], told[told >= 0]), "no event is taken back"
            told = now
        assert np.array_equal(told, whole)


def test_a_model_at_chance_falls_below_nothing():
    rng = np.random.default_rng(3)
    at, _ = first_falls(rng.normal(0.5, 0.03, (50, 40)), 0.5, finished=True)
    assert (at == -1).all()


def test_a_member_that_diverged_is_told_when_it_is_sure(tmp_path):
    run = Growing(tmp_path / "one", total=6)
    run.curves["icl"][0, 1] = np.nan  # once, and then whole again
    run.curves["icl"][1, 3:] = np.inf
    tail = Tail(run.path)
    seen = []
    for _ in range(6):
        run.grow()
        seen.append([one.text for one in events_of(tail, tail.state()) if one.kind == "diverged"])
    assert seen == [[]] * 4 + [[f"member 1 diverged at {3 * EVERY} sequences"]] * 2
    run.close()


def test_each_event_is_told_once_wherever_the_process_is_killed(tmp_path):
    run = Growing(tmp_path / "one", total=8)
    run.curves["icl"][0, 3:] = 0.5
    run.curves["iwl"][1, 6:] = np.nan
    run.grow(8)
    run.close()
    whole = Kept(tmp_path / "whole")
    _, said = follow(run.path, whole)
    events = [text for text in said if "evaluations" not in text]
    assert len(events) == len(whole.alerts) == 3
    for after in range(len(whole.alerts) + sum(map(len, whole.rows.values()))):
        tracker = Kept(tmp_path / f"home-{after}", fail=after)
        told = tmp_path / f"told-{after}"
        command = ["tee", "-a", str(told)]
        with pytest.raises(_Killed):
            follow(run.path, tracker, alert=command)
        tracker.fail = -1
        follow(run.path, tracker, alert=command)
        _, third = follow(run.path, tracker, alert=command)
        assert sorted(tracker.values()) == sorted(whole.values())
        assert sorted(one[1].id for one in tracker.alerts) == sorted(one[1].id for one in whole.alerts)
        assert len(third) == 1 and len(told.read_text().splitlines()) == 3


def test_a_command_that_was_cut_off_is_called_again_and_told_so(tmp_path, monkeypatch):
    run = Growing(tmp_path / "one", total=2)
    run.grow(2)
    run.close()
    calls: list[dict] = []

    def call(words: list[str], record: dict) -> str:
        calls.append(record)
        if len(calls) == 1:
            raise _Killed
        return ""

    monkeypatch.setattr(loop, "call_command", call)
    tracker = Kept(tmp_path / "home")
    with pytest.raises(_Killed):
        follow(run.path, tracker, alert=["x"])
    for _ in range(2):
        follow(run.path, tracker, alert=["x"])
    assert [one["again"] for one in calls] == [False, True] and len({one["id"] for one in calls}) == 1


def test_what_was_told_survives_half_a_line(tmp_path):
    told = Told(tmp_path / "told")
    told.note("a", "told")
    told.note("b", "begun")
    told.close()
    with (tmp_path / "told/told.jsonl").open("ab") as file:
        file.write(b'{"id":"c","sta')
    told = Told(tmp_path / "told")
    assert (told.told, told.begun) == ({"a"}, {"b"})
    told.note("d", "told")
    with pytest.raises(InputError, match="is being written by"):
        Told(tmp_path / "told")
    told.close()
    told = Told(tmp_path / "told")
    assert told.told == {"a", "d"}
    told.close()


def test_a_command_gets_json_and_its_failure_is_one_line(tmp_path):
    run = Growing(tmp_path / "$(touch pwned) one", total=2)
    run.grow(2)
    run.close()
    script = tmp_path / "keep.py"
    out = tmp_path / "seen"
    script.write_text(f"import sys\nopen({str(out)!r}, 'a').write(sys.stdin.read())\nsys.exit(3)")
    code, said = follow(run.path, Kept(tmp_path / "home"), alert=[sys.executable, str(script)])
    assert code == 0 and "the alert command ended with exit code 3" in said
    (record,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert record["event"] == "complete" and record["run"] == run.path.name and record["folder"] == str(run.path)
    assert record["member"] is None and record["sequences"] == EVERY and record["level"] == "info"
    assert not list(tmp_path.rglob("pwned"))


# series


def test_members_that_differ_in_more_than_seeds_are_of_different_configurations(tmp_path):
    curves = {"icl": np.arange(12.0).reshape(4, 3) / 12}
    spec = replace(SPEC, members=4, vary={"optimizer.lr": [1e-3, 1e-3, 1e-2, 1e-2], "seeds.member": [0, 5, 0, 5]})
    write_run(tmp_path / "one", curves, np.ones((4, 3)), spec=spec)
    tracker = Kept(tmp_path / "home")
    follow(tmp_path / "one", tracker, per="cell")
    found = {one.name: one for one in tracker.names.values()}
    assert list(found) == ["one optimizer.lr 0.001", "one optimizer.lr 0.01"]
    assert found["one optimizer.lr 0.01"].config["optimizer.lr"] == 0.01
    assert found["one optimizer.lr 0.01"].config["members of the cell"] == 2
    last = {name: dict(rows[-1].values) for name, rows in zip(found, tracker.rows.values(), strict=True)}
    np.testing.assert_allclose(last["one optimizer.lr 0.01"]["icl/mean"], (8 + 11) / 24, rtol=1e-6)
    assert last["one optimizer.lr 0.001"]["icl/n"] == 2 and "icl/low" not in last["one optimizer.lr 0.001"]
    tracker = Kept(tmp_path / "home")
    follow(tmp_path / "one", tracker)
    groups = [(one.group, one.name, one.config["number"]) for one in tracker.names.values()]
    assert groups[1:3] == [("one optimizer.lr 0.001", "one/1", 5), ("one optimizer.lr 0.01", "one/2", 0)]


def test_a_summary_is_of_the_finite_members_alone():
    values = np.array([[1.0, 2, 3, 4, 5, 6, np.nan], [1.0, 2, 3, 4, 5, np.inf, np.nan], [np.nan] * 7]).T
    found = summary(values)
    assert found["n"].tolist() == [6, 5, 0] and found["mean"].tolist()[:2] == [3.5, 3] == found["median"].tolist()[:2]
    np.testing.assert_array_equal(found["low"], [1, np.nan, np.nan])
    np.testing.assert_array_equal(found["high"], [6, np.nan, np.nan])
    assert np.isnan(found["mean"][2])


def test_a_spec_is_flat_and_its_lists_are_text():
    assert flatten({"a": {"b": 1, "c": {"d": "x"}}, "e": [1, 2], "f": None}) == {
        "a.b": 1,
        "a.c.d": "x",
        "e": "[1,2]",
        "f": "null",
    }


# sweeps


def test_the_members_of_a_sweep_are_followed_with_the_task_that_was_set_aside(tmp_path, waits):
    folder = made(tmp_path / "sweep", SHORT_SWEEP, members=2, leave=1)
    task = list(folder.specs)[-1]
    tracker, told = Kept(tmp_path / "home"), []

    def fail() -> None:
        for _ in range(folder.sweep.tries):
            folder.note(task, "crash", "a traceback\nValueError: [red]no\x1b[2J")

    waits += [lambda: None, fail]
    code, said = follow(folder.path, tracker, once=False)
    told += [text for text in said if "set aside after" in text]
    assert code == 1 and said[-1] == "sweep: 1 task set aside; 30 evaluations sent"
    assert len(told) == 1 and told[0].startswith(f"sweep, task {task[:8]}: set aside after {folder.sweep.tries} failed")
    assert "\x1b" not in told[0]
    assert len(tracker.names) == 6 and {len(rows) for rows in tracker.rows.values()} == {5}
    for series in tracker.names.values():
        tail, member = series.places[0]
        metrics = tail.run.metrics()["icl"][member].tolist()
        assert [row.values["icl"] for row in tracker.rows[series.key]] == metrics
    groups = {one.group for one in tracker.names.values()}
    assert len(groups) == 3 and all("model.width" in one and "optimizer.lr" in one for one in groups)
    code, said = follow(folder.path, tracker)
    assert code == 1 and said == ["sweep: 1 task set aside; 0 evaluations sent, 30 were there"]


def test_a_cell_of_a_sweep_waits_for_the_seeds_in_other_tasks(tmp_path):
    folder = made(tmp_path / "sweep", SHORT_SWEEP, members=1, leave=1)
    tracker = Kept(tmp_path / "home")
    code, said = follow(folder.path, tracker, per="cell")
    assert code == 0 and said[-1] == "sweep: not complete; 15 evaluations sent"
    assert {row.values["icl/n"] for rows in tracker.rows.values() for row in rows} == {2.0}
    made(tmp_path / "sweep", SHORT_SWEEP, members=1)
    code, said = follow(folder.path, tracker, per="cell")
    assert code == 0 and said[-1] == "sweep: complete; 5 evaluations sent, 15 were there"
    assert len(tracker.rows) == 4


def test_a_task_that_is_damaged_does_not_stop_the_others(tmp_path):
    folder = made(tmp_path / "sweep", SWEEP, members=2)
    path = folder.run_path(next(iter(folder.specs)))
    (path / "metrics/000000-000004.safetensors").write_bytes(b"no")
    code, said = follow(folder.path, Kept(tmp_path / "home"))
    assert code == 1 and sum("cannot be followed" in text for text in said) == 1
    assert said[-1] == "sweep: 1 task damaged; 30 evaluations sent"


def test_seeds_that_a_sweep_gets_later_are_followed_too(tmp_path):
    made(tmp_path / "sweep", replace(SHORT_SWEEP, axes=SHORT_SWEEP.axes[:2]))
    watched = WatchedSweep(tmp_path / "sweep", "member")
    list(watched.read())
    assert len(watched.series()) == 4 and watched.over()
    made(tmp_path / "sweep", SHORT_SWEEP)
    list(watched.read())
    assert len(watched.series()) == 8 and watched.over()


# the command line


@pytest.mark.parametrize("tracker", ["wandb", "trackio", "tensorboard"])
def test_without_the_package_one_line_says_how_to_get_it(tracker, tmp_path, monkeypatch, capsys):
    for name in list(sys.modules):
        if name.split(".")[0] == tracker:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, tracker, None)
    assert main(["follow", str(tmp_path), "--to", tracker, "--once"]) == 2
    assert capsys.readouterr().err == f"ebbtide: to = {tracker!r}: needs {tracker}: pip install 'ebbtide[{tracker}]'\n"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--to", "mlflow"], "to"),
        (["--to", "tensorboard", "--per", "seed"], "per"),
        (["--to", "tensorboard", "--project", "a/b"], "project"),
        (["--to", "tensorboard", "--project", ".."], "project"),
        (["--to", "tensorboard", "--alert", "no-such-program-at-all"], "alert"),
        (["--to", "tensorboard", "--alert", "'"], "alert"),
        (["--to", "tensorboard", "--once"], "run"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(words, field, tmp_path, monkeypatch, capsys):
    skip_without("tensorboard")
    monkeypatch.chdir(tmp_path)
    assert main(["follow", "none", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ebbtide: {field} = ")


def test_a_config_is_plain_data(tmp_path):
    run = Growing(tmp_path / "one", total=2)
    tracker = Kept(tmp_path / "home")
    run.grow()
    follow(run.path, tracker)
    run.close()
    (config, _) = [one.config for one in tracker.names.values()]
    assert msgspec.json.decode(msgspec.json.encode(config)) == config
    assert config["seeds.init"] == 0 and config["source.type"] == "gaussian" and "vary" not in config
