"""The answers to questions about prompts, as they are sent: plain values by name."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ebbtide.dashboard.asking import fewshot, functions
from ebbtide.dashboard.asking.inputs import short
from ebbtide.dashboard.asking.labels import TOP
from ebbtide.dashboard.asking.opened import (
    MOST_BANK_BYTES,
    MOST_WORLDS,
    Block,
    NumpyParams,
    Opened,
    Prompts,
    members_of,
)
from ebbtide.dashboard.asking.outputs import (
    Single,
    compile_outputs,
    compile_single,
    has_heads,
    some_prompts,
    tokens,
)
from ebbtide.dashboard.asking.question import MOST_SHOWN, Question
from ebbtide.errors import require
from ebbtide.models.model import STREAMS
from ebbtide.runs.signed import DamagedError
from ebbtide.sources.bank import FLOAT
from ebbtide.tasks.prompt import Prompt
from ebbtide.training.spec import Spec

SUMMARY_FLOPS = 5e10
"""Floating-point operations of the forward passes of a summary, about: it takes seconds."""
SUMMARY_PART = 100
"""Prompts of a summary that are evaluated at a time."""
PART_BYTES = 2**27
"""Bytes of an encoder's images that these may need; else fewer are evaluated at a time."""
MOST_LOGITS = 2**26
"""Numbers of a summary's outputs at one checkpoint."""


def answer(question: Question) -> dict[str, Any]:
    """The answer to a question. Raises `InputError` for a folder, an evaluator, a prompt, a member or a checkpoint that
    cannot be asked about."""
    opened = Opened(question.folder)
    last, members = opened.prompts - 1, opened.spec.members
    require(question.index <= last, "index", question.index, f"must be from 0 to {last}")
    require(question.member < members, "member", question.member, f"must be from 0 to {members - 1}")
    kinds = {"prompt": _prompt, "others": _others, "summary": _summary}
    return kinds[question.what](opened, question)


def _head(opened: Opened, block: Block, question: Question) -> dict[str, Any]:
    return {
        "evaluator": question.evaluator,
        "index": question.index,
        "member": question.member,
        "prompts": opened.prompts,
        "first": block.first,
        "of": block.of,
    }


def _kind(prompts: Prompts) -> Any:
    """The module that knows prompts of this type."""
    return fewshot if isinstance(prompts.prompt, Prompt) else functions


def _prompt(opened: Opened, question: Question) -> dict[str, Any]:
    spec, index, member = opened.spec, question.index, question.member
    model: Any = spec.model
    prompts = opened.of(question.evaluator, member)
    fellows = opened.fellows(member)
    shown = _listed(fellows, member)
    block = opened.block(question.at, _numbers(spec))
    few, heads = isinstance(prompts.prompt, Prompt), has_heads(model)
    one = some_prompts(prompts.prompt, index, 1)
    forward = compile_single(model)

    def answers(params: NumpyParams) -> dict[str, Any]:
        found = forward(members_of(params, shown), one)
        own = np.asarray(found.attention[shown.index(member)], np.float64).round(5)
        return {"answers": _answers(prompts, index, found), **({"attention": own.tolist()} if heads else {})}

    return {
        **_head(opened, block, question),
        "kind": "fewshot" if few else functions.kind_of(prompts),
        "outputs": spec.outputs(),
        "stream": model.pairing in STREAMS,
        **_kind(prompts).describe_prompt(prompts, index),
        "oracles": fewshot.describe_oracles(prompts, index) if few else [],
        "predictors": [] if few else _predictors(prompts, index),
        "members": shown,
        "elsewhere": spec.members - len(fellows),
        "layers": model.layers if heads else None,
        "heads": model.heads if heads else None,
        "tokens": tokens(model, spec.task.context + 1) if heads else [],
        "notes": _notes(opened, len(fellows), len(shown)),
        "checkpoints": _each(opened, block, answers),
    }


def _others(opened: Opened, question: Question) -> dict[str, Any]:
    block, index = opened.block(question.at, _numbers(opened.spec)), question.index
    groups = _groups(opened, question.member)
    asked = [(opened.of(question.evaluator, group[0]), _listed(group, group[0])) for group in groups]
    several = [(prompts, some_prompts(prompts.prompt, index, 1), members) for prompts, members in asked]

    forward = compile_single(opened.spec.model)

    def answers(params: NumpyParams) -> dict[str, Any]:
        each = [_answers(prompts, index, forward(members_of(params, who), one)) for prompts, one, who in several]
        return {"answers": [answer for group in each for answer in group]}

    asks = [_kind(prompts).describe_question(prompts, index) for prompts, members in asked for _ in members]
    return {
        **_head(opened, block, question),
        "members": [member for _, members in asked for member in members],
        "asked": asks,
        "checkpoints": _each(opened, block, answers),
    }


def _groups(opened: Opened, member: int) -> list[list[int]]:
    """The groups of other members that are asked: all of them, or none where drawing their classes would take too
    much."""
    groups = opened.others(member)
    few = len(groups) < MOST_WORLDS and len(groups) * opened.spec.source.bank_bytes() <= MOST_BANK_BYTES
    return groups if few else []


def _listed(members: list[int], member: int) -> list[int]:
    """The members that are listed: the first ones, and `member`."""
    shown = members[:MOST_SHOWN]
    return shown if member in shown else [*shown[:-1], member]


def _each(opened: Opened, block: Block, of: Callable[[NumpyParams], dict[str, Any]]) -> list[dict[str, Any]]:
    """`of(parameters of all members)` at every checkpoint of a block; `problem`, in one line, where it is damaged."""
    rows = []
    for manifest in block.manifests:
        try:
            rows.append({"at": manifest.sequences, **of(opened.params(manifest))})
        except DamagedError as error:
            rows.append({"at": manifest.sequences, "problem": str(error)})
    return rows


def _answers(prompts: Prompts, index: int, found: Single) -> list[dict[str, Any]]:
    """The answers of several members to a single prompt."""
    return [_kind(prompts).describe_answer(prompts, index, own) for own in np.asarray(found.outputs)]


def _numbers(spec: Spec) -> int:
    """Numbers of an answer at one checkpoint, about."""
    model: Any = spec.model
    weights = model.layers * model.heads * model.tokens(spec.task.context) if has_heads(model) else 0
    return min(spec.members, MOST_SHOWN) * (2 * TOP + 6) + weights


def _predictors(prompts: Prompts, index: int) -> list[dict[str, Any]]:
    found = functions.predictions(prompts)
    return [{"name": name, "value": short(values[index])} for name, values in found.items()]


def _notes(opened: Opened, fellows: int, shown: int) -> list[str]:
    """What a reader must know to read the answer rightly, a sentence each."""
    spec, notes = opened.spec, []
    model: Any = spec.model
    if not has_heads(model):
        notes.append("This model has no attention heads, so there is no attention to show.")
    elif model.attention != "softmax":
        notes.append("These attention weights are not a softmax: they may be negative and need not add up to 1.")
    if spec.interventions:
        notes.append("The run is trained under interventions; the models here answer without them.")
    if shown < fellows:
        notes.append(f"Only {shown} of the {fellows} members that share this prompt are listed.")
    return notes


def _summary(opened: Opened, question: Question) -> dict[str, Any]:
    own = opened.fellows(question.member)
    groups = [own, *_groups(opened, question.member)]
    asked = [(opened.of(question.evaluator, group[0]), group) for group in groups]
    members = [member for _, group in asked for member in group]
    block = opened.block(question.at, 1)
    n, size = _summary_size(opened.spec, opened.prompts, len(members), len(block.manifests))
    several = [(prompts, some_prompts(prompts.prompt, 0, n), who) for prompts, who in asked]
    forward = compile_outputs(opened.spec.model, size)

    def shares(params: NumpyParams) -> dict[str, Any]:
        each = [
            _kind(prompts).measure_answers(prompts, np.asarray(forward(members_of(params, who), some)))
            for prompts, some, who in several
        ]
        return {"shares": {name: [value for one in each for value in one[name]] for name in each[0]}}

    return {
        **_head(opened, block, question),
        "used": n,
        "members": members,
        "all": opened.spec.members,
        "checkpoints": _each(opened, block, shares),
        "predictors": _constants(asked[0][0], n) if len(groups) == 1 else {},
    }


def _summary_size(spec: Spec, prompts: int, members: int, checkpoints: int) -> tuple[int, int]:
    """The number of prompts of a summary, and of those that are evaluated at a time, which divides it evenly."""
    products = spec.model.products(batch=1, **spec.shape())
    flops = sum(2 * one.times * one.m * one.k * one.n for one in products)
    images = FLOAT * (spec.task.context + 1) * spec.model.encoder.stored_values(spec.source.sizes().dim)
    n = min(prompts, int(SUMMARY_FLOPS // max(flops * members * checkpoints, 1)))
    n = max(2, min(n, MOST_LOGITS // (members * max(spec.outputs(), 1))))
    size = max(1, min(n, SUMMARY_PART, PART_BYTES // max(images, 1)))
    return n // size * size, size


def _constants(prompts: Prompts, n: int) -> dict[str, float | None]:
    """The mean squared error of each classical predictor on the same prompts."""
    if isinstance(prompts.prompt, Prompt):
        return {}
    truth = np.asarray(prompts.prompt.responses)[-1, :n]
    return {name: short(((one[:n] - truth) ** 2).mean()) for name, one in functions.predictions(prompts).items()}
