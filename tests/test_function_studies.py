"""Studies of functions in context: their measures know the exact predictors, and a small run is judged and drawn."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, cache_per_prompt_set, fresh_prompts, training_prompts
from ebbtide.evaluation.summary import fall_since
from ebbtide.mechanisms.linear import explained_by_probe
from ebbtide.papers.bayesian_averaging import measures as bayesian_measures
from ebbtide.papers.bayesian_averaging import scaling as bayesian_scaling
from ebbtide.papers.bayesian_averaging import study as bayesian_averaging
from ebbtide.papers.transient_ridge import study as transient_ridge
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.comparison import conclude_sweep
from ebbtide.studies.evidence import Arm, Evidence, Series
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.training.engine import Engine
from ebbtide.training.spec import Spec
from sweep_tools import make_sweep, plan_of, trained
from tiny import write_run

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY: Point = {
    "sequences": 1_920,
    "schedule.evaluations": 4,
    "schedule.first": 320,
    "schedule.checkpoints": 4,
    "model.width": 16,
    "evaluation_sequences": 50,
}


NOTHING = Evidence({})
"""Of an experiment whose answers are given."""


def answered(spec: Spec, outputs: list[np.ndarray], prompts: int = 200, evaluator: str = "train") -> Predictions:
    """Answers made up for fresh prompts of a spec: one array [slots, prompt, outputs] a checkpoint."""
    asked = fresh_prompts(spec, evaluator, prompts)
    made = np.stack(outputs) if outputs else np.zeros((1, *asked.responses.shape, 1))
    return Predictions(np.arange(len(made)) * 100, made, asked, spec)


def test_distances_are_zero_for_the_predictor_itself(monkeypatch):
    blank = answered(transient_ridge.QUICK, [], evaluator="prior")
    best, pooled = transient_ridge.predictor_outputs(blank)
    made = answered(transient_ridge.QUICK, [0 * best[..., None], best[..., None], pooled[..., None]], evaluator="prior")
    monkeypatch.setattr(transient_ridge, "predict_arm", lambda evidence, arm, evaluator: [made, None])
    found = transient_ridge.distances_to_predictors(NOTHING, "any").values
    between = ((best - pooled) ** 2).mean() / (best**2).mean()
    np.testing.assert_allclose(found[0], [[1.0, found[0, 0, 1]], [0, between], [between, 0]], atol=1e-9)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(transient_ridge.distance_between_predictors(NOTHING, "any"), [between, np.nan])
    np.testing.assert_allclose(transient_ridge._return_share(NOTHING, "any")[0], 1.0)  # pyright: ignore
    reach = transient_ridge.reach_of_predictors(NOTHING, "any")
    np.testing.assert_allclose(reach[0], [min(0.5, between), min(found[0, 0, 1] / 2, between)])
    leads = transient_ridge.leads_of_predictors(NOTHING, "any").values
    np.testing.assert_allclose(leads[0, 1:], [[reach[0, 0], -between], [-between, reach[0, 1]]], atol=1e-9)
    assert (leads[0, 0] < 0).all() and np.isnan(leads[1]).all()


def test_the_average_itself_has_no_gap_and_its_regret_keeps_the_bound(monkeypatch):
    blank = answered(bayesian_averaging.QUICK, [])
    made = bayesian_measures.exact_predictions(blank)
    perfect = answered(bayesian_averaging.QUICK, [made.marginal, made.average])
    monkeypatch.setattr(bayesian_measures, "predict_arm", lambda evidence, arm, evaluator, last: [perfect])
    monkeypatch.setattr(bayesian_scaling, "predict_arm", lambda evidence, arm, evaluator: [perfect])
    gap, regret, least = (
        one(NOTHING, "any")
        for one in (
            bayesian_measures.final_kl_to_average,
            bayesian_measures.prompt_regret,
            bayesian_measures.exact_regret,
        )
    )
    np.testing.assert_allclose(gap, 0, atol=1e-7)  # tables are kept in float32
    assert 0 < regret[0] < np.log(8)
    np.testing.assert_allclose(regret, least, atol=1e-6)
    np.testing.assert_allclose(bayesian_scaling.generalisation_gap(NOTHING, "any"), 0, atol=1e-7)
    assert bayesian_scaling.kl_over_training(NOTHING, "any").values.argmin() == 1
    far = bayesian_measures.distance_of_marginal(NOTHING, "any")
    np.testing.assert_allclose(bayesian_scaling.kl_over_training(NOTHING, "any").values[:, 0], far, atol=1e-7)
    np.testing.assert_allclose(bayesian_scaling._transience_margin(NOTHING, "any"), -0.02)  # pyright: ignore
    np.testing.assert_allclose(bayesian_averaging.log_prob_correlation(NOTHING, "any"), 1.0)  # pyright: ignore
    np.testing.assert_allclose(bayesian_averaging.slope_difference(NOTHING, "any"), 0, atol=1e-5)
    over = bayesian_averaging._kl_over_training(perfect)
    np.testing.assert_allclose(np.diagonal(over[::-1]), 0, atol=1e-7)
    np.testing.assert_allclose(bayesian_averaging._passing_margin(NOTHING, "any"), 0.02, atol=1e-6)  # pyright: ignore


def test_a_regret_that_falls_like_one_over_the_slots_has_slope_minus_one():
    once = np.concatenate([[1.0], np.zeros(12)])
    assert bayesian_averaging.decay_slope(once) == pytest.approx(-1)
    assert bayesian_averaging.decay_slope(np.ones(13)) == pytest.approx(0)


def test_the_posterior_is_over_the_concept_that_answered():
    made = bayesian_measures.exact_predictions(answered(bayesian_averaging.QUICK, []))
    concept = answered(bayesian_averaging.QUICK, []).latent["concept"]
    right = np.take_along_axis(made.posterior[-1], concept[:, None], axis=-1)
    assert np.exp(right).mean() > 0.7


def test_prompts_seen_are_those_of_training_and_no_others():
    spec = replace(bayesian_averaging.QUICK, distinct=48, members=2)
    first, second = (training_prompts(spec, member, 100) for member in (0, 1))
    data, split = Engine(spec).data(0), spec.source.sizes().split()
    trained = spec.task.sample(data.key, jnp.arange(48, dtype=jnp.uint32), spec.source, data.bank, split)
    assert isinstance(trained, FunctionPrompt) and first.prompt.responses.dtype == trained.responses.dtype
    np.testing.assert_array_equal(first.inputs, trained.inputs)
    np.testing.assert_array_equal(first.responses, trained.responses)
    assert (first.responses != second.responses).any()
    assert training_prompts(bayesian_averaging.QUICK, 0, 100).inputs.shape[1] == 100


def test_a_measure_of_prompts_is_made_once_for_all_that_are_asked_the_same():
    made: list[Predictions] = []
    measure = cache_per_prompt_set(lambda found: made.append(found) or len(made))
    one, other = (answered(bayesian_averaging.QUICK, []) for _ in range(2))
    another = answered(bayesian_averaging.QUICK, [], prompts=100)
    assert one.prompt_set is other.prompt_set and [measure(found) for found in (one, other, another, one)] == [
        1,
        1,
        2,
        1,
    ]
    assert all(len(found.outputs) == 0 for found in made), "it could not know them"


def test_a_measure_of_prompts_does_not_depend_on_the_arm_that_is_measured_first():
    """It is kept for every arm that is asked the same, whatever their models are."""
    spec = transient_ridge.QUICK
    asked = fresh_prompts(spec, "train", 10)
    other = replace(spec, model=replace(spec.model, layers=7), batch=1)
    found = []
    for order in ((spec, other), (other, spec)):
        measure = cache_per_prompt_set(lambda one: (one.spec.model, one.spec.batch, one.spec.task, one.spec.source))
        outputs = np.zeros((1, *asked.responses.shape, 1))
        found += [measure(Predictions(np.arange(1), outputs, asked, one)) for one in order]
    assert all(one == found[0] for one in found) and found[0][2:] == (spec.task, spec.source)


def test_the_truth_of_a_prompt_that_is_of_no_concept_is_none():
    blank = answered(bayesian_averaging.QUICK, [], evaluator="prior")
    none = blank.latent["concept"] < 0
    truth = bayesian_measures.exact_predictions(blank).truth
    assert none.any() and np.isnan(truth[:, none]).all() and np.isfinite(truth[:, ~none]).all()


@pytest.mark.parametrize("evaluations", [np.arange(0, 1001, 10), np.arange(0, 1001, 100), np.arange(0, 1001, 250)])
def test_what_is_read_at_a_checkpoint_is_read_where_it_is_not_at_its_number(evaluations, monkeypatch):
    """Nearest to both predictors at 500 sequences, the sixth checkpoint of eleven; that is the 51st evaluation, the
    sixth or the third."""
    loss = np.concatenate([[np.nan], 1e4 / evaluations[1:]])[None]
    evidence = Evidence({"any": Arm({"sequences": evaluations, "train_loss": loss})})
    checkpoints = np.arange(0, 1001, 100)
    away = np.abs(checkpoints - 500.0)[None]
    both = Series(np.stack([away, away], axis=-1), checkpoints)
    monkeypatch.setattr(transient_ridge, "distances_to_predictors", lambda evidence, arm: both)
    monkeypatch.setattr(bayesian_scaling, "kl_over_training", lambda evidence, arm: Series(away, checkpoints))
    expected = fall_since(evaluations, loss, np.array([500]))
    for falls in (transient_ridge._loss_fall, bayesian_scaling._loss_fall):
        np.testing.assert_array_equal(falls(evidence, "any"), expected)
    assert 0.2 < expected[0] < 0.6


def test_the_fall_of_the_loss_is_from_where_it_is_said_to_be():
    loss = np.array([[np.nan, 8, 8, 8, 4, 2, 2, 2.0]])
    at = np.array([0, 10, 20, 30, 40, 1000, 1010, 1020])
    for since, fall in ((0, 0.75), (20, 0.75), (30, 0.7), (1000, 0.25), (2000, 0.0)):
        assert fall_since(at, loss, np.array([since]))[0] == pytest.approx(fall), since


def test_another_run_in_the_same_folder_is_another_snapshot(tmp_path):
    """So what was computed of a run is not taken for what another run in its place would give."""
    seen = set()
    for members in (1, 2):
        run = write_run(tmp_path / "run", {"icl": np.full((members, 3), 0.5)}, np.ones((members, 3)))
        assert run.snapshot() == RunFolder(run.path).snapshot()
        seen.add(run.snapshot())
        shutil.rmtree(run.path)
    assert len(seen) == 2


def test_the_slope_by_a_logarithm():
    x = (2, 8, 32)
    found = bayesian_scaling.log_slope(x, np.stack([3 * np.log(x) + 1, 0 * np.log(x)], axis=1))
    np.testing.assert_allclose(found, [3, 0], atol=1e-12)


def test_a_probe_explains_what_is_linear_and_nothing_else():
    random = np.random.default_rng(0)
    x = random.standard_normal((2000, 5))
    assert explained_by_probe(x, x @ random.standard_normal((5, 3)) + 1.0) == pytest.approx(1, abs=1e-3)
    assert abs(explained_by_probe(x, random.standard_normal((2000, 2)))) < 0.02


@pytest.mark.parametrize(
    ("study", "name", "pictures"),
    [
        (transient_ridge.TRANSIENT_RIDGE, "pools", {"figure.png", "distances.png", "paths.png"}),
        pytest.param(
            bayesian_averaging.BAYESIAN_AVERAGING,
            "averaging",
            {"figure.png", "distances.png"},
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            bayesian_averaging.BAYESIAN_AVERAGING,
            "scaling",
            {"figure.png", "distances.png", "scaling.png"},
            marks=pytest.mark.thorough,
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_small_run_is_judged_and_drawn(study, name, pictures, tmp_path):
    whole = study.experiment(name)
    work = plan_of(study, whole).comparison
    fewer = {arm: point | {"distinct": point.get("distinct", 0) // 50} for arm, point in work.arms.items()}
    preset = whole.presets["quick"]._replace(work=work._replace(members=2, arms=fewer))
    experiment = whole._replace(presets={"quick": preset})
    folder = trained(tmp_path / "s", make_sweep(study, experiment, "quick", TINY))
    verdict = conclude_sweep(study, experiment, "quick*", folder)
    assert [one.claim for one in verdict.claims] == [one.name for one in whole.claims_on(work.arms)]
    assert all(one.n == 2 and one.estimate is not None for one in verdict.claims)
    assert all((folder.path / name).read_bytes()[:4] == b"\x89PNG" for name in pictures)
