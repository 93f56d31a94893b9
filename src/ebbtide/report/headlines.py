"""The metric by which an evaluator is read where a file does not say."""

from collections.abc import Sequence

from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import EVERY, FewShot


def headline_of(evaluator: str, metrics: Sequence[str]) -> str:
    """That of the few-shot evaluator of this name, else the accuracy over all labels, else the first of its metrics.

    >>> headline_of("iwl", ["in_context_accuracy", "accuracy"])
    'accuracy'
    """
    usual = FewShot().evaluator(evaluator, Gaussian()).headline if evaluator in EVERY else "accuracy"
    return usual if usual in metrics else metrics[0]
