"""Study `forecast`: events, the regression with members that have not fallen, intervals, and what claims can see."""

import numpy as np
import pytest
from scipy.special import ndtr

from ebbtide.papers.forecast import scores
from ebbtide.papers.forecast.events import FEATURES, MOMENTS, Course, course_of
from ebbtide.papers.forecast.figure import draw_forecasts
from ebbtide.papers.forecast.forecaster import Members, fit, half_width, learn, left_out, published
from ebbtide.papers.forecast.study import CLAIMS, FALLS
from ebbtide.studies.claim import judge
from ideal_forecast import evidence, ignorant, stand_in_forecast

TIMES = np.asarray([0, 10, 20, 30, 40, 50, 60, 70, 80]) * 1000


def curves(*icl: list[float]):
    rng = np.random.default_rng(0)
    others = {name: rng.random((len(icl), len(TIMES))) for name in ("iwl", "ciwl", "flip", "train_loss")}
    return others | {"icl": np.asarray(icl, np.float64), "sequences": TIMES}


def test_a_fall_lasts_and_one_outlier_is_none():
    falls = [0.5, 0.6, 0.8, 0.9, 0.7, 0.9, 0.7, 0.7, 0.6]
    dips = [0.5, 0.8, 0.7, 0.7, 0.9, 0.9, 0.9, 0.7, 0.7]
    never = [0.5, 0.6, 0.6, 0.7, 0.7, 0.7, 0.6, 0.6, 0.6]
    outlier = [*falls[:-1], 1.0]  # a late peak moves what is relative to the peak, and nothing here but a fall's length
    late = [0.5, 0.6, 0.8, 0.9, 0.7, 0.7, 0.7, 0.7, 1.0]
    found = course_of(curves(falls, dips, never, outlier, late), "onset")
    np.testing.assert_array_equal(found.onset, [20_000, 10_000, np.nan, 20_000, 20_000])
    np.testing.assert_array_equal(found.fall, [60_000, np.nan, np.nan, np.nan, 40_000])
    assert found.end == 80_000 and np.isnan(found.features[2]).all()


def test_features_rest_on_nothing_after_the_onset():
    given = curves([0.5, 0.6, 0.6, 0.8, 0.9, 0.7, 0.6, 0.6, 0.6])
    before = course_of(given, "onset")
    changed = {
        name: np.where(TIMES > 30_000, 0.123, one) if name != "sequences" else one for name, one in given.items()
    }
    after = course_of(changed, "onset")
    assert before.fall[0] == 50_000 and after.fall[0] == 40_000
    np.testing.assert_array_equal(before.features, after.features)
    assert np.isfinite(before.features).all()
    own = course_of({name: one[:, :4] if one.ndim == 2 else one[:4] for name, one in given.items()}, "onset").features
    np.testing.assert_array_equal(own, before.features)


def members(count: int, weight: float, noise: float, end: float = np.inf, seed: int = 0) -> Members:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, len(FEATURES)))
    times = 13.0 + weight * features[:, 0] + noise * rng.normal(size=count)
    return Members(features, np.minimum(times, end), times < end)


def test_members_that_have_not_fallen_are_neither_left_out_nor_taken_to_fall_at_the_end():
    half = members(400, 0.4, 0.2, end=13.0)
    assert 150 < half.fallen.sum() < 250
    own = fit(half, 1.0)
    assert own.intercept == pytest.approx(13.0, abs=0.04) and own.spread == pytest.approx(0.2, abs=0.03)
    assert own.weights[0] == pytest.approx(0.4, abs=0.05) and np.abs(own.weights[1:]).max() < 0.05
    wrong = fit(half._replace(fallen=np.ones(400, bool)), 1.0)
    assert wrong.weights[0] < 0.3


def test_intervals_cover_new_members_and_are_narrower_where_there_is_something_to_see():
    covered, widths = [], []
    for seed in range(6):
        old, new = members(24, 0.4, 0.15, end=13.4, seed=seed), members(200, 0.4, 0.15, seed=100 + seed)
        forecast, _ = left_out(old, 10.0)
        half = half_width(old, forecast)
        covered.append((np.abs(fit(old, 10.0).predict(new.features) - new.times) <= half).mean())
        nothing = old._replace(features=old.features[:, :0])
        widths.append(half / half_width(nothing, left_out(nothing, 1.0)[0]))
    assert 0.8 < np.mean(covered) < 0.99 and np.median(widths) < 0.8


def test_the_width_is_the_quantile_of_kaplan_and_meier():
    times, fallen = np.arange(1.0, 21.0), np.ones(20, bool)
    known = Members(np.zeros((20, 1)), times, fallen)
    assert half_width(known, np.zeros(20)) == 19  # .9 (1 + 1/20) of 20
    fallen[10:] = False
    assert half_width(known._replace(fallen=fallen), np.zeros(20)) == np.inf
    later = known._replace(fallen=np.arange(20) != 0)  # its distance may be any above 1
    assert half_width(later, np.zeros(20)) == 19
    assert half_width(known._replace(fallen=np.arange(20) < 19), np.full(20, 25.0)) == 23


def test_penalties_are_chosen_by_members_that_were_left_out():
    strong, none = learn(members(24, 0.5, 0.1)), learn(members(24, 0.0, 0.5, seed=3))
    assert strong.half < 0.6 * strong.mean_half and abs(strong.line.weights[0]) > 0.3
    assert none.penalty > strong.penalty and np.abs(none.line.weights).max() < 0.1


def course(times: np.ndarray, features: np.ndarray, end: float = np.inf) -> Course:
    fall = np.where(times < end, np.exp(times), np.nan)
    return Course(np.ones(len(times)), fall, float(np.exp(min(end, 30.0))), features)


def test_ranks_agree_for_the_right_order_and_not_for_none_or_the_opposite_or_one_forecast_for_all():
    one, new = learn(members(24, 0.5, 0.001)), members(60, 0.5, 0.001, seed=5)
    drawn = np.random.default_rng(0).permutation(new.times)
    for times, near, sides in ((new.times, 1.0, 1.0), (drawn, 0.38, 0.5), (26.0 - new.times, 0.2, 0.0)):
        given = course(times, new.features)
        found = (scores.rank_distance(one, given) < 0.21).mean(), (scores.side(one, given) > 0).mean()
        assert found == pytest.approx((near, sides), abs=0.13)
    level = np.full(60, one.learned[0].mean())
    middle = one._replace(line=one.line._replace(intercept=level[0], weights=np.zeros(len(one.line.weights))))
    assert (scores.rank_distance(middle, course(new.times, new.features)) < scores.RANK_OF_HALF).mean() < 0.5
    beyond = course(new.times, new.features, end=13.0)
    assert (scores.rank_distance(one, beyond) < 0.05).all()  # with the right order those not fallen are right


def test_the_limit_of_the_ranks_is_what_a_correlation_of_a_half_gives():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 100_000))
    y = 0.5176 * x + np.sqrt(1 - 0.5176**2) * y  # 2 sin(.5 pi / 6)
    u, v, end = ndtr(x), ndtr(y), 0.756  # the rank of 1.28M sequences among the members learned from
    for a, expected in ((u, scores.RANK_OF_HALF), (rng.permutation(u), 0.27), (np.full(100_000, 0.5), 0.24)):
        found = np.where(v < end, np.abs(a - v), np.maximum(end - a, 0))
        assert np.median(found) == pytest.approx(expected, abs=0.012)


def test_a_correlation_has_the_interval_of_resampled_members():
    new = members(30, 0.5, 0.2, seed=7)
    rho, low, high = scores.correlation(13.0 + new.features[:, 0], course(new.times, new.features))
    assert 0.6 < low < rho < high <= 1
    drawn = np.random.default_rng(1).permutation(new.times)
    assert scores.correlation(13.0 + new.features[:, 0], course(drawn, new.features))[1] < 0
    assert np.isnan(scores.correlation(np.full(3, np.nan), course(new.times[:3], new.features[:3]))).all()


def test_a_member_that_has_not_fallen_is_right_with_every_forecast_beyond_its_end():
    given = course(np.asarray([12.0, 14.0, 14.0]), np.zeros((3, len(FEATURES))), end=13.0)
    found = scores.distance(np.asarray([12.5, 12.2, 15.0]), given)
    np.testing.assert_allclose(found, [0.5, 0.8, 0.0], atol=1e-9)
    assert np.isnan(
        scores.distance(np.ones(1), given._replace(onset=np.full(1, np.nan), fall=np.full(1, np.nan)))
    ).all()


def test_a_later_forecast_is_of_members_that_have_learned_and_not_lost():
    times = np.asarray([0, 40, 80, 120, 160, 200, 240, 280, 320]) * 1000
    learned, late, lost = [0.5, 0.9] + 7 * [0.8], 4 * [0.5] + 5 * [0.9], [0.5, 0.9] + 7 * [0.6]
    given = curves(learned, late, lost) | {"sequences": times}
    found = course_of(given, "later").features
    assert np.isfinite(found).all(1).tolist() == [True, False, False]
    changed = {name: np.where(times > 150_000, 0.3, one) if name != "sequences" else one for name, one in given.items()}
    np.testing.assert_array_equal(course_of(changed, "later").features[0], found[0])


def test_a_forecaster_of_shuffled_pairs_meets_no_claim_that_its_forecasts_are_right(monkeypatch):
    stand_in_forecast(monkeypatch, ignorant())
    verdicts = {claim.name: judge(claim, evidence()).verdict for claim in CLAIMS}
    about = ("chance", "order onset", "order later", "narrow onset", "narrow later")
    assert [name for name in about if verdicts[name] == "holds"] == []
    assert verdicts["falls"] == "holds"


def test_the_published_forecasters_have_learned_from_members_that_no_verdict_uses():
    for moment in MOMENTS:
        one = published(moment)
        assert len(one.learned[1].times) == 24 and one.learned[1].fallen.sum() == 9
        assert np.isfinite([one.half, one.mean_half, *one.line.weights]).all()
    assert published("later").half < published("onset").half < published("later").mean_half
    later = published("later")
    png = draw_forecasts("a title", {"later": (later, {FALLS: course_of(evidence().curves(FALLS), "later")})}, FALLS)
    assert png.startswith(b"\x89PNG")
