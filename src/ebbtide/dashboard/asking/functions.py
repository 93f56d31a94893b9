"""Prompts of functions in context: their pairs, what members answer at the query, what classical predictors do."""

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from ebbtide.dashboard.asking.inputs import short, show
from ebbtide.dashboard.asking.labels import finite_values, label_answer, share, softmax
from ebbtide.dashboard.asking.opened import Prompts
from ebbtide.evaluation.baselines import least_squares, linear_posterior
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.sources.functions import Functions, represent_float64
from ebbtide.tasks.prompt import CellPrompt, FunctionPrompt, SignPrompt
from ebbtide.tasks.regression import NOISY, Regression


def kind_of(prompts: Prompts) -> str:
    """What a response is: "number", "vector", "label", "sign" or "cells"."""
    prompt = prompts.prompt
    if isinstance(prompt, CellPrompt):
        return "cells"
    if isinstance(prompt, SignPrompt):
        return "sign"
    assert isinstance(prompt, FunctionPrompt)
    if np.issubdtype(np.asarray(prompt.responses).dtype, np.integer):
        return "label"
    return "number" if prompt.responses.ndim == 2 else "vector"


def describe_prompt(prompts: Prompts, index: int) -> dict[str, Any]:
    """The pairs of a prompt, as JSON; the response of the last is the one that is asked for."""
    prompt = prompts.prompt
    assert isinstance(prompt, FunctionPrompt)
    responses = np.asarray(prompt.responses)[:, index]
    present = np.append(np.asarray(prompt.present)[:, index], True)
    shown = show(prompts.spec.source, np.asarray(prompt.inputs)[:, index], None)
    slots = [
        {"input": what, "response": plain(response), "present": bool(there)}
        for what, response, there in zip(shown, responses, present, strict=True)
    ]
    return {"slots": slots, "target": slots[-1]["response"]}


def describe_question(prompts: Prompts, index: int) -> dict[str, Any]:
    """The response that a prompt asks for."""
    prompt = prompts.prompt
    assert isinstance(prompt, FunctionPrompt)
    return {"target": plain(np.asarray(prompt.responses)[-1, index])}


def plain(response: Any) -> Any:
    """A response as JSON: a whole number, a number, or a list of these."""
    if np.ndim(response):
        return [plain(one) for one in response]
    return int(response) if np.issubdtype(np.asarray(response).dtype, np.integer) else short(response)


def describe_answer(prompts: Prompts, index: int, outputs: Float[np.ndarray, " outputs"]) -> dict[str, Any]:
    """A member's answer at the query of a prompt."""
    prompt = prompts.prompt
    assert isinstance(prompt, FunctionPrompt)
    truth = np.asarray(prompt.responses)[-1, index]
    if not np.isfinite(outputs).all():
        return {"diverged": True}
    match kind_of(prompts):
        case "label":
            return label_answer(outputs, int(truth))
        case "sign":
            return {"score": short(outputs[0]), "right": bool(outputs[0] * truth > 0)}
        case "cells":
            p = softmax(outputs.reshape(len(truth), -1))
            first = p.argmax(-1)
            cells = [[int(v), share(one[v])] for v, one in zip(first, p, strict=True)]
            return {"cells": cells, "right": bool((first == truth).all())}
        case "number":
            return {"value": short(outputs[0]), "error": short((outputs[0] - truth) ** 2)}
    return {"value": [short(v) for v in outputs], "error": short(((outputs - truth) ** 2).mean())}


@lru_cache(maxsize=16)
def predictions(prompts: Prompts) -> dict[str, Float[np.ndarray, " prompt"]]:
    """What classical predictors answer at the queries of all prompts, by name: least squares on the inputs where a
    response is a number; and, for linear functions of a known representation with noise, ridge on that representation,
    with the penalty of the posterior mean."""
    prompt = prompts.prompt
    if kind_of(prompts) != "number":
        return {}
    assert isinstance(prompt, FunctionPrompt)
    x, y = np.asarray(prompt.inputs, np.float64), np.asarray(prompt.responses, np.float64)
    found = {"least squares": least_squares(x, y, [len(x) - 1])[0]}
    task, source = prompts.evaluator.task, prompts.spec.source
    if isinstance(task, Regression) and isinstance(source, Functions) and task.link == "linear":
        found |= _ridge(task, source, prompts, x, y)
    return found


def _ridge(
    task: Regression, source: Functions, prompts: Prompts, x: np.ndarray, y: np.ndarray
) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Ridge at the queries; each prompt with its own noise and representation. Empty where a prompt has no noise."""
    assert isinstance(prompts.prompt, FunctionPrompt)
    latent = {name: np.asarray(one) for name, one in prompts.prompt.latent.items()}
    noises = np.full(y.shape[1], NOISY) if task.shift == "noisy" else np.asarray(task.noise)[latent["level"]]
    if (noises <= 0).any():
        return {}
    answer = np.empty(y.shape[1])
    for which, noise in {*zip(latent["representation"].tolist(), noises.tolist(), strict=True)}:
        own = (latent["representation"] == which) & (noises == noise)
        inputs = represent_float64(np.asarray(prompts.bank.maps[which], np.float64), x[:, own])
        answer[own] = linear_posterior(inputs, y[:, own], penalty_of(noise, source.deviation)).mean[-1]
    return {"ridge on the representation" if source.layers else "ridge": answer}


def measure_answers(
    prompts: Prompts, outputs: Float[np.ndarray, "member prompt outputs"]
) -> dict[str, list[float | None]]:
    """What is measured of each member over many prompts: `error`, the mean squared error at the query, where responses
    are numbers; else `right`, the share of right answers. None for a member that diverged."""
    prompt = prompts.prompt
    assert isinstance(prompt, FunctionPrompt)
    known = np.isfinite(outputs).all((1, 2))
    truth = np.asarray(prompt.responses)[-1, : outputs.shape[1]]
    match kind_of(prompts):
        case "label":
            name, values = "right", (outputs.argmax(-1) == truth).mean(1)
        case "sign":
            name, values = "right", (outputs[..., 0] * truth > 0).mean(1)
        case "cells":
            each = outputs.reshape(*outputs.shape[:2], truth.shape[1], -1).argmax(-1)
            name, values = "right", (each == truth).all(-1).mean(1)
        case _:
            name, values = "error", ((outputs - truth.reshape(outputs.shape[1:])) ** 2).mean((1, 2))
    return {name: finite_values(values, known)}
