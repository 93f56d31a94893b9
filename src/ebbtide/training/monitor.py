"""Monitoring of a model that a user's own loop trains: all evaluators, the best model so far, early stopping."""

from typing import Any, SupportsFloat

import msgspec
import numpy as np

from ebbtide.errors import require
from ebbtide.evaluation.evaluate import Predict, check_predict, examine, find_suite
from ebbtide.evaluation.fewshot_suite import FewShotSuite, whole_number
from ebbtide.evaluation.findings import Findings
from ebbtide.evaluation.summary import Curves, summarise
from ebbtide.training.watch import EarlyStopping, Watch


class Record(msgspec.Struct, frozen=True):
    """One evaluation: after how many training `sequences`, the training loss that the loop reported (nats; nan: none),
    and the findings of every evaluator."""

    sequences: int
    train_loss: float
    findings: Findings

    def __getitem__(self, evaluator: str) -> float:
        return self.findings[evaluator]


class Monitor:
    """An observer for a training loop: `record = watch(sequences, predict, train_loss=loss)`, called every so often.

    `suite` and its `options` are those of `evaluate`; the prompts are drawn once. After a call

    - `watch.history` holds all records, oldest first;
    - `watch.best` is the record with the highest `keep_best` (an evaluator's headline metric), and `watch.improved`
      says that it is the newest: the moment to save the model;
    - `watch.stop` says whether to stop, by the rule of `stopping` (`EarlyStopping`, as in ebbtide's own runs: the
      smoothed evaluator has not risen for `patience` sequences). Without `stopping` it stays False.

    Raises `InputError` for what `evaluate` refuses, and where `keep_best` or `stopping.evaluator` is not an evaluator
    of the suite. Motivation: Singh et al. 2023 (2311.08360), abstract: the training loss does not show when ICL fades,
    so stopping in time needs an evaluator of ICL. The paper gives no rule; this one is ours.

    >>> suite = eb.FewShotSuite(evaluators=("icl",), sequences=8)
    >>> watch = eb.Monitor(suite)
    >>> record = watch(0, lambda examples, labels: np.zeros((len(examples), suite.outputs)))
    >>> watch.best is record, watch.stop
    (True, False)
    """

    def __init__(
        self,
        suite: str | FewShotSuite = "fewshot",
        *,
        stopping: EarlyStopping | None = None,
        keep_best: str = "icl",
        batch: int = 256,
        **options: Any,
    ):
        whole_number("batch", batch, 1)
        self.suite = find_suite(suite, options)
        names = self.suite.names
        require(
            keep_best in names, "keep_best", keep_best, f"must be one of the suite's evaluators: {', '.join(names)}"
        )
        if stopping is not None:
            stopping.check(names)
            whole_number("stopping.patience", stopping.patience, 1)
        self.keep_best, self.stopping, self.batch = keep_best, stopping, batch
        self.history: list[Record] = []
        self.best: Record | None = None
        self._watch = Watch(1, stopping)

    def __call__(self, sequences: int, predict: Predict, *, train_loss: SupportsFloat = float("nan")) -> Record:
        """The record of the model as it is after `sequences` training sequences. Raises `InputError` unless `sequences`
        is larger than at the last call."""
        least = self.history[-1].sequences + 1 if self.history else 0
        whole_number("sequences", sequences, least)
        check_predict(predict)
        record = Record(int(sequences), float(train_loss), examine(predict, self.suite, self.batch))
        self.history.append(record)
        if self._watch.update_best(self._value(record, self.keep_best), record.sequences)[0]:
            self.best = record
        if self.stopping is not None:
            self._watch.update_stopping(self._value(record, self.stopping.evaluator), record.sequences)
        return record

    @property
    def stop(self) -> bool:
        """Whether the early-stopping rule says to stop; once true, it stays true."""
        return bool(self._watch.stopped[0])

    @property
    def improved(self) -> bool:
        """Whether the newest record is the best so far."""
        return bool(self.history) and self.history[-1] is self.best

    def curves(self) -> Curves:
        """The headline metric of every evaluator and `train_loss`, [1, record], and `sequences` [record]: the form of a
        run's `metrics()` with one member."""
        rows = {name: np.array([[one[name] for one in self.history]], np.float32) for name in self.suite.names}
        loss = np.array([[one.train_loss for one in self.history]], np.float32)
        return {"sequences": np.array([one.sequences for one in self.history], np.int64), "train_loss": loss} | rows

    def summary(self) -> dict[str, float]:
        """The scalars of `evaluation.summary.summarise` (icl_peak, transience ...; nan where an evaluator or the
        training loss is missing). Raises `InputError` before the second record."""
        count = len(self.history)
        require(count >= 2, "records of the monitor", count, "a summary needs at least 2")
        chance = {name: row.chance for name, row in self.history[0].findings.headlines().items()}
        return {name: float(values[0]) for name, values in summarise(self.curves(), chance).items()}

    def _value(self, record: Record, name: str) -> np.ndarray:
        return np.array([record[name]], np.float32)
