"""The structure of the benchmark: what it counts, compares and writes. Never how fast anything is."""

import json
import subprocess
import sys
from io import StringIO
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide import cli
from ebbtide.bench import bench, child, machine, memory, table, whole, work
from ebbtide.bench.configs import CONFIGS, find_config, plain_transformer
from ebbtide.bench.records import Benchmark, Row, Skipped, Target
from ebbtide.bench.rounds import Child, ChildError, summarise
from ebbtide.errors import InputError
from ebbtide.terminal import Terminal
from ebbtide.training.schedule import Schedule
from source_tools import SOURCES, imports, name_of, tree_of
from tiny import SPEC

# --- configurations and the command


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_configurations_can_be_run(config):
    for batch in config.batches:
        spec = config.at(batch)
        spec.check()
        assert spec.batch == batch
        assert spec.model.positions.__struct_config__.tag == "learned"  # what the plain models have
        task = spec.task
        assert task.distractor and task.rest == "iid" and task.exemplar_draw == "independent"  # what HostSampler draws
        assert task.p_bursty == 1 and task.zipf == 0
        sizes = spec.source.sizes()
        rows = (sizes.classes + sizes.holdout_classes) * (sizes.exemplars + sizes.holdout_exemplars)
        assert rows * sizes.dim * 4 < 50e6, "a bank this large would hide the peak memory of training"


def test_the_reference_sizes():
    """The sizes the published figures are about; the quick one has the study's own model and batches."""
    from ebbtide.papers.transience.study import QUICK

    one = CONFIGS["2L-shared"]
    assert one.spec.model == QUICK.model and one.batches == (QUICK.batch,) and one.spec.outputs() == QUICK.outputs()
    assert (one.spec.task.context, one.spec.source.sizes().dim) == (QUICK.task.context, QUICK.source.sizes().dim)
    two, twelve = CONFIGS["2L"], CONFIGS["12L"]
    sizes = {name: config.spec.source.sizes() for name, config in CONFIGS.items()}
    assert (sizes["2L"].classes, sizes["2L"].dim, two.spec.task.context) == (12_800, 64, 2)
    assert (sizes["12L"].classes, sizes["12L"].dim, twelve.spec.task.context) == (1600, 512, 8)
    assert plain_transformer(two.spec).mlp_ratio == 0 and plain_transformer(twelve.spec).layers == 12
    assert two.batches == twelve.batches == (32, 128)


def test_the_help_names_every_configuration(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(CONFIGS) <= set(words)


def test_an_unknown_configuration_is_one_line(one_line):
    with pytest.raises(InputError) as caught:
        find_config("3L")
    one_line(caught, "config", "3L")
    assert "2L-shared" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"), [(["--config", "13L"], "did you mean '12L'"), (["--json", "missing/x.json"], "folder")]
)
def test_bad_input_is_refused_before_anything_is_measured(arguments, named, capsys, monkeypatch):
    monkeypatch.setattr("ebbtide.bench.bench.measure", lambda *a, **k: pytest.fail("measured"))
    assert cli.main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and named in captured.err and not captured.out


def test_the_command_measures_prints_and_writes(tmp_path, capsys, monkeypatch):
    asked: list[Any] = []

    def measure(configs: Any, *, quick: bool, say: Any) -> Benchmark:
        asked.append(([config.name for config in configs], quick))
        return RECORD

    monkeypatch.setattr("ebbtide.bench.bench.measure", measure)
    file = tmp_path / "b.json"
    assert cli.main(["bench", "--quick", "--config", "12L", "--json", str(file)]) == 0
    assert cli.main(["bench"]) == 0
    assert asked == [(["12L"], True), (list(CONFIGS), False)]
    assert json.loads(file.read_bytes())["rows"]
    assert "ebbtide, whole run" in capsys.readouterr().out


def test_ctrl_c_ends_the_command_and_writes_nothing(tmp_path, monkeypatch, capsys):
    def measure(*_: Any, **__: Any) -> Benchmark:
        raise KeyboardInterrupt

    monkeypatch.setattr("ebbtide.bench.bench.measure", measure)
    assert cli.main(["bench", "--json", str(tmp_path / "b.json")]) == 130
    assert not list(tmp_path.iterdir()) and "stopped" in capsys.readouterr().out


def test_nothing_needs_the_benchmark_but_its_command():
    users = {name_of(path) for path in SOURCES if "bench" in imports(tree_of(path))}
    assert {name for name in users if not name.startswith("ebbtide.bench")} == {"ebbtide.cli.checks"}


# --- turns, runs and records


def test_ratios_are_taken_within_a_round():
    """A machine that slows down from round to round leaves the ratio as it is."""
    paces = summarise({"ebbtide": [100.0, 50.0, 10.0], "other": [50.0, 25.0, 5.0]})
    assert paces["other"] == (25.0, 0.5) and paces["ebbtide"] == (50.0, 1.0)


def test_a_shortened_run_keeps_the_density_of_evaluations():
    spec = replace(SPEC, sequences=16_000, schedule=Schedule(evaluations=11, checkpoints=3))
    short, intervals = whole.shorten(spec, 5000)
    assert (short.sequences, short.schedule.evaluations, intervals) == (4800, 4, 3)
    assert np.diff(short.schedule.points(short.sequences, short.batch)).tolist() == [1600] * 3
    short.check()
    shorter, intervals = whole.shorten(spec, 1000)
    assert (shorter.sequences, intervals) == (992, 0)
    shorter.check()


def test_the_share_of_looking_is_that_of_the_whole_schedule():
    spec = replace(SPEC, sequences=1600, schedule=Schedule(evaluations=10, checkpoints=5))
    costs = {"evaluation": 0.2, "checkpoint": 0.1}  # 2 s; 5 checkpoints that are kept, and rolling ones in 300 s:
    rolling = 10 + 11  # every 10 s (a hundred times .1 s) up to 100 s, then each after a tenth more: 110, 121 ... 285 s
    looking = 2 + 0.1 * (5 + rolling)
    assert whole.overhead_share(spec, 1600 / 300, costs) == pytest.approx(looking / (300 + looking))


def test_timing_a_method_leaves_it_as_it_was():
    class Clerk:
        def work(self, n: int) -> int:
            return 10 // n

    method = Clerk.work
    with pytest.raises(ZeroDivisionError), whole.record_calls(Clerk, "work") as took:
        assert Clerk().work(5) == 2
        Clerk().work(0)
    assert [call.arguments[1] for call in took] == [5, 0] and Clerk.work is method


@pytest.mark.parametrize("intervals", [0, pytest.param(4, marks=pytest.mark.thorough)])
def test_whole_runs_are_measured_through_the_driver(tmp_path, intervals):
    alone = whole.measure_member(replace(SPEC, members=1), str(tmp_path / "a"), intervals)
    assert alone.keys() == {"sequences_per_second", "evaluation", "checkpoint"} and min(alone.values()) > 0
    answer = whole.measure_run(SPEC, str(tmp_path / "b"), 0, 0.0, intervals)
    assert answer.keys() == {"sequences_per_second", "first_step_seconds", "megabytes"}
    assert answer["sequences_per_second"] > 0 and answer["first_step_seconds"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_memory_is_that_of_all_processes():
    code = "import sys; b = bytearray(60_000_000); print(len(b), flush=True); sys.stdin.read()"
    with memory.MemoryWatch() as watch:
        one = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert one.stdin and one.stdout and one.stdout.readline()
        assert one.pid in memory.children()
        assert memory.peak(one.pid) > 60
        while watch.megabytes() < memory.share() + 60:
            assert one.poll() is None
        one.communicate()
    assert memory.peak(one.pid) == 0


def test_a_measured_trainer_counts_the_sequences_of_all_members():
    command = {"implementation": "ebbtide", "spec": msgspec.to_builtins(SPEC), "members": 2, "threads": 1}
    measured = child.TimedTrainer(command)
    done = measured.train(0.01)
    assert done["sequences"] > 0 and done["sequences"] % (2 * SPEC.batch) == 0 and done["seconds"] > 0
    with pytest.raises(InputError, match="must be one of ebbtide, ebbtide by XLA, plain JAX"):
        child.make("flax", SPEC, 1, 1)


def test_threads_are_those_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    one, two = child.environment(1, 4), child.environment(2, 4)
    assert one["NPROC"] == one["OMP_NUM_THREADS"] == "1" and "multi_thread_eigen=false" in one["XLA_FLAGS"]
    assert "NPROC" not in two and two["OMP_NUM_THREADS"] == "2" and "XLA_FLAGS" not in two


def test_a_child_answers_refuses_and_ends():
    with Child() as one:
        assert one.ask("memory")["megabytes"] >= 0
        broken = msgspec.to_builtins(SPEC) | {"batch": 0}
        with pytest.raises(ChildError, match="batch = 0"):
            one.ask("start", implementation="ebbtide", spec=broken, members=1, threads=1)
        with pytest.raises(ChildError, match="unknown command 'dance'"):
            one.ask("dance")
        process = one._process
    assert process.poll() is not None


class Canned(Child):
    """A child that measures nothing: every implementation trains 1,000 sequences a second in each thread,
    PyTorch half of that; plain JAX does not start."""

    def __init__(self, threads: int = 1):
        self.threads, self.pace, self.asked = threads, 1000.0 * threads, []

    def __enter__(self) -> "Canned":
        return self

    def __exit__(self, *exception: object) -> None: ...
    def close(self) -> None: ...

    def tell(self, do: str, **command: Any) -> None:
        self.asked.append((do, command))

    def answer(self, limit: float = 0) -> dict[str, Any]:
        do, command = self.asked.pop(0)
        match do:
            case "multiply":
                return {"flops": [{"numpy": 8e10, "jax": 1e11 if i == 1 else 7e10} for i in range(9)]}
            case "copy":
                return {"bandwidth": [3e10, 2e10]}
            case "start" if command["implementation"] == "plain JAX":
                raise ChildError("no luck")
            case "start":
                self.pace *= 0.5 if command["implementation"].startswith("PyTorch") else 1
                note = "native 1a2b3c4d" if command["implementation"] == "ebbtide" else "canned"
                return {"compile_seconds": 3.0, "note": note}
            case "train":
                return {"sequences": self.pace * 2, "seconds": 2.0}
            case "memory":
                return {"megabytes": 100.0}
            case "alone":
                return {"sequences_per_second": 900.0, "evaluation": 0.5, "checkpoint": 0.1}
        assert do == "together" and command["processes"] == 2
        return {"sequences_per_second": 1800.0, "first_step_seconds": 21.0, "megabytes": 999.0}

    def ask(self, do: str, *, limit: float = 0, **command: Any) -> dict[str, Any]:
        self.tell(do, **command)
        return self.answer()


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "Child", Canned)
    monkeypatch.setattr(bench.machine, "cores", lambda: 2)
    monkeypatch.setattr(bench.machine, "shapes", lambda spec: [(i, 2, 3) for i in range(8)] + [machine.LARGE])
    monkeypatch.setattr(bench.plain_torch, "is_installed", lambda: True)


def test_a_benchmark_has_every_part(canned):
    config = CONFIGS["12L"]
    found = bench.measure([config], quick=False, say=lambda text: None)
    rows = {(r.implementation, r.batch, r.members, r.processes, r.threads): r for r in found.rows}
    assert len(rows) == len(found.rows)
    for batch in config.batches:
        ceiling, spec = work.Ceiling(1e11, 3e10), config.at(batch)
        assert rows["ebbtide", batch, 1, 1, 1].fraction_of_roofline == ceiling.fraction(spec, 1000.0)
        assert rows["PyTorch eager", batch, 1, 1, 1].ratio_to_ebbtide == 0.5
        assert rows["ebbtide by XLA", batch, 1, 1, 1].ratio_to_ebbtide == 1
        assert rows["PyTorch compiled", batch, 1, 1, 2].fraction_of_roofline == ceiling.fraction(spec, 500.0)
        assert rows["ebbtide, whole run", batch, 2, 2, 1].fraction_of_roofline == ceiling.fraction(spec, 900.0)
        for members in (1, 4):
            assert rows["ebbtide, grid", batch, 2 * members, 2, 1].sequences_per_second == 2000
            assert rows["ebbtide, grid", batch, members, 1, 2].ratio_to_ebbtide == 2
        alone = rows["ebbtide, whole run", batch, 1, 1, 1]
        share = whole.overhead_share(spec, 1000.0, {"evaluation": 0.5, "checkpoint": 0.1})
        assert alone.overhead_share == share
        assert alone.sequences_per_second == pytest.approx(900 * (1 - share))  # too short for an evaluation
    assert {(one.what, one.why) for one in found.skipped} == {
        (f"plain JAX, {n}", "no luck") for n in ("1 thread", "2 threads")
    }
    verdicts = {one.what: (one.value, one.verdict()) for one in found.targets if one.batch == 32}
    assert verdicts["pace over the best PyTorch"] == (1.0, "missed")
    assert verdicts["two processes over one"] == (2.0, "met")
    assert verdicts["seconds to the first step"] == (21.0, "missed")


def test_a_quick_benchmark_begins_nothing_that_does_not_fit_and_says_so(canned, monkeypatch):
    monkeypatch.setattr(bench, "QUICK", bench.QUICK._replace(budget=0.0))
    found = bench.measure([CONFIGS["2L"]], quick=True, say=lambda text: None)
    assert [(r.implementation, r.batch, r.threads) for r in found.rows] == [
        ("ebbtide", 32, 1),
        ("ebbtide by XLA", 32, 1),
        ("PyTorch eager", 32, 1),
    ]
    skipped = " ".join(one.what for one in found.skipped)
    for part in ("PyTorch compiled", "whole run, one core", "4 members, 2 processes", "side by side"):
        assert part in skipped
    assert [one.verdict() for one in found.targets].count("not measured") == len(found.targets) - 1


ROW = Row(
    config="12L",
    implementation="ebbtide",
    batch=32,
    threads=1,
    processes=1,
    sequences_per_second=500.0,
    fraction_of_roofline=0.41,
)
RECORD = Benchmark(
    {
        "cpu": "x [y]",
        "vector": "avx2",
        "cores": 2,
        "python": "3.11",
        "jax": "1",
        "numpy": "1",
        "torch": None,
        "ceilings": [
            {"config": "12L", "batch": 32, "threads": 1, "gflops": 80.0, "library": "numpy", "shape": [1, 2, 3]}
            | {"own_shapes_gflops": 70.0, "copy_state_gb_per_second": 9.0, "copy_large_gb_per_second": 8.0}
        ],
    },
    [ROW, replace(ROW, implementation="ebbtide, whole run", peak_memory_mb=700.0, note="[note]")],
    [
        Target(config="12L", batch=32, what="fraction of roofline", value=0.41, least=0.4),
        Target(config="12L", batch=32, what="share", value=0.06, most=0.05),
        Target(config="12L", batch=32, what="over PyTorch", value=None, least=1.2),
    ],
    [Skipped("12L, batch 32", "PyTorch", "is not installed")],
)


def test_targets_are_met_missed_or_not_measured():
    assert [one.verdict() for one in RECORD.targets] == ["met", "missed", "not measured"]


def test_the_json_file_holds_rows_machine_and_verdicts(tmp_path):
    RECORD.write(tmp_path / "b.json")
    data = json.loads((tmp_path / "b.json").read_bytes())
    assert data.keys() == {"machine", "rows", "targets", "skipped"}
    asked = {"config", "implementation", "batch", "threads", "processes", "sequences_per_second"}
    assert all(row.keys() >= asked | {"fraction_of_roofline"} for row in data["rows"])
    assert data["rows"][0]["fraction_of_roofline"] == 0.41 and data["rows"][0]["peak_memory_mb"] is None
    assert [one["verdict"] for one in data["targets"]] == ["met", "missed", "not measured"]
    assert [msgspec.convert(row, Row) for row in data["rows"]] == RECORD.rows


def test_the_table_shows_everything():
    out = StringIO()
    table.show(RECORD, Terminal(file=out, width=250))
    text = out.getvalue()
    for part in ("x [y] (avx2), 2 cores", "80 GFLOP/s", "41 %", "700", "[note]", "is not installed", "missed", "0.060"):
        assert part in text
