"""The command line: what it refuses, what it runs, what it prints."""

import errno
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.cli.parser import overrides
from ebbtide.errors import InputError
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.report.progress import ProgressLine
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.verdict import read_verdict
from ebbtide.training import driver
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import from_json
from ebbtide.training.team import WorkerError
from tiny import SPEC, contents, final_state, same_bits, write_run

FIELDS = {
    "task.context": 2,
    "task.burst": 1,
    "task.labels": "fixed",
    "source.classes": 64,
    "source.exemplars": 2,
    "source.dim": 8,
    "source.holdout_classes": 8,
    "source.holdout_exemplars": 2,
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "batch": 16,
    "sequences": 1024,
    "members": 2,
    "schedule.evaluations": 5,
    "schedule.checkpoints": 3,
    "evaluators": '["icl","iwl","ciwl"]',
    "evaluation_sequences": 50,
}
TINY = [word for name, value in FIELDS.items() for word in (f"--{name}", str(value))]
RUN = ["run", "transience", *TINY, "--processes", "0"]
CURVE = np.array([0.5, 0.6, 0.8, 0.9, 0.9, 0.9, 0.7, 0.5, 0.4, 0.4])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, int]:
    """A tiny run of the study, and the exit code of `run ... --check`."""
    out = tmp_path_factory.mktemp("finished") / "runs/tiny"
    code = main([*RUN, "--out", str(out), "--check"])
    return out, code


def transient(path: Path) -> RunFolder:
    """A complete run whose curves bear out every claim."""
    jitter = np.arange(6)[:, None] / 100
    rising = {"train": np.linspace(0.5, 1, 10), "iwl": np.linspace(0, 0.9, 10), "ciwl": np.linspace(0.3, 1, 10)}
    curves = {name: curve - jitter for name, curve in {"icl": CURVE, **rising}.items()}
    return write_run(path, curves, np.array([np.nan, *np.linspace(4, 1, 9)]) + jitter)


def save(**arrays: np.ndarray) -> None:
    np.savez("x.npz", **arrays)  # pyright: ignore


FEATURES = np.random.default_rng(0).normal(size=(80, 4, 8)).astype(np.float32)
NAN = np.where(np.arange(8) == 3, np.nan, FEATURES).astype(np.float32)
FILE = ["--source", "x.npz", *TINY[:6], *TINY[6:10], *TINY[12:]]  # all but source.dim


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "transienze"], ["study = 'transienze'", "transience", "did you mean"]),
        (["run", "transience", "--preset", "quik"], ["preset = 'quik'", "quick, cpu, paper", "did you mean 'quick'"]),
        (["run", "transience", "--model.widht", "32"], ["model.widht = 32", "did you mean 'width'", "layers"]),
        (["run", "transience", "--modle.width", "32"], ["modle = 32", "did you mean 'model'"]),
        (["run", "transience", "width"], ["argument = 'width'", "--FIELD VALUE"]),
        ([*RUN, "--task.burst", "2"], ["task.burst = 2", "2 * burst", "must not exceed context = 2"]),
        ([*RUN, "--source.classes", "3"], ["source.classes = 3", "must be at least 4"]),
        ([*RUN, "--model.heads", "3"], ["model.heads = 3", "must divide width = 16"]),
        ([*RUN, "--model.heads", "many"], ["model.heads = 'many'", "int"]),
        ([*RUN, "--model.positions", "rotory"], ["model.positions = 'rotory'", "rotary"]),
        ([*RUN, "--members", "0"], ["members = 0", ">= 1"]),
        ([*RUN, "--batch", "-16"], ["batch = -16", ">= 1"]),
        ([*RUN, "--sequences", "1000"], ["sequences = 1000", "multiple of batch = 16", "992"]),
        ([*RUN, "--optimizer.lr", "0"], ["optimizer.lr = 0.0", "larger than 0"]),
        ([*RUN, "--optimizer.lr", "NaN"], ["optimizer.lr = 'NaN'", "float"]),
        ([*RUN, "--evaluators", '["icll"]'], ["evaluators = 'icll'", "did you mean 'icl'"]),
        ([*RUN, "--vary", '{"optimizer.lt": [1, 2]}'], ["vary = 'optimizer.lt'", "did you mean 'optimizer.lr'"]),
        ([*RUN, "--vary", '{"optimizer.lr": [1]}'], ["vary.optimizer.lr = [1.0]", "each of the 2 members"]),
        ([*RUN[:-1], "-1"], ["processes = -1", "0"]),
        ([*RUN, "--width", "0"], ["width = 0", "1 or larger"]),
        ([*RUN, "--deterministic"], ["deterministic = True", "--processes 1"]),
        ([*RUN, "--keep_best", "flip"], ["keep_best = 'flip'", "icl, iwl, ciwl"]),
        ([*RUN, "--stopping.window", "2"], ["stopping.patience", "int"]),
        (
            [*RUN, "--stopping.patience", "9", "--stopping.evaluator", "flip"],
            ["stopping.evaluator = 'flip'", "icl, iwl"],
        ),
        (["run", "transience", *FILE], ["source.path = 'x.npz'", "no such file"]),
        ([*RUN, "--source", "x.npz"], ["source.dim = 8", "no such field"]),
        (["run", "transience", "--source", "omniglot"], ["source = 'omniglot'", "EBBTIDE_DATA"]),
        ([*RUN, "--out", "taken"], ["out = 'taken'", "another spec"]),
        ([*RUN, "--out", "notes"], ["out = 'notes'", "holds other files (thesis.tex"]),
        ([*RUN, "--out", "notes/thesis.tex"], ["out = 'notes/thesis.tex'", "is a file"]),
        ([*RUN, "--out", "notes/thesis.tex/deep"], ["out = 'notes/thesis.tex/deep'", "is a file"]),
        (["ls", "nowhere"], ["folder = 'nowhere'", "no such folder"]),
        (["show", "nowhere"], ["run = 'nowhere'", "no run folder of this name"]),
        (["resume", "notes"], ["run = 'notes'", "no run folder of this name"]),
        (["export", "notes", "--out", "x.csv"], ["run = 'notes'", "no run folder of this name"]),
        (["export", "taken", "--out", "x.xls", "--format", "xls"], ["format = 'xls'", "csv, json, parquet"]),
        (["export", "taken", "--out", "nowhere/x.csv"], ["out = 'nowhere/x.csv'", "does not exist"]),
        (["show", "taken", "--figure", "x.jpg"], ["figure = 'x.jpg'", ".png or .svg"]),
        (["sweep", "nowhere.toml"], ["sweep = 'nowhere.toml'", "no such file"]),
        (["sweep", "notes"], ["sweep = 'notes'", ".toml or .json"]),
        (["sweep", "grid.json", "--executor", "slrum"], ["executor = 'slrum'", "slurm"]),
        (["sweep", "grid.json", "--jobs", "0"], ["jobs = 0", "1 or larger"]),
        (["sweep", "grid.json", "--out", "notes"], ["out = 'notes'", "holds other files (thesis.tex"]),
        (["sweep", "status", "notes"], ["sweep = 'notes'", "not a sweep folder"]),
        (["sweep", "collect", "taken", "--out", "x.csv"], ["sweep = 'taken'", "not a sweep folder"]),
        (["sweep", "figure", "taken", "--out", "x.png"], ["figure = 'nothing'", "--phase X Y"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(here, monkeypatch, capsys, arguments, says):
    monkeypatch.setenv("EBBTIDE_DATA", str(here))
    write_run(here / "taken", {"icl": [[0.5, 0.6]] * 2}, [[np.nan, 1]] * 2)
    (here / "notes").mkdir()
    (here / "notes/thesis.tex").write_text("x")
    (here / "grid.json").write_text('{"name": "grid", "axes": [{"seeds": 2}]}')
    before, folders = contents(here), sorted(here.rglob("*"))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("ebbtide: ") and error.endswith("\n") and len(error.splitlines()) == 1
    for words in says:
        assert words in error
    assert contents(here) == before and sorted(here.rglob("*")) == folders


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"feature": FEATURES}, ["source.array = 'features'", "x.npz holds feature", "did you mean 'feature'"]),
        ({"features": FEATURES[0]}, ["source.array = 'features'", "[class, exemplar, feature]", "[4, 8]"]),
        ({"features": FEATURES[:60]}, ["source.classes = 64", "60 classes", "at most 52"]),
        ({"features": NAN}, ["source.path = 'x.npz'", "320 of 2560 values NaN"]),
    ],
    ids=["name", "shape", "too few", "nan"],
)
def test_a_file_of_features_that_does_not_fit(here, capsys, arrays, says):
    save(**arrays)
    assert main(["run", "transience", *FILE, "--processes", "0"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and all(words in error for words in says), error
    assert [p.name for p in here.iterdir()] == ["x.npz"]


def test_a_mistyped_option_is_one_line_that_names_the_option_it_may_mean(here, capsys):
    for word, option in [("procesess", "processes"), ("preest", "preset"), ("dry-rnu", "dry-run"), ("chek", "check")]:
        assert main(["run", "transience", f"--{word}", "2"]) == 2
        assert capsys.readouterr().err == f"ebbtide: --{word}: no such option or field; did you mean --{option}?\n"
    assert main(["run", "transience", "--sequence", "2"]) == 2  # a field is closer than any option
    assert "sequence = 2: no such field (did you mean 'sequences'?)" in capsys.readouterr().err
    assert main(["run", "toy-laws", "--wdith", "3"]) == 2 and "did you mean --width?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["resume", "x", "--procesess", "2"])
    assert "unrecognized arguments: --procesess 2 (did you mean 'processes'?)" in capsys.readouterr().err
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "arguments", [["ls", "--model.width", "3"], ["ru", "transience"], [], ["run"], ["export", "x"]]
)
def test_arguments_no_command_knows_are_refused(here, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "error: " in capsys.readouterr().err and not list(here.iterdir())


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        ("", []),
        ("--a 1", [("a", "1")]),
        ("--a=1 --b.c=x=y", [("a", "1"), ("b.c", "x=y")]),
        ("--a --b 2", [("a", "true"), ("b", "2")]),
        ("--a -1 --b", [("a", "-1"), ("b", "true")]),
        ("--a=", [("a", "")]),
        ("--a 1 --a 2", [("a", "1"), ("a", "2")]),
    ],
)
def test_overrides(words, pairs):
    assert overrides(words.split()) == pairs


@pytest.mark.parametrize("words", ["a", "--a 1 b", "-a 1", "-- --a"])
def test_what_is_no_override_is_refused(words):
    with pytest.raises(InputError, match="expected --FIELD VALUE"):
        overrides(words.split())


def test_a_dry_run_prints_the_spec_and_writes_nothing(here, capsys):
    arguments = ["--vary", '{"optimizer.lr": [1e-3, 3e-4]}', "--task.relabel", "keep", "--seeds.init", "7"]
    assert main(["run", "transience", *TINY, *arguments, "--dry-run"]) == 0
    spec = from_json(capsys.readouterr().out.encode())
    spec.check()
    assert (spec.batch, spec.seeds.init, spec.vary) == (16, 7, {"optimizer.lr": [1e-3, 3e-4]})
    assert replace(spec.source, noise=1.0) == SPEC.source and spec.model == SPEC.model  # noise: the preset's
    assert (spec.task.labels, spec.schedule) == (SPEC.task.labels, SPEC.schedule)  # pyright: ignore
    assert not list(here.iterdir())


def test_a_dry_run_without_fields_prints_the_preset(capsys):
    assert main(["run", "transience", "--preset", "quick", "--dry-run"]) == 0
    assert from_json(capsys.readouterr().out.encode()) == TRANSIENCE.bases["quick"].spec


def test_a_study_runs_to_its_verdict(finished):
    out, code = finished
    run = RunFolder(out)
    assert run.status() == "complete" and run.metrics()["icl"].shape == (2, 5)
    assert run.header.label == {"study": "transience", "preset": "quick*"}  # * : not the preset itself
    verdict = read_verdict(run)
    assert verdict is not None and not verdict.holds() and code == 1  # 64 steps teach no ICL
    assert [c.claim for c in verdict.claims] == [c.name for c in TRANSIENCE.experiments[0].claims]
    for name, start in (("figure.png", b"\x89PNG"), ("figure.svg", b"<?xml"), ("verdict.json", b"{")):
        assert (out / name).read_bytes().startswith(start)


def test_without_check_a_claim_that_fails_is_no_failure_of_the_command(finished, capsys):
    before = contents(finished[0])
    assert main(["resume", str(finished[0])]) == 0
    shown = capsys.readouterr().out
    assert "complete" in shown and "verdict.json" in shown and "chance" in shown
    assert main([*RUN, "--out", str(finished[0])]) == 0
    assert "this run exists (complete)" in capsys.readouterr().out
    assert contents(finished[0]) == before


def test_check_gives_0_when_every_claim_holds(here, capsys):
    transient(here / "runs/good")
    assert main(["resume", "good", "--check"]) == 0
    shown = capsys.readouterr().out
    table, _, _ = shown.partition("If all")
    assert table.count("holds") == len(TRANSIENCE.experiments[0].claims) and "FAILS" not in shown


def test_check_gives_1_when_a_claim_does_not_hold(here, capsys):
    write_run(here / "runs/flat", {n: np.full((6, 10), 0.5) for n in ("train", "icl", "iwl", "ciwl")}, np.ones((6, 10)))
    assert main(["resume", "flat", "--check"]) == 1
    assert main(["resume", "flat"]) == 0
    assert "FAILS" in capsys.readouterr().out


def test_ls_and_show_know_the_run(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished[0].parents[1])
    assert main(["ls"]) == 0
    shown = capsys.readouterr().out
    assert "tiny" in shown and "complete" in shown and "quick*" in shown and "hold" in shown
    assert main(["show", "tiny"]) == 0
    assert capsys.readouterr().out.count("transience") >= 1
    assert main(["show", "tiny", "--figure", "x.png"]) == 0
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")
    Path("x.png").unlink()


def test_an_empty_place_is_no_error(here, capsys):
    assert main(["ls"]) == 0
    (here / "empty").mkdir()
    assert main(["ls", "empty"]) == 0
    assert capsys.readouterr().out.count("no runs in") == 2


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_export_writes_the_table(finished, here, capsys, kind):
    assert main(["export", str(finished[0]), "--format", kind, "--out", f"x.{kind}"]) == 0
    assert f"{2 * 5 * (1 + 3 * 5)} rows" in capsys.readouterr().out
    text = (here / f"x.{kind}").read_text()
    assert len(json.loads(text) if kind == "json" else text.splitlines()[1:]) == 160


@pytest.mark.parametrize("name", ["run.json", "metrics/000000-000009.safetensors", "verdict.json"])
def test_a_damaged_run_does_not_keep_the_others_from_the_list(here, capsys, name):
    transient(here / "good")
    path = transient(here / "bad").path / name
    path.write_bytes(path.read_bytes()[:-5] if path.is_file() else b"{")
    assert main(["ls", "."]) == 0
    bad, good = capsys.readouterr().out.splitlines()[1:]
    assert bad.startswith("bad") and "damaged" in bad and path.name in bad
    assert good.startswith("good") and "complete" in good


@pytest.mark.parametrize("command", [["show", "bad"], ["export", "bad", "--out", "x.csv"]])
@pytest.mark.parametrize("name", ["run.json", "metrics/000000-000009.safetensors"])
def test_a_damaged_run_is_told_in_one_line(here, capsys, command, name):
    path = transient(here / "bad").path / name
    path.write_bytes(path.read_bytes()[:-5])
    assert main(command) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and path.name in error


def test_ctrl_c_saves_says_how_to_go_on_and_the_run_ends_the_same(finished, here, monkeypatch, capsys):
    monkeypatch.setattr(driver, "SLICE_SECONDS", 1e-9)
    kills = iter([signal.SIGINT])  # one: the second would stop at once
    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "__call__", lambda self, progress: [os.kill(os.getpid(), n) for n in kills])
        assert main([*RUN, "--out", "runs/stopped"]) == 130
    assert "ebbtide resume runs/stopped" in capsys.readouterr().out
    run = RunFolder(here / "runs/stopped")
    assert run.status() == "interrupted" and read_verdict(run) is None
    assert main(["resume", "stopped", "--processes", "0", "--check"]) == 1
    assert same_bits(final_state(run), final_state(RunFolder(finished[0])))
    assert same_bits(run.arrays(), RunFolder(finished[0]).arrays())


def test_a_killed_worker_is_one_line_how_to_go_on_and_exit_code_1(here, monkeypatch, capsys):
    def killed(*arguments, **options):
        raise WorkerError("a worker process was killed by SIGKILL (the system may be out of memory)")

    monkeypatch.setattr(driver, "train", killed)
    assert main([*RUN, "--out", "runs/x"]) == 1
    said = capsys.readouterr().out.splitlines()[-3:]
    assert said == [
        "a worker process was killed by SIGKILL (the system may be out of memory)",
        "Continue with:",
        "  ebbtide resume runs/x",
    ]


def test_a_disk_that_became_full_is_one_line_that_says_how_to_go_on(here, monkeypatch, capsys):
    def full(*arguments, **options):
        transient(here / "runs/x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/checkpoints")

    monkeypatch.setattr(driver, "train", full)
    assert main([*RUN, "--out", "runs/x"]) == 2
    words = "what was saved before is whole. Continue with: ebbtide resume runs/x"
    assert capsys.readouterr().err == f"ebbtide: runs/x/checkpoints: No space left on device; {words}\n"


def test_the_default_folder_is_named_by_study_preset_and_digest(here, monkeypatch):
    seen = []
    monkeypatch.setattr(driver, "train", lambda spec, out, **options: seen.append((spec, out)) or transient(Path(out)))
    assert main(["run", "transience", "--seeds.data", "3"]) == 0
    ((spec, out),) = seen
    assert out == Path("runs") / f"transience-quick-{spec.digest()[:8]}" and spec.seeds.data == 3


def test_a_run_that_belongs_to_no_study_can_be_resumed_and_shown(here, capsys):
    curves = {"icl": [[0.5, 0.6, 0.7]]}
    write_run(here / "own", curves, [[np.nan, 2, 1]], spec=replace(SPEC, optimizer=Adam(lr=1e-4)), label={})
    assert main(["resume", "own"]) == 0 and main(["show", "own"]) == 0
    assert "custom run" in capsys.readouterr().out and not (here / "own/verdict.json").exists()


def test_studies_lists_claims_and_presets(capsys):
    assert main(["studies"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(word in shown for word in ("transience", "quick", "cpu", "paper", "ICL then falls", "2311.08360"))


def test_verify_has_its_exit_code(monkeypatch, capsys):
    from ebbtide.verify import checks as verify

    for passed, code in ((True, 0), (False, 1)):
        check = verify.Check("name", passed, "detail")
        table = {"task": {"ICL": {"icl": (1.0, 0.0)}}}
        monkeypatch.setattr(verify, "run", lambda report, c=check, t=table: (report(c), (c.passed, t))[1])
        assert main(["verify"]) == code
        assert ("ok" if passed else "FAIL") in capsys.readouterr().out
