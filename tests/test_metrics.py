"""Metrics and evaluators against hand-computed cases and a plain NumPy reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.evaluation import evaluators
from ebbtide.evaluation.metrics import chance, first_of_label, mean_and_error, per_sequence
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import METRICS, NAMES, FewShot
from ebbtide.tasks.labels import PerSequence, Polysemy, Shared
from ebbtide.tasks.prompt import Prompt

pytestmark = pytest.mark.usefixtures("quick_compile")


def prompt_of(labels: list[list[int]], target: list[int]) -> Prompt:
    """A prompt with these context labels (one list per sequence); metrics read nothing else."""
    shown = jnp.asarray(labels, jnp.int32).T
    slots, batch = shown.shape[0] + 1, len(target)
    slot = jnp.zeros((slots, batch), jnp.int32)
    own = jnp.asarray(target, jnp.int32)
    return Prompt(jnp.zeros((slots, batch, 1)), shown, own, slot, slot.astype(jnp.uint32), slot, own)


def measured(logits, labels, target, group: int = 1) -> dict[str, list[float]]:
    got = per_sequence(jnp.asarray(logits, jnp.float32), prompt_of(labels, target), group)
    return dict(zip(METRICS, got.tolist(), strict=True))


def close(values):
    return pytest.approx(values, rel=1e-5, abs=1e-6)


def test_first_of_label():
    assert first_of_label(jnp.asarray([[3], [3], [1], [3], [1], [0]])).T.tolist() == [[1, 0, 1, 0, 0, 1]]


LOGITS = np.log([[0.1, 0.2, 0.3, 0.4]])


@pytest.mark.parametrize(
    ("labels", "target", "expected"),
    [
        ([3, 1], 3, (-np.log(0.4), 1, 1, 2 / 3, 0.6)),
        ([2, 1], 2, (-np.log(0.3), 0, 1, 0.6, 0.5)),
        ([2, 1], 1, (-np.log(0.2), 0, 0, 0.4, 0.5)),
        ([0, 0], 0, (-np.log(0.1), 0, 1, 1.0, 0.1)),
        ([2, 2, 1, 2], 2, (-np.log(0.3), 0, 1, 0.6, 0.5)),
        ([2, 1], 3, (-np.log(0.4), 1, 0, 0.0, 0.5)),
        ([0, 1, 2, 3], 1, (-np.log(0.2), 0, 0, 0.2, 1.0)),
    ],
    ids=["both right", "context only", "wrong", "one label", "duplicates", "target absent", "all in context"],
)
def test_metrics_by_hand(labels, target, expected):
    got = measured(LOGITS, [labels], [target])
    assert [got[name][0] for name in METRICS] == close(list(expected))


@pytest.mark.parametrize(("group", "accuracy"), [(1, 0), (2, 1)])
def test_any_label_of_the_class_is_right_in_the_open_set(group, accuracy):
    assert measured(LOGITS, [[0, 1]], [2], group)["accuracy"] == [accuracy]
    assert measured(LOGITS, [[0, 1]], [1], group)["accuracy"] == [0]


def test_metrics_do_not_depend_on_a_shift_and_survive_large_logits():
    labels, target = [[0, 1]] * 2, [0, 1]
    got = measured([[2000.0, 0, 0], [2000.0, 0, 0]], labels, target)
    assert got["loss"] == close([0, 2000])
    assert got["in_context_probability"] == close([1, 0])
    assert got["context_mass"] == close([1, 1])
    one, other = (measured(LOGITS + shift, [[1, 2]], [1]) for shift in (0, 50))
    assert all(one[name] == pytest.approx(other[name], rel=1e-4) for name in METRICS)


def reference(z: np.ndarray, labels: np.ndarray, target: int) -> list[float]:
    p = np.exp(z - z.max())
    p /= p.sum()
    context = sorted(set(labels.tolist()))
    best = context[int(np.argmax(z[context]))]
    inside = target in context
    return [
        -np.log(p[target]),
        float(z.argmax() == target),
        float(best == target),
        p[target] / p[context].sum() if inside else 0.0,
        p[context].sum(),
    ]


def test_metrics_against_numpy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 9)).astype(np.float32) * 2
    labels, target = rng.integers(0, 9, (300, 4)), rng.integers(0, 9, 300)
    got = measured(logits, labels.tolist(), target.tolist())
    expected = np.array([reference(*row) for row in zip(logits.astype(float), labels, target, strict=True)]).T
    for name, row in zip(METRICS, expected, strict=True):
        np.testing.assert_allclose(got[name], row, rtol=2e-5, atol=1e-6, err_msg=name)
    assert {0.0, 1.0} == set(got["in_context_accuracy"])


def test_mean_and_error():
    values = np.random.default_rng(1).normal(3, 2, (2, 50)).astype(np.float32)
    got = mean_and_error(jnp.asarray(values))
    np.testing.assert_allclose(got[:, 0], values.mean(1), rtol=1e-5)
    np.testing.assert_allclose(got[:, 1], values.std(1, ddof=1) / np.sqrt(50), rtol=1e-5)


def test_chance_counts_different_labels_and_absent_targets():
    prompt = prompt_of([[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3], [0, 1, 2, 3]], [0, 0, 3, 7])
    got = chance(prompt, 10)
    assert got["accuracy"] == 0.1 and chance(prompt, 10, group=2)["accuracy"] == 0.2
    assert got["in_context_accuracy"] == close((1 / 2 + 1 + 1 / 4 + 0) / 4)


SOURCE = Gaussian(classes=50, exemplars=4, dim=3, holdout_classes=8, holdout_exemplars=3)
TASK = FewShot(context=4, burst=1, p_bursty=0.8, zipf=1.0)


def suite_of(task: FewShot, names: tuple[str, ...] = NAMES, sequences: int = 200) -> evaluators.Suite:
    evaluators.check(names, task, SOURCE)
    return evaluators.build_suite(names, task, SOURCE, SOURCE.build(), sequences=sequences, seed=0)


@pytest.fixture(scope="module")
def suite() -> evaluators.Suite:
    return suite_of(TASK)


def counts_per_sequence(prompt: Prompt) -> set[tuple[int, ...]]:
    """How often the labels of a context occur, most frequent first."""
    return {tuple(sorted(np.unique(row, return_counts=True)[1].tolist())[::-1]) for row in np.asarray(prompt.labels).T}


def test_relabelling_evaluators(suite):
    for name, labels in (("icl", {0, 1}), ("icl_holdout", {0, 1}), ("icl_reserved", {50, 51})):
        prompt = suite.of(name)
        assert counts_per_sequence(prompt) == {(2, 2)}
        assert set(np.unique(prompt.labels)) == set(np.unique(prompt.target)) == labels
        same = prompt.classes[:-1] == prompt.classes[-1]
        np.testing.assert_array_equal(prompt.labels == prompt.target, same)
    assert (suite.of("icl_holdout").classes >= 50).all() and (suite.of("icl_holdout").own_label == -1).all()
    assert (suite.of("icl").classes < 50).all()


def test_flip_evaluator(suite):
    prompt = suite.of("flip")
    assert counts_per_sequence(prompt) == {(2, 2)}
    same = prompt.classes[:-1] == prompt.classes[-1]
    np.testing.assert_array_equal(prompt.labels == prompt.target, same)
    np.testing.assert_array_equal(prompt.labels == prompt.own_label, ~same)


def test_in_weights_evaluators(suite):
    for name in ("iwl", "iwl_exemplar", "ciwl"):
        prompt = suite.of(name)
        assert not (prompt.classes[:-1] == prompt.classes[-1]).any()
        np.testing.assert_array_equal(prompt.target, prompt.own_label)
        np.testing.assert_array_equal(prompt.target, prompt.classes[-1])
        shown = (prompt.labels == prompt.target).sum(axis=0)
        assert (shown == (1 if name == "ciwl" else 0)).all()
    assert counts_per_sequence(suite.of("iwl")) == {(1, 1, 1, 1)}
    assert set(np.unique(suite.of("iwl_exemplar").indices)) == {4, 5, 6}
    assert set(np.unique(suite.of("iwl").indices)) == {0, 1, 2, 3}


def test_chance_levels_of_the_suite(suite):
    assert suite.chance(52) == close(
        {name: 0.5 for name in ("icl", "icl_common", "icl_rare", "icl_reserved", "icl_holdout", "flip")}
        | dict.fromkeys(("iwl", "iwl_common", "iwl_rare", "iwl_exemplar"), 1 / 52)
        | {"ciwl": 1 / 4, "train": suite.chance(52)["train"]}
    )
    assert 0.2 < suite.chance(52)["train"] < 0.5


def test_measure_reads_every_evaluator_from_its_own_prompts(suite):
    """Logits that know the target give accuracy 1 everywhere but where they are spoilt."""
    spoilt = suite.evaluators[3].name

    def answer(prompt):
        is_spoilt = (prompt.target == suite.of(spoilt).target).all()
        return jnp.where(is_spoilt, jax.nn.one_hot(jnp.array([49]), 52), 20.0 * jax.nn.one_hot(prompt.target, 52))

    values = np.asarray(suite.measure(answer))
    assert values.shape == (len(NAMES), len(METRICS), 2)
    accuracy = dict(zip([e.name for e in suite.evaluators], values[:, METRICS.index("accuracy"), 0], strict=True))
    assert {name for name, value in accuracy.items() if value == 1} == set(NAMES) - {spoilt}
    assert accuracy[spoilt] == 0
    assert values[3, METRICS.index("loss"), 0] == pytest.approx(np.log(51 + np.e), rel=1e-5)


def test_evaluation_prompts_do_not_depend_on_the_other_evaluators_or_the_number():
    alone = suite_of(TASK, ("flip",), 50)
    for one, other in zip(alone.of("flip"), suite_of(TASK, ("icl", "flip"), 60).of("flip"), strict=True):
        np.testing.assert_array_equal(one, other[..., :50, :] if other.ndim == 3 else other[..., :50])


@pytest.mark.parametrize("labels", [Shared(5), Polysemy(2)])
def test_evaluators_with_other_labels(labels):
    suite = suite_of(replace(TASK, labels=labels), ("icl_reserved", "iwl", "ciwl", "flip"))
    total = labels.total(50)
    assert set(np.unique(suite.of("icl_reserved").labels)) == {total, total + 1}
    assert not (suite.of("iwl").labels == suite.of("iwl").target).any()
    assert ((suite.of("ciwl").labels == suite.of("ciwl").target).sum(axis=0) == 1).all()
    flip = suite.of("flip")
    assert (flip.target != flip.own_label).all() and (flip.labels == flip.target).any(axis=0).all()


@pytest.mark.parametrize("name", ["train", "icl", "icl_holdout", "flip"])
def test_per_sequence_labels_have_evaluators(name):
    prompt = suite_of(replace(TASK, labels=PerSequence(9)), (name,)).of(name)
    assert (prompt.own_label == -1).all()


@pytest.mark.parametrize(
    ("field", "value", "names", "task", "source"),
    [
        ("evaluators", "iclx", ("iclx",), TASK, SOURCE),
        ("evaluators", [], (), TASK, SOURCE),
        ("evaluators", ["icl", "icl"], ("icl", "icl"), TASK, SOURCE),
        ("task.context", 3, ("icl",), replace(TASK, context=3), SOURCE),
        ("task.reserved_labels", 1, ("icl_reserved",), replace(TASK, reserved_labels=1), SOURCE),
        ("source.holdout_classes", 1, ("icl_holdout",), TASK, replace(SOURCE, holdout_classes=1)),
        ("source.holdout_exemplars", 0, ("iwl_exemplar",), TASK, replace(SOURCE, holdout_exemplars=0)),
        (
            "source.exemplars",
            2,
            ("icl",),
            replace(TASK, exemplar_draw="without_replacement"),
            replace(SOURCE, exemplars=2),
        ),
    ],
)
def test_impossible_evaluators_are_refused(field, value, names, task, source, one_line):
    with pytest.raises(InputError) as caught:
        evaluators.check(names, task, source)
    one_line(caught, field, value)


def test_odd_contexts_can_still_be_trained_on():
    evaluators.check(("train",), replace(TASK, context=3), SOURCE)
