"""Study `bounded-cfg`: its measures on answers that are known, and its figures."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, fresh_prompts
from ebbtide.papers.bounded_cfg import measures, pairings
from ebbtide.papers.bounded_cfg.decomposition import DECOMPOSITION
from ebbtide.papers.bounded_cfg.figures import draw_pairings
from ebbtide.papers.bounded_cfg.settings import ARMS, QUICK, WIDTH
from ebbtide.papers.bounded_cfg.shift import SHIFT
from ebbtide.papers.bounded_cfg.study import BOUNDED_CFG
from ebbtide.studies.evidence import Series
from ebbtide.training.fields import assign_all
from ebbtide.training.spec import Spec, from_builtins
from evidence_tools import finished
from ideal_tools import specs_of
from ideal_words import best_causal, forgetful, logs_of, right

pytestmark = pytest.mark.usefixtures("quick_compile")


def answered(says, shifted: bool = False) -> Predictions:
    """A member that answers so."""
    spec = replace(QUICK, task=replace(QUICK.task, shifted=shifted)).world(0)
    asked = fresh_prompts(spec, measures.HELD_OUT, 300)
    blank = Predictions(np.asarray([0]), np.zeros((0, 0, 0, 1)), asked, spec)
    return blank._replace(outputs=says(blank, 1.0, False)[None])


def test_right_answers_are_all_right_and_forgotten_ones_by_place():
    member = measures.measure_member(answered(right))
    perfect = member.own
    assert 0 < member.divergence < 0.01 and member.causal.cells == 1
    assert perfect.cells == 1 and (perfect.places == 1).all() and (perfect.stacks == 1).all()
    lossy = measures.measure_member(answered(forgetful)).own
    np.testing.assert_allclose(lossy.places, [0.9, 0.8, 0.7, 0.6], atol=0.05)
    np.testing.assert_allclose(lossy.stacks[1:3], [0.9 * 0.99, 0.9 * 0.8], atol=0.12)
    assert 0.8 < lossy.cells < 0.9


def test_a_causal_model_knows_aligned_cells_and_not_shifted_ones():
    member = measures.measure_member(answered(best_causal, shifted=True))
    assert 0.4 < member.causal.cells < 0.8 and member.own.cells == member.causal.cells
    assert member.divergence == pytest.approx(0, abs=1e-6)
    asked = answered(best_causal, shifted=True)
    off = measures.measure_member(asked._replace(outputs=2 * asked.outputs))
    assert off.own.cells == member.own.cells and off.divergence > 0.02


def test_arms_differ_in_the_model_alone_and_have_one_width():
    for experiment in (DECOMPOSITION, SHIFT):
        specs = specs_of(BOUNDED_CFG, experiment, "quick")
        assert set(specs) == set(ARMS)
        assert len({replace(spec, model=QUICK.model).to_json() for spec in specs.values()}) == 1
        models: list[Any] = [spec.model for spec in specs.values()]
        assert {model.width for model in models} == {WIDTH} and len(set(models)) == len(ARMS)


def predicted(says, pool: int, evaluator: str) -> Predictions:
    """A model of symbols that answers so."""
    data = QUICK.builtins()
    assign_all(Spec, data, pairings.BASE | {"source.pool": pool})
    spec = from_builtins(data).world(0)
    asked = fresh_prompts(spec, evaluator, 300)
    blank = Predictions(np.asarray([0]), np.zeros((0, 0, 0, 1)), asked, spec)
    return blank._replace(outputs=logs_of(says)(blank, 1.0, False)[None])


def test_exact_predictions_are_at_no_distance_from_themselves_and_far_from_each_other():
    inference, retrieval = pairings.inference_probs, pairings.retrieval_probs
    inferred = predicted(inference, 2, pairings.HELD_OUT)
    assert pairings.distance(inferred, inference(inferred)) == pytest.approx(0, abs=1e-6)
    assert pairings.distance(inferred, retrieval(inferred)) > 0.05
    retrieved = predicted(retrieval, 2, pairings.PRIOR)
    assert pairings.distance(retrieved, inference(retrieved)) > 0.5
    members = Series(np.linspace(0, 1, 6).reshape(2, 3), np.asarray([0, 10, 20]))
    drawn = draw_pairings("made up", {"arm": {"line": (members.sequences, members.values)}})
    assert drawn[:4] == b"\x89PNG"


@pytest.mark.parametrize("experiment", (DECOMPOSITION, SHIFT), ids=lambda one: one.name)
def test_the_figures_show_every_arm(experiment, monkeypatch):
    some = measures.Accuracy(0.9, np.linspace(1, 0.8, 4), np.linspace(1, 0.7, 5))
    monkeypatch.setattr(measures, "map_members", lambda *_: [measures.Member(some, some, 0.1), None])
    drawn = experiment.figures(finished(ARMS), "made up")
    assert set(drawn) == {"depths.png"} and drawn["depths.png"][:4] == b"\x89PNG"
    assert experiment.figures(finished([]), "made up") == {}
