"""What study `positions` measures: errors at the query by shift and length, invariance gaps, and its figure."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import PROMPTS, Asked, answering, fresh_prompts, of_every_member
from ebbtide.evaluation.baselines import averaging, least_squares, nearest, ridge
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.evaluation.invariance import invariance_gap, shuffles
from ebbtide.evaluation.statistics import paired_bootstraps
from ebbtide.models.model import Model, Params
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
"""Lengths of prompts beyond training's, in units of it."""
SHORTER = (0.1, 0.3, 0.6)
"""Of training's length: the shorter prompts of the figure."""
FIGURE_PROMPTS = 500
"""So many of each shorter length; the others are those of the claims."""
TALL = 2.0
"""Errors of baselines above this are not drawn: least squares at as many pairs as dimensions has hundreds."""
BASELINES = ("ridge", "least squares", "3 nearest", "averaging")

Errors = Float[np.ndarray, " prompt"]


def prompts_at(spec: Spec, evaluator: str, pairs: int, prompts: int) -> Asked:
    """Fresh prompts of an evaluator with so many pairs, the same for every arm and member."""
    assert isinstance(spec.task, Regression)
    task = replace(spec.task, lengths="full", context=pairs)
    return fresh_prompts(replace(spec, task=task), evaluator, prompts)


def padded(prompt: FunctionPrompt, context: int) -> FunctionPrompt:
    """The prompt with absent pairs before its query, so that it has at least `context` places."""
    pairs = len(prompt.present)
    more = context - pairs
    if more <= 0:
        return prompt

    def longer(values: Any) -> Any:
        gap = jnp.zeros((more, *values.shape[1:]), values.dtype)
        return jnp.concatenate([values[:pairs], gap, values[pairs:]])

    return prompt._replace(
        inputs=longer(prompt.inputs), responses=longer(prompt.responses), present=longer(prompt.present)
    )


@lru_cache(maxsize=128)
def _member(run: Snapshot, place: int) -> tuple[Spec, Params]:
    return model_at(run.path, place)


@lru_cache(maxsize=4096)
def _errors(run: Snapshot, place: int, evaluator: str, pairs: int, prompts: int) -> Errors:
    """Squared errors at the query in units of the responses' mean square. Models over joint tokens, of which training
    draws prompts of all lengths up to its own, get shorter ones as it does: with absent pairs."""
    spec, params = _member(run, place)
    drawn = prompts_at(spec, evaluator, pairs, prompts)
    joint = getattr(spec.model, "pairing", "interleaved") == "joint"
    given = padded(drawn.prompt, spec.task.context) if joint else drawn.prompt
    answer = np.asarray(answering(spec.model)(params, given)[-1, :, 0], np.float64)
    said = drawn.responses[-1]
    return (answer - said) ** 2 / (said**2).mean()


def errors(
    evidence: Evidence, arm: str, evaluator: str = "train", *, pairs: int | None = None, prompts: int = PROMPTS
) -> list[Errors | None]:
    """For every member (None: it has not finished) the normalised squared error of every prompt's query: 1 is what an
    answer of 0 gets. `pairs` is the length of the prompts (None: that of training)."""

    def of(run: Snapshot, place: int) -> Errors:
        return _errors(run, place, evaluator, pairs or _member(run, place)[0].task.context, prompts)

    return of_every_member(evidence, arm, of)


def _training_length(evidence: Evidence, arm: str) -> int:
    for place, run in evidence.runs(arm):
        if run is not None:
            return _member(run.snapshot(), place)[0].task.context
    return 1


def error(
    evidence: Evidence, arm: str, evaluator: str = "train", *, times: int = 1, log: bool = False
) -> Float[np.ndarray, " member"]:
    """The mean of `errors` over prompts, which are `times` as long as in training; its logarithm where `log`."""
    length = times * _training_length(evidence, arm)
    found = [np.nan if one is None else one.mean() for one in errors(evidence, arm, evaluator, pairs=length)]
    return np.log(found) if log else np.asarray(found)


def shifts_won(evidence: Evidence, arm: str, than: str) -> Float[np.ndarray, " member"]:
    """On how many shifts a member of `arm` is better than the member of `than` with the same seeds: the 95 % bootstrap
    interval over prompts of the difference of their errors is above 0."""
    counts = np.zeros(len(evidence.runs(arm)))
    for shift in SHIFTS:
        pairs = zip(errors(evidence, arm, shift), errors(evidence, than, shift), strict=True)
        both = [None if own is None or other is None else other - own for own, other in pairs]
        finished = [m for m, one in enumerate(both) if one is not None]
        won = np.full(len(both), np.nan)
        if finished:
            won[finished] = paired_bootstraps(np.stack([one for one in both if one is not None]), seed=0)[1] > 0
        counts += won
    return counts


@lru_cache(maxsize=128)
def _gap(run: Snapshot, place: int) -> float:
    spec, params = _member(run, place)
    drawn = prompts_at(spec, "train", spec.task.context, PROMPTS)
    order = shuffles(jax.random.key(0), spec.task.context, PROMPTS)
    return float(_gaps(spec.model)(params, drawn.prompt, order).mean())


@lru_cache(maxsize=32)
def _gaps(model: Model) -> Any:
    """The invariance gap of every prompt: one program for all members."""
    return jax.jit(lambda params, prompt, order: invariance_gap(model, params, prompt, order))


def gap(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """The mean invariance gap of every member on fresh prompts of training's kind, in float32."""
    return np.asarray([np.nan if one is None else one for one in of_every_member(evidence, arm, _gap)])


def baseline_errors(spec: Spec, evaluator: str, pairs: int, prompts: int) -> dict[str, float]:
    """The normalised squared error of the classical predictors at the query, on the same prompts. Ridge knows the noise
    of the prompts, the other predictors nothing."""
    drawn = prompts_at(spec, evaluator, pairs, prompts)
    x, y = drawn.inputs, drawn.responses
    assert isinstance(spec.source, Functions) and isinstance(spec.task, Regression)
    noise = NOISY if evaluator == "noisy" else spec.task.noise[0]
    said = {
        "ridge": ridge(x, y, penalty_of(noise, spec.source.deviation))[-1],
        "least squares": least_squares(x, y, slots=[pairs])[-1],
        "3 nearest": nearest(x, y)[-1],
        "averaging": averaging(x, y)[-1],
    }
    return {name: float(((one - y[-1]) ** 2).mean() / (y[-1] ** 2).mean()) for name, one in said.items()}


def figures(evidence: Evidence, title: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """`errors.png` and `.svg`: a panel for every shift, the error at the query by the number of pairs in the prompt, up
    to four times as many as in training where nothing is shifted."""
    from ebbtide.report.functions_figure import context_figure

    own = [arm for arm in names if arm in evidence.finished()]
    if not own:
        return {}
    length = _training_length(evidence, own[0])
    place, run = next(one for one in evidence.runs(own[0]) if one[1] is not None)
    assert run is not None
    spec, panels = _member(run.snapshot(), place)[0], {}
    for kind in ("train", *SHIFTS):
        prompts = {max(1, round(length * share)): FIGURE_PROMPTS for share in SHORTER} | {length: PROMPTS}
        prompts |= {length * times: PROMPTS for times in LONGER} if kind == "train" else {}
        x, lines = np.asarray(list(prompts), float), {}
        for arm in own:
            by_length = [errors(evidence, arm, kind, pairs=n, prompts=many) for n, many in prompts.items()]
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
