"""What study `positions` measures: errors at the query by shift and length, invariance gaps, and its figure."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.evaluation.baselines import averaging, least_squares, nearest, ridge
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.evaluation.invariance import invariance_gap, shuffles
from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.models.model import Model, Params
from ebbtide.runs.folder import Run
from ebbtide.sources.functions import Functions
from ebbtide.studies.answers import PROMPTS, fresh_prompts
from ebbtide.studies.experiment import Arms
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.regression import NOISY, Regression
from ebbtide.training.probe import model_at
from ebbtide.training.spec import Seeds, Spec

SHIFTS = ("skewed", "subspace", "shrunk", "stretched", "orthants", "repeated", "sorted", "noisy")
"""All shifts of `Regression` but `orthogonal`, for which more dimensions than pairs are needed."""
LONGER = (2, 4)
"""Lengths of prompts beyond training's, in units of it."""
FIGURE_PROMPTS = 500
TALL = 2.0
"""Errors of baselines above this are not drawn: least squares at as many pairs as dimensions has hundreds."""
BASELINES = ("ridge", "least squares", "3 nearest", "averaging")

Errors = Float[np.ndarray, " prompt"]


def prompts_at(spec: Spec, evaluator: str, pairs: int, prompts: int) -> FunctionPrompt:
    """Fresh prompts of an evaluator with so many pairs, the same for every arm and member."""
    assert isinstance(spec.task, Regression) and isinstance(spec.source, Functions)
    task = replace(spec.task, lengths="full", context=pairs)
    return _drawn(task, spec.source, spec.seeds.evaluation, evaluator, prompts)


@lru_cache(maxsize=256)
def _drawn(task: Regression, source: Functions, seed: int, evaluator: str, prompts: int) -> FunctionPrompt:
    """Drawn once for all arms and members: to draw is to compile a program."""
    drawn = fresh_prompts(Spec(task=task, source=source, seeds=Seeds(evaluation=seed)), evaluator, prompts)
    assert isinstance(drawn, FunctionPrompt)
    return drawn


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
def _member(path: Path, place: int) -> tuple[Spec, Params]:
    return model_at(Run(path), place)


@lru_cache(maxsize=32)
def _compiled(model: Model) -> Any:
    """The answer to the query, of every prompt."""
    return jax.jit(lambda params, prompt: model.apply(params, prompt)[-1, :, 0])


@lru_cache(maxsize=4096)
def _errors(path: Path, place: int, evaluator: str, pairs: int, prompts: int) -> Errors:
    """Squared errors at the query in units of the responses' mean square. Models over joint tokens, of which training
    draws prompts of all lengths up to its own, get shorter ones as it does: with absent pairs."""
    spec, params = _member(path, place)
    drawn = prompts_at(spec, evaluator, pairs, prompts)
    joint = getattr(spec.model, "pairing", "interleaved") == "joint"
    given = padded(drawn, spec.task.context) if joint else drawn
    answer = np.asarray(_compiled(spec.model)(params, given), np.float64)
    said = np.asarray(drawn.responses[-1], np.float64)
    return (answer - said) ** 2 / (said**2).mean()


def errors(
    arms: Arms, arm: str, evaluator: str = "train", *, pairs: int | None = None, prompts: int = PROMPTS
) -> list[Errors | None]:
    """For every member (None: it has not finished) the normalised squared error of every prompt's query: 1 is what an
    answer of 0 gets. `pairs` is the length of the prompts (None: that of training)."""
    found: list[Errors | None] = []
    for place, run in arms.runs(arm):
        if run is None:
            found.append(None)
            continue
        length = pairs or _member(run.path, place)[0].task.context
        found.append(_errors(run.path, place, evaluator, length, prompts))
    return found


def _training_length(arms: Arms, arm: str) -> int:
    for place, run in arms.runs(arm):
        if run is not None:
            return _member(run.path, place)[0].task.context
    return 1


def error(
    arms: Arms, arm: str, evaluator: str = "train", *, times: int = 1, log: bool = False
) -> Float[np.ndarray, " member"]:
    """The mean of `errors` over prompts, which are `times` as long as in training; its logarithm where `log`."""
    length = times * _training_length(arms, arm)
    found = [np.nan if one is None else one.mean() for one in errors(arms, arm, evaluator, pairs=length)]
    return np.log(found) if log else np.asarray(found)


def shifts_won(arms: Arms, arm: str, than: str) -> Float[np.ndarray, " member"]:
    """On how many shifts a member of `arm` is better than the member of `than` with the same seeds: the 95 % bootstrap
    interval over prompts of the difference of their errors is above 0."""
    counts = np.zeros(len(arms.runs(arm)))
    for shift in SHIFTS:
        for m, (own, other) in enumerate(zip(errors(arms, arm, shift), errors(arms, than, shift), strict=True)):
            if own is None or other is None:
                counts[m] = np.nan
            else:
                counts[m] += paired_bootstrap(other - own, seed=0)[1] > 0
    return counts


@lru_cache(maxsize=128)
def _gap(path: Path, place: int) -> float:
    spec, params = _member(path, place)
    drawn = prompts_at(spec, "train", spec.task.context, PROMPTS)
    order = shuffles(jax.random.key(0), spec.task.context, PROMPTS)
    return float(jax.jit(lambda p: invariance_gap(spec.model, p, drawn, order))(params).mean())


def gap(arms: Arms, arm: str) -> Float[np.ndarray, " member"]:
    """The mean invariance gap of every member on fresh prompts of training's kind, in float32."""
    return np.asarray([np.nan if run is None else _gap(run.path, place) for place, run in arms.runs(arm)])


def baseline_errors(spec: Spec, evaluator: str, pairs: int, prompts: int) -> dict[str, float]:
    """The normalised squared error of the classical predictors at the query, on the same prompts. Ridge knows the noise
    of the prompts, the other predictors nothing."""
    drawn = prompts_at(spec, evaluator, pairs, prompts)
    x, y = np.asarray(drawn.inputs, np.float64), np.asarray(drawn.responses, np.float64)
    assert isinstance(spec.source, Functions) and isinstance(spec.task, Regression)
    noise = NOISY if evaluator == "noisy" else spec.task.noise[0]
    said = {
        "ridge": ridge(x, y, penalty_of(noise, spec.source.deviation))[-1],
        "least squares": least_squares(x, y, slots=[pairs])[-1],
        "3 nearest": nearest(x, y)[-1],
        "averaging": averaging(x, y)[-1],
    }
    return {name: float(((one - y[-1]) ** 2).mean() / (y[-1] ** 2).mean()) for name, one in said.items()}


def figures(arms: Arms, title: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """`errors.png` and `.svg`: a panel for every shift, the error at the query by the number of pairs in the prompt, up
    to four times as many as in training where nothing is shifted."""
    from ebbtide.report.functions_figure import context_figure

    own = [arm for arm in names if arm in arms.measured()]
    if not own:
        return {}
    length = _training_length(arms, own[0])
    place, run = next(one for one in arms.runs(own[0]) if one[1] is not None)
    assert run is not None
    spec, panels = _member(run.path, place)[0], {}
    for kind in ("train", *SHIFTS):
        pairs = sorted({max(1, round(length * share)) for share in (0.1, 0.3, 0.5, 0.7, 1.0)})
        pairs += [length * times for times in LONGER] if kind == "train" else []
        x, lines = np.asarray(pairs, float), {}
        for arm in own:
            by_length = [errors(arms, arm, kind, pairs=n, prompts=FIGURE_PROMPTS) for n in pairs]
            table = [[np.nan if one is None else one.mean() for one in members] for members in by_length]
            lines[arm] = (x, np.asarray(table).T)
        exact = [baseline_errors(spec, kind, n, FIGURE_PROMPTS) for n in pairs]
        for name in BASELINES:
            values = np.asarray([[one[name] for one in exact]])
            lines[name] = (x, np.where(values < TALL, values, np.nan))
        panels[kind if kind != "train" else "as in training, and longer"] = lines
    words = f"{title}: errors at the query (of baselines, dashed, those below {TALL:g})"
    drawn = context_figure(words, "squared error / mean square of the responses", panels, BASELINES)
    return {f"errors.{kind}": image for kind, image in drawn.items()}
