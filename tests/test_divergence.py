"""A run that diverged says so wherever it is told of, supports no claim, and takes nothing else with it."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.cli.console import status_words
from ebbtide.evaluation.divergence import diverged, diverged_at
from ebbtide.mechanisms.linear import joint_plane
from ebbtide.papers.registry import find_study
from ebbtide.report import arms_figure, contest_figure, figure, functions_figure, grid_figure, plot, probe_figure
from ebbtide.report import scaling_figure as scaling
from ebbtide.report.curves import NOTHING, finite_to_the_end
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.writer import Writer
from ebbtide.studies.claim import above, larger
from ebbtide.studies.comparison import Comparison, conclude_sweep
from ebbtide.studies.single_run import conclude_run
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.driver import make_plan
from ebbtide.sweeps.folder import SweepFolder, planning
from ebbtide.sweeps.plan import TaskGroup, group
from sweep_tools import BASE, make_sweep
from tiny import evaluations, header, watched, write_run

pytestmark = pytest.mark.usefixtures("quick_compile")

NAN = np.nan
CURVE = [0.5, 0.6, 0.8, 0.9, 0.9, 0.9, 0.7, 0.5, 0.4, 0.4]
LOSS = [NAN, *np.linspace(4, 1, 9)]
LOST = 4
"""The evaluation at which members diverge: 455 of 1,024 sequences."""


@pytest.fixture(autouse=True)
def words_for_pictures(monkeypatch):
    """Figures are laid out and not painted: an SVG file is the words in it."""

    def savefig(self, file, *, format, **_):
        if format == "svg":
            self.draw_without_rendering()
        file.write("\n".join(text.get_text() for text in self.findobj(Text)).encode() or b"-")

    monkeypatch.setattr(Figure, "savefig", savefig)


def members_of(count: int, lost: list[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Curves and losses of members, of which some are not finite from evaluation `LOST` on."""
    curves = {name: np.tile(CURVE, (count, 1)) for name in ("icl", "iwl", "ciwl")}
    loss = np.tile(LOSS, (count, 1))
    for m in lost:
        for curve in (*curves.values(), loss):
            curve[m, LOST:] = NAN
    return curves, loss


def a_run(path: Path, count: int = 3, lost: list[int] | None = None) -> RunFolder:
    return write_run(path, *members_of(count, list(range(count)) if lost is None else lost))


# ---- what diverged is


def curves_of(icl, loss) -> dict[str, np.ndarray]:
    icl, loss = np.asarray(icl), np.asarray(loss)
    return {"sequences": np.arange(icl.shape[1]) * 10, "train_loss": loss, "icl": icl, "icl/error": icl * NAN}


@pytest.mark.parametrize(
    ("icl", "loss", "at"),
    [
        ([0.5, 0.6, 0.7, 0.8], [NAN, 3, 2, 1], NAN),
        ([0.5, 0.6, NAN, NAN], [NAN, 3, NAN, NAN], 20),
        ([NAN, NAN, NAN, NAN], [NAN, NAN, NAN, NAN], 0),
        ([0.5, 0.6, 0.7, NAN], [NAN, 3, 2, np.inf], 30),
        ([0.5, 0.6, 0.7, 0.7], [NAN, 3, 2, np.inf], 30),  # the loss overflowed
        ([0.5, -np.inf, 0.7, 0.8], [NAN, 3, 2, 1], NAN),  # it came back
        ([0.5, 0.6, 0.7, 0.7], [NAN, 3, NAN, NAN], NAN),  # stopped early
    ],
)
def test_a_member_diverged_where_nothing_finite_follows(icl, loss, at):
    np.testing.assert_equal(diverged_at(curves_of([icl], [loss])), [at])


def test_members_diverge_one_by_one():
    made, loss = members_of(3, [1])
    found = {"sequences": np.arange(10), "train_loss": loss, **made}
    assert diverged(found).tolist() == [False, True, False]


# ---- figures


def test_the_mean_is_over_members_that_are_finite_to_the_end():
    whole, broken, none = [1.0, 2.0], [1.0, np.inf], [NAN, NAN]
    np.testing.assert_array_equal(finite_to_the_end(np.array([whole, broken, none])), [whole])
    np.testing.assert_array_equal(finite_to_the_end(np.array([broken, none])), [[1.0, NAN]])
    np.testing.assert_array_equal(finite_to_the_end(np.array([none, none])), [none, none])


def lost(*shape: int, every: bool) -> np.ndarray:
    """Positive numbers with members on the first axis: all, or the last, are not finite from the middle on."""
    values = np.random.default_rng(0).uniform(0.1, 1, shape)
    values[slice(None) if every else slice(-1, None), shape[1] // 2 :] = NAN
    values[-1, -1] = np.inf
    return values


X = np.arange(6) * 100.0
CASES = {
    "arms": lambda y: arms_figure.arms_figure(
        [arms_figure.Panel("icl", {"a": (X, y)}, 0.5), arms_figure.Panel("train_loss", {"a": (X, y)}, None)], ["a"], "t"
    ),
    "curves by": lambda y: grid_figure.curves_by_figure(
        [grid_figure.Curve(1, None, X, y)], metric="train_loss", axis="a", split=None, chance=None, title="t"
    ),
    "phase": lambda y: grid_figure.phase_figure(
        grid_figure.Phase([1, 2], [1], np.full((1, 2), NAN), np.zeros((1, 2))), x="a", y="b", value="icl", title="t"
    ),
    "bars": lambda y: contest_figure.bars_figure("t", {"k": contest_figure.Contest("e", y[:, -1], {"o": (1, 1, 1)})}),
    "frontier": lambda y: contest_figure.frontier_figure(
        "t", ("x", "y"), {}, {"a": y[:, -2:]}, {"m": np.ones(2), "n": np.zeros(2)}
    ),
    "distances": lambda y: functions_figure.distances_figure("t", "u", {"p": {"a": (X, y)}}),
    "layers": lambda y: functions_figure.layers_figure("t", {"p": {"a": y}}),
    "context": lambda y: functions_figure.context_figure("t", "u", {"p": {"a": (X, y)}}, ()),
    "paths": lambda y: functions_figure.paths_figure(
        "t", {"a": joint_plane(np.stack([y, y], axis=-1)).points}, {}, joint_plane(np.stack([y, y], axis=-1)).explained
    ),
    "scaling": lambda y: scaling.scaling_figure("t", [scaling.Panel("s", "u", np.arange(1, 7), {"a": y}, {}, True)]),
    "heads": lambda y: probe_figure.heads_figure("t", "u", X, np.swapaxes(y, 0, 1)[:, :, None, None]),
    "lines": lambda y: probe_figure.lines_figure("t", "u", X, {"a": y.T}),
    "plane": lambda y: probe_figure.plane_figure("t", X, joint_plane(np.stack([y, y], axis=-1))),
}


@pytest.mark.parametrize("every", [True, False], ids=["all diverged", "one diverged"])
@pytest.mark.parametrize("case", CASES)
def test_every_figure_can_be_drawn_of_members_that_diverged(case, every):
    nowhere = lost(3, 6, every=every)
    for values in (nowhere, np.full((3, 6), NAN)) if every else (nowhere,):
        assert all(CASES[case](values).values())


def test_a_panel_without_a_number_says_so(tmp_path):
    curves, loss = members_of(2, [0, 1])
    run = write_run(tmp_path / "run", curves, np.full_like(loss, NAN))
    words = figure.curves_figure(run, "t")["figure.svg"].decode()
    assert NOTHING in words and "2 of 2 members diverged" in words
    some = figure.curves_figure(a_run(tmp_path / "some", 3, [1]), "t")["figure.svg"].decode()
    assert NOTHING not in some and "1 of 3 members diverged; median: the others" in some


# ---- runs: terminal, verdict, page


def test_a_run_that_diverged_is_concluded_and_no_claim_holds(tmp_path):
    verdict = conclude_run(find_study("transience"), a_run(tmp_path / "run", 6))
    assert {one.verdict for one in verdict.claims} == {"fails"}
    assert {one.members_above() for one in verdict.claims} == {"0 of 6 (0 finite)"}
    assert {one.note for one in verdict.claims} == {"6 of 6 members diverged"}
    assert (tmp_path / "run" / "figure.png").exists() and (tmp_path / "run" / "verdict.json").exists()


def test_a_claim_says_how_many_members_are_finite(tmp_path):
    verdict = conclude_run(find_study("transience"), a_run(tmp_path / "run", 3, [2]))
    assert all(one.verdict != "holds" for one in verdict.claims)
    assert verdict.claims[0].members_above() == "2 of 3 (2 finite)"


def test_no_estimate_of_a_member_that_diverged_counts_whatever_its_early_numbers(tmp_path):
    study = find_study("transience")
    own = study.experiments[0]
    early = own.claims[0]._replace(estimate=lambda s: np.ones(3), threshold=0.5)  # finite for every member
    verdict = conclude_run(
        study._replace(experiments=(own._replace(claims=(early,)),)), a_run(tmp_path / "run", 3, [2])
    )
    assert verdict.claims[0].members == [1.0, 1.0, None] and verdict.claims[0].verdict == "undecided"


def test_a_verdict_does_not_wait_for_a_figure(tmp_path):
    def broken(evidence, title):
        raise ZeroDivisionError

    run, study = a_run(tmp_path / "run"), find_study("transience")
    with pytest.raises(ZeroDivisionError):
        conclude_run(study._replace(experiments=(study.experiments[0]._replace(figures=broken),)), run)
    assert (run.path / "verdict.json").exists()


@pytest.mark.parametrize(("broken", "status"), [([0, 1, 2], "diverged"), ([1], "1 of 3 diverged"), ([], "complete")])
def test_a_run_that_diverged_says_so_in_the_terminal(tmp_path, capsys, broken, status):
    conclude_run(find_study("transience"), a_run(tmp_path / "run", 3, broken))
    assert main(["ls", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert status in listed and ("complete" in listed) == (not broken) and "nan" not in listed
    assert main(["show", str(tmp_path / "run"), "--figure", str(tmp_path / "f.png")]) == 0
    shown = capsys.readouterr().out
    assert status in shown.splitlines()[0] and ("complete" in shown) == (not broken)
    assert " nan " not in shown and (tmp_path / "f.png").exists()
    if broken:
        who = "members 0, 1 and 2" if len(broken) == 3 else "member 1"
        assert f"diverged   {who} at 455 sequences (of 3)" in shown
        assert f"({3 - len(broken)} finite)" in shown


@pytest.mark.parametrize(("broken", "status"), [([0, 1, 2], "diverged"), ([1], "1 of 3 diverged"), ([], "complete")])
def test_a_run_that_is_continued_is_not_called_complete_where_it_diverged(tmp_path, broken, status):
    run = a_run(tmp_path / "run", 3, broken)
    assert status_words(run) == status
    for file in (run.path / "metrics").iterdir():
        file.write_bytes(b"damaged")
    assert status_words(run) == "complete", "what cannot be read is told by what reads it next"


def test_the_page_tells_of_runs_that_diverged_and_of_the_others(tmp_path, capsys):
    conclude_run(find_study("transience"), a_run(tmp_path / "bad"))
    a_run(tmp_path / "unjudged", 3, [0])
    conclude_run(find_study("transience"), a_run(tmp_path / "good", 3, []))
    out = tmp_path / "page.html"
    assert main(["report", *(str(tmp_path / n) for n in ("good", "bad", "unjudged")), "--out", str(out)]) == 0
    text = out.read_text()
    assert "Diverged: members 0, 1 and 2 at 455 sequences (of 3)." in text
    assert "Diverged: member 0 at 455 sequences (of 3)." in text and "0 of 3 (0 finite)" in text


def test_a_figure_that_cannot_be_drawn_takes_nothing_else_with_it(tmp_path, monkeypatch):
    def broken(run):
        raise ZeroDivisionError("of\nno use")

    monkeypatch.setattr(plot, "plot_run", broken)
    a_run(tmp_path / "one", 3, [])
    a_run(tmp_path / "two", 3, [])
    out = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(out)]) == 0
    text = out.read_text()
    assert text.count("No figure: ZeroDivisionError: of\\nno use.") >= 2 and "two" in text


# ---- sweeps and experiments

STUDY = find_study("transience")
ARMS = {"slow": {"optimizer.lr": 1e-4}, "fast": {"optimizer.lr": 3e-3}}
EXPERIMENT = Experiment(
    "try",
    "Does it learn?",
    "nowhere",
    (
        above("sure", "icl is a number", "definition", "icl_peak", "slow", 0.0),
        larger("learns", "the fast arm has the lower loss", "definition", "train_loss_final", "slow", "fast"),
    ),
    {"quick": Preset(Comparison(ARMS, {**BASE, "sequences": 1600}, members=3), 1, "tiny")},
    shows=("icl", "iwl"),
)


def a_sweep(path: Path, rates: list[float]) -> SweepFolder:
    """An experiment whose tasks have run; the members with these learning rates diverged."""
    sweep = make_sweep(STUDY, EXPERIMENT, "quick")
    folder = SweepFolder.make(path, sweep)
    with planning(path):
        planned = make_plan(sweep, group(sweep, sweep.points()), folder.members, 1)
        folder.add([TaskGroup(msgspec.to_builtins(one.group.spec), one.tasks) for one in planned])
    for task, (_, what) in folder.specs.items():
        spec = folder.spec(task)
        head = replace(header(spec), digest=spec.digest(), spec=msgspec.to_builtins(spec))
        curves, loss = members_of(spec.members, [m for m, lr in enumerate(what.values["optimizer.lr"]) if lr in rates])
        writer = Writer(folder.run_path(task), head)
        rows = evaluations(head, curves, loss, np.linspace(0, spec.sequences, loss.shape[1]))
        state = watched(spec.members)
        writer.commit(sequences=1600, state=state, evaluations=rows, kept=True, finished=True, seconds=1.0)
        writer.close()
    return folder


@pytest.mark.parametrize("rates", [[1e-4, 3e-3], [3e-3]], ids=["all arms", "one arm"])
def test_an_experiment_whose_members_diverged_is_concluded(tmp_path, capsys, rates):
    folder = a_sweep(tmp_path / "s", rates)
    verdict = conclude_sweep(STUDY, EXPERIMENT, "quick", folder)
    assert verdict.claims[1].verdict == "undecided" and verdict.claims[1].members_above() == "0 of 3 (0 finite)"
    assert "6 members are needed for a verdict" in verdict.claims[1].note
    assert verdict.claims[0].above == (3 if len(rates) == 1 else 0)
    assert (folder.path / "figure.png").exists()
    assert main(["sweep", "status", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert out.count("diverged    ") == 3 * len(rates) and "seeds.member 2: not finite from 711 sequences on" in out
    assert main(["sweep", "collect", str(folder.path), "--out", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "t.csv").read_text().count("diverged") == 3 * len(rates) + 1  # and the name of a column
    assert main(["report", str(folder.path), "--out", str(tmp_path / "p.html")]) == 0
    assert f"{3 * len(rates)} of 6 members diverged" in (tmp_path / "p.html").read_text()
