"""Cells of a sweep: a known mixture of strategies gets its weights back, and members keep their seeds."""

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.contest import cells as contest_cells
from ebbtide.contest.cells import cells_of
from ebbtide.contest.mixtures import READ, few_shot_fractions, nearest_mixture, oracle_table
from ebbtide.errors import InputError
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.results import load
from ebbtide.tasks.labels import Polysemy, Shared
from sweep_tools import BASE, SHORT_SWEEP, made

CHANCE = {"icl": 0.5, "flip": 0.5, "ciwl": 0.5, "iwl": 1 / 66}
EVALUATORS = ["icl", "flip", "ciwl", "iwl"]
SWEEP = replace(
    SHORT_SWEEP,
    base=BASE | {"sequences": 1600, "evaluators": EVALUATORS},
    axes=(Axis(field="source.classes", values=[64, 128]), Axis(field="optimizer.lr", values=[1e-3]), Axis(seeds=3)),
)


@pytest.mark.parametrize("names", [READ, ("icl", "flip"), ("icl", "ciwl"), ("icl", "ciwl", "iwl")])
def test_scores_of_a_mixture_give_its_weights_back(names):
    """Exactly, whichever of the evaluators were recorded, also where a strategy has no weight."""
    weights = np.random.default_rng(0).dirichlet([1, 0.3, 0.3, 1], size=40)
    weights[:10] = np.where(weights[:10] > 0.2, weights[:10], 0)
    weights /= weights.sum(axis=1, keepdims=True)
    scores = weights @ oracle_table(names, CHANCE).T
    curves = {name: scores[None, :, i] for i, name in enumerate(names)}
    found = few_shot_fractions(curves, CHANCE)[0]
    np.testing.assert_allclose(found[:, 0], weights[:, 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], weights[:, 1] + weights[:, 2], atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_the_nearest_mixture_is_nearer_than_any_other():
    """Scores that no mixture has, against a fine grid of the simplex."""
    table = oracle_table(READ, CHANCE)
    grid = (
        np.array([[a, b, c, 20 - a - b - c] for a in range(21) for b in range(21 - a) for c in range(21 - a - b)]) / 20
    )
    for scores in np.random.default_rng(1).uniform(-0.2, 1.2, (20, 4)):
        best = nearest_mixture(table, scores)
        misfit = ((table @ best - scores) ** 2).sum()
        assert misfit <= ((grid @ table.T - scores) ** 2).sum(axis=1).min() + 1e-12
        assert best.min() >= 0 and best.sum() == pytest.approx(1)


def test_a_model_that_plays_each_strategy_on_its_share_of_prompts_gets_these_shares():
    """ICL on 50 % of the prompts, IWL on 15 %, CIWL on 15 %, guessing on the rest, right as often as the oracles."""
    random, prompts = np.random.default_rng(2), 4000
    right = oracle_table(READ, CHANCE)
    played = random.choice(4, (prompts, len(READ)), p=[0.5, 0.15, 0.15, 0.2])
    scores = (random.random(played.shape) < right[np.arange(len(READ)), played]).mean(axis=0)
    curves = {name: np.full((1, 1), scores[i]) for i, name in enumerate(READ)}
    assert few_shot_fractions(curves, CHANCE)[0, 0] == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_cells_are_the_configurations_and_members_keep_their_seeds(tmp_path):
    results = load(made(tmp_path / "s", SWEEP, members=2).path)
    cells = cells_of(results)
    assert [cell.facts.name for cell in cells] == [f"source.classes = {n}, optimizer.lr = 0.001" for n in (64, 128)]
    assert [cell.facts.config["source.classes"] for cell in cells] == [64, 128]
    specs = [cell.facts.spec for cell in cells]
    assert [spec.source.sizes().classes for spec in specs if spec and isinstance(spec.source, Gaussian)] == [64, 128]
    for cell in cells:
        assert cell.fractions.shape == (3, 4, 3) and cell.sequences.tolist() == [400, 800, 1200, 1600]
        for row in results.select({"source.classes": cell.facts.config["source.classes"]}):
            curves = results.metrics(row)
            assert curves is not None
            own = {name: curves[name][row.place : row.place + 1] for name in EVALUATORS}
            chance = {name: results.chance(name) or 0.0 for name in EVALUATORS} | {"iwl": 1 / 66}
            np.testing.assert_allclose(cell.fractions[row.axes["seeds.member"]], few_shot_fractions(own, chance)[0, 1:])


def test_a_member_that_has_not_finished_is_nan_and_keeps_its_place(tmp_path):
    told = []
    cells = cells_of(load(made(tmp_path / "s", SWEEP, members=1, leave=2).path), told.append)
    assert np.isfinite(cells[0].fractions).all()
    assert np.isfinite(cells[1].fractions[:, 0, 0]).tolist() == [True, False, False]
    assert told[1] == "cell 2 of 2: source.classes = 128, optimizer.lr = 0.001"


def test_fractions_of_streams_come_from_checkpoints_and_are_measured_once(tmp_path, monkeypatch):
    """A damaged file is measured again; without a folder nothing is kept."""
    changed = {"task": {"type": "markov", "context": 7}, "source": {"type": "urns", "states": 4, "pool": 4}}
    base = {**SWEEP.base, **changed, "evaluators": ["train", "prior"], "model.pairing": "states"}
    base = {name: value for name, value in base.items() if not name.startswith("source.")}
    sweep = replace(SWEEP, base=base, axes=(Axis(field="source.pool", values=[4, 8]), Axis(seeds=2)))
    results, measured = load(made(tmp_path / "s", sweep).path), []

    def measuring(run, place):
        measured.append(place)
        return np.array([0, 800, 1600]), np.array([[0, 0, 1], [0.7, 0.1, 0.2], [0.5, 0.5, 0]]) + 0.0

    monkeypatch.setattr(contest_cells, "pool_fractions", measuring)
    first = cells_of(results, keep=tmp_path / "kept")
    assert len(measured) == 4 and [cell.facts.config for cell in first] == [{"source.pool": 4.0}, {"source.pool": 8.0}]
    assert first[0].sequences.tolist() == [800, 1600] and first[0].fractions[1, 0].tolist() == [0.7, 0.1, 0.2]
    again = cells_of(results, keep=tmp_path / "kept")
    assert len(measured) == 4 and np.array_equal(first[1].fractions, again[1].fractions)
    file = sorted((tmp_path / "kept").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-9])
    cells_of(results, keep=tmp_path / "kept")
    assert len(measured) == 5


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"evaluators": ["icl", "iwl"]}, "evaluators = 'icl, iwl': must have icl, and flip or ciwl"),
        ({"task.labels": Polysemy(per_class=2)}, "task.labels = 'polysemy': must be fixed or shared"),
        ({"task.labels": Shared(count=8), "evaluators": ["train", "iwl"]}, "evaluators = 'iwl': must have icl"),
    ],
)
def test_what_has_no_fractions_is_refused_in_one_line(changed, words, tmp_path):
    results = load(made(tmp_path / "s", replace(SWEEP, base=SWEEP.base | changed)).path)
    with pytest.raises(InputError, match=words):
        cells_of(results)


def test_a_sweep_that_has_not_begun_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no member that has finished"):
        cells_of(load(made(tmp_path / "s", SWEEP, leave=2).path))
