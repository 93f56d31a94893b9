"""Scores and events of the contest: what is exact, what invariant, what censored."""

import numpy as np
import pytest

from ebbtide.contest.events import HALF, Event, events_of, time_error
from ebbtide.contest.scores import FLOOR, coverage, curve_error, divergence, log_time_weights, skill
from ebbtide.contest.theory import STRATEGIES

TIMES = np.geomspace(1e3, 1e6, 31)


def fractions(icl, memory=None):
    """Fractions of a curve; what is missing to 1 is memorising, where nothing else is said."""
    icl = np.asarray(icl, np.float64)
    memory = 1 - icl if memory is None else np.asarray(memory, np.float64)
    return np.stack([icl, memory, 1 - icl - memory], axis=-1)


def bump(rise, fall, top=0.95):
    """A curve that is half up at `rise` and half down at `fall`, in sequences."""
    x = np.log(TIMES)
    return top / (1 + np.exp(-4 * (x - np.log(rise)))) / (1 + np.exp(4 * (x - np.log(fall))))


def test_divergence_is_the_kl_of_one_time_and_0_for_the_truth():
    m, p = fractions([0.7], [0.2]), fractions([0.4], [0.5])
    wanted = 0.7 * np.log(0.7 / 0.4) + 0.2 * np.log(0.2 / 0.5) + 0.1 * np.log(0.1 / 0.1)
    assert divergence(m, p, np.array([5])) == pytest.approx(
        wanted, rel=3 * len(STRATEGIES) * FLOOR
    )  # but for the floor
    assert divergence(m, m, np.array([5])) == pytest.approx(0)


def test_no_prediction_is_better_than_the_truth():
    """Near 0 and 1 too, where a floor under the predictions alone would make a bolder one the best."""
    others = fractions(np.linspace(0.99, 1, 1001)[:, None])
    truth = np.broadcast_to(fractions([0.998]), others.shape)
    assert others[np.argmin(divergence(truth, others, np.array([5]))), 0, 0] == pytest.approx(0.998)


def test_a_sure_and_wrong_prediction_pays_the_floor():
    paid = divergence(fractions([1.0]), fractions([0.0]), np.array([5]))
    assert paid == pytest.approx((1 - 3 * FLOOR) * np.log((1 - 2 * FLOOR) / FLOOR)) and paid < np.log(1 / FLOOR)


def test_scores_do_not_depend_on_how_often_a_stretch_is_looked_at():
    """Ten times as many evaluations in the second half of log-time, where the prediction is wrong, change nothing."""
    coarse = np.geomspace(1, 1e4, 41)
    dense = np.unique(np.concatenate([coarse, np.geomspace(1e2, 1e4, 401)]))

    def scores(at):
        wrong = fractions(0.1 + 0.15 * np.log10(at))
        away, error = divergence(fractions(0.2 + 0 * at), wrong, at), curve_error(fractions(0 * at), wrong, at)
        return float(away), float(error)

    assert scores(dense) == pytest.approx(scores(coarse), rel=1e-3)
    evenly = np.mean(np.abs(0.1 + 0.15 * np.log10(dense)))  # what a plain mean would give
    assert abs(evenly - scores(coarse)[1]) > 0.05


def test_weights_are_of_log_time_and_batches_are_scored_one_by_one():
    assert log_time_weights(np.array([1, 10, 1000])) == pytest.approx([1 / 6, 1 / 2, 1 / 3])
    m = np.stack([fractions(bump(5e3, 2e5)), fractions(bump(2e4, 5e5))])
    p = fractions(bump(1e4, 3e5))
    assert divergence(m, np.stack([p, p]), TIMES) == pytest.approx([float(divergence(one, p, TIMES)) for one in m])


def test_coverage_counts_log_time_inside_the_middle_of_the_draws():
    rng = np.random.default_rng(0)
    drawn = np.stack([fractions(np.full(len(TIMES), 0.5 + 0.1 * z)) for z in rng.standard_normal(4001)])
    inside, outside = 0.5 + 0.1 * 1.6, 0.5 + 0.1 * 1.7  # 90 % of a normal variable: 1.645
    assert coverage(fractions(np.full(len(TIMES), inside)), drawn, TIMES) == pytest.approx(1)
    assert coverage(fractions(np.full(len(TIMES), outside)), drawn, TIMES) == pytest.approx(0)


def test_skill_is_0_at_the_baseline_and_1_at_perfection():
    assert (skill(0.3, 0.3), skill(0.0, 0.3)) == (0, 1) and np.isnan(skill(0.3, 0.0))


def test_events_are_where_a_curve_was_made_to_have_them():
    found = events_of(TIMES, fractions(bump(1e4, 2e5)))
    step = TIMES[1] / TIMES[0]
    for name, wanted in (("onset", 1e4), ("half_fall", 2e5), ("crossover", 2e5), ("peak", np.sqrt(1e4 * 2e5))):
        event = found[name]
        assert event is not None and event.censored == "no"
        assert abs(np.log(event.sequences / wanted)) < np.log(step), name


def test_noise_on_a_plateau_does_not_choose_the_peak():
    """The place of the maximum moves all over the plateau; the middle of the plateau does not."""
    rng, peaks, tops = np.random.default_rng(1), [], []
    for _ in range(40):
        noisy = np.clip(bump(3e3, 3e5) + rng.normal(0, 0.01, len(TIMES)), 0, 1)
        peak = events_of(TIMES, fractions(noisy))["peak"]
        assert peak is not None
        peaks.append(np.log(peak.sequences))
        tops.append(np.log(TIMES[np.argmax(noisy)]))
    assert np.std(peaks) < np.std(tops) / 3


def rounded(event):
    return event and (round(event.sequences, 3), event.censored)


def test_what_has_not_happened_is_censored_and_what_cannot_happen_is_none():
    rise = events_of(TIMES, fractions(bump(1e4, 1e12)))
    assert all(rounded(rise[name]) == (1e6, "after") for name in ("peak", "half_fall", "crossover"))
    never = events_of(TIMES, fractions(bump(1e4, 2e5, top=HALF - 0.01)))
    assert rounded(never["onset"]) == (1e6, "after")
    assert never["peak"] is never["half_fall"] is never["crossover"] is None
    there = events_of(TIMES, fractions(bump(1, 1e5)))
    assert rounded(there["onset"]) == (1e3, "before")


def test_levels_are_absolute_so_that_a_late_outlier_moves_no_event():
    curve = 0.6 / 0.95 * bump(1e4, 2e5)
    late = curve.copy()
    late[-2] = 0.3  # no more than half
    assert events_of(TIMES, fractions(late))["onset"] == events_of(TIMES, fractions(curve))["onset"]


@pytest.mark.parametrize(
    ("observed", "predicted", "error"),
    [
        (Event(1e4), Event(1e5), 1),
        (Event(1e5), Event(1e4), 1),
        (Event(1e5, "after"), Event(1e4), 1),  # at least: it had not happened at 1e5
        (Event(1e5, "after"), Event(1e6), 0),  # may be
        (Event(1e4), Event(1e5, "after"), 1),
        (Event(1e5, "after"), Event(1e5, "after"), 0),
        (Event(1e4, "before"), Event(1e3), 0),
        (Event(1e4, "before"), Event(1e5), 1),
        (Event(1e4), Event(1e3, "before"), 1),
        (Event(1e4), None, np.inf),
        (None, Event(1e4), np.inf),
    ],
)
def test_errors_of_times_know_what_censoring_leaves_open(observed, predicted, error):
    assert time_error(observed, predicted) == error


def test_an_event_that_neither_curve_can_have_has_no_error():
    assert np.isnan(time_error(None, None))
