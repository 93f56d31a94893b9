"""How members are laid out: what is given is kept, what is measured is measured once, and the rest is refused."""

import itertools
import os
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError, Interrupted
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import sign
from ebbtide.training import device_memory, layout
from ebbtide.training.driver import train
from ebbtide.training.kernels import XLA, Choice
from ebbtide.training.layout import PROCESS, Layout, candidates, choose, expected_seconds, fastest, needed_bytes, pace
from ebbtide.training.members import Members
from ebbtide.training.programs import EVALUATION_BYTES
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Seeds, Spec
from ebbtide.training.team import SubprocessWorker, Team, Worker
from ebbtide.training.watch import EarlyStopping
from tiny import SPEC

FOUR = replace(SPEC, members=4)
SHORT = replace(SPEC, sequences=256, schedule=Schedule(evaluations=2, checkpoints=2))


class Stopwatch:
    """In place of `pace`: canned rates by (processes, width), and the layouts it was asked for."""

    def __init__(self, rates: dict[tuple[int, int], float]):
        self.rates = rates
        self.asked: list[Layout] = []

    def __call__(self, spec: Spec, one: Layout, stop: threading.Event | None) -> float:
        assert spec.keep_best is None and spec.stopping is None  # nobody looks at what is trained
        self.asked.append(one)
        return self.rates[one.processes, one.width]


WIDE_WINS = {(2, 1): 100.0, (2, 2): 150.0, (1, 1): 60.0, (1, 4): 90.0}


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path) -> Path:
    """Two cores and an empty cache, whatever this machine has."""
    monkeypatch.setattr(layout, "cores", lambda: 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ebbtide"


@pytest.fixture
def stopwatch(monkeypatch) -> Stopwatch:
    """Measuring pays always, and is canned."""
    made = Stopwatch(WIDE_WINS)
    monkeypatch.setattr(layout, "MEASURE_FROM_SECONDS", 0.0)
    monkeypatch.setattr(layout, "pace", made)
    return made


def never(*arguments: object) -> float:
    raise AssertionError("something was measured")


# ---- what is given


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({"processes": 0}, (0, 1, 1)),
        ({"processes": 1}, (1, 1, 1)),
        ({"processes": 3}, (3, 1, 1)),
        ({"processes": 9}, (4, 1, 1)),  # never more than there are members
        ({"width": 1}, (2, 1, 1)),
        ({"width": 2}, (2, 2, 1)),
        ({"width": 3}, (1, 3, 1)),  # two processes would have two members each
        ({"width": 9}, (1, 4, 1)),
        ({"processes": 2, "width": 9}, (2, 2, 1)),  # as many as a process has
        ({"processes": 3, "width": 2}, (3, 2, 1)),
        ({"processes": 0, "width": 3}, (0, 3, 1)),
        ({"devices": 1}, (2, 1, 1)),
    ],
    ids=str,
)
def test_what_is_given_is_kept_and_nothing_is_measured(monkeypatch, stopwatch, given, chosen):
    monkeypatch.setattr(layout, "pace", never)
    assert choose(FOUR, **given) == Layout(chosen[0], chosen[1], chosen[2], "given")


@pytest.mark.parametrize(
    ("given", "field", "value", "says"),
    [
        ({"processes": -1}, "processes", -1, "0 or larger"),
        ({"width": 0}, "width", 0, "1 or larger"),
        ({"width": -3}, "width", -3, "1 or larger"),
        ({"devices": 0}, "devices", 0, "1 or larger"),
        ({"devices": 2}, "devices", 2, "at most 1"),
        ({"processes": 0, "devices": 2}, "devices", 2, "at most 1"),
        ({"processes": 2, "devices": 2, "width": 2}, "devices", 2, "at most 1"),
    ],
    ids=str,
)
def test_counts_that_cannot_be_are_told_in_one_line(one_line, given, field, value, says):
    with pytest.raises(InputError, match=says) as caught:
        choose(FOUR, **given)
    one_line(caught, field, value)


def test_processes_that_memory_has_no_room_for_are_refused_and_never_the_default(monkeypatch, one_line):
    memory = needed_bytes(FOUR) + 2 * PROCESS + 1
    monkeypatch.setattr("ebbtide.training.limits.physical_memory", lambda: memory)
    monkeypatch.setattr(layout, "physical_memory", lambda: memory)
    monkeypatch.setattr(layout, "cores", lambda: 64)
    with pytest.raises(InputError, match=f"need at least .* bytes, {PROCESS:,} for a process") as caught:
        choose(FOUR, processes=3)
    one_line(caught, "processes", 3)
    assert choose(FOUR, processes=2).processes == choose(FOUR).processes == 2
    assert choose(replace(FOUR, members=2), processes=1024).processes == 2, "no more than there are members"


def several_devices(monkeypatch: pytest.MonkeyPatch, devices: int, platform: str) -> None:
    import jax

    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)


@pytest.mark.parametrize(
    ("members", "given", "chosen"),
    [
        (4, {}, (0, 4, 4, "default")),
        (6, {}, (0, 8, 4, "default")),  # two places are filled up
        (2, {}, (0, 2, 2, "default")),  # no device without a member
        (6, {"devices": 2}, (0, 6, 2, "given")),
        (6, {"devices": 2, "width": 2}, (0, 2, 2, "given")),
        (6, {"devices": 1}, (0, 6, 1, "given")),
    ],
)
def test_on_accelerators_all_members_are_side_by_side_over_all_devices(monkeypatch, members, given, chosen):
    several_devices(monkeypatch, 4, "gpu")
    monkeypatch.setattr(layout, "pace", never)
    assert choose(replace(SPEC, members=members), **given) == Layout(*chosen)


def test_a_width_that_devices_cannot_share_is_told_in_one_line(monkeypatch, one_line):
    several_devices(monkeypatch, 4, "gpu")
    with pytest.raises(InputError, match="multiple of devices = 2") as caught:
        choose(FOUR, width=3, devices=2)
    one_line(caught, "width", 3)


def test_several_devices_of_a_processor_are_those_of_this_process(monkeypatch):
    """Workers have one device each."""
    several_devices(monkeypatch, 4, "cpu")
    assert choose(FOUR, devices=4) == Layout(0, 4, 4, "given")
    assert choose(FOUR) == Layout(2, 1, 1, "default")
    with pytest.raises(InputError, match="devices = 4"):
        choose(FOUR, processes=2, devices=4)


# ---- what is measured


def test_simple_layouts_are_tried_first():
    def tried(members: int, cores: int) -> list[tuple[int, int]]:
        return [(one.processes, one.width) for one in candidates(members, cores)]

    assert tried(4, 2) == [(2, 1), (2, 2), (1, 1), (1, 4)]
    assert tried(12, 2) == [(2, 1), (2, 4), (1, 1), (1, 4)]
    assert tried(2, 8) == [(2, 1), (1, 1), (1, 2)]
    assert tried(3, 1) == [(1, 1), (1, 3)]
    for members, cores in itertools.product(range(1, 9), range(1, 5)):
        for processes, width in tried(members, cores):
            assert 1 <= processes <= min(members, cores) and 1 <= width <= -(-members // processes)


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ([100.0, 50.0, 20.0], 0),
        ([100.0, 109.0, 20.0], 0),  # not by enough to be worth another program
        ([100.0, 111.0, 20.0], 1),
        ([100.0, 111.0, 121.0], 1),  # the third is not that much faster than the second
        ([100.0, 111.0, 123.0], 2),
        ([1.0], 0),
    ],
)
def test_a_layout_must_be_a_tenth_faster_than_a_simpler_one(rates, best):
    layouts = [Layout(1, i + 1) for i in range(len(rates))]
    assert fastest(dict(zip(layouts, rates, strict=True))) == layouts[best]


def test_the_fastest_is_measured_once_and_remembered(stopwatch, machine):
    said: list[str] = []
    assert choose(FOUR, say=said.append) == Layout(2, 2, 1, "measured")
    assert [(one.processes, one.width) for one in stopwatch.asked] == list(WIDE_WINS)
    assert len(said) == 5 and [line.endswith("<- chosen") for line in said] == [False, False, True, False, False]
    assert choose(FOUR, say=said.append) == Layout(2, 2, 1, "remembered") and len(said) == 5
    assert len(stopwatch.asked) == 4 and [p.suffix for p in machine.iterdir()] == [".json"]


def test_a_stop_ends_the_measurement_and_nothing_is_remembered(monkeypatch, machine):
    """Within one short training: what is outstanding is not waited for."""
    monkeypatch.setattr(layout, "MEASURE_FROM_SECONDS", 0.0)
    stop, closed = threading.Event(), []

    class Busy(Team):
        """Its one worker never answers."""

        def __init__(self, members: int, one: Layout, *, stop: threading.Event):
            self.layout, self.kernel, self.stop = one, XLA, stop
            self.workers: list[Worker] = [Silent()]
            self.shares = [list(range(members))]

    class Silent(SubprocessWorker):
        def __init__(self) -> None:
            self._answers = queue.Queue()

        def send(self, command: dict[str, Any]) -> None:
            stop.set()

        def close(self) -> None:
            closed.append(self)

    monkeypatch.setattr(layout, "Team", Busy)
    with pytest.raises(Interrupted):
        layout.choose(FOUR, stop=stop)
    assert len(closed) == 1 and not machine.exists()


def test_members_whose_steps_are_long_have_nothing_to_gain_side_by_side(monkeypatch, stopwatch):
    assert choose(FOUR).chosen == "measured"
    monkeypatch.setattr(layout, "pace", never)
    long = replace(FOUR, batch=100_000, sequences=1_000_000)
    assert layout.step_seconds(long) > layout.LONG_STEP_SECONDS > layout.step_seconds(FOUR)
    assert choose(long) == Layout(2, 1, 1, "default")


def test_what_leaves_the_program_as_it_is_needs_no_new_measurement(stopwatch):
    spec = replace(FOUR, vary={"optimizer.lr": [1e-3] * 4})
    choose(spec)
    others = [
        {"seeds": Seeds(7, 8, 9)},
        {"sequences": 4096},
        {"schedule": Schedule(evaluations=3)},
        {"vary": {"optimizer.lr": [2e-3] * 4}},
        {"evaluators": ("icl",)},
        {"keep_best": None},
        {"stopping": EarlyStopping(patience=100)},
    ]
    for change in others:
        assert choose(replace(spec, **change)).chosen == "remembered", change
    assert len(stopwatch.asked) == 4


Change = Callable[[pytest.MonkeyPatch], Spec]
OTHERS: dict[str, Change] = {
    "model": lambda patch: replace(FOUR, model=replace(FOUR.model, width=32)),
    "batch": lambda patch: replace(FOUR, batch=32),
    "members": lambda patch: replace(FOUR, members=3),
    "vary": lambda patch: replace(FOUR, vary={"optimizer.lr": [1e-3] * 4}),
    "cores": lambda patch: (patch.setattr(layout, "cores", lambda: 1), FOUR)[1],
    "processor": lambda patch: (patch.setattr(layout, "processor", lambda: "another"), FOUR)[1],
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_shape_or_machine_is_measured_anew(monkeypatch, stopwatch, machine, name):
    choose(FOUR)
    stopwatch.rates = dict.fromkeys(itertools.product(range(3), range(5)), 1.0)
    assert choose(OTHERS[name](monkeypatch)).chosen == "measured"
    assert len(list(machine.iterdir())) == 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1, 2]",
        b'{"processes": "two"}',
        b'{"processes": 2, "width": 0}',
        b'{"processes": 2, "width": 2, "devices": 1, "chosen": "measured", "more": 1}',
        msgspec.json.encode(Layout(9, 1)),  # more than there are members
        msgspec.json.encode(Layout(1, 9)),
        msgspec.json.encode(Layout(1, 4, 4)),
        msgspec.json.encode(Layout(0, 1)),  # this process: never a candidate, and not repeatable
        b"\xff\xfe",
    ],
)
def test_a_damaged_or_unfitting_memory_is_measured_again_and_mended(stopwatch, machine, text):
    choose(FOUR)
    (file,) = machine.iterdir()
    file.write_bytes(text)
    assert choose(FOUR) == Layout(2, 2, 1, "measured")
    assert choose(FOUR) == Layout(2, 2, 1, "remembered") and len(stopwatch.asked) == 8


def lay_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def lay_a_link(path: Path) -> None:
    path.with_name("elsewhere").write_bytes(msgspec.json.encode(Layout(1, 1)))
    path.symlink_to("elsewhere")


def lay_a_large_file(path: Path) -> None:
    path.write_bytes(msgspec.json.encode(Layout(1, 1)) + b" " * 100_000)


@pytest.mark.parametrize("lay", [lay_a_pipe, lay_a_link, lay_a_large_file])
def test_what_this_program_would_not_have_written_is_not_read_from_the_cache(stopwatch, machine, lay):
    choose(FOUR)
    (file,) = machine.iterdir()
    file.unlink()
    lay(file)
    assert choose(FOUR).chosen == "measured"
    assert choose(FOUR).chosen == "remembered" and file.is_file() and not file.is_symlink()


def test_a_cache_that_cannot_be_written_is_harmless(stopwatch, machine):
    machine.parent.write_text("a file where the folder should be")
    assert [choose(FOUR).chosen for _ in range(2)] == ["measured", "measured"]
    machine.parent.unlink()
    machine.mkdir(parents=True)
    choose(FOUR)
    (file,) = machine.iterdir()
    file.unlink()
    file.mkdir()
    assert choose(FOUR) == Layout(2, 2, 1, "measured")


def test_where_measuring_is_out_of_place_it_is_not_done(monkeypatch, stopwatch, machine):
    monkeypatch.setattr(layout, "pace", never)
    assert choose(FOUR, deterministic=True) == Layout(2, 1, 1, "default")  # no bit depends on a stopwatch
    assert choose(replace(SPEC, members=1)) == Layout(1, 1, 1, "default")
    monkeypatch.setattr(layout, "MEASURE_FROM_SECONDS", 300.0)
    assert choose(FOUR) == Layout(2, 1, 1, "default")  # a run of a second
    assert not machine.exists()


def test_deterministic_does_not_even_look_at_what_is_remembered(stopwatch):
    assert choose(FOUR).width == 2 and choose(FOUR, deterministic=True) == Layout(2, 1, 1, "default")


def test_a_run_is_expected_to_last_longer_the_more_there_is_to_do():
    """Members beyond the cores wait for each other; up to them they cost nothing."""
    seconds = expected_seconds(SPEC)
    assert 0 < seconds < layout.MEASURE_FROM_SECONDS
    assert expected_seconds(FOUR) == pytest.approx(2 * seconds)
    assert expected_seconds(replace(SPEC, members=1)) == pytest.approx(seconds)
    assert expected_seconds(replace(SPEC, sequences=10 * SPEC.sequences)) == pytest.approx(10 * seconds)
    for change in ({"layers": 4}, {"width": 64}, {"mlp_ratio": 8}):
        assert expected_seconds(replace(SPEC, model=replace(SPEC.model, **change))) > seconds
    assert expected_seconds(replace(SPEC, task=replace(SPEC.task, context=16))) > seconds


def test_the_pace_of_a_layout_is_a_number(monkeypatch):
    """The real stopwatch on a real worker; how fast it is is no matter here."""
    monkeypatch.setattr(layout, "PROBE_SECONDS", 0.01)
    assert 0 < pace(replace(SPEC, members=1), Layout(1)) < 1e9


# ---- a run says how it was laid out


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return train(SHORT, tmp_path / "run", processes=0)


def test_the_layout_is_in_the_manifest_and_is_shown(run, capsys):
    found = run.latest()
    assert found is not None
    layout_of = {name: found[1].identity[name] for name in ("processes", "width", "devices", "chosen")}
    assert layout_of == {"processes": 0, "width": 1, "devices": 1, "chosen": "given"}
    assert run.header.identity == found[1].identity
    assert main(["show", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "layout     0 processes, 1 members side by side (given); kernel xla; not repeatable bit for bit" in shown


def test_a_run_keeps_its_width_where_nothing_is_given(run, monkeypatch, stopwatch):
    """Begun with two members side by side, it is not measured and continued another way."""
    seen: list[Layout] = []

    class Refused(Exception):
        pass

    def team(members: int, one: Layout, worker: Worker | None, kernel: Choice, stop: object) -> None:
        seen.append(one)
        raise Refused

    begun = replace(run.header, identity=run.header.identity | {"width": 2})
    (run.path / "run.json").write_bytes(sign(begun))
    shutil.rmtree(run.path / "checkpoints/000000000256")  # there is something to do again
    monkeypatch.setattr("ebbtide.training.driver.Team", team)
    for width in (None, 1):
        with pytest.raises(Refused):
            train(SHORT, run.path, width=width)
    assert seen == [Layout(1, 2, 1, "given"), Layout(2, 1, 1, "given")] and not stopwatch.asked


@pytest.mark.parametrize(
    ("room", "members", "width"),
    [
        (None, 100, 100),  # the device does not say what it has
        (1000, 100, 100),
        (100, 100, 100),
        (75, 100, 50),  # states of all, and steps of half of them: two groups that take turns
        (55, 100, 10),
    ],
)
def test_members_that_do_not_fit_side_by_side_take_turns(monkeypatch, room, members, width):
    """`room`: for how many members there is memory, where the states of all are half of what training takes."""
    spec = replace(SPEC, members=members)
    monkeypatch.setattr(device_memory, "kept_bytes", lambda spec: 1000)
    monkeypatch.setattr(device_memory, "step_bytes", lambda spec: 1000)
    rest = device_memory.world_bytes(spec) + EVALUATION_BYTES
    monkeypatch.setattr(device_memory, "device_memory", lambda: None if room is None else rest + 2000 * room)
    assert device_memory.width_that_fits(spec) == width


def test_members_whose_states_alone_do_not_fit_are_refused_with_the_number_that_does(monkeypatch, one_line):
    monkeypatch.setattr(device_memory, "device_memory", lambda: 2**33)
    several_devices(monkeypatch, 2, "gpu")
    with pytest.raises(InputError, match="how many fit into 8,589,934,592 bytes of each device") as caught:
        choose(replace(SPEC, members=10**7))
    one_line(caught, "members", 10**7)
    fits = int(caught.value.allowed.split(":")[0].removeprefix("must be at most ").replace(",", ""))
    assert choose(replace(SPEC, members=fits)).width <= fits + 1


def test_what_is_counted_of_a_member_is_what_its_state_holds():
    spec = replace(SPEC, members=3, keep_best="icl")
    state = Members(spec, [0, 1, 2], None, width=3).state()
    held = sum(array.nbytes for array in state.values()) / 3
    assert 0.85 * held < device_memory.kept_bytes(spec) < 1.15 * held
    own = replace(spec, seeds=replace(SPEC.seeds, world=0))
    assert device_memory.kept_bytes(own) == device_memory.kept_bytes(spec) + device_memory.world_bytes(spec)
