"""What study `kinetics` measures: its prompts, the theory's balance, and the times of falls."""

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.papers.kinetics import measures
from ebbtide.papers.kinetics.measures import AWAY, NEW, NEW_AWAY, half_falls, predicted_weight
from ebbtide.papers.kinetics.settings import QUICK
from ebbtide.studies.evidence import Series

pytestmark = pytest.mark.usefixtures("quick_compile")

TIMES = np.arange(41) * 1000


def test_the_predicted_weight_is_where_gradient_and_decay_balance():
    residual = np.geomspace(1e-4, 1e4, 9)
    weight = predicted_weight(residual, 0.02)
    np.testing.assert_allclose(residual * np.exp(-weight), 0.02 * weight, rtol=1e-9)


def test_prompts_hold_the_query_or_not_and_labels_of_both_kinds(monkeypatch):
    monkeypatch.setattr(measures, "PROMPTS", 300)
    measures.draw_prompts.cache_clear()
    prompts = measures.prompts_of_world(replace(QUICK, source=replace(QUICK.source, dim=3)))
    measures.draw_prompts.cache_clear()
    measures._compile_sampler.cache_clear()
    for kind, held, trained in ((NEW, True, False), (AWAY, False, True), (NEW_AWAY, False, False)):
        classes, target = np.asarray(prompts[kind].classes), np.asarray(prompts[kind].target)
        assert ((classes[:-1] == classes[-1]).any(0) == held).all()
        assert ((classes < QUICK.source.sizes().classes) == trained).all()
        same = (np.asarray(prompts[kind].labels) == target).mean()
        assert same == pytest.approx((1 + 4) / 8 if held else 0.5, abs=0.06)


def test_a_course_is_read_off_the_margins():
    new, away, blank = (np.asarray([one]) for one in ([1.0, 3.0, -1.0], [0.0, np.log(2)], [-2.0, 2.0]))
    course = measures.course_of(np.asarray([5]), {NEW: new, AWAY: away, NEW_AWAY: blank})
    assert [float(one[0]) for one in course] == pytest.approx([5, 2 / 3, 1 / 2, 1.0, 0.75, 2.0])


def members(*rows: np.ndarray) -> Series:
    return Series(np.stack(rows), TIMES)


def test_half_falls_are_where_the_curves_cross_half_way():
    falling = np.interp(TIMES, [0, 5_000, 10_000, 30_000], [0.5, 0.9, 0.9, 0.5])
    never = np.full(41, 0.5)
    drop = np.where(TIMES < 22_500, 1e6, 1e-6)  # c3: w far above, then far below two thirds of the spread
    know = np.interp(TIMES, [10_000, 20_000], [0.6, 1.0])
    course = {"icl": members(falling, never), "iwl": members(know, know), "residual": members(drop, drop)}
    course["spread"] = members(np.full(41, 5.0), np.full(41, 5.0))
    found = half_falls(course, 0.02)
    assert found.observed[0] == pytest.approx(20_000, abs=100)
    assert found.predicted[0] == pytest.approx(22_500, abs=1000)
    assert found.iwl[0] == pytest.approx(15_000, abs=300)
    assert np.isnan([one[1] for one in found]).all()
