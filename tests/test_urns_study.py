"""Study `urns`: times of turns and their slope, on courses that are known, and the figures."""

from typing import Any

import numpy as np
import pytest

from ebbtide.analysis.pool_fractions import PoolCourse
from ebbtide.papers.urns import measures, pools
from ebbtide.papers.urns.study import URNS
from ebbtide.studies.evidence import Evidence, Series
from evidence_tools import finished

EXPERIMENT: Any = URNS.experiments[0]
TIMES = np.asarray([0, 10, 100, 1_000, 10_000])


def course(*relative: float) -> PoolCourse:
    """A member at these relative distances, as a mixture in divergence, after the start."""
    way = np.asarray([0.5, *relative])
    nearness = np.stack([way, 1 - way, np.full(len(way), 1.5)], axis=1)
    return PoolCourse(TIMES, nearness, 0.2 + (way - way.min()), 1.0)


def test_a_turn_is_the_last_time_at_which_memory_becomes_nearer():
    found = measures.turn_times(
        Series(
            np.asarray(
                [[0.1, 0.2, 0.3, 0.7], [0.1, 0.6, 0.4, 0.6], [0.6, 0.7, 0.8, 0.9], [0.6, 0.7, 0.8, 0.4], [np.nan] * 4]
            ),
            TIMES[1:],
        )
    )
    expected = [10**3.5, 10**3.5, 0, np.inf, np.nan]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_slope_is_of_the_turns_that_were_seen():
    urns = np.asarray([4, 16, 64, 256])
    cubes = urns[:, None].astype(float) ** 3
    assert measures.turn_slope(urns, cubes) == pytest.approx(3)
    cubes[0], cubes[2] = 0, np.inf
    assert np.isnan(measures.turn_slope(urns, cubes)).all(), "two turns are too few"
    assert measures.turn_slope(urns, cubes, fewest=2) == pytest.approx(3)


def evidence_with(monkeypatch: pytest.MonkeyPatch, ways: dict[str, PoolCourse]) -> Evidence:
    monkeypatch.setattr(measures, "courses", lambda evidence, arm: [ways.get(arm, course(0.1, 0.2, 0.3, 0.4)), None])
    return finished(EXPERIMENT.presets["quick"].work.arms)


def test_the_margins_say_what_happened_and_by_how_much(monkeypatch):
    evidence = evidence_with(
        monkeypatch, {pools.SOME: course(0.2, 0.1, 0.4, 0.7), pools.FEW: course(0.6, 0.7, 0.9, 0.98)}
    )
    np.testing.assert_allclose(measures.relative_distances(evidence, pools.SOME).values[0], [0.15, 0.7 / 3, 0.4, 0.55])
    assert pools.direct_margin(evidence)[0] == pytest.approx(0.04)
    assert pools.first_margin(evidence)[0] == pytest.approx(0.7)
    assert pools.turn_margin(evidence)[0] == pytest.approx(0.05)
    assert pools.rise_outside(evidence)[0] == pytest.approx(1.6)
    assert pools.stay_margin(evidence)[0] == pytest.approx(0.02 - 0.35)
    assert np.isnan(pools.slope_margin(evidence)[0]), "only one of the pools has turned"
    for margin in (pools.direct_margin, pools.stay_margin, pools.turn_margin, pools.rise_outside, pools.slope_margin):
        assert np.isnan(margin(evidence)[1]), "a member that has not finished"


def test_the_figures_show_every_arm(monkeypatch):
    evidence = evidence_with(monkeypatch, {pools.SOME: course(0.2, 0.1, 0.4, 0.7)})
    drawn = EXPERIMENT.figures(evidence, "made up")
    assert set(drawn) == {"phases.png", "relative.png"}
    assert all(one[:4] == b"\x89PNG" for one in drawn.values())


def test_the_papers_pools_are_asked_at_its_size():
    plan = EXPERIMENT.presets["paper"]
    assert plan.minutes is None and [4 * 2**i for i in range(11)] == [p for p in pools.PAPER_POOLS if p not in (24, 48)]
    assert set(pools.POOLS) < set(pools.PAPER_POOLS)
