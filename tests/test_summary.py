"""Curves in a few numbers: hand-made curves whose answers are known."""

import numpy as np
import pytest

from ebbtide.evaluation.summary import peak, smooth, summarise

SEQUENCES = np.arange(11) * 100
UP_AND_DOWN = [0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.7, 0.5, 0.5]
"""Smoothed over three: peak 0.9 at index 6; then 5/6, 0.7, 17/30, 0.5."""
FLAT = [0.5] * 11
NEEDED = ("icl", "iwl", "ciwl", "flip")


def curves(icl=UP_AND_DOWN, loss=None, **others) -> dict[str, np.ndarray]:
    loss = [np.nan, *np.linspace(4, 1.3, 10)] if loss is None else loss
    made = {"sequences": SEQUENCES, "train_loss": [loss], "icl": [icl], **{k: [v] for k, v in others.items()}}
    return {name: np.asarray(value, np.float32 if name != "sequences" else np.int64) for name, value in made.items()}


def summary(chance=0.5, **kwargs) -> dict[str, float]:
    return {name: value.item() for name, value in summarise(curves(**kwargs), {"icl": chance}).items()}


def test_smoothing_averages_three_and_what_there_is_at_the_ends():
    np.testing.assert_allclose(smooth(np.array([[0.0, 3.0, 6.0, 0.0]])), [[1.5, 3.0, 3.0, 3.0]])
    np.testing.assert_allclose(smooth(np.full((2, 5), 7.0)), np.full((2, 5), 7.0))


def test_peak_end_and_transience():
    found = summary()
    assert found["icl_peak"] == pytest.approx(0.9) and found["peak_sequences"] == 600
    assert found["icl_final"] == pytest.approx(0.5) and found["transience"] == pytest.approx(0.4)


def test_a_single_high_point_is_no_peak():
    spike = list(FLAT)
    spike[2], spike[6:9] = 1.0, [0.75, 0.8, 0.75]
    assert summary(icl=spike)["peak_sequences"] == 700


@pytest.mark.parametrize(("chance", "where"), [(0.5, 800), (0.12, 1000), (0.0, np.nan)])
def test_half_decay_is_the_first_point_below_half_way_to_chance(chance, where):
    """Half ways: 0.7 (smoothed: 0.693 at 800), 0.51 (only the very end) and 0.45 (never)."""
    icl = np.asarray(UP_AND_DOWN, np.float64)
    icl[8:] = [0.68, 0.5, 0.5]
    np.testing.assert_equal(summary(icl=icl, chance=chance)["half_decay_sequences"], where)


@pytest.mark.parametrize(
    ("others", "where"),
    [
        ({}, np.nan),
        ({"iwl": FLAT}, np.nan),  # equal at the end is not above
        ({"iwl": [0.6] * 11}, 900),
        ({"ciwl": [0.75] * 11}, 800),
        ({"iwl": [0.6] * 11, "ciwl": [0.75] * 11}, 800),
        ({"iwl": [1.0] * 11}, 700),  # above before the peak too: only what follows it counts
    ],
)
def test_crossover_is_the_first_point_after_the_peak_where_weights_win(others, where):
    np.testing.assert_equal(summary(**others)["crossover_sequences"], where)


def test_the_others_are_read_off_at_the_peak_and_at_the_end():
    found = summary(iwl=np.arange(11) / 10, flip=1 - np.arange(11) / 10)
    assert found["iwl_at_peak"] == pytest.approx(0.6) and found["iwl_final"] == pytest.approx(0.95)
    assert found["iwl_peak"] == pytest.approx(0.95)
    assert found["flip_at_peak"] == pytest.approx(0.4) and found["flip_final"] == pytest.approx(0.05)
    assert found["train_loss_at_peak"] == pytest.approx(4 - 5 * 0.3)
    assert found["train_loss_final"] == pytest.approx((1.3 + 1.6) / 2)
    assert np.isnan(found["ciwl_at_peak"]) and np.isnan(found["ciwl_final"])


def test_the_loss_before_the_first_batch_is_not_missed():
    falling = np.linspace(0.9, 0.5, 11)
    found = summary(icl=falling)
    assert found["peak_sequences"] == 0 and found["train_loss_at_peak"] == pytest.approx(4.0)


def test_a_member_that_diverges_has_no_numbers_and_leaves_the_others_theirs():
    broken = [*UP_AND_DOWN[:7], *[np.nan] * 4]
    made = {"sequences": SEQUENCES, "icl": np.array([UP_AND_DOWN, broken]), "iwl": np.array([FLAT, broken])}
    made["train_loss"] = np.array([curves()["train_loss"][0], [np.nan, *[3.0] * 6, *[np.nan] * 4]])
    found = summarise(made, {"icl": 0.5})
    alone = summarise({k: v if k == "sequences" else v[:1] for k, v in made.items()}, {"icl": 0.5})
    for name, values in found.items():
        np.testing.assert_equal(values[:1], alone[name])
        if name != "peak_sequences":
            assert np.isnan(values[1]), name


def test_without_the_icl_evaluator_everything_about_it_is_nan():
    made = {k: v for k, v in curves(iwl=FLAT).items() if k != "icl"}
    found = summarise(made, {"iwl": 0.1})
    assert set(found) == set(summary())
    known = {name: v.item() for name, v in found.items() if not np.isnan(v).all()}
    assert known == {"iwl_final": 0.5, "iwl_peak": 0.5, "train_loss_final": pytest.approx((1.3 + 1.6) / 2)}


def test_the_peak_of_each_member_is_its_own():
    assert peak({"icl": np.array([UP_AND_DOWN, UP_AND_DOWN[::-1]])}).tolist() == [6, 4]


def test_a_member_that_stopped_keeps_its_last_loss_and_one_that_diverged_has_none():
    loss = [np.nan, *np.linspace(4, 1.3, 5), *[np.nan] * 5]
    assert summary(loss=loss)["train_loss_final"] == pytest.approx(1.3)
    lost = [*UP_AND_DOWN[:6], *[np.nan] * 5]
    assert np.isnan(summary(icl=lost, loss=loss)["train_loss_final"])
