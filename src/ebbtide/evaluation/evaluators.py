"""The instruments: named prompt distributions that tell ICL, IWL and CIWL apart."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from msgspec.structs import replace

from ebbtide.compile import compile_fast
from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation.function_evaluators import FUNCTION_METRICS, FunctionTask, function_task, per_prompt
from ebbtide.evaluation.metrics import METRICS, chance, mean_and_error, per_sequence
from ebbtide.keys import Purpose, root
from ebbtide.models.model import AnyPrompt
from ebbtide.sources.bank import Range, Sizes, SourceLike, Split
from ebbtide.tasks.fewshot import CopyQueryLabel, FewShot, Flip, HoldoutPair, Keep, Pair
from ebbtide.tasks.labels import Polysemy, Shared
from ebbtide.tasks.prompt import Prompt

Headline = Literal["accuracy", "in_context_accuracy", "explained"]
Task = FewShot | FunctionTask
Ranks = Literal["all", "common", "rare"]


class Evaluator(NamedTuple):
    """A prompt distribution, the metric it is read by, and the classes and exemplars it uses.

    An evaluator is itself a task, derived from the training task. `stream` is part of its random stream: never
    renumber. `ranks` says which training classes: all, the most frequent tenth (`common`) or the less frequent half
    (`rare`); class 0 is the most frequent.
    """

    name: str
    stream: int
    task: Task
    headline: Headline
    holdout_classes: bool = False
    holdout_exemplars: bool = False
    ranks: Ranks = "all"

    def split(self, sizes: Sizes) -> Split:
        """The classes and exemplars it draws from. Where classes share labels, rare ones begin at a multiple
        of their number, so that label = class mod count holds within the range as well."""
        whole = sizes.split(holdout_classes=self.holdout_classes, holdout_exemplars=self.holdout_exemplars)
        if self.ranks == "all":
            return whole
        if self.ranks == "common":
            return whole._replace(classes=Range(0, sizes.classes // 10))
        half = sizes.classes // 2
        labels = self.task.labels if isinstance(self.task, FewShot) else None
        start = half - half % labels.count if isinstance(labels, Shared) else half
        return whole._replace(classes=Range(start, sizes.classes - start))

    @property
    def group(self) -> int:
        """Labels that count as right in the open set (polysemy: all labels of the class)."""
        if not isinstance(self.task, FewShot):
            return 1
        labels, keeps = self.task.labels, isinstance(self.task.relabel, Keep | CopyQueryLabel)
        return labels.per_class if isinstance(labels, Polysemy) and keeps else 1


BY_RANK = ("icl_common", "icl_rare", "iwl_common", "iwl_rare")
NAMES = ("train", "icl", "icl_reserved", "icl_holdout", "iwl", "ciwl", "flip", "iwl_exemplar", *BY_RANK)
"""Evaluators of any few-shot task."""
EVERY = (*NAMES, "icl_pairs")
"""All evaluators, in the order of their stream indices."""


def metrics_of(task: Task) -> tuple[str, ...]:
    """Names of a task's metrics, in the order of the last axis of every metric array."""
    return METRICS if isinstance(task, FewShot) else FUNCTION_METRICS


def evaluator(name: str, task: Task, classes: int) -> Evaluator:
    """The evaluator `name` for models trained on `task` with `classes` training classes.

    - `train`: the training distribution itself;
    - `icl`: two classes, context/2 copies each, relabelled to {0, 1} in random order: only ICL helps;
    - `icl_reserved`: the same with two labels never used in training (IWL cannot prefer either);
    - `icl_holdout`: `icl` on classes never trained;
    - `icl_pairs`: `icl` with a pair of labels that never occur together in training (for labels `PerSequence` with
      `holdout_pairs`; Singh et al. 2024, 2404.07129);
    - `iwl`: context of different classes, none with the query's label; true labels: only IWL helps;
    - `ciwl`: `iwl` with one context label overwritten by the query's: IWL or CIWL help, ICL does not;
    - `flip`: `icl` with the two classes' labels swapped: ICL is right, IWL and CIWL are wrong;
    - `iwl_exemplar`: `iwl` with query and context from held-out exemplars of the trained classes;
    - `icl_common`, `icl_rare`, `iwl_common`, `iwl_rare`: `icl` and `iwl` on the most frequent tenth of the
      trained classes, and on the less frequent half (for skewed classes: `zipf`).

    Of functions in context the evaluators are others: see `function_task`.

    `train` keeps the `zipf` and `p_bursty` of training (in the public code of Singh et al. its classes are uniform and
    all its sequences bursty). Of all others the classes are uniform, and every sequence follows the definition. Three
    scores are easily misread:

    - `icl_reserved` cannot be solved by a model that never saw its two labels as answers: training only ever pushed
      their outputs down. It stays at chance while `icl` is high;
    - `iwl` is 0, below its chance of 1 / outputs, for a model that copies labels: none in context is the query's;
    - the reserved labels count among the outputs: with 4 shared labels and 2 reserved ones a guess over all labels is
      right in 1 of 6 cases, not 1 of 4.

    Raises `InputError` for an unknown name. Source: Singh et al. 2023 (2311.08360) section 3 and 2025 (2503.05631)
    section 2, and their public code (github.com/aadityasingh/icl-dynamics).
    """
    if not isinstance(task, FewShot):
        own = function_task(name, task)
        return Evaluator(name, task.evaluators().index(name), own, "explained")
    if name not in EVERY:
        raise InputError("evaluators", name, f"must be one of {', '.join(EVERY)}{nearest(name, EVERY)}")
    two = replace(
        task, burst=task.context // 2, distractor=True, rest="no_support", p_bursty=1.0, zipf=0.0, distinct="label"
    )
    if name in BY_RANK:
        kind, _, ranks = name.partition("_")
        whole = evaluator(kind, task, classes)
        return whole._replace(name=name, stream=EVERY.index(name), ranks="common" if ranks == "common" else "rare")
    none = replace(two, burst=0, rest="unique")
    labels = task.outputs(classes) - task.reserved_labels
    relabelled = replace(two, distinct="class")  # every label is replaced: classes only need to differ
    index = EVERY.index(name)
    match name:
        case "train":
            return Evaluator(name, index, task, "in_context_accuracy")
        case "icl":
            return Evaluator(name, index, replace(relabelled, relabel=Pair((0, 1))), "in_context_accuracy")
        case "icl_reserved":
            pair = Pair((labels, labels + 1))
            return Evaluator(name, index, replace(relabelled, relabel=pair), "in_context_accuracy")
        case "icl_holdout":
            held = replace(relabelled, relabel=Pair((0, 1)))
            return Evaluator(name, index, held, "in_context_accuracy", holdout_classes=True)
        case "icl_pairs":
            return Evaluator(name, index, replace(relabelled, relabel=HoldoutPair()), "in_context_accuracy")
        case "iwl":
            return Evaluator(name, index, none, "accuracy")
        case "ciwl":
            return Evaluator(name, index, replace(none, relabel=CopyQueryLabel()), "in_context_accuracy")
        case "flip":
            return Evaluator(name, index, replace(two, relabel=Flip()), "in_context_accuracy")
        case _:
            return Evaluator(name, index, none, "accuracy", holdout_exemplars=True)


def check(names: tuple[str, ...], task: Task, source: SourceLike) -> None:
    """Raises `InputError` when an evaluator cannot be drawn for this task and source."""
    known = EVERY if isinstance(task, FewShot) else task.evaluators()
    require(len(names) > 0, "evaluators", list(names), f"name at least one of {', '.join(known)}")
    require(len(set(names)) == len(names), "evaluators", list(names), "each name at most once")
    if not isinstance(task, FewShot):
        for name in names:
            function_task(name, task).check(source)
        return
    even = task.context % 2 == 0
    require(even or set(names) <= {"train"}, "task.context", task.context, "must be even: evaluators use two classes")
    sizes = source.sizes()
    for name in names:
        one = evaluator(name, task, sizes.classes)
        require(
            name != "icl_reserved" or task.reserved_labels >= 2,
            "task.reserved_labels",
            task.reserved_labels,
            "must be at least 2 for the evaluator icl_reserved",
        )
        for kind, least in (("holdout_classes", 2), ("holdout_exemplars", 1)):
            allowed = f"must be at least {least} for the evaluator {name}"
            require(
                not getattr(one, kind) or getattr(sizes, kind) >= least, f"source.{kind}", getattr(sizes, kind), allowed
            )
        one.task.check(source)
        if one.ranks != "all":
            size = one.split(sizes).classes.size
            modulus = task.labels.count if isinstance(task.labels, Shared) else max(size, 1)
            allowed = f"leaves {size} classes for the evaluator {name}: too few for context = {task.context}"
            require(size - -(-size // modulus) >= task.context, "source.classes", sizes.classes, allowed)


class Suite(NamedTuple):
    """The fixed evaluation prompts of a run, with a leading axis over the evaluators."""

    evaluators: tuple[Evaluator, ...]
    prompts: AnyPrompt

    def of(self, name: str) -> Any:
        """The prompts of one evaluator."""
        i = [e.name for e in self.evaluators].index(name)
        return jax.tree.map(lambda x: x[i], self.prompts)

    def measure(
        self, answer: Callable[[Any], Float[Array, "*asked batch labels"]]
    ) -> Float[Array, "evaluators metrics 2"]:
        """Mean and standard error of every metric for every evaluator, of the model whose logits are
        `answer(prompt)`. One evaluator after the other: all logits at once could take gigabytes."""

        def one(prompt: AnyPrompt, group: Int[Array, ""]) -> Float[Array, "metrics 2"]:
            outputs = answer(prompt)
            if isinstance(prompt, Prompt):
                return mean_and_error(per_sequence(outputs, prompt, group))
            return mean_and_error(per_prompt(outputs, prompt))

        groups = jnp.asarray([e.group for e in self.evaluators])
        return jax.lax.map(lambda both: one(*both), (self.prompts, groups))

    def chance(self, outputs: int) -> dict[str, float]:
        """Chance level of every evaluator's headline metric: of functions, that of a constant answer."""
        if not isinstance(self.prompts, Prompt):
            return {e.name: 0.0 for e in self.evaluators}
        return {e.name: chance(self.of(e.name), outputs, e.group)[e.headline] for e in self.evaluators}


def build_suite(names: tuple[str, ...], task: Task, source: Any, bank: Any, *, sequences: int, seed: int) -> Suite:
    """Draws `sequences` prompts per evaluator from the evaluation root; the same for all members."""
    sizes = source.sizes()
    chosen = tuple(evaluator(name, task, sizes.classes) for name in names)
    index = jnp.arange(sequences, dtype=jnp.uint32)

    def draw() -> AnyPrompt:
        parts = []
        for one in chosen:
            key = root(seed, Purpose.EVALUATION, one.stream)
            parts.append(one.task.sample(key, index, source, bank, one.split(sizes)))
        return jax.tree.map(lambda *xs: jnp.stack(xs), *parts)

    return Suite(chosen, compile_fast(draw)())
