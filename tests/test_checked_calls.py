"""Types are checked in every call that the tests make, with arrays in the signature and without."""

import jaxtyping
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Array, Float

from checked_calls import WHOLE, has_arrays
from ebbtide.errors import one_line
from ebbtide.evaluation.baselines import nearest
from ebbtide.evaluation.statistics import median_interval


def test_a_wrong_argument_is_caught_where_no_array_is_in_the_signature():
    assert one_line("a\nb") == "a\\nb"
    with pytest.raises(BeartypeCallHintViolation):
        one_line(3)  # pyright: ignore[reportArgumentType]


def test_wrong_shapes_are_caught_where_arrays_are_in_the_signature():
    with pytest.raises(jaxtyping.TypeCheckError):
        median_interval(np.zeros(3, np.int64))
    with pytest.raises(jaxtyping.TypeCheckError):
        nearest(np.zeros((4, 7, 2)), np.zeros((4, 8)))


def test_annotations_with_arrays_are_told_from_others():
    assert all(
        map(has_arrays, (Float[Array, "a"], list[Float[Array, "a"] | None], dict[str, Float[np.ndarray, "a b"]]))
    )
    assert not any(map(has_arrays, (int, list[str], dict[str, int | None], np.ndarray, None)))
    assert jaxtyping.jaxtyped is not WHOLE
