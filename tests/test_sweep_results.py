"""The table of a sweep: one row a member in a canonical order, whatever it was trained in."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.report.grid_figure import curves_by_figure, phase_figure
from ebbtide.runs.signed import sign
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.data import different_data
from ebbtide.sweeps.driver import run_sweep
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.plan import group
from ebbtide.sweeps.results import Results, load
from ebbtide.sweeps.rows import SCALARS
from ebbtide.sweeps.views import curves_by, phase
from sweep_tools import LR, WIDTH, made
from sweep_tools import SHORT_SWEEP as SWEEP


@pytest.fixture
def results(tmp_path) -> Results:
    return load(made(tmp_path / "s", SWEEP).path)


def test_rows_are_in_the_order_of_the_points(results):
    table = results.table()
    axes = ["model.width", "optimizer.lr", "seeds.member"]
    assert [[row[name] for name in axes] for row in table] == [[p[n] for n in axes] for p in SWEEP.points()]
    assert list(table[0]) == [*axes, "state", *SCALARS] and {row["state"] for row in table} == {"finished"}


@pytest.mark.parametrize("curves", [False, True])
@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_the_table_does_not_depend_on_how_members_were_grouped(kind, curves, tmp_path):
    """Nor on where the folder is, or when it was written."""
    tables = []
    for i, members in enumerate((None, 1, 3)):
        folder = made(tmp_path / f"s{i}", SWEEP, members)
        assert len(folder.specs) == {None: 2, 1: 8, 3: 4}[members]
        load(folder.path).write(tmp_path / f"t{i}", kind, curves=curves)
        tables.append((tmp_path / f"t{i}").read_bytes())
    assert tables[0] == tables[1] == tables[2]


def test_scalars_are_those_of_the_run(results):
    row = results.rows[5]
    run = results.folder.run(row.task)
    assert run is not None
    from ebbtide.evaluation.summary import summarise

    expected = summarise(run.metrics(), run.chance()) | {"diverged_sequences": np.full(4, np.nan)}
    for name in SCALARS:
        np.testing.assert_equal(row.scalars[name], expected[name][row.place])


def test_what_is_not_finished_says_so(tmp_path):
    folder = made(tmp_path / "s", SWEEP, members=2, leave=2, bad=3e-3)
    assert [row["state"] for row in load(folder.path).table()] == ["finished"] * 2 + ["diverged"] * 2 + ["missing"] * 4
    last = list(folder.specs)[-1]
    for _ in range(SWEEP.tries):
        folder.note(last, "failed", "why")
    first = folder.run(next(iter(folder.specs)))
    assert first is not None
    segment = next((first.path / "metrics").iterdir())
    segment.write_bytes(segment.read_bytes()[:-1] + b"x")
    states = [row["state"] for row in load(folder.path).table()]
    assert states == ["damaged"] * 2 + ["diverged"] * 2 + ["missing"] * 2 + ["quarantined"] * 2
    assert all(row["icl_peak"] is None for row in load(folder.path).table() if row["state"] != "diverged")


@pytest.mark.parametrize("spoilt", ["run.json", "checkpoints"])
def test_a_task_whose_run_cannot_be_read_takes_nothing_from_the_others(tmp_path, monkeypatch, capsys, spoilt):
    """A damaged run.json, and a folder that may not be listed."""
    folder = made(tmp_path / "s", SWEEP, members=2)
    first, listed = next(iter(folder.specs)), os.listdir
    path = folder.run_path(first)
    if spoilt == "run.json":
        (path / "run.json").write_text("x")

    def refuse(one: Any = ".") -> list[str]:
        if spoilt == "checkpoints" and str(one) == str(path / "checkpoints"):
            raise PermissionError(13, "Permission denied", str(one))
        return listed(one)

    monkeypatch.setattr(os, "listdir", refuse)
    assert [row["state"] for row in load(folder.path).table()] == ["damaged"] * 2 + ["finished"] * 6
    assert load(folder.path).chance("icl") == 0.5
    assert main(["sweep", "status", str(folder.path)]) == 1
    said = capsys.readouterr().out
    assert f"damaged     {first}  " in said and ("Permission" if spoilt == "checkpoints" else "is damaged") in said
    out = str(tmp_path / "x.csv")
    assert main(["sweep", "collect", str(folder.path), "--curves", "--out", out]) == 0
    assert main(["report", str(folder.path), "--out", str(tmp_path / "x.html")]) == 0
    assert "(1 damaged)" not in capsys.readouterr().out, "the sweep is on the page, without that task"
    told: list[str] = []
    run_sweep(SWEEP, folder.path, jobs=1, say=told.append)
    assert told[-1].startswith(f"task {first}: left as it is: ")


def begun_with(folder: SweepFolder, task: str, **identity: str) -> None:
    """Writes more of an identity into the run.json of a task."""
    run = folder.run(task)
    assert run is not None
    (run.path / "run.json").write_bytes(sign(replace(run.header, identity=run.header.identity | identity)))


def test_tasks_whose_data_were_changed_between_them_are_named_when_results_are_collected(tmp_path, capsys):
    folder = made(tmp_path / "s", SWEEP, members=2)
    collect = ["sweep", "collect", str(folder.path), "--out", str(tmp_path / "t.csv")]
    one, two, three, old = folder.specs
    for task in (one, two, three):
        begun_with(folder, task, source_file="x.npz", source_sha256="a" * 64)
    assert different_data(folder) == []
    assert main(collect) == 0 and "warning" not in capsys.readouterr().out
    begun_with(folder, two, source_sha256="b" * 64)
    (sentence,) = different_data(folder)
    assert sentence.startswith("x.npz had other content in some tasks than in others (SHA-256): ")
    assert f"{'b' * 12} in {two}" in sentence and one in sentence and three in sentence and old not in sentence
    before = (tmp_path / "t.csv").read_bytes()
    assert main(collect) == 0
    assert f"warning: {sentence}" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "t.csv").read_bytes() == before
    begun_with(folder, two, source_file="y.npz")  # another file may have other content
    assert different_data(folder) == []


def test_members_of_an_earlier_description_are_not_in_the_table(tmp_path):
    made(tmp_path / "s", SWEEP)
    fewer = replace(SWEEP, axes=(WIDTH, Axis(field="optimizer.lr", values=[3e-3]), Axis(seeds=2)))
    folder = made(tmp_path / "s", fewer)
    assert len(load(folder.path).rows) == 4 and len(folder.members) == 8


def test_a_chain_gets_the_values_of_its_spec(tmp_path):
    chain = Axis(
        chain=(
            Axis(field="optimizer.decay.coefficient", values=[0.0]),
            Axis(
                product=(
                    Axis(field="optimizer.decay.on", values=["mlp"]),
                    Axis(field="optimizer.decay.coefficient", values=[1e-4, 1e-3]),
                )
            ),
        )
    )
    sweep = replace(SWEEP, axes=(chain, LR))
    table = load(made(tmp_path / "s", sweep).path).table()
    names = ("optimizer.decay.on", "optimizer.decay.coefficient")
    assert [tuple(row[n] for n in names) for row in table[::2]] == [("all", 0), ("mlp", 1e-4), ("mlp", 1e-3)]


def test_a_product_has_named_axes(results):
    pytest.importorskip("xarray", reason="xarray is not installed (pip install 'ebbtide[export]')")
    data = results.to_xarray()
    assert dict(data.sizes) == {"model.width": 2, "optimizer.lr": 2, "seeds.member": 2, "sequences": 5}
    for row in results.rows:
        at = data.sel({name: row.axes[name] for name in results.axes})
        assert float(at["icl_peak"]) == row.scalars["icl_peak"]
        curves = results.metrics(row)
        assert curves is not None
        np.testing.assert_array_equal(at["curve_iwl"], curves["iwl"][row.place])


def test_what_is_no_product_has_points(tmp_path):
    pytest.importorskip("xarray", reason="xarray is not installed (pip install 'ebbtide[export]')")
    zipped = Axis(zip=(WIDTH, LR))
    data = load(made(tmp_path / "s", replace(SWEEP, axes=(zipped, Axis(seeds=2)))).path).to_xarray()
    assert dict(data.sizes) == {"point": 4, "sequences": 5} and data["model.width"].dims == ("point",)


def test_the_frame_holds_the_table(results):
    frame = results.to_polars()
    assert isinstance(frame, polars.DataFrame) and frame.to_dicts() == results.table()


# --- figures


def test_a_phase_diagram_shows_means_over_seeds(results):
    found = phase(results, "optimizer.lr", "model.width", "icl_final")
    assert found.x == [1e-3, 3e-3] and found.y == [8, 16] and (found.members == 2).all()
    rows = [r for r in results.rows if r.axes["model.width"] == 16 and r.axes["optimizer.lr"] == 1e-3]
    assert found.mean[1, 0] == np.mean([row.scalars["icl_final"] for row in rows])
    files = phase_figure(found, x="a", y="b", value="icl_final", title="t")
    assert files["figure.png"].startswith(b"\x89PNG") and b"<svg" in files["figure.svg"]


def test_cells_without_finished_members_are_empty(tmp_path):
    results = load(made(tmp_path / "s", SWEEP, members=2, leave=1, bad=1e-3).path)
    found = phase(results, "optimizer.lr", "model.width", "transience")
    np.testing.assert_array_equal(np.isnan(found.mean), [[True, False], [True, True]])
    phase_figure(found, x="a", y="b", value="transience", title="t")


def test_curves_by_an_axis(results):
    found = curves_by(results, "icl", "optimizer.lr", "model.width")
    assert {(c.value, c.panel): len(c.members) for c in found} == {(v, w): 2 for v in (1e-3, 3e-3) for w in (8, 16)}
    loss = curves_by(results, "train_loss", "optimizer.lr", where={"model.width": 8})
    assert len(loss) == 2 and loss[0].members.shape == (2, 5)
    for curves, metric, split in ((found, "icl", "model.width"), (loss, "train_loss", None)):
        files = curves_by_figure(curves, metric=metric, axis="optimizer.lr", split=split, chance=0.5, title="t")
        assert files["figure.png"].startswith(b"\x89PNG")


REFUSED = {
    "unknown axis": (lambda r: phase(r, "model.wdth", "optimizer.lr", "transience"), "did you mean 'model.width'"),
    "one axis twice": (lambda r: phase(r, "model.width", "model.width", "transience"), "another axis"),
    "unknown scalar": (lambda r: phase(r, "model.width", "optimizer.lr", "icl_peek"), "did you mean 'icl_peak'"),
    "a free axis": (lambda r: curves_by(r, "icl", "optimizer.lr"), "where = 'model.width': must fix"),
    "unknown curve": (lambda r: curves_by(r, "icll", "optimizer.lr", "model.width"), "did you mean 'icl'"),
    "unknown value": (lambda r: r.select({"model.width": 9}), "must be one of 8, 16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shown_is_refused_in_one_line(name, results):
    call, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        call(results)


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"sweep\.json"):
        load(tmp_path)
    made(tmp_path / "s", SWEEP)
    (tmp_path / "s" / "sweep.json").write_bytes(b"{}")
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path / "s")


# --- the commands


def test_the_commands(tmp_path, capsys):
    from ebbtide.cli import main

    folder = made(tmp_path / "s", SWEEP)
    file = tmp_path / "s.json"
    file.write_bytes(SWEEP.to_json())
    assert main(["sweep", str(file), "--dry-run", "--out", str(tmp_path / "new")]) == 0
    text = capsys.readouterr().out
    assert "8 members to train in 2 groups of one static shape" in text and "core-hours" in text
    assert not (tmp_path / "new").exists(), "a dry run writes nothing"
    assert main(["sweep", str(file), "--dry-run", "--out", str(folder.path)]) == 0
    assert "0 members to train" in capsys.readouterr().out
    assert main(["sweep", "status", str(folder.path)]) == 0
    assert main(["sweep", "collect", str(folder.path), "--out", str(tmp_path / "t.csv")]) == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 9
    figure = ["sweep", "figure", str(folder.path), "--out", str(tmp_path / "f.png")]
    assert main([*figure, "--phase", "optimizer.lr", "model.width"]) == 0
    assert main([*figure, "--curve", "icl", "--by", "optimizer.lr", "--where", "model.width=8"]) == 0
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    for words in (["--curve", "icl"], [], ["--phase", "optimizer.lr", "model.width", "--curve", "icl", "--by", "x"]):
        assert main([*figure, *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["sweep", str(file), "--executor", "slrum"]) == 2
    assert "did you mean 'slurm'" in capsys.readouterr().err
    task = next(iter(folder.specs))
    (folder.run_path(task) / "run.json").unlink()
    for _ in range(3):
        folder.note(task, "failed", "Traceback\nValueError: poison")
    assert main(["sweep", "status", str(folder.path)]) == 1
    assert "ValueError: poison" in capsys.readouterr().out


PRESETS = sorted((Path(__file__).parents[1] / "sweeps").glob("*.toml"))


@pytest.mark.parametrize("file", PRESETS, ids=[file.stem for file in PRESETS])
def test_every_preset_can_be_planned(file, monkeypatch):
    """Those of the paper's size need Omniglot: without it their points are checked as far as they go."""
    from ebbtide.sweeps.sweep import read_sweep

    sweep = read_sweep(file)
    assert sweep.name == file.stem and sweep.size() >= 6
    try:
        found = group(sweep, sweep.points())
    except InputError as error:
        assert not file.stem.endswith("-mini") and error.field == "source"
        pytest.skip("needs Omniglot (see Data in the README)")
    assert sum(len(one.rows) for one in found) == sweep.size()
    assert len({address for one in found for address in one.addresses}) == sweep.size()
