"""Study `representations`: the exact predictors, what probes are asked, claims on made-up answers, the figure."""

from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis import layer_probes
from ebbtide.analysis.layer_probes import ProbeScores
from ebbtide.analysis.predictions import Predictions, fresh_prompts
from ebbtide.errors import InputError
from ebbtide.evaluation.baselines import linear_posterior
from ebbtide.evaluation.bayes import mixed_features, penalty_of
from ebbtide.papers.representations import measures as representations_measures
from ebbtide.papers.representations import study as representations
from ebbtide.papers.representations.pasting import (
    COPIED,
    EMBEDDED,
    FRONT_ENDS,
    PASTED,
    PASTING,
    RANDOM,
    WHOLE,
    WHOLE_COPIED,
)
from ebbtide.papers.representations.study import DEEP, MIXED, MIXTURE, QUICK, REPRESENTATIONS, SHALLOW, SUPERVISED
from ebbtide.report.functions_figure import layers_figure
from ebbtide.sources.functions import Functions, represent_float64
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.study import Experiment
from ebbtide.sweeps.plan import group
from ebbtide.training.start import shapes
from ebbtide.verify.constructions import representation_ridge, ridge_descent
from evidence_tools import finished
from sweep_tools import plan_of

pytestmark = pytest.mark.usefixtures("quick_compile")

PROMPTS = 300


def work(experiment: Experiment, preset: str = "quick") -> Comparison:
    return plan_of(REPRESENTATIONS, experiment, preset).comparison


def answered(says=None, **source) -> Predictions:
    """A member that answers what `says` makes of its answers; 0 unless given."""
    spec = replace(QUICK, source=replace(QUICK.source, **source))
    asked = fresh_prompts(spec, "train", PROMPTS)
    silent = Predictions(np.asarray([64]), np.zeros((1, *asked.responses.shape, 1)), asked, spec)
    return silent if says is None else silent._replace(outputs=says(silent)[None, ..., None])


def test_a_representation_in_float64_is_the_sources():
    source = Functions(dim=3, layers=2, representations=2, seed=7)
    bank, x = source.build(), np.random.default_rng(0).standard_normal((5, 4, 3))
    for which in range(2):
        ours = represent_float64(np.asarray(bank.maps[which], np.float64), x)
        np.testing.assert_allclose(
            ours, source.represent(bank, jnp.int32(which), jnp.asarray(x, jnp.float32)), atol=1e-5
        )


@pytest.mark.parametrize("several", [1, 3])
def test_clean_responses_are_what_the_task_drew(several):
    found = answered(representations=several)
    noise = found.responses - representations_measures.noiseless_responses(found)
    assert abs(noise.std() - 0.1) < 0.005 and abs(noise.mean()) < 0.01


def test_the_posterior_mean_is_best_and_what_does_not_know_the_representation_is_far():
    for several in (1, 3):
        made = {
            name: one.mean()
            for name, one in representations_measures.predictor_errors(answered(representations=several)).items()
        }
        assert min(made, key=lambda name: made[name]) == "posterior mean"
        assert made["ridge on x"] > 10 * made["posterior mean"]
    one = representations_measures.predictor_errors(answered())
    assert set(one) == {"posterior mean", "ridge on x", "random features"}


def test_ridge_with_the_best_penalty_is_ridge_with_one_of_them():
    found = answered()
    truth = representations_measures.noiseless_responses(found)[-1]
    ours = representations_measures.best_ridge_errors(found.inputs, found.responses[..., None], truth[:, None])
    each = [linear_posterior(found.inputs, found.responses, p).mean[-1] for p in representations_measures.PENALTIES]
    errors = [(one - truth) ** 2 for one in each]
    np.testing.assert_allclose(ours, min(errors, key=lambda one: one.mean()), atol=1e-9)


def test_evidence_finds_the_representation_and_one_alone_is_ridge():
    found = answered(representations=3)
    known = representations_measures.represented_inputs(found)
    mixed = mixed_features(known, found.responses, 0.1, found.spec.source.deviation)  # pyright: ignore
    np.testing.assert_allclose(mixed.posterior.sum(-1), 1)
    right = np.take_along_axis(mixed.posterior[-1], found.latent["representation"][:, None], 1)[:, 0]
    assert right.mean() > 0.9 and np.allclose(mixed.posterior[0], 1 / 3)
    alone = mixed_features(known[:1], found.responses, 0.1, 3**-0.5).predictions
    np.testing.assert_allclose(alone, linear_posterior(known[0], found.responses, penalty_of(0.1, 3**-0.5)).mean)
    with pytest.raises(InputError, match="features = 0: must be at least one"):
        mixed_features([], found.responses, 0.1, 1.0)
    with pytest.raises(InputError, match=r"noise = 0.0"):
        mixed_features(known, found.responses, 0.0, 1.0)


def test_a_transformer_of_written_weights_transforms_then_learns():
    source = Functions(dim=4, layers=3, seed=2)
    maps = np.asarray(source.build().maps[0], np.float64)
    random = np.random.default_rng(1)
    x, y = random.standard_normal((9, 32, 4)), random.standard_normal((8, 32))
    rate = 0.02
    ours = representation_ridge(maps, 8, 4, rate, 0.3).answer(x, y)
    on_phi = ridge_descent(4, 8, 4, rate, 0.3).answer(represent_float64(maps, x), y)
    np.testing.assert_allclose(ours, on_phi, atol=1e-12)
    wrong = representation_ridge(maps[:2], 8, 4, rate, 0.3).answer(x, y)
    assert np.abs(wrong - on_phi).max() > 0.01, "a layer less is another function"
    with pytest.raises(InputError, match="rate"):
        representation_ridge(maps, 8, 4, 0.0, 0.3)


@pytest.mark.parametrize("experiment", [SUPERVISED, MIXED], ids=lambda one: one.name)
@pytest.mark.parametrize("preset", ["quick", "cpu", "paper"])
def test_every_claim_is_asked_of_a_plan_that_can_run(experiment, preset):
    plan = plan_of(REPRESENTATIONS, experiment, preset)
    sweep = plan.sweep
    assert set(experiment.claims_on(plan.comparison.arms)) == set(experiment.claims)
    for one in group(sweep, sweep.points()):
        one.spec.check()
        assert isinstance(one.spec.source, Functions)
        assert one.spec.seeds.world is not None


def test_pasted_layers_are_a_donors_that_is_kept_and_fits():
    quick = work(PASTING)
    donor = quick.donor
    assert PASTING in REPRESENTATIONS.experiments and donor is not None
    spec = donor.spec
    assert spec.model == QUICK.model and spec.source == QUICK.source
    assert spec.members >= quick.members and spec.sequences in spec.schedule.kept(spec.sequences, spec.batch)
    pasted: dict[str, Any] = quick.arms[PASTED]
    assert pasted["start"]["run"] == donor.path and pasted["start"]["sequences"] == spec.sequences
    upper = ["blocks.1.*", "blocks.2.*", "blocks.3.*", "norm.*", "readout.*"]
    assert pasted["freeze"] == quick.arms[RANDOM]["freeze"] == upper and "start" not in quick.arms[RANDOM]
    made = QUICK.model.init(jax.random.key(0), context=12, dim=3, labels=0)
    leaves = jax.tree_util.tree_leaves_with_path(made)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    free = [name for name in names if not any(fnmatchcase(name, one) for one in upper)]
    assert {name.split(".")[0] for name in free} == {"exemplar", "label", "position", "blocks"}
    assert {name for name in names if name.startswith("blocks.0.")} == {name for name in free if "blocks" in name}
    large = work(PASTING, "paper").arms[PASTED]
    assert large["start"]["skip"] == 3 and large["model.layers"] == 9, "the upper eight of twelve"


def test_front_ends_are_embeddings_over_the_upper_layers():
    quick = work(FRONT_ENDS)
    assert set(FRONT_ENDS.claims_on(quick.arms)) == set(FRONT_ENDS.claims) and quick.donor is not None
    donor: Any = quick.donor.spec.model
    assert quick.donor != work(PASTING).donor, "each experiment has a run of its own"
    assert quick.arms[WHOLE_COPIED] == {"source.layers": 0, "model.layers": 3, "model.pairing": "copied"}
    for arm, pairing in ((EMBEDDED, "interleaved"), (COPIED, "copied")):
        point: dict[str, Any] = quick.arms[arm]
        assert point["start"]["skip"] == 1 and point["model.layers"] == donor.layers - 1
        model = replace(QUICK.model, layers=3, pairing=pairing)
        names = [name for name in shapes(model, {"context": 12, "dim": 3, "labels": 0})]
        free = {name.split(".")[0] for name in names if not any(fnmatchcase(name, one) for one in point["freeze"])}
        assert free == {"exemplar", "label", "position"} | ({"copy"} if arm == COPIED else set())


def test_front_ends_are_judged_against_ridge_and_each_other(monkeypatch):
    best = representations_measures.posterior_mean
    says: dict[str, Any] = {COPIED: best, WHOLE_COPIED: best, EMBEDDED: None}
    monkeypatch.setattr(
        representations_measures, "predict_arm", lambda evidence, arm, *_, **__: [answered(says[arm], layers=0), None]
    )
    evidence = finished(work(FRONT_ENDS).arms)
    found = {claim.name: claim.estimate(evidence) for claim in FRONT_ENDS.claims}
    assert 0.4 < found["whole"][0] < 0.5 and found["copies"][0] > 0.5 and np.isnan(found["copies"][1])
    says[COPIED] = None
    assert all(claim.estimate(evidence)[0] <= claim.threshold for claim in FRONT_ENDS.claims)
    says[WHOLE_COPIED] = None
    assert FRONT_ENDS.claims[0].estimate(evidence)[0] < 0, "as good as a model that learned nothing is no success"


def test_pasting_is_judged_against_ridge_and_against_random_layers(monkeypatch):
    best = representations_measures.posterior_mean
    says: dict[str, Any] = {PASTED: best, WHOLE: best, RANDOM: None}

    def predict_arm(evidence, arm, evaluator, **changes):
        return [answered(says.get(arm), layers=0), None]

    monkeypatch.setattr(representations_measures, "predict_arm", predict_arm)
    evidence = finished(work(PASTING).arms)
    found = {claim.name: claim.estimate(evidence) for claim in PASTING.claims}
    assert 0.4 < found["whole"][0] < 0.5 and found["control"][0] > 0.4 and np.isnan(found["control"][1])
    says[RANDOM] = representations_measures.posterior_mean
    assert PASTING.claims[1].estimate(evidence)[0] < 0
    assert PASTING.figures is not None and PASTING.figures(evidence, "t")["contest.png"][:4] == b"\x89PNG"


def test_what_another_ridge_has_beyond_the_own_one_is_orthogonal_to_it():
    found = answered(representations=3)
    wanted = representations.probe_targets(found).inputs
    own = wanted.pop("ridge, own")
    assert list(wanted) == ["ridge, other 1, beyond own", "ridge, other 2, beyond own"]
    for other in wanted.values():
        assert (own * other).sum() == pytest.approx(0, abs=1e-6) and other.std() > 0.1


EARLY = np.asarray([0.2, 0.99, 0.99, 0.99, 0.99])
STEPS = np.asarray([0.2, 0.9, 0.99, 0.99, 0.99])
LATE = np.asarray([0.1, 0.1, 0.2, 0.7, 0.95])


@pytest.fixture
def made_up(monkeypatch):
    """Members that answer the posterior mean, and streams in which everything is where the paper found it."""
    points: dict[str, Any] = work(SUPERVISED).arms | work(MIXED).arms

    def predict_arm(evidence, arm, evaluator, **changes):
        layers, several = points[arm]["source.layers"], points[arm].get("source.representations", 1)
        return [answered(representations_measures.posterior_mean, layers=layers, representations=several), None]

    def probes(evidence, arm, targets):
        inputs = {"x": LATE, "phi(x)": STEPS, "posterior mean": LATE}
        if arm == MIXTURE:
            inputs = {"ridge, own": LATE, "ridge, other 1, beyond own": STEPS - LATE}
        return [ProbeScores(inputs, {} if arm == MIXTURE else {"x": EARLY, "phi(x)": STEPS}), None]

    monkeypatch.setattr(representations_measures, "predict_arm", predict_arm)
    for module in (layer_probes, representations):  # claims, figures
        monkeypatch.setattr(module, "probe_members", probes)


def test_a_model_that_is_the_posterior_mean_meets_every_claim(made_up):
    for experiment in (SUPERVISED, MIXED):
        evidence = finished(work(experiment).arms)
        for claim in experiment.claims:
            estimate = claim.estimate(evidence)
            assert estimate.shape == (2,) and np.isnan(estimate[1]), claim.name
            assert estimate[0] > claim.threshold, claim.name
        assert experiment.figures is not None
        drawn = experiment.figures(evidence, "title")
        assert set(drawn) == {"contest.png", "probes.png"} and all(one[:4] == b"\x89PNG" for one in drawn.values())


def test_a_model_that_answers_nothing_is_near_nothing(made_up, monkeypatch):
    monkeypatch.setattr(
        representations_measures, "predict_arm", lambda evidence, arm, evaluator, **changes: [answered()]
    )
    evidence = finished(work(SUPERVISED).arms)
    near = next(claim for claim in SUPERVISED.claims if claim.name == f"near, {SHALLOW}")
    assert near.estimate(evidence)[0] < -0.5
    late = ProbeScores({"phi(x)": LATE, "posterior mean": STEPS}, {"x": LATE})
    monkeypatch.setattr(layer_probes, "probe_members", lambda evidence, arm, targets: [late])
    before = next(claim for claim in SUPERVISED.claims if claim.name == f"before, {DEEP}")
    assert before.estimate(evidence)[0] < 0


def test_the_figure_of_layers_is_drawn_without_a_line_too():
    assert layers_figure("t", {"a": {"x": np.asarray([[0.1, 0.2]])}})["png"][:4] == b"\x89PNG"
