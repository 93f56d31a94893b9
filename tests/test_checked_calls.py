"""Types are checked in every call that the tests make, with arrays in the signature and without."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Array, Float, PyTree

import checked_calls
from checked_calls import EVERY, FIRST, WHOLE, check_tree, has_arrays
from ebbtide.errors import one_line
from ebbtide.evaluation.baselines import nearest
from ebbtide.evaluation.statistics import median_interval
from ebbtide.mechanisms.intervene import answer
from ebbtide.models.transformer import Transformer
from effort import THOROUGH


@pytest.fixture(autouse=True)
def counted_anew(monkeypatch):
    """As at the beginning of a test file."""
    monkeypatch.setattr(checked_calls, "calls", Counter())


def keep(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The array itself."""
    return x


DUE = [n for n in range(1, 3 * EVERY + 1) if THOROUGH or n <= FIRST or n % EVERY == 0]
"""The calls, counted from 1, that are checked."""


def caught(call: Callable[[], Any], times: int) -> list[int]:
    """The calls, counted from 1, at which a wrong argument was noticed."""
    found = []
    for number in range(1, times + 1):
        try:
            call()
        except jaxtyping.TypeCheckError:
            found.append(number)
    return found


def test_the_first_calls_are_checked_and_a_sample_of_the_others():
    fn = checked_calls.checked(keep, typechecker=beartype)
    assert caught(lambda: fn(np.zeros(3, np.int64)), 3 * EVERY) == DUE


def test_a_function_inside_another_is_counted_by_its_definitions():
    def define():
        def inner(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            return x

        return checked_calls.checked(inner, typechecker=beartype)

    assert caught(lambda: define()(np.zeros(3, np.int64)), 3 * EVERY) == DUE


def test_a_wrong_argument_is_caught_where_no_array_is_in_the_signature():
    assert one_line("a\nb") == "a\\nb"
    with pytest.raises(BeartypeCallHintViolation):
        one_line(3)  # pyright: ignore[reportArgumentType]


def test_wrong_shapes_are_caught_where_arrays_are_in_the_signature():
    with pytest.raises(jaxtyping.TypeCheckError):
        median_interval(np.zeros(3, np.int64))
    with pytest.raises(jaxtyping.TypeCheckError):
        nearest(np.zeros((4, 7, 2)), np.zeros((4, 8)))


def test_trees_of_arrays_are_checked_leaf_by_leaf_as_by_jaxtyping():
    one, of_a_kind = jnp.ones(()), PyTree[Float[Array, "..."]]
    for tree in ({}, one, {"a": one, "b": [jnp.ones((2, 3)), (one, None)]}):
        assert isinstance(tree, of_a_kind) and check_tree(of_a_kind, tree, {})
    for wrong in (jnp.arange(3), np.ones(3), "text", 1.0):
        for tree in (wrong, {"a": one, "b": [wrong]}):
            assert not isinstance(tree, of_a_kind) and not check_tree(of_a_kind, tree, {})
    assert isinstance({"a": 3}, PyTree[int]) and not isinstance({"a": "x"}, PyTree[int])
    with pytest.raises(jaxtyping.TypeCheckError):
        answer(Transformer(), {"a": np.ones(3)}, None)


def test_annotations_with_arrays_are_told_from_others():
    assert all(
        map(has_arrays, (Float[Array, "a"], list[Float[Array, "a"] | None], dict[str, Float[np.ndarray, "a b"]]))
    )
    assert not any(map(has_arrays, (int, list[str], dict[str, int | None], np.ndarray, None)))
    assert jaxtyping.jaxtyped is not WHOLE
