"""The algebra of sweeps: what the points are, and what is refused."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.sweeps.axes import Axis, product, repeated

LR = Axis(field="optimizer.lr", values=[1e-3, 3e-4])
WIDTH = Axis(field="model.width", values=[16, 32, 64])


def points(axis: Axis) -> list[dict]:
    axis.check()
    return list(axis.points())


def test_a_product_runs_the_last_axis_fastest():
    found = list(product((LR, WIDTH)))
    assert [p["model.width"] for p in found] == [16, 32, 64] * 2
    assert [p["optimizer.lr"] for p in found] == [1e-3] * 3 + [3e-4] * 3
    assert found == points(Axis(product=(LR, WIDTH)))


def test_without_axes_there_is_one_point():
    assert list(product(())) == [{}]


def test_a_zip_goes_side_by_side():
    heads = Axis(field="model.heads", values=[2, 4, 8])
    assert points(Axis(zip=(WIDTH, heads)))[1] == {"model.width": 32, "model.heads": 4}


def test_a_chain_goes_one_after_the_other():
    off = Axis(field="optimizer.lr", values=[0.1])
    assert points(Axis(chain=(off, Axis(product=(LR, WIDTH)))))[:2] == [
        {"optimizer.lr": 0.1},
        {"optimizer.lr": 1e-3, "model.width": 16},
    ]


def test_ranges_include_both_ends_exactly():
    assert Axis(field="a", linear=(0, 2, 5)).numbers() == [0, 0.5, 1, 1.5, 2]
    assert Axis(field="a", log=(1e-6, 1e-3, 4)).numbers() == [1e-6, 1e-5, 1e-4, 1e-3]
    assert Axis(field="a", log=(0.3, 0.3, 1)).numbers() == [0.3]
    assert Axis(field="a", linear=(7, 9, 1)).numbers() == [7]


@pytest.mark.parametrize("axis", [Axis(field="a", linear=(0, 2, 5)), Axis(field="a", log=(1, 2, 1)), Axis(seeds=7)])
def test_the_size_of_a_range_is_known_without_its_values(axis, monkeypatch):
    values = len(axis.numbers())
    monkeypatch.setattr(Axis, "numbers", lambda self: pytest.fail("the values were made"))
    assert axis.size() == values


@given(st.lists(st.sampled_from("abcdef")))
def test_names_given_twice_are_found(names):
    assert repeated(names) == [one for one in dict.fromkeys(names) if names.count(one) > 1]


@given(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3), st.integers(2, 40))
def test_a_range_by_ratio_has_equal_ratios(first, last, n):
    found = Axis(field="a", log=(first, last, n)).numbers()
    assert len(found) == n and found[0] == first and found[-1] == last
    for a, b in itertools.pairwise(found):
        assert b / a == pytest.approx((last / first) ** (1 / (n - 1)), rel=1e-6)


def test_seeds_are_members():
    assert points(Axis(seeds=3)) == [{"seeds.member": 0}, {"seeds.member": 1}, {"seeds.member": 2}]


trees = st.recursive(
    st.builds(lambda name, n: Axis(field=name, values=list(range(n))), st.sampled_from("abcdefgh"), st.integers(1, 4)),
    lambda inner: st.builds(
        lambda kind, parts: replace(Axis(), **{kind: tuple(parts)}),
        st.sampled_from(["product", "chain", "zip"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(trees)
def test_the_size_is_the_number_of_points_and_every_field_is_known(axis):
    try:
        axis.check()
    except InputError:
        return
    found = list(axis.points())
    assert len(found) == axis.size()
    assert {name for point in found for name in point} == set(axis.every_field())


BAD = {
    "nothing": (Axis(), "axes = 'nothing'"),
    "two ways": (Axis(field="a", values=[1], linear=(0, 1, 2)), "values, linear"),
    "no field": (Axis(values=[1]), r"axes\.field = None"),
    "seeds with a field": (Axis(field="a", seeds=2), r"axes\.field = 'a'"),
    "no values": (Axis(field="a", values=[]), "not empty"),
    "zip of unequal lengths": (Axis(zip=(LR, WIDTH)), r"axes\.zip = \[2, 3\]"),
    "a field twice": (Axis(product=(LR, LR)), r"\['optimizer\.lr'\]: is given twice"),
    "a field twice in a zip": (Axis(zip=(LR, LR)), "is given twice"),
    "log from zero": (Axis(field="a", log=(0.0, 1.0, 3)), r"axes\.log"),
    "endless": (Axis(field="a", linear=(0.0, math.inf, 3)), "finite"),
    "inside": (Axis(chain=(LR, Axis(product=(WIDTH, Axis())))), r"axes\.chain\.1\.product\.1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_in_one_way_is_refused_in_one_line(name):
    axis, words = BAD[name]
    with pytest.raises(InputError, match=words) as error:
        axis.check()
    assert "\n" not in str(error.value)


def test_a_chain_may_name_a_field_in_every_part():
    points(Axis(chain=(LR, LR)))
