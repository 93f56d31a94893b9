"""Evaluators by how frequent a class is in training."""

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.evaluation import evaluators
from ebbtide.evaluation.evaluators import build_suite
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import BY_RANK, NAMES, FewShot
from ebbtide.tasks.labels import Fixed, Polysemy, Shared

pytestmark = pytest.mark.usefixtures("quick_compile")
SOURCE = Gaussian(classes=106, exemplars=2, dim=8, holdout_classes=8, holdout_exemplars=1)


@pytest.mark.parametrize("labels", [Fixed(), Shared(8), Polysemy(3)])
def test_classes_are_of_the_range_and_labels_are_those_of_training(labels):
    task = FewShot(labels=labels, zipf=1.0)
    suite = build_suite(BY_RANK, task, SOURCE, SOURCE.build(), sequences=400, seed=0)
    for name in BY_RANK:
        prompt = suite.of(name)
        classes, context = np.asarray(prompt.classes), np.asarray(prompt.classes)[:-1]
        first, last = (0, 9) if name.endswith("common") else (48 if isinstance(labels, Shared) else 53, 105)
        assert classes.min() == first and classes.max() == last, name
        own = {Fixed: classes, Shared: classes % 8, Polysemy: classes}[type(labels)]
        shown = np.asarray(prompt.labels) // (3 if isinstance(labels, Polysemy) else 1)
        target = np.asarray(prompt.target) // (3 if isinstance(labels, Polysemy) else 1)
        if name.startswith("iwl"):
            np.testing.assert_array_equal(shown, own[:-1])
            np.testing.assert_array_equal(target, own[-1])
            assert not (context == classes[-1]).any() and not (shown == target).any()
        else:
            assert set(np.unique(prompt.labels)) == {0, 1}
        np.testing.assert_array_equal(
            np.asarray(prompt.own_label) // (3 if isinstance(labels, Polysemy) else 1), own[-1]
        )


def test_uniform_evaluators_are_the_streams_they_were():
    """The first eight are pinned by golden arrays; the new ones have streams of their own."""
    task = FewShot()
    streams = [task.evaluator(name, SOURCE).stream for name in NAMES]
    assert streams == list(range(12))


def test_too_few_classes_in_the_tenth_are_refused_in_one_line():
    source = replace(SOURCE, classes=29)
    evaluators.check(("iwl_rare",), FewShot(), source)
    with pytest.raises(InputError, match=r"source\.classes = 29: leaves 2 classes for the evaluator iwl_common"):
        evaluators.check(("iwl_common",), FewShot(), source)
