"""The notebooks of the repository, executed by marimo's own runner at their smallest size; what they show is right."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure

import ebbtide as eb
from source_tools import ROOT

marimo = pytest.importorskip("marimo", reason="the notebooks need marimo: pip install 'ebbtide[notebook]'")
pytestmark = pytest.mark.usefixtures("quick_compile")
FOLDER = ROOT / "notebooks"
NAMES = ("first_hour", "my_own_data")


class Executed(NamedTuple):
    """A notebook that was executed: what its cells show, and the names that they define."""

    shown: list[Any]
    names: Mapping[str, Any]

    def text(self) -> str:
        """All texts that it shows, without markup."""
        found = [re.sub(r"<[^>]*>", "", one.text) for one in self.shown if isinstance(one, marimo.Html)]
        return re.sub(r"\s+", " ", " ".join(found))

    def figures(self) -> list[Figure]:
        return [one for one in self.shown if isinstance(one, Figure)]


def execute(name: str, folder: Path, **names: Any) -> Executed:
    """A notebook of the repository, executed in `folder` at its smallest size; `names` take the place of cells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EBBTIDE_NOTEBOOK", "small")
        patch.chdir(folder)
        found = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        shown, defined = module.app.run(defs=names)
    return Executed([one for one in shown if one is not None], defined)


@pytest.fixture(scope="module")
def first_hour(tmp_path_factory) -> Executed:
    return execute("first_hour", tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def my_own_data(tmp_path_factory) -> Executed:
    return execute("my_own_data", tmp_path_factory.mktemp("own"))


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_says_what_it_needs(name):
    """In the form of PEP 723, which `marimo edit --sandbox` and `uv run` read."""
    text = (FOLDER / f"{name}.py").read_text()
    block = re.search(r"^# /// script\n(.*?)^# ///$", text, re.MULTILINE | re.DOTALL)
    assert block and 'dependencies = ["ebbtide[notebook]"]' in block[1] and 'requires-python = ">=3.11"' in block[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_has_no_number_that_looks_like_a_result(name):
    """Results are computed: outside of braces a text has no share with two digits after the point."""
    text = (FOLDER / f"{name}.py").read_text()
    for one in re.findall(r'mo\.md\(r?f?"""(.*?)"""', text, re.DOTALL):
        plain = re.sub(r"\{[^{}]*\}|`[^`]*`|arXiv \d{4}\.\d+|abs/\d{4}\.\d+", "", one)
        assert re.findall(r"\b0\.\d\d+|\d+ ?%", plain) in ([], ["0.02"]), plain  # 0.02: a threshold


def test_the_first_hour_trains_and_tells_what_the_curves_show(first_hour):
    run, text = first_hour.names["run"], first_hour.text()
    assert run.status() == "complete" and run.spec.members == 2
    summary = run.summary()
    assert f"ICL has its peak at a median of {np.median(summary['icl_peak']):.2f}" in text
    assert f"ends at {np.median(summary['icl_final']):.2f}" in text
    falls = int((summary["transience"] > 0.1).sum())
    assert f"In {falls} of 2 members it loses more than 0.1" in text
    curves, portrait, prompt, bars = first_hour.figures()
    assert [panel.get_ylabel() for panel in curves.axes] == ["accuracy", "accuracy", "loss (nats)"]
    assert "IWL" in portrait.axes[0].get_ylabel() and "ICL" in portrait.axes[0].get_xlabel()
    assert len(prompt.axes) == 2 and len(bars.axes) == 1


def test_the_first_hour_shows_who_answers_a_prompt_in_which_way(first_hour):
    """The oracles are right on the prompts that are theirs: on `flip` reading the context is right, memory is not."""
    oracles, answers, prompt, run = (first_hour.names[name] for name in ("oracles", "answers", "prompt", "run"))
    target = np.asarray(prompt.target)
    right = {name: float((p.argmax(1) == target).mean()) for name, p in oracles.items()}
    assert right["ICL"] > 0.9 and right["IWL"] == right["CIWL"] == 0
    assert list(answers) == run.checkpoints()
    assert all(np.allclose(p.sum(1), 1, atol=1e-5) for p in (*oracles.values(), *answers.values()))
    curves = run.metrics()
    end = first_hour.names["agreement"]["ICL"][-1]  # where the oracle is right, to agree is to be right
    assert end == pytest.approx(float(curves["flip"][0, -1]), abs=2 * (1 - right["ICL"]) + 1e-6)
    assert f"At the end it agrees with the ICL oracle in {end:.0%}" in first_hour.text()


def test_an_intact_model_is_where_the_curve_is_and_an_ablated_one_where_its_score_is(first_hour):
    run, bars, best = (first_hour.names[name] for name in ("run", "bars", "best"))
    curves = run.metrics()
    places = np.searchsorted(curves["sequences"], best)
    np.testing.assert_allclose(bars["nothing ablated"], curves["icl"][[0, 1], places], atol=1e-6)
    assert all((curves["icl"][m, places[m]] >= curves["icl"][m]).all() for m in (0, 1))
    _, params = eb.model_at(run, 0, int(best[0]))
    gone = (eb.Ablate(at="blocks.1.attn.hook_z"),)
    assert bars["without any head\nof the last layer"][0] == pytest.approx(
        eb.score(run.spec, params, "icl", gone).value
    )
    medians = [f"{np.median(one):.2f}" for one in bars.values()]
    assert f"intact, ICL is {medians[0]}" in first_hour.text() and f"it is {medians[4]} (a guess" in first_hour.text()


def test_the_first_hour_keeps_a_verdict_that_two_members_cannot_decide(first_hour):
    run, verdict = first_hour.names["run"], first_hour.names["verdict"]
    assert [one.verdict for one in verdict.claims] == ["undecided"] * 3
    assert verdict in first_hour.shown
    assert "With 2 members no claim can be decided: at least 6 are needed." in first_hour.text()
    from ebbtide.studies.verdict import read_verdict

    read_back = read_verdict(run)
    assert run.path.parent.name == "runs" and read_back == verdict


def test_my_own_data_says_how_many_rows_and_classes_are_left(my_own_data):
    X, y, features, each = (my_own_data.names[name] for name in ("X", "y", "features", "each"))
    counts = np.unique(y, return_counts=True)[1]
    enough = int((counts >= each.value).sum())
    assert features.shape == (enough, each.value, X.shape[1])
    text = my_own_data.text()
    assert f"{enough} of {len(counts)} classes stay, with {enough * each.value} of {len(X)} rows" in text
    assert f"{len(X) - enough * each.value} rows are left out in all" in text
    assert "the file has" in text and "classes of 8 exemplars" in text  # what asking for one class too many gives


def test_classes_are_grouped_by_their_names(my_own_data):
    """Every exemplar of a class is a row of that class, and none is there twice."""
    X, y, features, names = (my_own_data.names[name] for name in ("X", "y", "features", "names"))
    rows = {row.astype(np.float32).tobytes(): label for row, label in zip(X, y, strict=True)}
    found = [[rows[exemplar.tobytes()] for exemplar in one] for one in features]
    assert found == [[name] * features.shape[1] for name in names]
    assert len({exemplar.tobytes() for one in features for exemplar in one}) == features[..., 0].size


def test_my_own_data_holds_out_classes_and_exemplars_and_trains(my_own_data):
    source, run = my_own_data.names["source"], my_own_data.names["run"]
    sizes, features = source.sizes(), my_own_data.names["features"]
    assert (sizes.classes + sizes.holdout_classes, sizes.exemplars + sizes.holdout_exemplars) == features.shape[:2]
    assert sizes.holdout_classes > 0 and sizes.holdout_exemplars > 0
    assert run.status() == "complete" and run in my_own_data.shown
    summary = run.summary()
    assert "`" not in my_own_data.text() and f"ends at {np.median(summary['icl_final']):.2f}" in my_own_data.text()


@pytest.mark.thorough
def test_my_own_data_takes_a_file_of_mine(tmp_path):
    """Ten classes of words, with unequal numbers of rows; the rest of the notebook does not change."""
    rng = np.random.default_rng(0)
    y = np.repeat([f"c{i}" for i in range(12)], np.arange(6, 18))
    X = rng.normal(size=(len(y), 5)) + (np.unique(y, return_inverse=True)[1])[:, None]
    np.savez(tmp_path / "mine.npz", X=X, y=y)
    np.savez(tmp_path / "other.npz", X=-X, y=y)
    own = execute("my_own_data", tmp_path, DATA="mine.npz")
    other = execute("my_own_data", tmp_path, DATA="other.npz")  # of the same size, and yet another run
    assert len({one.names["run"].header.digest for one in (own, other)}) == 2
    assert own.names["features"].shape == other.names["features"].shape == (10, 8, 5)
    assert "10 of 12 classes stay" in own.text() and own.names["run"].status() == "complete"
