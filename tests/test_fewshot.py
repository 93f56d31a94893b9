"""Invariants of the few-shot task for every option, and how often it draws what."""

from itertools import permutations, product

import numpy as np
import pytest
from msgspec.structs import replace
from scipy.stats import binom, chisquare

from ebbtide.errors import InputError
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import PerSequence, Polysemy, Shared
from ebbtide.tasks.prompt import Prompt, Tag
from ebbtide.tasks.relabel import CopyQueryLabel, Flip, LabelNoise, Pair

pytestmark = pytest.mark.usefixtures("quick_compile")

RESTS = ("iid", "no_support", "unique")
EXEMPLAR_DRAWS = ("independent", "without_replacement", "match")


def likely(successes: int, trials: int, p: float) -> bool:
    """A binomial count that is not further in either tail than one time in 10,000."""
    return bool(min(binom.cdf(successes, trials, p), binom.sf(successes - 1, trials, p)) > 1e-4)


def groups(prompt: Prompt) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks `[slot, sequence]` of rest slots, of the query and its copies, of the distractor copies."""
    tags = np.asarray(prompt.tags)
    return tags == Tag.OTHER, (tags == Tag.BURSTY) | (tags == Tag.QUERY), tags == Tag.DISTRACTOR


def check_structure(task: FewShot, prompt: Prompt, burst: int) -> None:
    """What every sequence must satisfy when all are drawn with `burst`."""
    copies = burst if task.distractor else 0
    counts = {tag: (prompt.tags == tag).sum(axis=0) for tag in Tag}
    assert (prompt.tags[-1] == Tag.QUERY).all() and (counts[Tag.QUERY] == 1).all()
    assert (counts[Tag.BURSTY] == burst).all()
    assert (counts[Tag.DISTRACTOR] == copies).all()
    assert (counts[Tag.OTHER] == task.context - burst - copies).all()

    rest, of_query, of_distractor = groups(prompt)
    query = np.broadcast_to(prompt.classes[-1], prompt.classes.shape)
    assert (prompt.classes[of_query] == query[of_query]).all()
    assert (prompt.classes[of_distractor] != query[of_distractor]).all()
    repeats = 0
    for classes, others, copied in zip(prompt.classes.T, rest.T, of_distractor.T, strict=True):
        assert len(set(classes[copied])) <= 1
        used = {classes[-1], *classes[copied]}
        if task.rest != "iid":
            assert not used & set(classes[others])
        if task.rest == "unique":
            assert len(set(classes[others])) == others.sum()
        repeats += len(used & set(classes[others]))
    assert task.rest != "iid" or not rest.any() or repeats > 0


def check_exemplars(task: FewShot, prompt: Prompt, exemplars: int) -> None:
    """The exemplar rule within the query's copies and within the distractor's."""
    _, of_query, of_distractor = groups(prompt)
    for mask in (of_query, of_distractor):
        per_sequence = [set(column[m]) for column, m in zip(prompt.indices.T, mask.T, strict=True) if m.any()]
        size = int(mask.sum(axis=0).max())
        if size and task.exemplar_draw == "match":
            assert {len(s) for s in per_sequence} == {1}
        if size and task.exemplar_draw == "without_replacement":
            assert {len(s) for s in per_sequence} == {size}
        if size > 1 and task.exemplar_draw == "independent":
            assert {len(s) for s in per_sequence} >= {1 if size == 2 else 2, min(size, exemplars)}


def check_labels(task: FewShot, prompt: Prompt, classes: int) -> None:
    """Fixed and shared labels are functions of the class; targets and own labels follow."""
    labels = prompt.classes % task.labels.modulus(classes)
    np.testing.assert_array_equal(prompt.labels, labels[:-1])
    np.testing.assert_array_equal(prompt.target, labels[-1])
    np.testing.assert_array_equal(prompt.own_label, prompt.target)


@pytest.mark.parametrize(("rest", "exemplar_draw", "distractor"), list(product(RESTS, EXEMPLAR_DRAWS, (True, False))))
def test_invariants_of_a_bursty_sequence(rest, exemplar_draw, distractor, draw, source, bank):
    task = FewShot(context=6, burst=2, rest=rest, exemplar_draw=exemplar_draw, distractor=distractor)
    prompt = draw(task)
    check_structure(task, prompt, burst=2)
    check_exemplars(task, prompt, source.exemplars)
    check_labels(task, prompt, source.classes)
    assert (prompt.labels == prompt.target).any(axis=0).all()
    assert prompt.classes.min() == 0 and prompt.classes.max() == source.classes - 1
    assert prompt.indices.min() == 0 and prompt.indices.max() == source.exemplars - 1
    np.testing.assert_array_equal(prompt.exemplars, np.asarray(bank.features)[prompt.classes, prompt.indices])


MORE = [
    FewShot(context=8, burst=4, exemplar_draw="without_replacement"),
    FewShot(context=8, burst=3, rest="unique", zipf=1.5),
    FewShot(context=5, burst=1, rest="no_support", zipf=1.0, exemplar_draw="match"),
    FewShot(context=5, burst=2, zipf=1.0),
    FewShot(context=4, burst=0, rest="unique"),
    FewShot(context=4, burst=0, rest="no_support"),
    FewShot(context=8, burst=0, rest="unique", zipf=3.0),
    FewShot(context=1, burst=0),
    FewShot(context=1, burst=1, distractor=False),
    FewShot(context=6, burst=2, labels=Shared(5), rest="no_support"),
]


@pytest.mark.parametrize("task", MORE, ids=[str(i) for i in range(len(MORE))])
def test_invariants_at_other_sizes(task, draw, source):
    prompt = draw(task)
    check_structure(task, prompt, burst=task.burst)
    check_exemplars(task, prompt, source.exemplars)
    check_labels(task, prompt, source.classes)


@pytest.mark.parametrize("rest", ["no_support", "unique"])
def test_without_burst_the_query_class_is_absent(rest, draw):
    prompt = draw(FewShot(context=4, burst=0, rest=rest))
    assert not (prompt.classes[:-1] == prompt.classes[-1]).any()
    assert not (prompt.labels == prompt.target).any()


def test_held_out_classes_and_exemplars(draw, source, bank):
    prompt = draw(FewShot(context=4, burst=2, relabel=Pair()), holdout_classes=True, holdout_exemplars=True)
    assert set(np.unique(prompt.classes)) == set(range(12, 18))
    assert set(np.unique(prompt.indices)) == {5, 6, 7}
    assert (prompt.own_label == -1).all()
    np.testing.assert_array_equal(prompt.exemplars, np.asarray(bank.features)[prompt.classes, prompt.indices])
    trained = draw(FewShot(context=4, burst=2, relabel=Pair()), holdout_exemplars=True)
    assert set(np.unique(trained.classes)) == set(range(12))
    assert set(np.unique(trained.indices)) == {5, 6, 7}
    np.testing.assert_array_equal(trained.own_label, trained.classes[-1])


@pytest.mark.parametrize(("exemplar_draw", "p"), [("independent", 1 / 5), ("without_replacement", 0.0), ("match", 1.0)])
def test_probability_that_a_copy_is_the_query_exemplar(exemplar_draw, p, draw):
    prompt = draw(FewShot(context=6, burst=2, rest="unique", exemplar_draw=exemplar_draw), sequences=6000)
    copies = (prompt.tags == Tag.BURSTY).argmax(axis=0)
    same = prompt.indices[copies, np.arange(6000)] == prompt.indices[-1]
    assert same.mean() == p if p in (0, 1) else likely(int(same.sum()), 6000, p)


@pytest.mark.parametrize("exemplar_draw", EXEMPLAR_DRAWS)
def test_query_and_distractor_exemplars_are_independent(exemplar_draw, draw):
    prompt = draw(FewShot(context=4, burst=2, exemplar_draw=exemplar_draw), sequences=5000)
    distractor = prompt.indices[(prompt.tags == Tag.DISTRACTOR).argmax(axis=0), np.arange(5000)]
    bursty = prompt.indices[(prompt.tags == Tag.BURSTY).argmax(axis=0), np.arange(5000)]
    for one in (bursty, prompt.indices[-1]):
        assert chisquare(np.bincount(5 * one + distractor, minlength=25)).pvalue > 1e-3


@pytest.mark.parametrize("p_bursty", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("rest", RESTS)
def test_mixture_of_bursty_and_plain_sequences(rest, p_bursty, draw):
    task = FewShot(context=4, burst=2, rest=rest, p_bursty=p_bursty, exemplar_draw="without_replacement")
    prompt = draw(task, sequences=3000)
    bursty = (prompt.tags == Tag.BURSTY).any(axis=0)
    assert likely(int(bursty.sum()), 3000, p_bursty) if p_bursty else not bursty.any()
    for burst, members in ((2, bursty), (0, ~bursty)):
        if members.any():
            part = Prompt(*(x[..., members, :] if x.ndim == 3 else x[..., members] for x in prompt))
            check_structure(task, part, burst)
            check_exemplars(task, part, 5)


@pytest.mark.parametrize("zipf", [0.0, 1.0])
def test_marginal_of_classes(zipf, draw):
    """The query and every rest slot of an iid sequence follow p(c); so do they jointly (independence)."""
    prompt = draw(FewShot(context=2, burst=0, zipf=zipf), sequences=8000)
    p = np.arange(1, 13.0) ** -zipf
    p /= p.sum()
    for slot in range(3):
        assert chisquare(np.bincount(prompt.classes[slot], minlength=12), 8000 * p).pvalue > 1e-3
    joint = np.bincount(12 * prompt.classes[0] + prompt.classes[2], minlength=144)
    assert chisquare(joint, 8000 * np.outer(p, p).ravel()).pvalue > 1e-3


@pytest.mark.parametrize("zipf", [0.0, 1.0])
def test_distractor_is_drawn_from_the_other_classes(zipf, draw):
    """p(d | q) = p(d) / (1 - p(q)) for every other class d."""
    small = Gaussian(classes=5, exemplars=1, dim=2, holdout_classes=1, holdout_exemplars=1)
    prompt = draw(FewShot(context=2, burst=1, zipf=zipf), small, sequences=12_000)
    p = np.arange(1, 6.0) ** -zipf
    p /= p.sum()
    distractor = prompt.classes[(prompt.tags == Tag.DISTRACTOR).argmax(axis=0), np.arange(12_000)]
    expected = np.array([[p[q] * p[d] / (1 - p[q]) if q != d else 0 for d in range(5)] for q in range(5)])
    counts = np.bincount(5 * prompt.classes[-1] + distractor, minlength=25)
    allowed = expected.ravel() > 0
    assert counts[~allowed].sum() == 0
    assert chisquare(counts[allowed], 12_000 * expected.ravel()[allowed]).pvalue > 1e-3


@pytest.mark.parametrize("exemplar_draw", EXEMPLAR_DRAWS)
def test_exemplars_are_uniform_in_every_slot(exemplar_draw, draw):
    prompt = draw(FewShot(context=6, burst=2, exemplar_draw=exemplar_draw), sequences=4000)
    for slot in (0, 3, 6):
        assert chisquare(np.bincount(prompt.indices[slot], minlength=5)).pvalue > 1e-3


def test_context_order_is_uniform(draw):
    prompt = draw(FewShot(context=4, burst=1, rest="unique"), sequences=6000)
    place = {pair: i for i, pair in enumerate(permutations(range(4), 2))}
    bursty = (prompt.tags == Tag.BURSTY).argmax(axis=0)
    distractor = (prompt.tags == Tag.DISTRACTOR).argmax(axis=0)
    counts = np.bincount([place[pair] for pair in zip(bursty.tolist(), distractor.tolist(), strict=True)], minlength=12)
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("classes", "count"), [(12, 3), (13, 3), (14, 3), (13, 2), (14, 5), (15, 5)])
@pytest.mark.parametrize("rest", ["no_support", "unique"])
def test_distinct_label_keeps_the_query_label_out(classes, count, rest, draw):
    small = Gaussian(classes=classes, exemplars=1, dim=1, holdout_classes=1, holdout_exemplars=1)
    task = FewShot(context=4, burst=1, rest=rest, labels=Shared(count), distinct="label")
    prompt = draw(task, small)
    check_structure(task, prompt, burst=1)
    check_labels(task, prompt, classes)
    shown = np.where(prompt.tags[:-1] == Tag.BURSTY, -1, prompt.labels)
    assert not (shown == prompt.target).any()
    assert prompt.classes.max() == classes - 1


@pytest.mark.parametrize(("classes", "count"), [(7, 3), (8, 4), (8, 3)])
def test_distinct_label_is_uniform_over_the_allowed_classes(classes, count, draw):
    small = Gaussian(classes=classes, exemplars=1, dim=1, holdout_classes=1, holdout_exemplars=1)
    task = FewShot(context=2, burst=0, rest="unique", labels=Shared(count), distinct="label")
    prompt = draw(task, small, sequences=12_000)
    q, a, b = prompt.classes[-1], prompt.classes[0], prompt.classes[1]
    expected = np.zeros((classes, classes, classes))
    for i, j, k in product(range(classes), repeat=3):
        if i % count not in (j % count, k % count) and j != k:
            allowed = sum(c % count != i % count for c in range(classes))
            expected[i, j, k] = 1 / (classes * allowed * (allowed - 1))
    counts = np.bincount((q * classes + a) * classes + b, minlength=classes**3)
    possible = expected.ravel() > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], 12_000 * expected.ravel()[possible]).pvalue > 1e-3


@pytest.mark.parametrize("labels", [(0, 1), (12, 13)])
def test_pair_relabels_both_classes_in_random_order(labels, draw):
    prompt = draw(FewShot(context=8, burst=4, rest="no_support", relabel=Pair(labels)), sequences=3000)
    for label in labels:
        assert ((prompt.labels == label).sum(axis=0) == 4).all()
    bursty = prompt.tags[:-1] == Tag.BURSTY
    np.testing.assert_array_equal(prompt.labels == prompt.target, bursty)
    assert likely(int((prompt.target == labels[0]).sum()), 3000, 0.5)
    np.testing.assert_array_equal(prompt.own_label, prompt.classes[-1])


def test_pair_leaves_the_rest_slots_as_they_are(draw):
    prompt = draw(FewShot(context=6, burst=2, rest="unique", relabel=Pair((12, 13))))
    rest = prompt.tags[:-1] == Tag.OTHER
    np.testing.assert_array_equal(prompt.labels[rest], prompt.classes[:-1][rest])


@pytest.mark.parametrize("labels", [FewShot().labels, Shared(5)])
def test_flip_swaps_the_two_labels(labels, draw):
    task = FewShot(context=6, burst=2, rest="no_support", labels=labels, distinct="label")
    plain, flipped = draw(task), draw(replace(task, relabel=Flip()))
    np.testing.assert_array_equal(plain.classes, flipped.classes)
    _, of_query, of_distractor = groups(plain)
    distractor = plain.labels[of_distractor[:-1].argmax(axis=0), np.arange(400)]
    np.testing.assert_array_equal(flipped.target, distractor)
    assert (flipped.target != plain.target).all()
    expected = np.where(of_query, distractor, np.where(of_distractor, plain.target, 0))[:-1]
    swapped = (of_query | of_distractor)[:-1]
    np.testing.assert_array_equal(flipped.labels[swapped], expected[swapped])
    np.testing.assert_array_equal(flipped.labels[~swapped], plain.labels[~swapped])
    np.testing.assert_array_equal(flipped.own_label, plain.target)


@pytest.mark.parametrize("labels", [FewShot().labels, Shared(4)])
def test_copied_query_label_stands_once_beside_another_class(labels, draw):
    task = FewShot(context=4, burst=0, rest="unique", labels=labels, distinct="label", relabel=CopyQueryLabel())
    prompt = draw(task, sequences=4000)
    copied = prompt.labels == prompt.target
    assert (copied.sum(axis=0) == 1).all()
    assert not (prompt.classes[:-1] == prompt.classes[-1]).any()
    assert chisquare(copied.sum(axis=1)).pvalue > 1e-3
    np.testing.assert_array_equal(prompt.target, prompt.own_label)
    fixed = prompt.classes % task.labels.modulus(12)
    np.testing.assert_array_equal(prompt.labels[~copied], fixed[:-1][~copied])


NOISY = FewShot(context=6, burst=2, labels=Shared(4))


@pytest.mark.parametrize("of", ["context", "target", "classes"])
def test_label_noise_draws_the_labels_it_names_uniformly(of, draw):
    plain, noisy = (draw(task, sequences=4000) for task in (NOISY, replace(NOISY, relabel=LabelNoise(0.4, of=of))))
    for name in ("exemplars", "classes", "indices", "tags", "own_label"):
        np.testing.assert_array_equal(getattr(noisy, name), getattr(plain, name), err_msg=name)
    wrong = noisy.labels != plain.labels, noisy.target != plain.target
    assert wrong[0].any() == (of != "target") and wrong[1].any() == (of != "context")
    count, trials = (int(wrong[0][0].sum()) if of == "context" else int(wrong[1].sum())), 4000
    assert likely(count, trials, 0.4 * 3 / 4)  # a quarter of the drawn labels are the right ones
    shift = (noisy.labels[0] - plain.labels[0] if of == "context" else noisy.target - plain.target) % 4
    assert chisquare(np.bincount(shift, minlength=4)[1:]).pvalue > 1e-3
    copies = plain.tags[:-1] == Tag.BURSTY
    agree = (noisy.labels == noisy.target)[copies].mean()
    assert agree == 1 if of == "classes" else abs(agree - 0.7) < 0.03


def test_no_label_noise_and_full_label_noise(draw):
    plain, none, full = (
        draw(replace(NOISY, relabel=relabel), sequences=4000)
        for relabel in (NOISY.relabel, LabelNoise(0.0), LabelNoise(1.0))
    )
    np.testing.assert_array_equal(none.labels, plain.labels)
    np.testing.assert_array_equal(none.target, plain.target)
    table = np.histogram2d(full.target, full.own_label, bins=4)[0]
    assert chisquare(table.ravel()).pvalue > 1e-3  # the label tells nothing of the class


def test_evaluators_have_no_label_noise():
    source, noisy = Gaussian(classes=64, dim=8, holdout_classes=8), replace(NOISY, relabel=LabelNoise(0.4))
    for name in ("icl", "icl_holdout", "iwl", "ciwl", "flip"):
        assert noisy.evaluator(name, source) == NOISY.evaluator(name, source), name
    assert noisy.evaluator("train", source).task == noisy


def test_per_sequence_labels_name_the_classes_of_the_sequence_only(draw):
    prompt = draw(FewShot(context=6, burst=2, labels=PerSequence(7)), sequences=2000)
    labels = np.concatenate([prompt.labels, prompt.target[None]])
    for row, classes in zip(labels.T.tolist(), prompt.classes.T.tolist(), strict=True):
        pairs = set(zip(classes, row, strict=True))
        assert len(pairs) == len(set(classes)) == len(set(row))
    assert chisquare(np.bincount(prompt.target, minlength=7)).pvalue > 1e-3
    assert (prompt.own_label == -1).all()


def test_polysemous_labels_belong_to_their_class(draw):
    prompt = draw(FewShot(context=6, burst=2, labels=Polysemy(3)), sequences=2000)
    labels = np.concatenate([prompt.labels, prompt.target[None]])
    np.testing.assert_array_equal(labels // 3, prompt.classes)
    for row, classes in zip(labels.T.tolist(), prompt.classes.T.tolist(), strict=True):
        assert len(set(zip(classes, row, strict=True))) == len(set(classes))
    assert chisquare(np.bincount(prompt.target, minlength=36)).pvalue > 1e-3


ANY = FewShot(context=6, burst=2, p_bursty=0.7, zipf=0.5, labels=PerSequence(9), exemplar_draw="without_replacement")


@pytest.mark.parametrize(("start", "sequences"), [(0, 7), (13, 1), (30, 64)])
def test_an_example_does_not_depend_on_its_batch(start, sequences, draw):
    whole, part = draw(ANY, sequences=100), draw(ANY, start=start, sequences=sequences)
    for one, other in zip(whole, part, strict=True):
        batch = min(one.ndim - 1, 1)
        np.testing.assert_array_equal(one.take(range(start, start + sequences), axis=batch), other)


def test_streams_differ_between_seeds_and_between_examples(draw):
    one, other = draw(ANY, seed=0), draw(ANY, seed=1)
    assert (one.classes != other.classes).any(axis=0).mean() > 0.9
    assert len(np.unique(one.classes, axis=1).T) > 300


def test_reserved_labels_enlarge_the_readout():
    assert FewShot(reserved_labels=3).outputs(Gaussian(classes=100)) == 103
    assert FewShot(labels=Shared(16), reserved_labels=0).outputs(Gaussian(classes=100)) == 16
    assert FewShot(labels=Polysemy(4)).outputs(Gaussian(classes=100)) == 402


REFUSED = [
    ("task.context", 0, FewShot(context=0, burst=0)),
    ("task.burst", -1, FewShot(burst=-1)),
    ("task.burst", 2, FewShot(context=3, burst=2)),
    ("task.burst", 4, FewShot(context=3, burst=4, distractor=False)),
    ("task.p_bursty", 1.5, FewShot(p_bursty=1.5)),
    ("task.p_bursty", -0.1, FewShot(p_bursty=-0.1)),
    ("task.zipf", -1.0, FewShot(zipf=-1.0)),
    ("task.distinct", "label", FewShot(zipf=1.0, distinct="label")),
    ("source.classes", 12, FewShot(context=11)),
    ("source.classes", 12, FewShot(context=8, burst=0, rest="unique", labels=Shared(2), distinct="label")),
    ("source.exemplars", 5, FewShot(context=10, burst=5, exemplar_draw="without_replacement")),
    ("task.labels.count", 13, FewShot(labels=Shared(13))),
    ("task.labels.count", 3, FewShot(context=4, burst=1, labels=PerSequence(3))),
    ("task.labels.count", 4, FewShot(context=4, burst=2, p_bursty=0.5, labels=PerSequence(4))),
    ("task.relabel.labels", (0, 14), FewShot(relabel=Pair((0, 14)))),
    ("task.relabel.labels", (3, 3), FewShot(relabel=Pair((3, 3)))),
    ("task.relabel.labels", (-1, 3), FewShot(relabel=Pair((-1, 3)))),
    ("task.relabel", "flip", FewShot(burst=0, relabel=Flip())),
    ("task.relabel.share", 1.5, FewShot(relabel=LabelNoise(share=1.5))),
    ("task.relabel", "flip", FewShot(p_bursty=0.5, relabel=Flip())),
    ("task.relabel", "pair", FewShot(distractor=False, relabel=Pair())),
]


@pytest.mark.parametrize(("field", "value", "task"), REFUSED, ids=[f"{r[0]}={r[1]}" for r in REFUSED])
def test_impossible_tasks_are_refused_in_one_line(field, value, task, source, one_line):
    with pytest.raises(InputError) as caught:
        task.check(source)
    one_line(caught, field, value)


def test_the_smallest_possible_sizes_are_accepted_and_drawn(draw):
    six = Gaussian(classes=6, exemplars=3, dim=1, holdout_classes=1, holdout_exemplars=1)
    task = FewShot(context=4, burst=2, rest="no_support", exemplar_draw="without_replacement", labels=PerSequence(2))
    check_structure(task, draw(task, six), burst=2)
    unique = FewShot(context=4, burst=0, rest="unique")
    check_structure(unique, draw(unique, six), burst=0)


GOLDEN = [
    (
        FewShot(context=4, burst=1, rest="unique"),
        [[5, 2, 8, 0, 2], [8, 1, 4, 0, 1]],
        [[3, 1, 1, 1, 3], [2, 4, 0, 4, 0]],
        [[2, 1, 0, 0, 3], [0, 1, 0, 2, 3]],
        [[5, 2, 8, 0, 2], [8, 1, 4, 0, 1]],
    ),
    (
        ANY,
        [[0, 3, 3, 0, 5, 5, 5], [6, 5, 6, 5, 10, 9, 6]],
        [[0, 1, 1, 4, 0, 3, 4], [3, 1, 1, 4, 0, 0, 0]],
        [[2, 0, 0, 2, 1, 1, 3], [1, 2, 1, 2, 0, 0, 3]],
        [[8, 5, 5, 8, 0, 0, 0], [0, 7, 0, 7, 1, 4, 0]],
    ),
    (
        FewShot(context=4, burst=2, labels=Polysemy(2), relabel=Flip(), exemplar_draw="match"),
        [[5, 5, 2, 2, 2], [1, 0, 1, 0, 1]],
        [[3, 3, 3, 3, 3], [0, 4, 0, 4, 0]],
        [[2, 2, 1, 1, 3], [1, 2, 1, 2, 3]],
        [[5, 5, 10, 10, 10], [1, 3, 1, 3, 1]],
    ),
]


@pytest.mark.parametrize(("task", "classes", "indices", "tags", "labels"), GOLDEN, ids=["unique", "zipf", "flip"])
def test_the_random_stream_has_not_changed(task, classes, indices, tags, labels, draw):
    """Literal draws: a failure means that old runs can no longer be repeated."""
    prompt = draw(task, sequences=2)
    assert prompt.classes.T.tolist() == classes
    assert prompt.indices.T.tolist() == indices
    assert prompt.tags.T.tolist() == tags
    assert np.concatenate([prompt.labels, prompt.target[None]]).T.tolist() == labels
