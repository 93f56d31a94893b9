"""The evaluators of a run, their fixed prompts, and the metrics of a model on these."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ebbtide.compile import compile_fast, products_in
from ebbtide.errors import require
from ebbtide.evaluation.metrics import TABLE, mean_and_error, measure
from ebbtide.keys import Purpose, root_of, seed_key
from ebbtide.models.model import AnyPrompt
from ebbtide.sources.bank import SourceLike
from ebbtide.tasks.task import Evaluator, Task


def check(names: tuple[str, ...], task: Task, source: SourceLike) -> None:
    """Raises `InputError` when an evaluator cannot be drawn for this task and source."""
    known = task.evaluators()
    require(len(names) > 0, "evaluators", list(names), f"name at least one of {', '.join(known)}")
    require(len(set(names)) == len(names), "evaluators", list(names), "each name at most once")
    for name in names:
        task.check_evaluator(name, source)


class Suite(NamedTuple):
    """The fixed evaluation prompts of a run, with a leading axis over the evaluators."""

    evaluators: tuple[Evaluator, ...]
    prompts: AnyPrompt

    def of(self, name: str) -> Any:
        """The prompts of one evaluator."""
        i = [e.name for e in self.evaluators].index(name)
        return jax.tree.map(lambda x: x[i], self.prompts)

    def measure(
        self, answer: Callable[[Any], Float[Array, "*predicted batch labels"]]
    ) -> Float[Array, "evaluators metrics 2"]:
        """Mean and standard error over prompts of every metric for every evaluator. `answer(prompt)` gives the model's
        outputs. Evaluators are measured one after the other: all logits at once could take gigabytes."""
        names = self.evaluators[0].task.metrics

        def one(prompt: AnyPrompt, group: Int[Array, ""]) -> Float[Array, "metrics 2"]:
            return mean_and_error(measure(names, answer(prompt), prompt, group))

        groups = jnp.asarray([e.group for e in self.evaluators])
        return jax.lax.map(lambda both: one(*both), (self.prompts, groups))

    def chance(self, outputs: int) -> dict[str, float]:
        """Chance level of every evaluator's headline metric."""
        return {e.name: TABLE[e.headline].chance(self.of(e.name), outputs, e.group) for e in self.evaluators}


Draw = Callable[[Any, Key[Array, ""]], AnyPrompt]
"""A compiled function from (bank, key of the evaluation seed) to evaluation prompts, with a leading axis over
evaluators. It serves all worlds that differ in their seeds alone."""


def compile_draw(names: tuple[str, ...], task: Task, source: Any, sequences: int) -> Draw:
    """The function that draws `sequences` prompts for each of the evaluators `names`."""
    chosen = tuple(task.evaluator(name, source) for name in names)
    index = jnp.arange(sequences, dtype=jnp.uint32)

    def draw(bank: Any, key: Key[Array, ""]) -> AnyPrompt:
        parts = []
        with products_in("float32"):
            for one in chosen:
                stream = root_of(key, Purpose.EVALUATION, one.stream)
                parts.append(one.task.sample(stream, index, source, bank, one.split))
        return jax.tree.map(lambda *xs: jnp.stack(xs), *parts)

    return compile_fast(draw)


def build_suite(
    names: tuple[str, ...], task: Task, source: Any, bank: Any, *, sequences: int, seed: int, draw: Draw | None = None
) -> Suite:
    """The suite with `sequences` prompts for each of the evaluators `names`, drawn from the evaluation seed `seed`; by
    `draw`, where it has been compiled before (`compile_draw`)."""
    draw = draw or compile_draw(names, task, source, sequences)
    return Suite(tuple(task.evaluator(name, source) for name in names), draw(bank, seed_key(seed)))
