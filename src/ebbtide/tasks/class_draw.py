"""The classes of one few-shot sequence: the query's, its copies, a distractor's, and the rest."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from ebbtide.tasks import draws
from ebbtide.tasks.prompt import Tag


class Classes(NamedTuple):
    """One sequence before its labels: what sits in each slot, query last."""

    classes: Int[Array, " slots"]
    tags: Int[Array, " slots"]


class ClassDraw(NamedTuple):
    """Draws the classes of one sequence from 0 to `classes` - 1, uniform or with probabilities `weights`, whose
    cumulative sum with a leading 0 is `edges`. The other fields are those of `FewShot`; classes that are equal modulo
    `modulus` have the same label, and none of the query's label stands where its class may not."""

    context: int
    burst: int
    distractor: bool
    rest: str
    modulus: int
    classes: int
    weights: Array | None
    edges: Array | None

    def sequence(self, query_word: Array, words: UInt[Array, " slots"], *, bursty: bool) -> Classes:
        """Rest slots, then query copies, then distractor copies, then the query."""
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
        """Different classes, none the query's (in class or label) and none in `also_not`."""
        if self.weights is not None and self.edges is not None:
            found = [query, *also_not]
            for word in words:
                found.append(draws.weighted(word, self.weights, self.edges, found))
            return found[1 + len(also_not) :]
        modulus = self.modulus
        label = query % modulus
        # Work in the space of allowed classes: ranks among the classes whose label is not the query's.
        full_rows, partial = divmod(self.classes, modulus)
        fewest = self.classes - full_rows - (1 if partial else 0)
        allowed = jnp.where(label < partial, fewest, self.classes - full_rows) if partial else fewest
        taken = [c - (c // modulus) - (c % modulus > label) for c in also_not]
        found = list(taken)
        for word in words:
            r = (word % (jnp.uint32(allowed) - jnp.uint32(len(found)))).astype(jnp.int32)
            found.append(draws.skip(r, found))
        return [draws.other_label(r, label, modulus) for r in found[len(taken) :]]
