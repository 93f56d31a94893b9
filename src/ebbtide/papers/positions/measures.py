"""Measures of study `positions`: errors at the query by shift and length, and the study's figure."""

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import PROMPTS, PromptSet, compile_forward, fresh_prompts, map_members
from ebbtide.evaluation.baselines import averaging, least_squares, nearest, ridge
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.evaluation.statistics import paired_bootstraps
from ebbtide.models.model import Params
from ebbtide.runs.folder import Snapshot
from ebbtide.sources.functions import Functions
from ebbtide.studies.evidence import Evidence
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.regression import NOISY, Regression
from ebbtide.training.run import model_at
from ebbtide.training.spec import Spec

SHIFTS = ("skewed", "subspace", "shrunk", "stretched", "orthants", "repeated", "sorted", "noisy")
"""All shifts of `Regression` but `orthogonal`, for which more dimensions than pairs are needed."""
LONGER = (2, 4)
"""Lengths of prompts beyond training's, in units of training's length."""
SHORTER = (0.1, 0.3, 0.6)
"""Lengths of the figure's shorter prompts, as shares of training's length."""
FIGURE_PROMPTS = 500
"""Number of prompts of each shorter length; prompts of other lengths are those of the claims."""
TALL = 2.0
"""Errors of baselines above this are not drawn: least squares at as many pairs as dimensions has hundreds."""
BASELINES = ("ridge", "least squares", "3 nearest", "averaging")

LEARNED = 0.5
"""Error in distribution, in units of the responses' mean square, below which a model counts as having learned: half of
the way from an answer of 0."""

Errors = Float[np.ndarray, " prompt"]


def prompts_of_length(spec: Spec, evaluator: str, pairs: int, prompts: int) -> PromptSet:
    """Fresh prompts of an evaluator with `pairs` pairs, the same for every arm and member."""
    assert isinstance(spec.task, Regression)
    task = replace(spec.task, lengths="full", context=pairs)
    return fresh_prompts(replace(spec, task=task), evaluator, prompts)


def pad_prompt(prompt: FunctionPrompt, context: int) -> FunctionPrompt:
    """The prompt with absent pairs before its query, so that it has at least `context` places."""
    pairs = len(prompt.present)
    more = context - pairs
    if more <= 0:
        return prompt

    def longer(values: Any) -> Any:
        blank = jnp.zeros((more, *values.shape[1:]), values.dtype)
        return jnp.concatenate([values[:pairs], blank, values[pairs:]])

    return prompt._replace(
        inputs=longer(prompt.inputs), responses=longer(prompt.responses), present=longer(prompt.present)
    )


@lru_cache(maxsize=128)
def _model_at(run: Snapshot, place: int) -> tuple[Spec, Params]:
    spec, params = model_at(run.path, place)
    return spec.world(place), params


@lru_cache(maxsize=4096)
def _query_errors(run: Snapshot, place: int, evaluator: str, pairs: int, prompts: int) -> Errors:
    """Squared errors at the query in units of the responses' mean square. Models over joint tokens are trained on
    prompts of all lengths up to the longest, so they get shorter prompts as in training: padded with absent pairs."""
    spec, params = _model_at(run, place)
    drawn = prompts_of_length(spec, evaluator, pairs, prompts)
    joint = getattr(spec.model, "pairing", "interleaved") == "joint"
    given = pad_prompt(drawn.prompt, spec.task.context) if joint else drawn.prompt
    answer = np.asarray(compile_forward(spec.model, spec.product_precision())(params, given)[-1, :, 0], np.float64)
    truth = drawn.responses[-1]
    return (answer - truth) ** 2 / (truth**2).mean()


def query_errors(
    evidence: Evidence, arm: str, evaluator: str = "train", *, pairs: int | None = None, prompts: int = PROMPTS
) -> list[Errors | None]:
    """Normalised squared errors at every prompt's query (always predicting 0 has mean 1), of every member; None for a
    member that has not finished. `pairs` is the length of the prompts (None: training's)."""

    def measure(run: Snapshot, place: int) -> Errors:
        return _query_errors(run, place, evaluator, pairs or _model_at(run, place)[0].task.context, prompts)

    return map_members(evidence, arm, measure)


def _training_length(evidence: Evidence, arm: str) -> int:
    for place, run in evidence.runs(arm):
        if run is not None:
            return _model_at(run.snapshot(), place)[0].task.context
    return 1


def mean_query_error(
    evidence: Evidence, arm: str, evaluator: str = "train", *, times: int = 1, log: bool = False
) -> Float[np.ndarray, " member"]:
    """Mean of `query_errors` over prompts that are `times` as long as in training, or with `log` the mean's natural
    logarithm."""
    length = times * _training_length(evidence, arm)
    errors = [np.nan if one is None else one.mean() for one in query_errors(evidence, arm, evaluator, pairs=length)]
    return np.log(errors) if log else np.asarray(errors)


def learned(evidence: Evidence, *arms: str) -> Bool[np.ndarray, " member"]:
    """Whether a member's error in distribution is below `LEARNED` in each of these arms."""
    return np.all([mean_query_error(evidence, arm) < LEARNED for arm in arms], axis=0)


def count_shifts_won(evidence: Evidence, arm: str, than: str) -> Float[np.ndarray, " member"]:
    """Number of shifts on which a member of `arm` is better than the member of `than` with the same seeds: the 95 %
    bootstrap interval, over prompts, of the difference of the two errors is above 0."""
    counts = np.zeros(len(evidence.runs(arm)))
    for shift in SHIFTS:
        pairs = zip(query_errors(evidence, arm, shift), query_errors(evidence, than, shift), strict=True)
        both = [None if own is None or other is None else other - own for own, other in pairs]
        finished = [m for m, one in enumerate(both) if one is not None]
        won = np.full(len(both), np.nan)
        if finished:
            won[finished] = paired_bootstraps(np.stack([one for one in both if one is not None]), seed=0)[1] > 0
        counts += won
    return counts


def baseline_errors(spec: Spec, evaluator: str, pairs: int, prompts: int) -> dict[str, float]:
    """Mean normalised squared errors of the classical predictors at the query, by name, on the same prompts. Ridge is
    given the noise of the prompts."""
    drawn = prompts_of_length(spec, evaluator, pairs, prompts)
    x, y = drawn.inputs, drawn.responses
    assert isinstance(spec.source, Functions) and isinstance(spec.task, Regression)
    noise = NOISY if evaluator == "noisy" else spec.task.noise[0]
    predicted = {
        "ridge": ridge(x, y, penalty_of(noise, spec.source.deviation))[-1],
        "least squares": least_squares(x, y, slots=[pairs])[-1],
        "3 nearest": nearest(x, y)[-1],
        "averaging": averaging(x, y)[-1],
    }
    return {name: float(((one - y[-1]) ** 2).mean() / (y[-1] ** 2).mean()) for name, one in predicted.items()}


def draw_figures(evidence: Evidence, title: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """errors.png and errors.svg: a panel for every shift with the error at the query by the number of pairs in the
    prompt, up to four times training's number where nothing is shifted. Baselines answer the prompts of the first
    member."""
    from ebbtide.report.functions_figure import context_figure

    own = [arm for arm in names if arm in evidence.finished_arms()]
    if not own:
        return {}
    length = _training_length(evidence, own[0])
    place, run = next(one for one in evidence.runs(own[0]) if one[1] is not None)
    assert run is not None
    spec, panels = _model_at(run.snapshot(), place)[0], {}
    for kind in ("train", *SHIFTS):
        prompts = {max(1, round(length * share)): FIGURE_PROMPTS for share in SHORTER} | {length: PROMPTS}
        prompts |= {length * times: PROMPTS for times in LONGER} if kind == "train" else {}
        x, lines = np.asarray(list(prompts), float), {}
        for arm in own:
            by_length = [query_errors(evidence, arm, kind, pairs=n, prompts=many) for n, many in prompts.items()]
            table = [[np.nan if one is None else one.mean() for one in members] for members in by_length]
            lines[arm] = (x, np.asarray(table).T)
        exact = [baseline_errors(spec, kind, n, many) for n, many in prompts.items()]
        for name in BASELINES:
            values = np.asarray([[one[name] for one in exact]])
            lines[name] = (x, np.where(values < TALL, values, np.nan))
        panels[kind if kind != "train" else "as in training, and longer"] = lines
    words = f"{title}: errors at the query (of baselines, grey, those below {TALL:g})"
    drawn = context_figure(words, "squared error / mean square of the responses", panels, BASELINES)
    return {f"errors.{kind}": image for kind, image in drawn.items()}
