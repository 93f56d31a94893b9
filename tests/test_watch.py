"""What a run keeps of each member: smoothed values, rises and patience by hand, and any interruption harmless."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbtide.errors import InputError
from ebbtide.training.spec import Spec, from_builtins
from ebbtide.training.watch import TRAINING, EarlyStopping, Watch
from tiny import same_bits

NAN = float("nan")


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def judged(stopping: EarlyStopping, *rows: tuple[int, float]) -> Watch:
    """A watch of one member that was shown these values at these sequences."""
    watch = Watch(1, stopping)
    for at, value in rows:
        watch.update_stopping(f32(value), at)
    return watch


# ---- the best model


def test_only_a_strictly_better_value_is_the_best():
    watch = Watch(3, None)
    rows = [
        (0, (0.5, NAN, -1.0), (True, False, True)),
        (10, (0.5, 0.2, -1.0), (False, True, False)),  # equal is not better
        (20, (0.6, NAN, -0.5), (True, False, True)),
        (30, (0.4, 0.1, 0.0), (False, False, True)),
        (40, (NAN, 0.2, 0.0), (False, False, False)),
    ]
    for at, values, update_best in rows:
        assert tuple(watch.update_best(f32(*values), at)) == update_best
    assert watch.best_value.tolist() == f32(0.6, 0.2, 0.0).tolist() and watch.best_at.tolist() == [20, 10, 30]


def test_a_member_that_never_was_a_number_has_no_best():
    watch = Watch(2, None)
    for at in (0, 10):
        assert watch.update_best(f32(NAN, 0.1), at).tolist() == [False, at == 0]
    assert watch.best_value[0] == -np.inf and watch.best_at.tolist() == [-1, 0]


def test_without_stopping_nobody_stops():
    watch = Watch(1, None)
    for at in range(0, 1000, 10):
        watch.update_stopping(f32(0.0), at)
    assert not watch.stopped.any()


# ---- early stopping

TABLE = [
    # at, value, smoothed over 3, last rise of more than 0.1, stopped at
    (0, 0.25, 0.25, 0, TRAINING),
    (10, 0.50, 0.375, 10, TRAINING),
    (20, 0.75, 0.50, 20, TRAINING),
    (30, 0.50, 0.583, 20, TRAINING),  # higher by 0.083: not by more than the margin
    (40, 0.50, 0.583, 20, TRAINING),
    (50, 1.00, 0.667, 50, TRAINING),  # higher than the value at the last rise by 0.167
    (60, 0.75, 0.75, 50, TRAINING),
    (70, 0.50, 0.75, 50, TRAINING),
    (80, 0.75, 0.667, 50, 80),  # 30 sequences without a rise
    (90, 1.00, None, 50, 80),
]


def test_smoothed_value_rise_and_patience_by_hand():
    watch = Watch(1, EarlyStopping(patience=30, window=3, margin=0.1))
    for at, value, smoothed, rise, stopped in TABLE:
        before = watch.recent.copy()
        watch.update_stopping(f32(value), at)
        assert (watch.top_at[0], watch.stopped_at[0]) == (rise, stopped), at
        if smoothed is None:
            assert np.array_equal(watch.recent, before)
        else:
            assert np.nanmean(watch.recent) == pytest.approx(smoothed, abs=1e-3), at
    assert watch.top_value[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("margin", "values", "stops"),
    [
        (0.0, [0.5, 0.5, 0.5], 20),  # equal is no rise
        (0.0, [0.5, 0.50001, 0.6], TRAINING),
        (0.25, [0.5, 0.75, 0.75], 20),  # the margin itself is no rise
        (0.25, [0.5, 0.7, 0.76], TRAINING),  # small rises add up against the value at the last rise
        (0.0, [0.9, 0.1, 0.2], 20),  # what counts is the best value ever
        (0.0, [0.5, NAN, NAN], 20),
        (0.0, [NAN, NAN, NAN], 20),
        (0.0, [NAN, 0.1, NAN], TRAINING),
    ],
)
def test_margin_and_nan(margin, values, stops):
    stopping = EarlyStopping(patience=20, window=1, margin=margin)
    assert judged(stopping, *zip((0, 10, 20), values, strict=True)).stopped_at.tolist() == [stops]


def test_patience_is_in_sequences_not_in_evaluations():
    even = [(at, 0.5) for at in range(0, 101, 20)]
    dense = [(at, 0.5) for at in range(0, 101, 1)]
    late = [(0, 0.5), (15, 0.5), (79, 0.5), (93, 0.5)]
    stopping = EarlyStopping(patience=40)
    assert [judged(stopping, *rows).stopped_at.item() for rows in (even, dense, late)] == [40, 40, 79]
    assert not judged(EarlyStopping(patience=41), (0, 0.5), (40, 0.5)).stopped.any()


def test_a_nan_that_pushes_a_low_value_out_of_the_window_is_no_rise():
    """The mean of what is left is higher, but nothing has risen."""
    stopping = EarlyStopping(patience=20, window=2)
    watch = judged(stopping, (0, 0.1), (10, 0.9), (20, NAN))
    assert watch.top_at.tolist() == [10] and watch.top_value[0] == f32(0.5)[0]
    assert judged(stopping, (0, 0.1), (10, 0.9), (20, NAN), (30, NAN)).stopped_at.tolist() == [30]
    assert judged(stopping, (0, 0.1), (10, 0.9), (20, NAN), (30, 0.9)).top_at.tolist() == [30]


def test_a_stopped_member_is_frozen_and_the_others_are_not():
    watch = Watch(2, EarlyStopping(patience=10, window=2))
    for at, values in ((0, f32(0.5, 0.5)), (10, f32(0.4, 0.6))):
        watch.update_best(values, at)
        watch.update_stopping(values, at)
    assert watch.stopped.tolist() == [True, False]
    before = watch.arrays()
    assert watch.update_best(f32(0.9, 0.9), 20).tolist() == [False, True]
    watch.update_stopping(f32(0.9, 0.9), 20)
    after = watch.arrays()
    for name in before:
        assert np.array_equal(before[name][0], after[name][0]), name
    assert after["best_at"].tolist() == [0, 20] and after["stopped_at"].tolist() == [10, TRAINING]


def test_what_it_gives_away_is_its_own_copy():
    watch = Watch(2, EarlyStopping(patience=10))
    first = watch.arrays()
    watch.update_stopping(f32(0.5, 0.5), 0)
    assert same_bits(first, Watch(2, EarlyStopping(patience=10)).arrays())
    other = Watch(2, EarlyStopping(patience=10), first)
    other.update_stopping(f32(0.1, 0.1), 0)
    assert first["top_value"].tolist() == [-np.inf, -np.inf]


VALUES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN]), st.floats(0, 1, width=32))
STORIES = st.lists(st.tuples(st.integers(1, 30), VALUES, VALUES), min_size=1, max_size=30)


def told(story: list[Any], stopping: EarlyStopping, cut: int | None = None) -> tuple[Watch, list[list[bool]]]:
    """The watch after a story of (sequences since the last, values), and which were better when;
    taken down and set up again from its arrays before row `cut`."""
    watch, at, update_best = Watch(2, stopping), 0, []
    for i, (more, *values) in enumerate(story):
        if i == cut:
            watch = Watch(2, stopping, watch.arrays())
        update_best.append(watch.update_best(f32(*values), at).tolist())
        watch.update_stopping(f32(*values), at)
        at += more
    return watch, update_best


def harmless(story: list[Any], stopping: EarlyStopping, cut: int) -> bool:
    """Whether an interruption changes nothing."""
    (whole, update_best), (again, better_again) = told(story, stopping), told(story, stopping, cut)
    return same_bits(whole.arrays(), again.arrays()) and update_best == better_again


@given(STORIES, st.integers(1, 60), st.integers(1, 5), st.sampled_from([0.0, 0.1]), st.data())
def test_an_interruption_anywhere_changes_nothing(story, patience, window, margin, data):
    stopping = EarlyStopping(patience=patience, window=window, margin=margin)
    assert harmless(story, stopping, data.draw(st.integers(0, len(story) - 1)))


@pytest.mark.parametrize("lost", ["best_value", "best_at", "recent", "top_value", "top_at", "stopped_at"])
def test_every_array_is_needed_to_go_on(monkeypatch, lost):
    """A test of the test above: forget any one array and some interruption is noticed."""
    arrays = Watch.arrays
    monkeypatch.setattr(Watch, "arrays", lambda self: {k: v for k, v in arrays(self).items() if k != lost})
    story = [(10, 0.5, 0.2), (10, 0.75, 0.5), (10, 0.5, 0.5), (10, 0.8, 0.4), (10, 0.1, 0.1), (10, 0.1, 0.1)]
    stopping = EarlyStopping(patience=20, window=2)

    def noticed(cut: int) -> bool:
        whole, again = told(story, stopping)[0], told(story, stopping, cut)[0]
        return not same_bits(arrays(whole), arrays(again))

    assert any(noticed(cut) for cut in range(1, len(story)))


def test_arrays_of_another_shape_are_refused():
    arrays = Watch(2, EarlyStopping(patience=1, window=3)).arrays()
    with pytest.raises(ValueError, match=r"watch.recent has shape \(2, 3\), the spec needs \(2, 5\)"):
        Watch(2, EarlyStopping(patience=1, window=5), arrays)


@pytest.mark.parametrize(
    ("stopping", "field", "value"),
    [
        ({}, "stopping.patience", None),
        ({"patience": 0}, "stopping.patience", 0),
        ({"patience": 10, "window": 0}, "stopping.window", 0),
        ({"patience": 10, "window": 2**31}, "stopping.window", 2**31),  # every checkpoint holds it
        ({"patience": 10, "margin": -0.1}, "stopping.margin", -0.1),
        ({"patience": 10, "evaluator": "flip"}, "stopping.evaluator", "flip"),
    ],
)
def test_stopping_that_cannot_be_is_told_in_one_line(one_line, stopping, field, value):
    with pytest.raises(InputError) as caught:
        from_builtins({"stopping": stopping, "sequences": 1280, "evaluators": ["icl", "iwl"]}).check()
    if value is None:
        assert "patience" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    else:
        one_line(caught, field, value)


def test_the_best_of_an_evaluator_the_run_does_not_have_is_refused(one_line):
    with pytest.raises(InputError) as caught:
        from_builtins({"sequences": 1280, "evaluators": ["iwl"], "keep_best": "flip"}).check()
    one_line(caught, "keep_best", "flip")


def test_the_default_keeps_the_best_icl_only_where_it_is_evaluated():
    assert Spec(evaluators=("iwl",)).best_evaluator() is None
    assert Spec(evaluators=("iwl", "icl")).best_evaluator() == "icl"
    Spec(evaluators=("iwl",)).check()
