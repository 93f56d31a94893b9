"""When a run is evaluated and checkpointed."""

from itertools import pairwise

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.training.schedule import Schedule, Window

CASES = [
    (Schedule(), 1_280_000, 128),
    (Schedule(evaluations=2, checkpoints=2), 64, 64),
    (Schedule(evaluations=40), 640, 64),
    (Schedule(evaluations=7, checkpoints=100), 1000, 10),
    (Schedule(evaluations=30, spacing="log", first=100), 1_280_000, 128),
    (Schedule(evaluations=30, spacing="log", first=1), 12_800, 128),
    (Schedule(evaluations=2, spacing="log", first=500), 12_800, 128),
    (Schedule(evaluations=40), 4_294_967_168, 128),
]


@pytest.mark.parametrize(("schedule", "sequences", "batch"), CASES)
def test_points_are_increasing_multiples_from_0_to_the_end(schedule, sequences, batch):
    points = schedule.points(sequences, batch)
    assert points[0] == 0 and points[-1] == sequences
    assert all(isinstance(p, int) and p % batch == 0 for p in points)
    assert all(a < b for a, b in pairwise(points))
    assert len(points) <= schedule.evaluations + 1


@pytest.mark.parametrize(("schedule", "sequences", "batch"), CASES)
def test_checkpoints_are_spread_over_the_points(schedule, sequences, batch):
    points, kept = schedule.points(sequences, batch), schedule.kept(sequences, batch)
    assert kept[0] == 0 and kept[-1] == sequences
    assert len(set(kept)) == len(kept) == min(schedule.checkpoints, len(points))
    places = [points.index(k) for k in kept]
    assert places == sorted(places)
    gaps = np.diff(places)
    assert gaps.max() - gaps.min() <= 1


def test_linear_points_by_hand():
    assert Schedule(evaluations=5).points(1000, 10) == [0, 250, 500, 750, 1000]
    assert Schedule(evaluations=4).points(100, 10) == [0, 30, 70, 100]
    assert Schedule(evaluations=5, checkpoints=3).kept(1000, 10) == [0, 500, 1000]


def test_log_points_by_hand():
    schedule = Schedule(evaluations=5, spacing="log", first=1000)
    assert schedule.points(1_000_000, 100) == [0, 1000, 10_000, 100_000, 1_000_000]


def test_points_cost_nothing_in_accuracy_when_there_are_enough_batches():
    assert len(Schedule(evaluations=40).points(1_280_000, 128)) == 40


@pytest.mark.parametrize("first", [1000, 2000])
def test_a_first_point_beyond_the_end_is_refused(first, one_line):
    schedule = Schedule(spacing="log", first=first)
    with pytest.raises(InputError) as caught:
        schedule.check(1000)
    one_line(caught, "schedule.first", first)
    Schedule(first=first).check(1000)
    schedule.check(first + 1)


def test_a_window_adds_points_and_its_checkpoints_by_hand():
    dense = Schedule(evaluations=3, checkpoints=2, windows=(Window(start=100, end=200, every=40),))
    assert dense.points(1000, 10) == [0, 100, 140, 180, 500, 1000]
    assert dense.kept(1000, 10) == [0, 1000]
    kept = Schedule(evaluations=3, checkpoints=2, windows=(Window(start=100, end=200, every=40, keep=True),))
    assert kept.kept(1000, 10) == [0, 100, 140, 180, 1000]
    crowded = Schedule(evaluations=2, windows=(Window(start=0, end=30, every=1),))
    assert crowded.points(1000, 10) == [0, 10, 20, 30, 1000]


@pytest.mark.parametrize(
    ("window", "field", "value"),
    [
        (Window(start=500, end=400, every=10), "schedule.windows.0.end", 400),
        (Window(start=500, end=1001, every=10), "schedule.windows.0.end", 1001),
    ],
)
def test_a_window_outside_the_run_is_refused(window, field, value, one_line):
    with pytest.raises(InputError) as caught:
        Schedule(windows=(window,)).check(1000)
    one_line(caught, field, value)
    Schedule(windows=(Window(start=0, end=1000, every=1000),)).check(1000)


def test_a_window_of_millions_of_points_is_refused(one_line):
    with pytest.raises(InputError) as caught:
        Schedule(windows=(Window(start=0, end=4_000_000, every=2),)).check(4_000_000)
    one_line(caught, "schedule.windows.0.every", 2)


def test_many_windows_are_refused_for_what_they_give_together(one_line):
    """Each for itself is allowed."""
    windows = tuple(Window(start=i, end=600_000 + i, every=1) for i in range(2))
    for one in windows:
        Schedule(windows=(one,)).check(1_000_000)
    with pytest.raises(InputError, match="1,200,002 points together") as caught:
        Schedule(windows=windows).check(1_000_000)
    one_line(caught, "schedule.windows", "2 windows")
