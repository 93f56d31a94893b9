"""The figures, numbers and tables that a run and the results of a sweep give in Python."""

from pathlib import Path

import numpy as np
import polars
import pytest
from matplotlib.figure import Figure

import ebbtide as eb
from ebbtide.evaluation.summary import summarise
from ebbtide.report.export import COLUMNS, tidy_rows
from ebbtide.report.plot import unit_of_curve
from ebbtide.report.shown_figure import ShownFigure
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.sweep import Sweep
from sweep_tools import BASE, LR, WIDTH, made
from tiny import SPEC, write_run

PNG = b"\x89PNG\r\n\x1a\n"
ICL = np.array([[0.5, 0.9, 0.8, 0.7, 0.6], [0.5, 0.8, 0.9, 0.8, 0.7], [0.4, 0.7, 0.7, 0.7, 0.6]])
LOSS = np.array([[np.nan, 2, 1, 0.5, 0.2]] * 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> eb.Run:
    path = tmp_path_factory.mktemp("runs") / "r"
    write_run(path, {"icl": ICL, "iwl": 1 - ICL}, LOSS)
    return eb.Run(path)


def words(figure: Figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def thick(panel) -> list[np.ndarray]:
    """What the thick lines of a panel show."""
    return [np.asarray(line.get_xydata()) for line in panel.lines if line.get_linewidth() > 1.5]


def test_a_figure_is_a_matplotlib_figure_that_a_notebook_can_show(run):
    figure = run.plot()
    assert isinstance(figure, Figure) and isinstance(figure, ShownFigure) and figure._repr_png_().startswith(PNG)
    assert [panel.get_ylabel() for panel in figure.axes] == ["accuracy", "accuracy", "loss (nats)"]
    assert "thin lines: 3 members; thick: their median" in words(figure) and "ICL peak" in words(figure)


def test_no_figure_is_kept_by_pyplot(run):
    import matplotlib.pyplot as plt

    run.plot("icl")
    assert plt.get_fignums() == []


def test_the_thick_line_is_the_median_over_training(run):
    (panel,) = run.plot("icl").axes
    (line,) = thick(panel)
    np.testing.assert_allclose(line[:, 0], [0, 256, 512, 768, 1024])
    np.testing.assert_allclose(line[:, 1], np.median(ICL, axis=0), rtol=1e-6)
    (panel,) = run.plot("icl", x="steps").axes
    np.testing.assert_allclose(thick(panel)[0][:, 0], np.arange(0, 65, 16))
    assert panel.get_xlabel() == "steps (per member; a step is 16 sequences)"


def test_curves_of_one_unit_share_a_panel(run):
    figure = run.plot(["icl", "train_loss", "iwl", "icl/loss"])
    assert [panel.get_ylabel() for panel in figure.axes] == ["accuracy", "loss (nats)", "loss"]
    assert [len(thick(panel)) for panel in figure.axes] == [2, 1, 1]
    assert figure.axes[1].get_yscale() == "log"


def test_a_phase_portrait_goes_from_the_ring_to_the_disc(run):
    (panel,) = run.plot("iwl", x="icl").axes
    (path,) = thick(panel)
    np.testing.assert_allclose(path, np.stack([np.median(ICL, 0), np.median(1 - ICL, 0)], 1), rtol=1e-5)
    ring, disc = [np.asarray(one.get_offsets())[0] for one in panel.collections]
    np.testing.assert_allclose([ring, disc], path[[0, -1]], rtol=1e-5)
    assert len(panel.lines) == 1 + len(ICL)
    assert "ICL" in panel.get_xlabel() and "IWL" in panel.get_ylabel()


def test_the_portrait_begins_where_both_curves_are_numbers(run):
    (panel,) = run.plot("icl", x="train_loss", log=True).axes
    (path,) = thick(panel)
    assert len(path) == 4 and panel.get_xscale() == "log"  # the loss is nan before training


def test_a_member_that_diverged_is_not_in_the_median(tmp_path):
    icl = ICL.copy()
    icl[2, 3:] = np.nan
    write_run(tmp_path / "r", {"icl": icl}, LOSS)
    for x, column in (("sequences", 1), ("icl", 1)):
        (panel,) = eb.Run(tmp_path / "r").plot("icl", x=x).axes
        np.testing.assert_allclose(thick(panel)[0][:, column], np.median(icl[:2], axis=0), rtol=1e-6)


def test_size_log_and_title(run):
    figure = run.plot("icl", size=(5, 2.5), log=True, title="a $title$ \u202e")
    assert figure.get_size_inches().tolist() == [5, 2.5]
    assert figure.axes[0].get_xscale() == "symlog"
    assert "a $title$ \\u202e" in words(figure)
    assert run.plot(size=(4, 5)).get_size_inches().tolist() == [4, 5]


@pytest.mark.parametrize(
    ("field", "value", "hint", "how"),
    [
        ("y", "icll", "did you mean 'icl'", {"y": "icll"}),
        ("y", "sequences", "must be a curve of the run", {"y": ["icl", "sequences"]}),
        ("x", "step", "must be sequences, steps or a curve", {"x": "step"}),
        ("size", (0, 3), "in inches", {"size": (0, 3)}),
        ("size", (1e9, 3), "in inches", {"size": (1e9, 3)}),
    ],
)
def test_a_figure_that_cannot_be_is_refused_in_one_line(run, field, value, hint, how):
    with pytest.raises(eb.InputError, match=hint) as caught:
        run.plot(**how)
    assert caught.value.field == field and caught.value.value == value


def test_a_run_on_functions_is_drawn_with_all_its_evaluators(tmp_path):
    spec = eb.Spec(
        task=eb.Regression(context=4),
        source=eb.Functions(dim=2),
        model=eb.Transformer(layers=1, width=8, heads=1),
        batch=8,
        sequences=16,
        evaluators=("train",),
        evaluation_sequences=8,
        keep_best="train",
        schedule=eb.Schedule(evaluations=2, checkpoints=2),
    )
    run = eb.train(spec, tmp_path / "r", processes=0)
    labels = [panel.get_ylabel() for panel in run.plot().axes]
    assert labels == ["share of the response explained", "loss"]
    assert unit_of_curve(run, "train/query_loss") == "loss"
    summary = run.summary()
    assert not [name for name in summary if "icl" in name or "iwl" in name or name.endswith("_at_peak")]
    assert {"train_final", "train_peak", "train_loss_final", "diverged_sequences"} <= set(summary)


def test_the_summary_is_a_table_of_equal_columns(run):
    summary = run.summary()
    expected = summarise(run.metrics(), run.chance())
    assert {len(values) for values in summary.values()} == {3}
    for name in set(summary) - {"member", "diverged_sequences"}:
        np.testing.assert_array_equal(summary[name], expected[name])
    assert not [name for name in summary if name.startswith(("ciwl", "flip", "train_at"))]  # it has no such evaluators
    assert polars.DataFrame(summary)["icl_peak"].to_list() == summary["icl_peak"].tolist()


def test_fields_that_vary_are_columns_of_the_summary(tmp_path):
    from msgspec.structs import replace

    spec = replace(SPEC, members=3, vary={"optimizer.lr": [1e-3, 2e-3, 3e-3]})
    write_run(tmp_path / "r", {"icl": ICL}, LOSS, spec=spec)
    assert eb.Run(tmp_path / "r").summary()["optimizer.lr"].tolist() == [1e-3, 2e-3, 3e-3]


def test_every_evaluation_is_a_row_of_the_frame(run):
    frame = run.to_polars()
    assert frame.columns == list(COLUMNS)
    assert frame.rows() == list(tidy_rows(run))
    best = frame.filter(evaluator="icl", metric="in_context_accuracy").group_by("member").agg(polars.max("value"))
    assert sorted(best["value"].to_list()) == pytest.approx(sorted(ICL.max(axis=1)), rel=1e-6)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> eb.Results:
    sweep = Sweep(name="try", base={**BASE, "sequences": 1600}, axes=(WIDTH, LR, Axis(seeds=2)))
    return eb.load(made(tmp_path_factory.mktemp("sweeps") / "s", sweep).path)


def test_a_sweep_is_drawn_by_an_axis_in_panels_of_another(results):
    figure = results.plot("icl", by="optimizer.lr", split="model.width", size=(6, 3))
    assert [panel.get_title() for panel in figure.axes] == ["width = 8", "width = 16"]
    assert [len(thick(panel)) for panel in figure.axes] == [2, 2] and figure.get_size_inches().tolist() == [6, 3]
    rows = [row for row in results.rows if row.axes["model.width"] == 8 and row.axes["optimizer.lr"] == 1e-3]
    members = [results.metrics(row)["icl"][row.place] for row in rows]
    assert any(np.allclose(line[:, 1], np.median(members, axis=0)) for line in thick(figure.axes[0]))


def test_the_axis_may_be_left_out_where_it_is_the_only_one(results):
    figure = results.plot("iwl", where={"model.width": 16})
    assert len(thick(figure.axes[0])) == 2 and isinstance(figure, ShownFigure)
    with pytest.raises(eb.InputError, match=r"by = None: must be one of the axes model\.width, optimizer\.lr"):
        results.plot("iwl")


def test_a_phase_diagram_has_a_cell_for_each_pair_of_values(results):
    figure = results.plot_phase("icl_final", x="optimizer.lr", y="model.width")
    (image,) = figure.axes[0].images
    final = {(row.axes["model.width"], row.axes["optimizer.lr"]): [] for row in results.rows}
    for row in results.rows:
        final[row.axes["model.width"], row.axes["optimizer.lr"]].append(row.scalars["icl_final"])
    expected = [[np.mean(final[width, lr]) for lr in (1e-3, 3e-3)] for width in (8, 16)]
    np.testing.assert_allclose(np.asarray(image.get_array()), expected, rtol=1e-6)
    with pytest.raises(eb.InputError, match="did you mean 'icl_final'"):
        results.plot_phase("icl_finl", x="optimizer.lr", y="model.width")
    with pytest.raises(eb.InputError, match="must be another axis than x"):
        results.plot_phase(x="optimizer.lr", y="optimizer.lr")


def test_a_figure_is_written_like_any_other(run, tmp_path: Path):
    run.plot("icl").savefig(tmp_path / "icl.png")
    assert (tmp_path / "icl.png").read_bytes().startswith(PNG)
