"""Words of bounded context-free languages: a walk of choices that reaches every length, and a split by letters."""

import math
from functools import lru_cache
from itertools import permutations
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from ebbtide.errors import require
from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import FLOAT, SeededSource, Sizes
from ebbtide.sources.pushdown import (
    BACKWARD,
    END,
    ENDED,
    FIRST,
    FORWARD,
    START_STATE,
    STATES,
    Language,
    Pushdown,
)

MOST_TYPES = 7
"""Largest number of types whose pairings are enumerated: 7! = 5,040."""
MOST_TRIES = 1000
"""A word is drawn again until it is on the side of the split that was asked for, at most so often."""
MOST_COUNTED = 1e15
"""More words than so many are not told apart."""
BRACKETS = ("dyck", "blocks")


class WordBank(NamedTuple):
    """Pairings of opening and closing brackets, and the salt of the split into training and held-out words."""

    pairings: Int[Array, "pool types"]
    salt: UInt[Array, " 2"]


class Walk(NamedTuple):
    """The choices of which a word is made. In state s with d symbols on the stack there are at most two: 0, to push a
    letter of any type, and 1, the other letter, which is known (of `parity`: a zero, a one). Choice c is there where
    `allowed[s, d, c]`, and leads to the state `state[s, d, c]` with d + `change[s, d, c]` symbols on the stack.

    `first[r, s, d]` is the probability of choice 0 with r letters still to come; `words[r, s, d]` counts the ways in
    which r letters can complete a word, and `lengths` are the lengths of words, all equally likely."""

    state: Int[np.ndarray, "states depths 2"]
    change: Int[np.ndarray, "states depths 2"]
    allowed: Bool[np.ndarray, "states depths 2"]
    first: Float[np.ndarray, "letters states depths"]
    words: Float[np.ndarray, "letters states depths"]
    lengths: Int[np.ndarray, " lengths"]


class Word(NamedTuple):
    """A word with `letters` letters, then `END`; the configurations before the first letter and after every symbol; and
    what the split compares, a number that depends on the letters alone."""

    symbols: Int[Array, " longest"]
    states: Int[Array, " slots"]
    stacks: Int[Array, "slots depth"]
    letters: Int[Array, ""]
    mark: UInt[Array, ""]


class Words(SeededSource, frozen=True, tag="words", forbid_unknown_fields=True):
    r"""Words of a bounded context-free language, as `Pushdown` defines them (Shi et al. 2022, arXiv 2112.09174).

    A word of n letters is a walk of choices. The length n is drawn first, uniform among the lengths that the language
    has. Of the choices that leave a word of n letters possible each is taken with its own probability: of `dyck` an
    opening bracket has `open`; in `blocks` and `palindromes` the number of letters pushed is uniform from 1 to `depth`;
    in `parity` both letters have 1/2. Types of opening brackets and letters are uniform.

    A share `held_out` of all words, chosen by a hash of their letters, is never trained on. Which words these are
    follows from the seed.

    Args:
        language: "dyck", "blocks", "palindromes" or "parity".
        types: the number k of types of brackets, or of letters.
        depth: the largest number m of symbols on the stack.
        open: the probability of an opening bracket where a closing one may follow too, of `dyck` alone.
        held_out: the share of words that are held out.
        pool: the number of pairings of opening and closing brackets: 1: every bracket is closed by its own; more: so
            many are drawn once, from the seed; 0: every word has a pairing of its own.
        seed: the seed of the split and of the pairings.

    >>> source = eb.Words(language="dyck", types=2, depth=4)
    >>> source.sizes().dim, source.values  # symbols with start and end; values of a cell
    (6, 3)
    """

    language: Language = "dyck"
    types: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    depth: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    open: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    held_out: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.25
    pool: Annotated[int, msgspec.Meta(ge=0)] = 1
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return WordBank

    def check(self) -> None:
        """Raises `InputError` for pairings of what are no brackets, of too many types, or more than there are."""
        paired = self.language in BRACKETS
        allowed = f"must be 1 for {self.language}, which has no brackets"
        require(self.pool == 1 or paired, "source.pool", self.pool, allowed)
        allowed = f"must be at most {MOST_TYPES} where pairings are drawn (pool = {self.pool})"
        require(self.pool == 1 or self.types <= MOST_TYPES, "source.types", self.types, allowed)
        most = math.factorial(min(self.types, MOST_TYPES))
        allowed = f"must be at most {most}: there are no more pairings of {self.types} types"
        require(self.pool <= most, "source.pool", self.pool, allowed)

    @property
    def values(self) -> int:
        """Number of values of a cell, one of which is the state and the others are the stack's."""
        return max(STATES, self.types + 1)

    def automaton(self, pairing: tuple[int, ...] = ()) -> Pushdown:
        """The automaton of the language, with a pairing of brackets."""
        return Pushdown(self.language, self.types, self.depth, pairing)

    def sizes(self) -> Sizes:
        """Numbers of classes and features: pairings are classes with one exemplar each, symbols are one-hot."""
        return Sizes(max(self.pool, 1), 0, 1, 0, FIRST + self.automaton().letters)

    def bank_bytes(self) -> int:
        """Bytes of the pairings."""
        return max(self.pool, 1) * self.types * FLOAT

    def building_bytes(self) -> int:
        return 0

    def build(self) -> WordBank:
        """The pairings and the salt, drawn from `seed`."""
        salt_key, pairing_key = jax.random.split(root(self.seed, Purpose.SOURCE))
        pairings = jnp.arange(self.types)[None]
        if self.pool > 1:
            every = every_pairing(self.types)
            pairings = jnp.asarray(every)[jax.random.permutation(pairing_key, len(every))[: self.pool]]
        return WordBank(pairings.astype(jnp.int32), jax.random.bits(salt_key, (2,), jnp.uint32))

    def look_up(
        self, bank: WordBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Int[Array, "*slots types"]:
        """Pairings with the numbers `classes`."""
        return bank.pairings[classes]

    def walk(self, longest: int) -> Walk:
        """The choices of words of at most `longest` letters."""
        return _walk(self.language, self.types, self.depth, self.open, longest)

    def is_held_out(self, mark: UInt[Array, "*words"]) -> Bool[Array, "*words"]:
        """Whether words with these marks are held out."""
        return mark < jnp.uint32(int(self.held_out * 2**32))

    def draw(
        self, key: Key[Array, ""], bank: WordBank, pairing: Int[Array, " types"], longest: int, held_out: bool
    ) -> Word:
        """A word of at most `longest` letters with this pairing, from the held-out words or from all others."""

        def wrong(state: tuple[Array, Word]) -> Array:
            tries, word = state
            return (tries == 0) | ((self.is_held_out(word.mark) != held_out) & (tries < MOST_TRIES))

        def again(state: tuple[Array, Word]) -> tuple[Array, Word]:
            tries, _ = state
            return tries + 1, self._draw(jax.random.fold_in(key, tries), bank, pairing, longest)

        shapes = jax.eval_shape(lambda: self._draw(key, bank, pairing, longest))
        blank = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
        return jax.lax.while_loop(wrong, again, (jnp.int32(0), blank))[1]

    def _draw(self, key: Key[Array, ""], bank: WordBank, pairing: Int[Array, " types"], longest: int) -> Word:
        """A word of either side."""
        walk = self.walk(longest)
        uniform = jax.random.uniform(key, (2 * longest + 1,))  # one call: it is most of what there is to compile
        n = jnp.asarray(walk.lengths)[(uniform[0] * len(walk.lengths)).astype(jnp.int32)]
        types = (uniform[longest + 1 :] * self.types).astype(jnp.int32)
        first = jnp.asarray(walk.first, jnp.float32)
        state_after, change = jnp.asarray(walk.state), jnp.asarray(walk.change)
        places = jnp.arange(self.depth)

        def step(at: tuple[Array, Array, Array, Array], drawn: tuple[Array, Array, Array]) -> tuple[tuple, tuple]:
            state, depth, stack, mark = at
            left, chance, kind = drawn
            going = left > 0
            choice = (chance >= first[jnp.maximum(left, 0), state, depth]).astype(jnp.int32)
            top = stack[jnp.maximum(depth - 1, 0)]
            symbol = jnp.where(going, self._letter(state, choice, kind, top, pairing), END)
            grown = depth + change[state, depth, choice]
            pushed = jnp.where(places == depth, kind + 1, stack)
            stack = jnp.where(going, jnp.where(places < grown, jnp.where(grown > depth, pushed, stack), 0), 0)
            state = jnp.where(going, state_after[state, depth, choice], ENDED)
            depth = jnp.where(going, grown, 0)
            mark = jnp.where(going, (mark ^ symbol.astype(jnp.uint32)) * jnp.uint32(16777619), mark)
            return (state, depth, stack, mark), (symbol, state, stack)

        empty = jnp.zeros(self.depth, jnp.int32)
        start = (jnp.int32(START_STATE[self.language]), jnp.int32(0), empty, bank.salt[0])
        drawn = n - jnp.arange(longest), uniform[1 : longest + 1], types
        (*_, mark), (symbols, states, stacks) = jax.lax.scan(step, start, drawn)
        states, stacks = jnp.concatenate([start[0][None], states]), jnp.concatenate([empty[None], stacks])
        return Word(symbols, states, stacks, n, _mix(mark ^ bank.salt[1]))

    def _letter(self, state: Array, choice: Array, kind: Array, top: Array, pairing: Int[Array, " types"]) -> Array:
        """The letter of a choice: one of the type `kind` is pushed, or the one that goes with the top of the stack."""
        if self.language == "parity":
            return FIRST + choice
        if self.language == "palindromes":
            other = jnp.where(state == FORWARD, self.types, top - 1)
        else:
            other = self.types + pairing[jnp.maximum(top - 1, 0)]
        return FIRST + jnp.where(choice == 0, kind, other)

    def next_symbols(
        self, states: Int[Array, " slots"], stacks: Int[Array, "slots depth"], pairing: Int[Array, " types"]
    ) -> Bool[Array, "slots symbols"]:
        """Which symbols may follow each configuration, `END` among them where the word may end; none after it."""
        depth = (stacks > 0).sum(-1)
        top = jnp.take_along_axis(stacks, jnp.maximum(depth - 1, 0)[:, None], axis=-1)[:, 0]
        allowed = jnp.asarray(self.walk(1).allowed)[states, depth]
        symbols = jnp.arange(self.sizes().dim)
        may_end = (states == START_STATE[self.language]) & (depth == 0)
        ending = may_end[:, None] & (symbols == END)
        first = (symbols >= FIRST) & (symbols < FIRST + (1 if self.language == "parity" else self.types))
        other = jnp.broadcast_to(self._letter(states, jnp.int32(1), jnp.int32(0), top, pairing), states.shape)
        return ending | (allowed[:, :1] & first) | (allowed[:, 1:] & (other[:, None] == symbols))


def every_pairing(types: int) -> Int[np.ndarray, "pool types"]:
    """All pairings of opening and closing brackets, [types!, types]."""
    return np.asarray(list(permutations(range(types))))


def _mix(mark: UInt[Array, ""]) -> UInt[Array, ""]:
    """The last step of MurmurHash3 (public domain, A. Appleby): every bit of the mark changes about half of the
    result's."""
    mark = (mark ^ (mark >> 16)) * jnp.uint32(0x85EBCA6B)
    mark = (mark ^ (mark >> 13)) * jnp.uint32(0xC2B2AE35)
    return mark ^ (mark >> 16)


@lru_cache(maxsize=64)
def _walk(language: Language, types: int, depth: int, opening: float, longest: int) -> Walk:
    shape = (STATES, depth + 1, 2)
    state, change, weight = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape)

    def choice(number: int, at: int, held: int, then: int, by: int, weighs: float) -> None:
        state[at, held, number], change[at, held, number], weight[at, held, number] = then, by, weighs

    for held in range(depth + 1):
        if language == "parity":
            choice(0, FORWARD, held, BACKWARD, 0, 0.5)
            choice(0, BACKWARD, held, FORWARD, 0, 0.5)
            choice(1, FORWARD, held, FORWARD, 0, 0.5)
            choice(1, BACKWARD, held, BACKWARD, 0, 0.5)
        elif language == "dyck":
            if held < depth:
                choice(0, FORWARD, held, FORWARD, 1, opening)
            if held:
                choice(1, FORWARD, held, FORWARD, -1, 1 - opening)
        else:
            stop = 1 / (depth - held + 1)  # so that the number of letters pushed is uniform
            if held < depth and held:
                choice(0, FORWARD, held, FORWARD, 1, 1 - stop)
            if held:
                choice(1, FORWARD, held, BACKWARD, 0 if language == "palindromes" else -1, stop)
                choice(1, BACKWARD, held, BACKWARD, -1, 1.0)
            else:
                choice(0, BACKWARD, held, FORWARD, 1, 1.0)
    words = np.zeros((longest + 1, STATES, depth + 1))
    first = np.zeros_like(words)
    words[0, START_STATE[language], 0] = 1
    ways = np.asarray([1 if language == "parity" else types, 1])
    held = np.arange(depth + 1)[None, :, None]
    for left in range(1, longest + 1):
        after = np.where(weight > 0, words[left - 1][state, held + change], 0)
        words[left] = np.minimum((ways * after).sum(-1), MOST_COUNTED)
        weighed = weight * (after > 0)
        total = weighed.sum(-1)
        first[left] = np.divide(weighed[..., 0], total, out=np.zeros_like(total), where=total > 0)
    lengths = np.flatnonzero(words[:, START_STATE[language], 0])
    return Walk(state, change, weight > 0, first, words, lengths[lengths > 0])
