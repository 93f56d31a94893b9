"""The induction-head task: a trigger somewhere in a stream of symbols, then again: which symbol followed it?"""

from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Int, Key, UInt

from ebbtide.errors import InputError, nearest, require
from ebbtide.sources.bank import Bank, SourceLike, Split
from ebbtide.tasks import draws
from ebbtide.tasks.fewshot import METRICS
from ebbtide.tasks.prompt import Prompt, PromptType, Tag
from ebbtide.tasks.task import Evaluator, check_stream
from ebbtide.traced import kind_name

TRIGGER = 0
"""The class of the source that is the trigger."""
FEWEST = 3
"""Smallest number of symbols: the trigger, and two that may follow it."""


class Trigger(msgspec.Struct, frozen=True, tag="trigger", forbid_unknown_fields=True):
    r"""Streams of `context` + 1 symbols, the last of which is the trigger; the target is the symbol that followed the
    trigger where it stood in the context: the induction-head task of Fu et al. 2023 (arXiv 2212.14052), which Chen et
    al. 2024 (arXiv 2406.02847) train on too. From memory; the distribution of the trigger's slot is own.

    Symbols are the V classes of the source; the trigger is class 0. Symbols of the context are independent and uniform
    over the V - 1 others, but for one slot, uniform among all before the context's last, which shows the trigger. Every
    slot draws an exemplar of its symbol: of a source with one exemplar of each class, a symbol is always the same
    vector. A model reads exemplars alone (`pairing = "states"`) and is asked at the query alone.

    Args:
        context: the number of symbols before the query, at least 2.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size. `classes` has the symbols,
    `labels` those that follow each slot of the context, and `tags` is `Tag.BURSTY` at the trigger in context.

    >>> task, source = eb.Trigger(context=5), eb.Gaussian(classes=9, exemplars=1, dim=8, noise=0.0, holdout_classes=0)
    >>> index, split = jax.numpy.arange(4, dtype="uint32"), source.sizes().split()
    >>> prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    >>> prompt.exemplars.shape, prompt.target.shape, task.outputs(source)  # [slot, batch, dim], [batch]
    ((6, 4, 8), (4,), 9)
    """

    context: Annotated[int, msgspec.Meta(ge=2)] = 31

    @property
    def prompt_type(self) -> PromptType:
        return Prompt

    @property
    def metrics(self) -> tuple[str, ...]:
        return METRICS

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source has exemplars of three or more classes."""
        allowed = "has no exemplars of classes for the task trigger, e.g. as gaussian has"
        require(source.bank_type is Bank, "source", kind_name(source), allowed)
        classes = source.sizes().classes
        allowed = f"must be at least {FEWEST}: the trigger, and two symbols that may follow it"
        require(classes >= FEWEST, "source.classes", classes, allowed)

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` unless the model reads states."""
        check_stream(pairing, "trigger")

    def outputs(self, source: SourceLike) -> int:
        """Number of symbols."""
        return source.sizes().classes

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators: `train`, prompts as in training."""
        return ("train",)

    def evaluator(self, name: str, source: SourceLike) -> Evaluator:
        """The evaluator `name`. Raises `InputError` for an unknown name."""
        names = self.evaluators()
        if name not in names:
            raise InputError("evaluators", name, f"must be one of {', '.join(names)}{nearest(name, names)}")
        return Evaluator(name, names.index(name), self, "accuracy", source.sizes().split())

    def check_evaluator(self, name: str, source: SourceLike) -> None:
        """Raises `InputError` when there is no such evaluator, or it cannot be drawn from `source`."""
        self.evaluator(name, source).task.check(source)

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: Bank, split: Split
    ) -> Prompt:
        """Prompts with the numbers `index` of the stream `key`."""
        one = jax.vmap(lambda i: self._one(jax.random.fold_in(key, i), split), out_axes=(1, 1, 1, 0))
        classes, indices, tags, target = one(index)
        exemplars = source.look_up(bank, classes, indices)
        return Prompt(exemplars, classes[1:], target, classes, indices, tags, jnp.full_like(target, -1))

    def _one(
        self, key: Key[Array, ""], split: Split
    ) -> tuple[Int[Array, " slots"], UInt[Array, " slots"], Int[Array, " slots"], Int[Array, ""]]:
        """Classes, exemplars and tags of one stream, and its target."""
        words, exemplar_words = jax.random.bits(key, (2, self.context + 1), "uint32")
        at = draws.integer(words[-1], self.context - 1)  # the last slot draws no symbol
        shows = jnp.arange(self.context + 1) == at
        others = TRIGGER + 1 + (words % jnp.uint32(split.classes.size - 1)).astype(jnp.int32)
        classes = jnp.where(shows, TRIGGER, others).at[-1].set(TRIGGER)
        tags = jnp.where(shows, Tag.BURSTY, Tag.OTHER).astype(jnp.int32).at[-1].set(Tag.QUERY)
        return classes, exemplar_words % jnp.uint32(split.exemplars.size), tags, classes[at + 1]
