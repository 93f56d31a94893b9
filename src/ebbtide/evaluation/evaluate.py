"""Evaluation of any model: a callable that predicts labels, in whatever framework."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.fewshot_suite import FewShotSuite, batch_first, whole_number
from ebbtide.evaluation.findings import Findings, Row
from ebbtide.evaluation.metrics import mean_and_error, per_sequence
from ebbtide.evaluation.strategies import NEEDED, Fraction, fractions
from ebbtide.sources.bank import SourceLike
from ebbtide.tasks.fewshot import METRICS, FewShot
from ebbtide.tasks.prompt import Prompt, part

Predict = Callable[[Float[np.ndarray, "batch slots dim"], Int[np.ndarray, "batch context"]], Any]
"""(examples, labels) -> logits [batch, outputs] as a NumPy or JAX array or a PyTorch tensor."""
SUITES = {"fewshot": FewShotSuite}
ROUNDING = 0.01
"""Largest difference from 1 of a sum of probabilities; bfloat16 needs that much."""


def evaluate(
    predict: Predict,
    suite: str | FewShotSuite = "fewshot",
    *,
    source: SourceLike | None = None,
    task: FewShot | None = None,
    evaluators: str | Sequence[str] | None = None,
    sequences: int | None = None,
    seed: int | None = None,
    batch: int = 256,
) -> Findings:
    """Every metric of every evaluator for the model `predict`, and the fraction of its behaviour that each strategy
    explains.

    Args:
        predict: a function (examples, labels) -> logits. It gets NumPy arrays, examples [batch, context + 1, dim]
            (float32; the query is the last) and labels [batch, context] (int64), and returns the logits of the query's
            label [batch, outputs]: a NumPy or JAX array, or a PyTorch tensor on any device. It must not learn from the
            prompts.
        suite: a `FewShotSuite`, or "fewshot" for one made of the next five arguments (see there). Its prompts are drawn
            at every call: to evaluate often, make the suite once.
        source, task, evaluators, sequences, seed: arguments of `FewShotSuite`.
        batch: the number of prompts of a call of `predict`; the last call gets the rest.

    Returns:
        `Findings`: means of the metrics of `metrics.per_sequence` over prompts, with their standard errors sd /
        sqrt(sequences), and the fractions of `strategies.fractions`.

    Raises:
        InputError: the suite cannot be made, or the logits are not finite numbers of the right shape.

    >>> suite = eb.FewShotSuite(evaluators=("icl",), sequences=8)
    >>> findings = eb.evaluate(lambda examples, labels: np.zeros((len(examples), suite.outputs)), suite)
    >>> 0 <= findings["icl"] <= 1
    True
    """
    options = {"source": source, "task": task, "evaluators": evaluators, "sequences": sequences, "seed": seed}
    whole_number("batch", batch, 1)
    check_predict(predict)
    return examine(predict, find_suite(suite, options), batch)


def find_suite(suite: str | FewShotSuite, options: dict[str, Any]) -> FewShotSuite:
    """The suite itself, or the one of this name made with the options that are not None."""
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(suite, FewShotSuite):
        for name, value in given.items():
            raise InputError(name, value, "must not be given beside a suite, which has its own")
        return suite
    allowed = f"must be a FewShotSuite or one of {', '.join(SUITES)}{nearest(str(suite), SUITES)}"
    require(isinstance(suite, str) and suite in SUITES, "suite", suite, allowed)
    return SUITES[suite](**given)


def examine(predict: Predict, suite: FewShotSuite, batch: int) -> Findings:
    """`evaluate` for an existing suite."""
    rows: list[Row] = []
    model, oracles = [], []
    tells = suite.tells_strategies
    for one in suite.evaluators:
        prompt, values = suite.prompt(one.name), []
        scripted = suite.oracle_probabilities(one.name) if tells and one.name in NEEDED else None
        for start in range(0, suite.sequences, batch):
            chunk = part(prompt, start, min(batch, suite.sequences - start))
            examples, labels, _ = batch_first(chunk)
            shape, reserved = (len(labels), suite.outputs), suite.task.reserved_labels
            logits = logits_of(predict(examples, labels), shape, one.name, reserved)
            values.append(np.asarray(_metrics(jnp.asarray(logits), chunk, jnp.int32(one.group))))
            if scripted is not None:
                model.append(scripted.outcomes(logits, start))
        if scripted is not None:
            oracles.append(scripted.oracles)
        measured = np.asarray(mean_and_error(jnp.asarray(np.concatenate(values, axis=-1))))
        chance = suite.chance(one.name)
        for metric, (mean, error) in zip(METRICS, measured, strict=True):
            rows.append(Row(one.name, metric, float(mean), float(error), chance[metric], metric == one.headline))
    shares: dict[str, Fraction] = {}
    if tells:
        joined = {name: np.concatenate([one[name] for one in oracles]) for name in oracles[0]}
        shares = fractions(np.concatenate(model), joined)
    return Findings(tuple(rows), shares, suite.sequences)


@jax.jit
def _metrics(
    logits: Float[Array, "batch labels"], prompt: Prompt, group: Int[Array, ""]
) -> Float[Array, "metrics batch"]:
    return per_sequence(logits, prompt, group)


def check_predict(predict: Any) -> None:
    """Raises `InputError` unless `predict` can be called."""
    allowed = "must be a function (examples, labels) -> logits; models of ebbtide's own runs are read by eb.score"
    require(callable(predict), "predict", type(predict).__name__, allowed)


def logits_of(
    answer: Any, shape: tuple[int, int], evaluator: str, reserved: int = 0
) -> Float[np.ndarray, "batch labels"]:
    """Logits of a model as a float32 NumPy array. A PyTorch tensor is recognised by its `detach`; PyTorch is never
    imported. `reserved` of the outputs are labels that never occur in training.

    Raises `InputError` unless the logits are real, finite numbers of this shape, and no probabilities.
    """
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().float().numpy()
    where = f"(evaluator {evaluator})"
    try:
        raw = np.asarray(answer)
        if raw.dtype.kind not in "fiuV":  # V: bfloat16 and its like
            raise TypeError
        with np.errstate(over="ignore"):
            logits = raw.astype(np.float32)
    except (TypeError, ValueError) as error:
        kind = str(getattr(answer, "dtype", type(answer).__name__))
        raise InputError("type of predict's logits", kind, f"must be an array of real numbers {where}") from error
    want = f"must be {list(shape)}: [batch, outputs] {where}"
    want += f"; {reserved} of the {shape[1]} outputs are reserved labels, never in training" if reserved else ""
    require(logits.shape == shape, "shape of predict's logits", list(logits.shape), want)
    wrong = int(shape[0] - np.isfinite(logits).all(axis=1).sum())
    if wrong:
        worst = float(logits[~np.isfinite(logits)][0])
        allowed = f"must be finite, is not for {wrong} of {shape[0]} prompts {where}; to mask a label use -1e9"
        raise InputError("predict's logits", worst, allowed)
    _check_scale(logits, where)
    return logits


def _check_scale(logits: Float[np.ndarray, "batch labels"], where: str) -> None:
    """Raises `InputError` where every row sums to 1 and all numbers lie in 0 to 1: these are probabilities, and metrics
    that take them for logits would be silently wrong. (Log-probabilities are logits.)"""
    if ((logits < 0) | (logits > 1)).any() or np.abs(logits.sum(axis=1) - 1).max() > ROUNDING:
        return
    one_hot = bool(((logits == 0) | (logits == 1)).all())
    what = "one-hot rows" if one_hot else "probabilities (rows that sum to 1)"
    how = "give 100 times them" if one_hot else "give logits, or their logarithm"
    raise InputError("predict's logits", what, f"must be logits {where}: {how}")
