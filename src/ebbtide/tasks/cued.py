"""The task of cues and responses: pairs (c, r) of one hidden concept, then a query cue."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.sources.concepts import ConceptBank, Concepts
from ebbtide.tasks.prompt import FunctionPrompt, function_prompts
from ebbtide.tasks.task import FunctionTask, check_pairs
from ebbtide.traced import kind_name


class Cued(FunctionTask, frozen=True, tag="cued", forbid_unknown_fields=True):
    r"""Sequences of `context` pairs and a query: cues $c_t$ uniform, responses $r_t \sim P(r \mid c_t, z)$ with one
    concept z for the whole prompt, drawn from the source's pool or, with `draw = "prior"`, made anew
    (Zhang et al. 2023, arXiv 2305.19420).

    Args:
        context: the number of pairs before the query.
        draw: "pool": concepts of the source's pool; "prior": a new concept for every prompt.
        change: "wrong": the responses of the context are uniform whatever the cue, the query's is not (misspecified
            examples); "switch": the first half of the context follows another concept of the pool.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size. `latent["concept"]` is the index
    of the concept that the query's response follows (-1: made anew).

    >>> source = eb.Concepts(concepts=3, cues=5, responses=4)
    >>> eb.Cued(context=8).outputs(source)
    4
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 16
    draw: Literal["pool", "prior"] = "pool"
    change: Literal["none", "wrong", "switch"] = "none"

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source is `Concepts`, and there is a concept to switch to."""
        tag = kind_name(source)
        require(isinstance(source, Concepts), "source", tag, "must be concepts for the task cued")
        assert isinstance(source, Concepts)
        if self.change == "switch":
            require(source.concepts > 1, "source.concepts", source.concepts, "must be at least 2 to switch")

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` for a model over states."""
        check_pairs(pairing)

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `variant`."""
        return ("train", "prior", "wrong", "switch")

    def variant(self, name: str) -> "Cued":
        """The task of the evaluator `name`: `train` (prompts as in training), `prior` (concepts made anew), `wrong` or
        `switch` (see `change`)."""
        if name == "train":
            return self
        return replace(self, draw="prior") if name == "prior" else replace(self, change=name)

    def outputs(self, source: SourceLike) -> int:
        """Number of different responses."""
        assert isinstance(source, Concepts)
        return source.responses

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: ConceptBank, split: Split
    ) -> FunctionPrompt:
        """Prompts with the numbers `index` of the stream `key`."""
        assert isinstance(source, Concepts)
        return function_prompts(lambda own: self._one(own, source, bank), key, index)

    def _one(
        self, key: Key[Array, ""], source: Concepts, bank: ConceptBank
    ) -> tuple[Float[Array, "slots cues"], Int[Array, " slots"], Array, dict[str, Array]]:
        cue_key, concept_key, answer_key, change_key = jax.random.split(key, 4)
        slots = jnp.arange(self.context + 1)
        cues = jax.random.randint(cue_key, slots.shape, 0, source.cues)
        concept = jax.random.randint(concept_key, (), 0, source.concepts) if self.draw == "pool" else jnp.int32(-1)
        table = bank.logs[concept] if self.draw == "pool" else source.sample_prior(concept_key)
        logs = table[cues]
        if self.change == "switch":
            step = jax.random.randint(change_key, (), 1, source.concepts)
            first = bank.logs[(concept + step) % source.concepts]
            logs = jnp.where((slots < self.context // 2)[:, None], first[cues], logs)
        if self.change == "wrong":
            logs = jnp.where((slots < self.context)[:, None], 0.0, logs)
        responses = jax.random.categorical(answer_key, logs).astype(jnp.int32)
        present = jnp.ones(self.context, bool)
        return jax.nn.one_hot(cues, source.cues), responses, present, {"concept": concept}
