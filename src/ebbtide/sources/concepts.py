"""Concepts: tables of response probabilities. Every prompt of a mixture of concepts follows one of them."""

from typing import Annotated, NamedTuple

import jax
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt

from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import SeededSource, Sizes, array_bytes


class ConceptBank(NamedTuple):
    """log P(response | cue, concept) of every concept in the pool."""

    logs: Float[Array, "concepts cues responses"]


class Concepts(SeededSource, frozen=True, tag="concepts", forbid_unknown_fields=True):
    r"""A pool of `concepts` tables $P(r \mid c, z)$: for each of `cues` cues c a distribution over `responses`
    responses r, drawn from Dirichlet(`concentration`).

    Args:
        concepts: the number of tables in the pool.
        cues: the number of cues.
        responses: the number of responses.
        concentration: the parameter of the symmetric Dirichlet distribution.
        seed: the seed of the pool.

    All concepts z are equally likely. They are the hidden concepts of Zhang et al. 2023 (arXiv 2305.19420) in their
    smallest form: with finitely many tables the Bayesian model average, the prediction of a perfectly trained model,
    can be computed exactly (`evaluation.concepts.concept_average`).

    >>> eb.Concepts(concepts=3, cues=5, responses=4).build().logs.shape
    (3, 5, 4)
    """

    concepts: Annotated[int, msgspec.Meta(ge=1)] = 8
    cues: Annotated[int, msgspec.Meta(ge=1)] = 5
    responses: Annotated[int, msgspec.Meta(ge=2)] = 4
    concentration: Annotated[float, msgspec.Meta(gt=0)] = 0.6
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return ConceptBank

    def check(self) -> None:
        """Does nothing: all sizes are compatible."""

    def sizes(self) -> Sizes:
        """Numbers of classes and features: concepts are classes with one exemplar each, cues are one-hot."""
        return Sizes(self.concepts, 0, 1, 0, self.cues)

    def bank_bytes(self) -> int:
        """Bytes of one response of every table, at least."""
        return array_bytes(self.sizes())

    def building_bytes(self) -> int:
        return 0

    def build(self) -> ConceptBank:
        """The pool of tables, drawn from `seed`."""
        keys = jax.random.split(root(self.seed, Purpose.SOURCE), self.concepts)
        return ConceptBank(jax.vmap(self.sample_prior)(keys))

    def sample_prior(self, key: Key[Array, ""]) -> Float[Array, "cues responses"]:
        """Log-probabilities of one table drawn from the prior, not in the pool. Gamma variates are drawn as logarithms
        and normalised, so that no probability is 0."""
        logs = jax.random.loggamma(key, self.concentration, (self.cues, self.responses))
        return jax.nn.log_softmax(logs, axis=-1)

    def look_up(
        self, bank: ConceptBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots cues responses"]:
        """Tables of the pool with the numbers `classes`."""
        return bank.logs[classes]
