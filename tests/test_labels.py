"""How classes are labelled, on hand-written sequences of classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from ebbtide.errors import InputError
from ebbtide.keys import Purpose, root
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Fixed, PerSequence, Polysemy, Shared, first_occurrence
from ebbtide.training.spec import Spec

pytestmark = pytest.mark.usefixtures("quick_compile")

SEQUENCE = [3, 7, 3, 0, 7, 3]
FIVE = "0c4ee2b3fde7252b5bb419f5fd23d5bbbf568e77423fb1ad84fbffa6fabfb5f3"
"""Digest of the default spec with `PerSequence(5)`, before pairs could be held out."""


def assign(labels, classes: int, sequences: int, sequence: list[int] = SEQUENCE) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[sequence, slot]` and own labels of the same classes in many sequences."""
    words = jax.random.bits(root(0, Purpose.DATA), (sequences, len(sequence)), "uint32")
    one = jax.jit(jax.vmap(lambda w: labels.assign(jnp.asarray(sequence), w, labels.total(classes))))
    shown, own = one(words)
    return np.asarray(shown), np.asarray(own)


@pytest.mark.parametrize(
    ("classes", "first"), [([4], [0]), ([1, 1, 1], [0, 0, 0]), (SEQUENCE, [0, 1, 0, 3, 1, 0]), ([2, 1, 0], [0, 1, 2])]
)
def test_first_occurrence(classes, first):
    assert first_occurrence(jnp.asarray(classes)).tolist() == first


@pytest.mark.parametrize(
    ("labels", "total", "modulus"),
    [(Fixed(), 12, 12), (Shared(5), 5, 5), (Polysemy(3), 36, 12), (PerSequence(9), 9, 12)],
)
def test_sizes(labels, total, modulus):
    assert (labels.total(12), labels.modulus(12)) == (total, modulus)


@pytest.mark.parametrize(("labels", "shown"), [(Fixed(), SEQUENCE), (Shared(4), [3, 3, 3, 0, 3, 3])])
def test_fixed_and_shared_labels_are_functions_of_the_class(labels, shown):
    got, own = assign(labels, 12, 5)
    assert got.tolist() == [shown] * 5
    assert own.tolist() == [shown[-1]] * 5


def test_polysemy_is_consistent_within_a_sequence_and_uniform_over_them():
    got, own = assign(Polysemy(3), 12, 6000)
    np.testing.assert_array_equal(got // 3, np.tile(SEQUENCE, (6000, 1)))
    np.testing.assert_array_equal(got[:, 0], got[:, 2])
    np.testing.assert_array_equal(got[:, 0], got[:, 5])
    np.testing.assert_array_equal(got[:, 1], got[:, 4])
    np.testing.assert_array_equal(own, got[:, -1])
    joint = np.bincount(9 * (got[:, 0] % 3) + 3 * (got[:, 1] % 3) + got[:, 3] % 3, minlength=27)
    assert chisquare(joint).pvalue > 1e-3


def test_per_sequence_labels_are_different_per_class_and_uniform():
    count = 5
    got, own = assign(PerSequence(count), 12, 6000)
    assert (own == -1).all()
    np.testing.assert_array_equal(got[:, [0, 1]], got[:, [2, 4]])
    triple = got[:, [0, 1, 3]]
    assert all(len(set(row)) == 3 for row in triple.tolist())
    codes = triple @ [count**2, count, 1]
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == 5 * 4 * 3
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("count", [3, 4])
def test_per_sequence_with_fewer_labels_than_slots(count):
    got, _ = assign(PerSequence(count), 12, 200)
    assert got.min() == 0 and got.max() == count - 1
    assert all(len(set(row)) == 3 for row in got.tolist())


@pytest.mark.parametrize(
    ("labels", "value"), [(Shared(1), 1), (Shared(13), 13), (Shared(0), 0), (PerSequence(5), 5), (PerSequence(0), 0)]
)
def test_impossible_counts_are_refused(labels, value, one_line):
    with pytest.raises(InputError) as caught:
        labels.check(12, 6)
    one_line(caught, "task.labels.count", value)


@pytest.mark.parametrize("labels", [Shared(2), Shared(12), PerSequence(6), Polysemy(1), Fixed()])
def test_possible_counts_are_accepted(labels):
    labels.check(12, 6)


@pytest.mark.parametrize(("count", "held"), [(4, 2), (5, 2), (5, 5), (6, 3), (9, 1)])
def test_held_out_pairs_of_labels_never_occur_together_in_training(count, held):
    """Every other pair does, in both orders and equally often; both kinds together are all pairs."""
    labels = PerSequence(count, holdout_pairs=held)
    labels.check(12, 2)
    got, own = assign(labels, 12, 6000, [3, 7, 3])
    assert (own == -1).all()
    np.testing.assert_array_equal(got[:, 0], got[:, 2])
    trained, counts = np.unique(got[:, :2], axis=0, return_counts=True)
    words = jax.random.bits(root(1, Purpose.DATA), (6000, 3), "uint32")
    asked, often = np.unique(np.stack(jax.vmap(labels.held_out)(words), -1), axis=0, return_counts=True)
    pairs = {(a, b) for a in range(count) for b in range(count) if a != b}
    assert {*map(tuple, trained.tolist())} | {*map(tuple, asked.tolist())} == pairs
    assert len(trained) + len(asked) == len(pairs) and len(asked) == 2 * held
    assert chisquare(counts).pvalue > 1e-3 and chisquare(often).pvalue > 1e-3
    assert set(trained.ravel().tolist()) == set(range(count)) and [0, 1] in trained.tolist()
    assert np.ptp(np.bincount(asked[:, 0], minlength=count)) <= 1 + (held > count / 2), "no label is in many more"


def test_no_held_out_pairs_are_the_labels_of_before():
    """A field at its default changes neither the stream nor the name of a run."""
    words = jax.random.bits(root(0, Purpose.DATA), (3,), "uint32")
    plain, given = (one.assign(jnp.asarray([0, 1, 0]), words, 5)[0] for one in (PerSequence(5), PerSequence(5, 0)))
    np.testing.assert_array_equal(plain, given)
    assert Spec(task=FewShot(labels=PerSequence(5, holdout_pairs=0))).digest() == FIVE


@pytest.mark.parametrize(
    ("labels", "slots"), [(PerSequence(5, holdout_pairs=6), 2), (PerSequence(9, holdout_pairs=1), 3)]
)
def test_pairs_that_cannot_be_held_out_are_refused(labels, slots, one_line):
    with pytest.raises(InputError) as caught:
        labels.check(12, slots)
    one_line(caught, "task.labels.holdout_pairs", labels.holdout_pairs)


def test_the_evaluator_of_held_out_pairs_needs_some():
    task = FewShot(labels=PerSequence(5))
    with pytest.raises(InputError, match=r"task.relabel = 'holdout_pair': needs task.labels per_sequence"):
        Spec(task=task, evaluators=("train", "icl_pairs")).check()
    Spec(task=FewShot(labels=PerSequence(5, 2)), evaluators=("train", "icl", "icl_pairs")).check()
