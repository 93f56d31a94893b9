"""The draw of the classes of one few-shot sequence: the query's, its copies, a distractor's, and the rest."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from ebbtide.tasks import draws
from ebbtide.tasks.prompt import Tag


class Classes(NamedTuple):
    """The class and the role (`Tag`) of every slot of one sequence; the query is the last slot."""

    classes: Int[Array, " slots"]
    tags: Int[Array, " slots"]


class ClassDraw(NamedTuple):
    """The rule by which the classes of one sequence are drawn from 0 to `classes` - 1: uniformly, or with probabilities
    `weights`, whose cumulative sum with a leading 0 is `edges`. Classes that are equal modulo `modulus` have the same
    label; where the query's class must not stand, no class with its label does. The other fields are those of
    `FewShot`."""

    context: int
    burst: int
    distractor: bool
    rest: str
    modulus: int
    classes: int
    weights: Array | None
    edges: Array | None

    def sequence(self, query_word: Array, words: UInt[Array, " slots"], *, bursty: bool) -> Classes:
        """Classes of one sequence in this order: the rest, copies of the query's class, copies of the distractor's
        class, the query's class."""
        burst = self.burst if bursty else 0
        with_distractor = self.distractor and burst > 0
        rest = self.context - burst * (2 if with_distractor else 1)
        query = self._any(query_word)
        distractor = self._others(words[-1:], query, [])[0] if with_distractor else query
        others = self._rest(words[:rest], query, [distractor] if with_distractor else [])
        classes = [*others, *[query] * burst, *([distractor] * burst if with_distractor else []), query]
        tags = [Tag.OTHER] * rest + [Tag.BURSTY] * burst
        tags += ([Tag.DISTRACTOR] * burst if with_distractor else []) + [Tag.QUERY]
        return Classes(jnp.stack(classes), jnp.asarray(tags, jnp.int32))

    def _any(self, word: Array) -> Array:
        if self.weights is None:
            return draws.integer(word, self.classes)
        assert self.edges is not None
        return draws.weighted(word, self.weights, self.edges)

    def _rest(self, words: Array, query: Array, distractor: list[Array]) -> list[Array]:
        if self.rest == "iid":
            return [self._any(word) for word in words]
        if self.rest == "unique":
            return self._others(words, query, distractor)
        return [self._others(words[i : i + 1], query, distractor)[0] for i in range(words.shape[0])]

    def _others(self, words: Array, query: Array, also_not: list[Array]) -> list[Array]:
        """Different classes, one for each word: none has the query's class or label, and none is in `also_not`."""
        if self.weights is not None and self.edges is not None:
            excluded = [query, *also_not]
            for word in words:
                excluded.append(draws.weighted(word, self.weights, self.edges, excluded))
            return excluded[1 + len(also_not) :]
        modulus = self.modulus
        label = query % modulus
        # Work in the space of allowed classes: ranks among the classes whose label is not the query's.
        full_rows, partial = divmod(self.classes, modulus)
        fewest = self.classes - full_rows - (1 if partial else 0)
        allowed = jnp.where(label < partial, fewest, self.classes - full_rows) if partial else fewest
        taken = [c - (c // modulus) - (c % modulus > label) for c in also_not]
        ranks = list(taken)
        for word in words:
            r = (word % (jnp.uint32(allowed) - jnp.uint32(len(ranks)))).astype(jnp.int32)
            ranks.append(draws.skip(r, ranks))
        return [draws.other_label(r, label, modulus) for r in ranks[len(taken) :]]
