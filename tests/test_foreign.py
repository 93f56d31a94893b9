"""Foreign runs: curves of other programs in a run folder, read like any other, and files that are made to do harm."""

import json
from pathlib import Path

import numpy as np
import pytest

from dashboard_tools import app_over, get, whole_list
from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.report.export import export
from ebbtide.report.foreign import import_curves
from ebbtide.runs import records
from ebbtide.runs.fsck import examine
from ebbtide.runs.signed import unsign
from ebbtide.training.run import Run
from tiny import contents, same_bits, write_run

CURVES = {"icl": [[0.5, 0.75, 1.0], [0.5, 0.25, np.nan]], "iwl": [[0.0, 0.125, 0.5], [0.0, 0.25, np.nan]]}
LOSS = [[np.nan, 4.0, 2.0], [np.nan, 3.0, np.nan]]
HEAD = "member,sequences,evaluator,metric,value"
ROW = "0,100,icl,accuracy,0.5"


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="h5py is not installed (pip install 'ebbtide[hdf5]')")


def table(folder: Path, *lines: str) -> Path:
    path = folder / "curves.csv"
    path.write_text("\n".join(lines))
    return path


def test_what_is_written_as_hdf5_comes_back_to_the_bit(tmp_path, h5py):
    own = write_run(tmp_path / "run", CURVES, LOSS)
    export(own, "hdf5", tmp_path / "logs")
    found = import_curves(tmp_path / "logs", tmp_path / "out")
    assert same_bits(own.metrics(), found.metrics())
    assert found.chance() == own.chance() and found.header.foreign == "logs"
    assert {one.name: one.headline for one in found.header.instruments} == {
        one.name: one.headline for one in own.header.instruments
    }
    assert same_bits(own.metrics(), import_curves(tmp_path / "logs", tmp_path / "again").metrics())


def test_a_table_comes_back_too(tmp_path):
    own = write_run(tmp_path / "run", CURVES, LOSS)
    export(own, "csv", tmp_path / "curves.csv")
    found = import_curves(tmp_path / "curves.csv", tmp_path / "out")
    assert same_bits(own.metrics(), found.metrics())
    assert found.chance() == {}  # no table of ours has it


def test_the_log_of_the_public_code_is_averaged_over_its_columns(tmp_path, h5py):
    columns = np.random.default_rng(0).random((3, 8))
    with h5py.File(tmp_path / "log.h5", "w") as file:
        file["eval_iter"] = np.asarray([0, 64, 128])
        file["train_iter"] = np.arange(32, 161, 32).astype(float)
        file["train_loss"], file["train_grad_norm"] = np.arange(5.0), np.arange(5.0)
        file.create_dataset("fsl/acc", data=columns, maxshape=(None, 8), chunks=(1, 8))
        file["fsl/loss"] = 2 * columns
    found = Run(import_curves(tmp_path / "log.h5", tmp_path / "out").path)
    curves = found.metrics()
    np.testing.assert_allclose(curves["fsl"][0], columns.mean(1), rtol=1e-6)
    np.testing.assert_allclose(curves["fsl/loss/error"][0], 2 * columns.std(1, ddof=1) / np.sqrt(8), rtol=1e-6)
    assert curves["sequences"].tolist() == curves["steps"].tolist() == [0, 64, 128]
    np.testing.assert_array_equal(curves["train_loss"][0], [np.nan, 0.5, 2.5])  # nothing after the last evaluation
    assert found.status() == "complete" and found.chance() == {}


def test_columns_of_a_sweep_are_configurations_of_members(tmp_path):
    lines = [
        f"{classes},{member},{time},icl,accuracy,{classes + member + time / 1000}"
        for classes in (64, 8)
        for member in (5, 3)
        for time in (200, 100)
    ]
    head = "source.classes,seeds.member,sequences,evaluator,metric,value"  # as `ebbtide sweep collect --curves` has it
    run = Run(import_curves(table(tmp_path, head, *lines), tmp_path / "out").path)
    assert run.header.spec["vary"] == {"source.classes": [8, 8, 64, 64]}
    assert (
        run.metrics()["icl"].tolist() == np.asarray([[n + 0.1, n + 0.2] for n in (11, 13, 67, 69)], np.float32).tolist()
    )
    assert run.summary()["source.classes"].tolist() == [8, 8, 64, 64]


def test_commands_read_a_foreign_run_and_refuse_what_needs_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    table(tmp_path, f"{HEAD},chance", *(f"{m},{t},icl,accuracy,0.{t},.5" for m in (0, 1) for t in (1, 2, 3)))
    assert main(["import", "--from", "curves.csv", "--out", "runs/f"]) == 0
    for line in ("ls", "show f --figure f.svg", "fsck f", "report f --out f.html", "export f --out again.csv"):
        assert main([*line.split()]) == 0, line
    said = capsys.readouterr()
    assert said.err == "" and "foreign, of curves.csv" in said.out and "resume refuses" in said.out
    assert "curves.csv" in (tmp_path / "f.html").read_text() and "<svg" in (tmp_path / "f.svg").read_text()
    assert Run("runs/f").plot().axes and Run("runs/f").chance() == {"icl": 0.5}
    before = contents(tmp_path)
    for line in ("resume f", "probe f --measure induction_strength"):
        assert main([*line.split()]) == 2, line
        error = capsys.readouterr().err
        assert "is foreign: it has curves alone" in error and len(error.splitlines()) == 1
    for ask in (
        lambda run: run.spec,
        lambda run: run.model(),
        lambda run: run.model(at="best"),
        lambda run: run.best(),
    ):
        with pytest.raises(InputError, match="is foreign"):
            ask(Run("runs/f"))
    assert contents(tmp_path) == before


def test_the_dashboard_shows_a_foreign_run(tmp_path):
    (tmp_path / "runs").mkdir()
    import_curves(table(tmp_path, HEAD, ROW, "0,200,icl,accuracy,0.9"), tmp_path / "runs" / "f")
    app = app_over(tmp_path / "runs")
    (row,) = whole_list(app).json()["rows"]
    assert (row["preset"], row["status"], row["sequences"]) == ("foreign", "finished", 200)
    told = get(app, "/api/run", name="f").json()
    assert not [one for one in told["commands"] if "probe" in one["command"] or "resume" in one["command"]]
    assert ["curves of", "curves.csv"] in [one[:2] for one in told["settings"]] or "curves.csv" in str(told)
    assert get(app, "/api/curves", name="f", curve="icl").json()["curves"]["icl"]["chance"] is None


def test_a_run_that_was_trained_here_has_no_such_field(tmp_path):
    own = write_run(tmp_path / "run", CURVES, LOSS)
    body = json.loads((own.path / "run.json").read_text())["body"]
    assert "foreign" not in body and own.header.foreign == ""


def test_fsck_finds_a_change(tmp_path):
    run = import_curves(table(tmp_path, HEAD, ROW), tmp_path / "out")
    assert examine(run.path).sound()
    segment = next((run.path / "metrics").iterdir())
    segment.write_bytes(segment.read_bytes()[:-1] + b"\x00")
    assert not examine(run.path).sound()


def test_a_chance_level_must_be_a_number(tmp_path):
    run = import_curves(table(tmp_path, HEAD, ROW), tmp_path / "out")
    data = (run.path / "run.json").read_bytes()
    header = unsign(data, records.Header, "", "run.json")
    assert [one.chance for one in header.instruments] == [None]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([""], "has no column 'member'"),
        (["membre,sequences,evaluator,metric,value"], "did you mean 'membre'?"),
        ([f"{HEAD},value", ROW + ",1"], "has a column twice"),
        ([f"{HEAD},<script>", ROW + ",1"], "column = '<script>'"),
        ([HEAD], "has no row"),
        ([HEAD, "0,100,train,training_loss,0.5"], "has no row of an evaluator"),
        ([HEAD, ROW[:-4]], "line 2 has 4 columns in place of 5"),
        ([HEAD, ROW, ROW], "is the second of icl/accuracy"),
        ([HEAD, "0,100,icl,accuracy,inf"], "must be finite"),
        ([HEAD, "0,100,icl,accuracy,1e39"], "infinite numbers"),
        ([HEAD, "0,100,icl,accuracy,half"], "line 2, value = 'half': must be a number"),
        ([HEAD, "0,-1,icl,accuracy,1"], "must be a whole number from 0"),
        ([HEAD, "0,1e10,icl,accuracy,1"], "must be a whole number from 0"),
        ([HEAD, "nan,100,icl,accuracy,1"], "must be finite"),
        ([HEAD, "0,0,icl,accuracy,1"], "increasing"),
        ([HEAD, ROW, "1,200,icl,accuracy,1"], "lacks 2 values"),
        ([HEAD, ROW, "0,200,iwl,accuracy,1"], "lacks 2 values"),
        ([HEAD, "0,100,../icl,accuracy,1"], "evaluator = '../icl'"),
        ([HEAD, "0,100,train_loss,accuracy,1"], "evaluator = 'train_loss'"),
        ([HEAD, "0,100,icl,error,1"], "metric = 'error'"),
        ([HEAD, f"0,100,{'x' * 101},accuracy,1"], "evaluator = 'xxx"),
        ([HEAD, "0,100,\x1b[2J,accuracy,1"], "evaluator = "),
        ([HEAD, "0,100,ic\x00l,accuracy,1"], ""),
        ([f"{HEAD},steps", ROW + ",7"], "must divide the sequences"),
        ([f"{HEAD},steps", ROW + ",10", "0,200,icl,accuracy,1,10"], "not all of the same number of sequences"),
        ([f"{HEAD},chance", ROW + ",.5", "0,200,icl,accuracy,1,.4"], "differs from that of icl before, 0.5"),
        ([f"{HEAD},error", ROW + ",inf"], "must be finite"),
        ([f"{HEAD},arm", ROW + ",small"], "arm = 'small': must be a number"),
        ([HEAD, '0,100,"icl,accuracy,1'], "is no table"),
        ([HEAD, "0,100," + "x" * 200_000 + ",accuracy,1"], "is no table"),
    ],
)
def test_a_table_that_no_run_can_have_is_refused_in_one_line(tmp_path, lines, says):
    path = table(tmp_path, *lines)
    with pytest.raises(InputError) as caught:
        import_curves(path, tmp_path / "out")
    assert says in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".tmp*"))


def test_what_rows_ask_for_is_counted_before_memory_is_taken(tmp_path):
    """A table in which every row is a new member, time, evaluator and metric asks for n^4 numbers."""
    lines = [f"{i},{i + 1},e{i},m{i},0" for i in range(99)]
    with pytest.raises(InputError, match="numbers"):
        import_curves(table(tmp_path, HEAD, *lines), tmp_path / "out")


def test_what_is_no_table_and_where_nothing_can_be_written(tmp_path):
    good = table(tmp_path, HEAD, ROW)
    (tmp_path / "pic.csv").write_bytes(b"\xff\xfe\x00")
    for source, out, says in (
        ("pic.csv", "out", "is no table"),
        ("none.csv", "out", "no such file"),
        ("curves.txt", "out", "must be a .h5"),
        ("curves.csv", ".", "exists"),
        ("curves.csv", "no/where", "does not exist"),
    ):
        before = contents(tmp_path)
        with pytest.raises(InputError, match=says):
            import_curves(tmp_path / source, tmp_path / out)
        assert contents(tmp_path) == before
    assert good.exists()


def log(h5py, path: Path, change) -> Path:
    with h5py.File(path, "w") as file:
        file["eval_iter"], file["icl/acc"] = np.asarray([0, 64]), np.ones((2, 4))
        change(file, h5py)
    return path


def packed(file, h5py):
    """A dataset of 2 GiB of zeros in a file of some kilobytes."""
    file.create_dataset("icl/loss", shape=(2, 2**27), dtype="f4", compression="gzip", chunks=(2, 2**20))


def in_one_piece(file, h5py):
    file.create_dataset("icl/loss", shape=(2, 4), maxshape=(None, None), dtype="f4", chunks=(2**12, 2**12))


def elsewhere(file, h5py):
    file.create_dataset("icl/loss", shape=(2, 4), dtype="f8", external=[("/etc/passwd", 0, 64)])


def virtual(file, h5py):
    layout = h5py.VirtualLayout(shape=(2, 4), dtype="f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(2, 4))
    file.create_virtual_dataset("icl/loss", layout)


def many(file, h5py):
    for i in range(130):
        file[f"e{i}/acc"] = np.ones((2, 1))


HOSTILE_LOGS = {
    "no evaluations": (lambda f, h: f.pop("eval_iter"), "eval_iter"),
    "no evaluator": (lambda f, h: f.pop("icl"), "has no evaluator"),
    "other times": (lambda f, h: f.__setitem__("icl/loss", np.ones((3, 1))), "has 3 rows in place of 2"),
    "times that fall": (lambda f, h: f["eval_iter"].__setitem__(1, 0), "increasing"),
    "times that are no numbers": (lambda f, h: (f.pop("eval_iter"), f.__setitem__("eval_iter", ["a", "b"])), "numbers"),
    "words": (lambda f, h: f.__setitem__("icl/loss", [["a"], ["b"]]), "must be numbers"),
    "objects": (lambda f, h: f.__setitem__("icl/loss", np.array([[f.ref]] * 2, h.ref_dtype)), "must be numbers"),
    "infinite numbers": (lambda f, h: f.__setitem__("icl/loss", np.full((2, 1), -np.inf)), "infinite numbers"),
    "no column": (lambda f, h: f.__setitem__("icl/loss", np.ones((2, 0))), "has no column"),
    "three axes": (lambda f, h: f.__setitem__("icl/loss", np.ones((2, 1, 1))), "must be numbers with 2 axes"),
    "a group in a group": (lambda f, h: f.create_group("icl/loss/x"), "no dataset"),
    "itself": (lambda f, h: f["icl"].__setitem__("loss", f["icl"]), "no dataset"),
    "a link to a file": (lambda f, h: f["icl"].__setitem__("loss", h.ExternalLink("/etc/passwd", "x")), "is a link"),
    "a link inside": (lambda f, h: f["icl"].__setitem__("loss", h.SoftLink("/eval_iter")), "is a link"),
    "a name twice": (lambda f, h: f.__setitem__("icl/accuracy", np.ones((2, 1))), "is there twice"),
    "a name of curves": (lambda f, h: f.__setitem__("steps/acc", np.ones((2, 1))), "evaluator = 'steps'"),
    "a bad headline": (lambda f, h: f["icl"].attrs.__setitem__("headline", "x"), "none of its metrics"),
    "a chance that is none": (lambda f, h: f["icl"].attrs.__setitem__("chance", np.nan), "finite"),
    "half a batch": (lambda f, h: f.attrs.__setitem__("batch", 0.5), "whole number"),
    "no batch": (lambda f, h: f.attrs.__setitem__("batch", 0), "batch = 0"),
    "losses without times": (
        lambda f, h: (f.__setitem__("train_loss", [1.0]), f.__setitem__("train_iter", [1, 2])),
        "with a loss for each",
    ),
    "too many evaluators": (many, "entries in one group"),
    "too large": (packed, "too large"),
    "too large a piece": (in_one_piece, "in pieces"),
    "content elsewhere": (elsewhere, "stored elsewhere"),
    "virtual content": (virtual, "stored elsewhere"),
}


@pytest.mark.parametrize("name", HOSTILE_LOGS)
def test_a_log_that_is_none_is_refused_in_one_line(tmp_path, h5py, name):
    change, says = HOSTILE_LOGS[name]
    path = log(h5py, tmp_path / "log.h5", change)
    with pytest.raises(InputError) as caught:
        import_curves(path, tmp_path / "out")
    assert says in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_log_is_sound_without_the_changes(tmp_path, h5py):
    path = log(h5py, tmp_path / "log.h5", lambda f, h: None)
    assert import_curves(path, tmp_path / "out").metrics()["icl"].tolist() == [[1, 1]]
    noise = tmp_path / "noise.h5"
    noise.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match="is damaged, or no HDF5 file"):
        import_curves(noise, tmp_path / "none")


def test_members_must_agree(tmp_path, h5py):
    for member, rows in enumerate((2, 3)):
        folder = tmp_path / "logs" / f"member_{member:03d}"
        folder.mkdir(parents=True)
        with h5py.File(folder / "log.h5", "w") as file:
            file["eval_iter"], file["icl/acc"] = np.arange(rows), np.ones((rows, 1))
    with pytest.raises(InputError, match="differs from member_000"):
        import_curves(tmp_path / "logs", tmp_path / "out")
    with pytest.raises(InputError, match="holds no member_"):
        import_curves(tmp_path / "logs" / "member_000", tmp_path / "out")
