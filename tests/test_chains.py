"""Study `chains`: its measures on algorithms whose answers are known, and its figures."""

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, fresh_prompts
from ebbtide.papers.chains import measures, phases, pools
from ebbtide.papers.chains.study import CHAINS, QUICK
from ebbtide.studies.evidence import Series
from evidence_tools import finished

pytestmark = pytest.mark.usefixtures("quick_compile")

TIMES = np.asarray([0, 10, 20, 30, 40])


def answered(*names: str) -> Predictions:
    """A member that gives the answers of these algorithms at its checkpoints."""
    spec = QUICK.world(0)
    asked = fresh_prompts(spec, "prior", 100)
    blank = Predictions(TIMES[: len(names)], np.zeros((0, *asked.responses.shape, 5)), asked, spec)
    exact = measures.exact_predictions(blank)
    return blank._replace(outputs=np.stack([exact[name] for name in names]))


def test_the_distance_to_an_algorithm_is_zero_where_the_model_is_it_and_positive_elsewhere():
    course = measures.measure_course(answered(*measures.ALGORITHMS))
    np.testing.assert_allclose(np.diag(course.distances), 0, atol=1e-12)
    assert (course.distances + np.eye(5) > 0.005).all()
    np.testing.assert_allclose(course.distances, course.between.T, atol=1e-12)
    assert (course.truth > 0.1).all()


def test_answers_are_compared_whatever_is_added_to_their_logits():
    asked = answered(measures.BIGRAM)
    moved = measures.measure_course(asked._replace(outputs=asked.outputs + 3))
    np.testing.assert_allclose(moved.distances, measures.measure_course(asked).distances, atol=1e-12)


def test_without_a_pool_nothing_is_retrieved():
    spec = replace(QUICK, source=replace(QUICK.source, pool=0))
    asked = fresh_prompts(spec, "prior", 20)
    blank = Predictions(TIMES[:1], np.zeros((1, *asked.responses.shape, 5)), asked, spec)
    assert tuple(measures.exact_predictions(blank)) == measures.INFERENCE
    course = measures.measure_course(blank)
    assert np.isnan(course.distances[:, 3:]).all() and course.distances[0, 0] == pytest.approx(0, abs=1e-12)


def made_up(**courses: list[float]) -> dict[str, Series]:
    return {name: Series(np.asarray([course, [np.nan] * 4]), TIMES[:4]) for name, course in courses.items()}


COURSES = {
    measures.UNIFORM: [0.3, 0.02, 0.2, 0.4],
    measures.UNIGRAM: [0.4, 0.1, 0.03, 0.3],
    measures.BIGRAM: [0.5, 0.2, 0.1, 0.01],
}


def test_a_lead_is_the_distance_by_which_an_algorithm_is_nearest():
    found = measures.leads(made_up(**COURSES) | made_up(**{measures.BIGRAM_POOL: [np.nan] * 4}))
    np.testing.assert_allclose(found[measures.UNIGRAM].values[0], [-0.1, -0.08, 0.07, -0.29])
    assert np.isnan(found[measures.UNIGRAM].values[1]).all(), "a member that has not finished"
    assert (found[measures.BIGRAM_POOL].values[0] == -np.inf).all()


def test_the_order_of_phases_needs_all_three_in_order(monkeypatch):
    def margin(courses: dict[str, list[float]]) -> np.ndarray:
        monkeypatch.setattr(phases, "distances", lambda *_: made_up(**courses))
        return phases.order_margin(finished(["arm"]), "arm")

    right = margin(COURSES)
    assert right[0] == pytest.approx(0.07) and np.isnan(right[1])
    backwards = {name: [course[0], *course[:0:-1]] for name, course in COURSES.items()}
    assert margin(backwards)[0] < 0
    assert margin(COURSES | {measures.UNIGRAM: [0.4, 0.1, 0.21, 0.3]})[0] < 0, "unigrams never nearest"


def test_leaving_counts_only_where_the_phase_was(monkeypatch):
    courses = {
        measures.UNIFORM: [0.3, 0.4, 0.4, 0.4],
        measures.BIGRAM: [0.5, 0.05, 0.02, 0.12],
        measures.BIGRAM_POOL: [0.5, 0.15, 0.1, 0.03],
    }
    monkeypatch.setattr(pools, "distances", lambda *_: made_up(**courses))
    monkeypatch.setattr(pools, "distance_between", lambda *_: np.asarray([0.2, 0.2]))
    evidence = finished(["arm"])
    assert pools.return_share(evidence, "arm")[0] == pytest.approx(0.5)
    courses[measures.BIGRAM_POOL] = [0.4, 0.01, 0.01, 0.01]
    assert np.isnan(pools.return_share(evidence, "arm")[0])
    assert pools.direct_margin(evidence, "arm")[0] == pytest.approx(0.01)


def passing(between: np.ndarray) -> measures.Course:
    """A member that passes from each algorithm to the next."""
    shares = np.eye(5)[[0, 0, 1, 2, 4]]
    return measures.Course(TIMES, 0.3 - 0.29 * shares, np.linspace(0.5, 0.2, 5), between)


@pytest.mark.parametrize("experiment", CHAINS.experiments, ids=lambda one: one.name)
def test_the_figures_show_every_arm(experiment, monkeypatch):
    monkeypatch.setattr(measures, "courses", lambda *_: [passing(np.eye(5)), None])
    drawn = experiment.figures(finished(experiment.presets["quick"].work.arms), "made up")
    maps, effects = {"distances.png", "phases.png"}, {"boundaries.png"}
    assert set(drawn) == {"phases": {"distances.png"}, "pools": maps, "boundaries": effects}[experiment.name]
    assert all(one[:4] == b"\x89PNG" for one in drawn.values())
