"""Few-shot prompts: their slots, what members answer, what scripted oracles answer."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ebbtide.compile import compile_fast
from ebbtide.dashboard.asking.inputs import show
from ebbtide.dashboard.asking.labels import finite_values, label_answer, softmax, top_labels
from ebbtide.dashboard.asking.opened import Prompts
from ebbtide.evaluation.oracles import ORACLES
from ebbtide.keys import Purpose, root
from ebbtide.tasks.prompt import Prompt, Tag

STRATEGIES = ("ICL", "CIWL", "IWL")
"""Oracles with whose answers those of members are compared over all prompts."""


def describe_prompt(prompts: Prompts, index: int) -> dict[str, Any]:
    """The slots of a prompt and what is asked, as JSON. `same` says which slots show the query's class."""
    prompt = jax.tree.map(np.asarray, prompts.prompt)
    classes, exemplars = prompt.classes[:, index], prompt.indices[:, index].astype(np.int64)
    shown = show(prompts.spec.source, prompt.exemplars[:, index], np.stack([classes, exemplars], -1))
    slots = []
    for slot, what in enumerate(shown):
        query = slot == len(shown) - 1
        one = {"class": int(classes[slot]), "exemplar": int(exemplars[slot]), "input": what}
        one |= {"same": bool(classes[slot] == classes[-1]), "tag": Tag(int(prompt.tags[slot, index])).name.lower()}
        slots.append(one | {"label": None if query else int(prompt.labels[slot, index])})
    own = int(prompt.own_label[index])
    return {"slots": slots, "target": int(prompt.target[index]), "own_label": own if own >= 0 else None}


def describe_question(prompts: Prompts, index: int) -> dict[str, Any]:
    """What a prompt asks for, without its slots."""
    prompt = prompts.prompt
    assert isinstance(prompt, Prompt)
    own = int(prompt.own_label[index])
    labels = np.unique(np.asarray(prompt.labels)[:, index]).tolist()
    return {"target": int(prompt.target[index]), "own_label": own if own >= 0 else None, "labels": labels}


def describe_answer(prompts: Prompts, index: int, logits: Float[np.ndarray, " labels"]) -> dict[str, Any]:
    """A member's answer to a prompt."""
    prompt = prompts.prompt
    assert isinstance(prompt, Prompt)
    context = {int(label) for label in np.asarray(prompt.labels)[:, index]}
    target, own = int(prompt.target[index]), int(prompt.own_label[index])
    return label_answer(logits, target, context, own, prompts.evaluator.group)


@lru_cache(maxsize=16)
def oracle_logits(prompts: Prompts) -> dict[str, Float[np.ndarray, "prompt labels"]]:
    """The logits of every oracle on all prompts of an evaluator, by name."""
    each = _compile_oracles(prompts.spec.outputs())(prompts.prompt)
    return {name: np.asarray(one) for name, one in zip(ORACLES, each, strict=True)}


@lru_cache(maxsize=4)
def _compile_oracles(outputs: int) -> Callable[[Any], list[Any]]:
    def every(prompt: Prompt) -> list[Any]:
        return [oracle(prompt, outputs, root(0, Purpose.ORACLE, i)) for i, oracle in enumerate(ORACLES.values())]

    return compile_fast(every)


def describe_oracles(prompts: Prompts, index: int) -> list[dict[str, Any]]:
    """What every oracle answers to a prompt."""
    prompt = prompts.prompt
    assert isinstance(prompt, Prompt)
    found = []
    for name, logits in oracle_logits(prompts).items():
        answer = describe_answer(prompts, index, logits[index])
        found.append({"name": name, "top": top_labels(softmax(logits[index])), "right": answer["right"]})
    return found


def measure_answers(
    prompts: Prompts, logits: Float[np.ndarray, "member prompt labels"]
) -> dict[str, list[float | None]]:
    """By strategy, the share of each member's answers that agree with it: the mean over prompts of the probability that
    the oracle gives to the member's most probable label, so that an oracle which cannot decide between two labels
    agrees by half with either. And `right`: the share of right answers. None for a member that diverged."""
    prompt, group = prompts.prompt, prompts.evaluator.group
    assert isinstance(prompt, Prompt)
    count = logits.shape[1]
    first, target = logits.argmax(-1), np.asarray(prompt.target)[:count]
    known = np.isfinite(logits).all((1, 2))
    shares = {"right": (first // group == target // group).mean(1)}
    oracles = oracle_logits(prompts)
    for name in STRATEGIES:
        p = softmax(oracles[name][:count])
        shares[name] = np.take_along_axis(p[None], first[..., None], axis=-1)[..., 0].mean(1)
    return {name: finite_values(values, known) for name, values in shares.items()}
