"""Concepts: tables of what a cue is answered with, the finite set that a mixture of contexts is drawn from."""

from typing import Annotated, NamedTuple

import jax
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt

from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import Sizes


class ConceptBank(NamedTuple):
    """log P(response | cue, concept) of every concept of the pool."""

    logs: Float[Array, "concepts cues responses"]


class Concepts(msgspec.Struct, frozen=True, tag="concepts", forbid_unknown_fields=True):
    r"""`concepts` tables $P(r \mid c, z)$ of `responses` responses to `cues` cues, rows Dirichlet(`concentration`).

    All are equally likely. The hidden concept z of Zhang et al. 2023 (arXiv 2305.19420) in its smallest form: with
    finitely many tables the Bayesian model average, which is what a perfectly trained model predicts, can be computed
    exactly (`evaluation.concepts.concept_average`).
    """

    concepts: Annotated[int, msgspec.Meta(ge=1)] = 8
    cues: Annotated[int, msgspec.Meta(ge=1)] = 5
    responses: Annotated[int, msgspec.Meta(ge=2)] = 4
    concentration: Annotated[float, msgspec.Meta(gt=0)] = 0.6
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def check(self) -> None:
        """Raises nothing: any sizes go together."""

    def sizes(self) -> Sizes:
        """Concepts as classes of one exemplar; cues are one-hot."""
        return Sizes(self.concepts, 0, 1, 0, self.cues)

    def build(self) -> ConceptBank:
        """Draws the tables."""
        keys = jax.random.split(root(self.seed, Purpose.SOURCE), self.concepts)
        return ConceptBank(jax.vmap(self.fresh)(keys))

    def fresh(self, key: Key[Array, ""]) -> Float[Array, "cues responses"]:
        """The logarithms of a table from the prior: gamma variates, normalised, drawn as logarithms: none is 0."""
        logs = jax.random.loggamma(key, self.concentration, (self.cues, self.responses))
        return jax.nn.log_softmax(logs, axis=-1)

    def look_up(
        self, bank: ConceptBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots cues responses"]:
        """The tables `classes`."""
        return bank.logs[classes]
