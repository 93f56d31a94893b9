"""Study `statisticians`: errors against classical predictors, the frontier, and figures from made-up answers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, PromptSet, fresh_prompts, member_values
from ebbtide.errors import InputError
from ebbtide.evaluation.baselines import least_squares, linear_posterior
from ebbtide.evaluation.bayes import penalty_of, ridge_risk
from ebbtide.papers.statisticians import links as statisticians_links
from ebbtide.papers.statisticians import selection as statisticians_selection
from ebbtide.papers.statisticians import study as statisticians
from ebbtide.papers.statisticians.contests import (
    best_predictor,
    classifier_scores,
    gain_over_frontier,
    model_errors,
    noise_mixture_errors,
    predictor_errors,
    ridge_errors,
    squared_errors,
)
from ebbtide.papers.statisticians.links import EITHER, LINKS, REGRESSION, SIGNS
from ebbtide.papers.statisticians.selection import BOTH, HIGH, LOW, SELECTION
from ebbtide.papers.statisticians.study import BASE, DECODER, LABELS, QUICK, SPARSE, STATISTICIANS
from ebbtide.report import contest_figure
from ebbtide.report.contest_figure import Contest, bars_figure, frontier_figure
from ebbtide.sources.functions import Functions
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment
from ebbtide.sweeps.axes import Point
from ebbtide.sweeps.plan import group
from ebbtide.tasks.regression import Regression
from evidence_tools import finished
from sweep_tools import plan_of

pytestmark = pytest.mark.usefixtures("quick_compile")

PROMPTS = 400


def answered(task: Regression, says=None, **source) -> Predictions:
    """A member that answers what `says` makes of (inputs, responses); 0 unless given."""
    spec = replace(QUICK, task=task, source=replace(QUICK.source, **{"dim": 8} | source))
    asked = fresh_prompts(spec, "train", PROMPTS)
    silent = np.zeros((PROMPTS, 2 if asked.responses.dtype.kind == "i" else 1))
    said = silent if says is None else says(asked.inputs, asked.responses)
    return Predictions(np.asarray([64]), said[None, None], asked, spec)


def test_a_model_that_is_ridge_has_ridges_errors_and_its_risk():
    noise, prior = HIGH, 8**-0.5
    found = answered(Regression(context=8, noise=(noise,)))
    others = predictor_errors(found, noise)
    assert set(others) == {"least squares", "ridge", "averaging", "3 nearest"} and best_predictor(others) == "ridge"
    penalties = np.asarray([penalty_of(noise, prior), 3.0])
    np.testing.assert_allclose(ridge_errors(found, noise, penalties)[0], others["ridge"])
    large = linear_posterior(found.inputs, found.responses, 3.0).mean[-1]
    np.testing.assert_allclose(ridge_errors(found, noise, penalties)[1], squared_errors(found, large, noise))
    risk = ridge_risk(found.inputs, noise, prior)[-1]
    assert abs(others["ridge"].mean() - risk.mean()) < 4 * (others["ridge"] - risk).std() / PROMPTS**0.5
    silent = model_errors(found, noise)
    clean = (found.inputs[-1] * found.latent["weights"]).sum(-1)
    np.testing.assert_allclose(silent, clean**2 + noise**2)


def test_labels_are_right_or_wrong_and_a_perfect_model_errs_nowhere():
    task = Regression(context=16, noise=(0.0,), link="sign")
    perfect = answered(task, lambda x, y: np.eye(2)[y[-1]])
    assert (model_errors(perfect, 0.0) == 0).all()
    others = predictor_errors(perfect, 0.0)
    assert best_predictor(others) == "logistic" and set(np.unique(others["logistic"])) == {0.0, 1.0}


def test_the_lasso_is_best_of_sparse_weights_and_least_squares_of_clean_ones():
    assert best_predictor(predictor_errors(answered(Regression(context=6, noise=(0.0,)), nonzero=3), 0.0)).startswith(
        "Lasso"
    )
    clean = predictor_errors(answered(Regression(context=16, noise=(0.0,))), 0.0)
    assert best_predictor(clean) == "least squares" and clean["least squares"].max() < 1e-9 and "ridge" not in clean


def test_fewer_pairs_than_dimensions_and_equal_inputs_are_no_special_case():
    found = answered(Regression(context=3, noise=(HIGH,)))
    prompt = found.prompt_set.prompt
    same = found._replace(prompt_set=PromptSet(prompt._replace(inputs=jnp.repeat(prompt.inputs[:1], 4, axis=0))))
    assert (same.inputs[1:] == same.inputs[0]).all()
    for one in (found, same):
        assert all(np.isfinite(errors).all() for errors in predictor_errors(one, HIGH).values())


def test_the_optimum_of_both_noises_is_below_the_frontier_and_no_ridge_is():
    both = Regression(context=8, noise=(LOW, HIGH))
    found = {noise: answered(replace(both, noise=(noise,))) for noise in (LOW, HIGH)}
    grid = np.geomspace(0.008, 20, 31)
    curve = np.stack([ridge_errors(found[s], s, grid).mean(1) for s in (LOW, HIGH)], axis=1)
    best = np.asarray([[noise_mixture_errors(found[s], s, (LOW, HIGH)).mean() for s in (LOW, HIGH)]])
    assert gain_over_frontier(best, curve[None]) > 0.02
    coarse, points = gain_over_frontier(best, curve[None, ::3]), (curve[::3] - best).max(-1).min()
    assert gain_over_frontier(best, curve[None]) < coarse < points, (
        "chords of a convex curve are above it, and below its points"
    )
    corner = np.asarray([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 2.0], [2.0, 0.0]]])
    assert gain_over_frontier(np.zeros((2, 2)), corner).tolist() == [0.5, 1.0], "each member has a curve of its own"
    curves = np.tile(curve, (len(curve), 1, 1))
    assert (gain_over_frontier(curve, curves) <= 0).all() and (gain_over_frontier(curve + 0.01, curves) < 0).all()


def test_what_no_predictor_fits_is_refused():
    with pytest.raises(InputError, match=r"noise = 0.0: must be a number above 0"):
        noise_mixture_errors(answered(Regression(context=4, noise=(0.0,))), 0.0, (0.0, HIGH))
    curved = answered(Regression(context=4, noise=(HIGH,)), layers=1)
    with pytest.raises(InputError, match=r"source.layers = 1: must be 0: the predictors are linear"):
        squared_errors(curved, np.zeros(PROMPTS), HIGH)


def test_a_member_that_has_not_finished_is_nan():
    found = [answered(Regression(context=4, noise=(HIGH,))), None]
    measured = member_values(found, lambda one: float(model_errors(one, HIGH).mean()))
    assert np.isfinite(measured[0]) and np.isnan(measured[1])


@pytest.mark.parametrize("experiment", STATISTICIANS.experiments, ids=lambda one: one.name)
@pytest.mark.parametrize("preset", ["quick", "cpu", "paper"])
def test_arms_differ_in_the_task_only_and_every_claim_is_asked(experiment, preset):
    plan = plan_of(STATISTICIANS, experiment, preset)
    sweep, arms = plan.sweep, plan.comparison.arms
    long = {SPARSE, "sparser", LABELS} if experiment is BASE and preset != "paper" else set()
    assert {claim.name for claim in experiment.claims} - {one.name for one in experiment.claims_on(arms)} == long
    for name, point in arms.items():
        own = {DECODER: ("model.",), SPARSE: ("source.nonzero", "sequences", "optimizer.lr")}.get(name, ())
        assert all(field.startswith(("task.", *own)) for field in point)
    for one in group(sweep, sweep.points()):
        one.spec.check()
        assert isinstance(one.spec.source, Functions) and one.spec.seeds.world == one.spec.seeds.init


def arms_of(experiment: Experiment) -> dict[str, Point]:
    """All arms of an experiment, which it has at the paper's size."""
    return plan_of(STATISTICIANS, experiment, "paper").comparison.arms


@pytest.fixture
def made_up(monkeypatch):
    """Members that answer nothing but 0."""
    points: dict[str, Point] = arms_of(BASE) | arms_of(SELECTION)

    def predict_arm(evidence, arm, evaluator, **changes):
        point = points[arm]
        fields: dict[str, Any] = {"context": 8}
        fields |= {name.removeprefix("task."): value for name, value in point.items() if "task." in name}
        fields |= {name: value for name, value in changes.items() if name == "noise"}
        source = {"nonzero": point["source.nonzero"]} if "source.nonzero" in point else {}
        fields["noise"] = tuple(fields["noise"])
        return [answered(Regression(**fields), **source), None]

    for module in (statisticians, statisticians_selection):
        monkeypatch.setattr(module, "predict_arm", predict_arm)


def test_claims_about_models_that_answer_0_fail_and_missing_members_are_nan(made_up):
    for experiment in (BASE, SELECTION):
        evidence = finished(arms_of(experiment))
        for claim in experiment.claims_on(evidence.arms):
            estimate = claim.estimate(evidence)
            assert estimate.shape == (2,) and np.isnan(estimate[1]), claim.name
            assert estimate[0] <= claim.threshold, claim.name


def links(monkeypatch, says) -> Evidence:
    """Evidence of `links`, of each arm a member that answers what `says` makes of (arm, link, inputs, responses)."""

    def predict_arm(evidence, arm, evaluator, link, **changes):
        task = Regression(context=16, noise=(0.0,), link=link)
        return [answered(task, lambda x, y: says(arm, link, x, y)[:, None]), None]

    monkeypatch.setattr(statisticians_links, "predict_arm", predict_arm)
    return finished(arms_of(LINKS))


def test_a_model_that_tells_links_by_their_labels_is_as_good_as_two_models(monkeypatch):
    def says(arm, link, x, y):
        if arm == REGRESSION or (arm == EITHER and link == "linear"):
            return least_squares(x, y, [16])[0]
        return classifier_scores(x, np.sign(y))["logistic"]

    evidence = links(monkeypatch, says)
    found = [claim.estimate(evidence) for claim in LINKS.claims]
    assert all(np.isnan(one[1]) for one in found)
    assert all(one[0] > 0 for one in found)
    assert LINKS.figures is not None and LINKS.figures(evidence, "title")["corner.png"][:4] == b"\x89PNG"
    one_for_both = links(monkeypatch, lambda arm, link, x, y: says(arm if arm != EITHER else SIGNS, link, x, y))
    regression, classification = (claim.estimate(one_for_both)[0] for claim in LINKS.claims)
    assert regression < 0 < classification, "it is the model of classification, and far off on regression"


def test_figures_are_drawn_and_say_how_far_the_best_predictor_is(made_up):
    evidence = finished(arms_of(BASE))
    assert BASE.figures is not None and SELECTION.figures is not None
    assert BASE.figures(evidence, "title")["contest.png"][:4] == b"\x89PNG"
    best, gap, low, high = statisticians.difference_to_best(evidence, LABELS)
    assert best == "logistic" and low < gap < high and gap > 0.1
    assert SELECTION.figures(finished(arms_of(SELECTION)), "title")["frontier.png"][:4] == b"\x89PNG"
    assert SELECTION.figures(finished(arm for arm in arms_of(SELECTION) if arm != BOTH), "title") == {}


def panels(monkeypatch, **options: Any) -> Any:
    """The panels of a figure of two arms on the same prompts, of which one has no finished member and one errs more."""
    drawn = []
    monkeypatch.setattr(contest_figure, "render", lambda figure, kind: drawn.append(figure) or b"")
    ridge = {"ridge": (0.1, 0.08, 0.12)}
    members = {"near": [0.12, 0.14], "far": [0.5, 0.7], "none": [np.nan, np.nan]}
    bars_figure("t", {arm: Contest("error", np.asarray(values), ridge) for arm, values in members.items()}, **options)
    return drawn[0].axes


def test_panels_that_are_compared_share_one_scale_and_say_their_values(monkeypatch):
    own = panels(monkeypatch)
    assert len({panel.get_ylim() for panel in own}) == 3 and not any(panel.texts for panel in own)
    shared = panels(monkeypatch, one_scale=True)
    assert {panel.get_ylim() for panel in shared} == {shared[0].get_ylim()}
    assert shared[0].get_ylim()[1] == pytest.approx(1.08 * 0.7)
    said = [[text.get_text() for text in panel.texts] for panel in shared]
    assert said == [["0.13", "0.1"], ["0.6", "0.1"], ["0.1"]]


def test_a_figure_without_finished_members_is_still_a_figure():
    nothing = np.full(3, np.nan)
    bars = bars_figure("t", {"kind": Contest("error", nothing, {"ridge": (0.5, 0.4, 0.6)})})
    points = frontier_figure(
        "t", ("a", "b"), {"curve": np.asarray([[0.1, 1.0], [0.2, 0.5]])}, {"arm": np.full((3, 2), np.nan)}, {}
    )
    assert all(one[kind] for one in (bars, points) for kind in ("png", "svg"))
