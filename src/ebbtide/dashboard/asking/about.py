"""What a run's folder says about the prompts that can be looked at, read without JAX."""

from typing import Any

from ebbtide.dashboard.asking.question import MOST_PROMPTS
from ebbtide.errors import InputError, nearest, require
from ebbtide.runs.folder import RunFolder

FEW_SHOT = ("few_shot", "trigger")
"""Tasks whose prompts are few-shot prompts; those of all others in this package are functions in context."""


def describe(run: RunFolder) -> dict[str, Any]:
    """Evaluators, checkpoints and sizes of a run, as JSON. `problem` says in one line why there is nothing to ask."""
    head, checkpoints = run.header, checkpoints_of(run)
    task, model = head.spec["task"], head.spec["model"]
    complete = run.status() == "complete"
    return {
        "evaluators": [{"name": one.name, "headline": one.headline} for one in head.instruments],
        "checkpoints": checkpoints,
        "batch": head.spec["batch"],
        "prompts": count_prompts(run),
        "members": head.spec["members"],
        "kind": "fewshot" if task.get("type") in FEW_SHOT else "functions",
        "task": word(task.get("type")),
        "model": word(model.get("type")),
        "layers": number(model.get("layers")),
        "heads": number(model.get("heads")),
        "complete": complete,
        "problem": "" if checkpoints else "this run has no checkpoint yet",
    }


def checkpoints_of(run: RunFolder) -> list[int]:
    """The sequences of every checkpoint whose manifest is intact, oldest first."""
    return sorted(manifest.sequences for _, manifest in run.manifests())


def count_prompts(run: RunFolder) -> int:
    """The number of prompts of each evaluator that can be looked at."""
    asked = run.header.spec.get("evaluation_sequences")
    return min(asked, MOST_PROMPTS) if type(asked) is int and asked >= 1 else MOST_PROMPTS


def check_question(run: RunFolder, evaluator: str, index: int, member: int) -> None:
    """Raises `InputError` in one line for an evaluator, a prompt or a member that the run does not have."""
    names = [one.name for one in run.header.instruments]
    allowed = f"the run has the evaluators {', '.join(names)}{nearest(evaluator, names)}"
    require(evaluator in names, "evaluator", evaluator, allowed)
    last, members = count_prompts(run) - 1, run.header.spec["members"]
    require(index <= last, "index", index, f"must be from 0 to {last}")
    require(member < members, "member", member, f"must be from 0 to {members - 1}")


def check_checkpoint(at: int, there: list[int]) -> None:
    """Raises `InputError`, naming the nearest one, unless there is a checkpoint at `at` sequences."""
    if at not in there:
        close = min(there, key=lambda one: abs(one - at))
        raise InputError("at", at, f"the nearest checkpoint is at {close} sequences")


def word(value: Any) -> str | None:
    """A short text of a spec; None for anything else."""
    return value[:60] if isinstance(value, str) else None


def number(value: Any) -> int | None:
    """A whole number of a spec; None for anything else."""
    return value if type(value) is int else None
