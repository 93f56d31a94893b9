"""Words of a context-free language: what follows each symbol, or the configuration of the automaton that reads them."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.sources.pushdown import END, ENDED, START
from ebbtide.sources.words import BRACKETS, WordBank, Words
from ebbtide.tasks import draws
from ebbtide.tasks.prompt import CellPrompt, FunctionPrompt, Parts, PromptType, function_prompts
from ebbtide.tasks.task import FunctionTask, check_stream
from ebbtide.traced import kind_name

FEWEST = 1000
"""Smallest number of words of which some can be held out."""


class Parsing(FunctionTask, frozen=True, tag="parsing", forbid_unknown_fields=True):
    r"""Words of at most `context` letters, read symbol by symbol: the input of slot 0 is the start, that of slot t the
    word's letter number t, and `END` after the word (one-hot).

    With `target = "configuration"` the response of a slot has a cell for the state of the automaton and one for each of
    the `depth` places of its stack, from the bottom, 0 where it is empty; after the end all are 0. Aligned, they are
    those after the slot's symbol; `shifted`, those after the next one, which a causal model has not seen, as in the
    public code of Shi et al. 2022 (arXiv 2112.09174). With `target = "symbol"` the response is the next symbol.

    Args:
        context: the largest number of letters, which is the number of slots less one.
        target: "configuration" or "symbol".
        shifted: whether configurations are those after the next symbol.
        words: "training": words that are not held out; "held_out": the others, which no training shows.
        pairings: "pool": pairings of brackets of the source's pool, where it has one; "prior": a pairing drawn anew for
            every word.
        zipf: the exponent a of the probabilities of the pool's pairings, p(c) ~ (c + 1)^-a for number c; 0: all are
            equally likely.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size. `latent` has the number of
    letters, `letters` [batch]; the pairing [batch, types], and its number in the pool, `member` (-1: not from a pool);
    for the target "symbol" also `valid` [batch, slots, symbols], which symbols may follow: none after the word.

    >>> task, source = eb.Parsing(context=12), eb.Words(types=2, depth=4)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    >>> prompt.inputs.shape, prompt.responses.shape  # [slot, batch, symbol], [slot, batch, cell]
    ((13, 5, 6), (13, 5, 5))
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 24
    target: Literal["configuration", "symbol"] = "configuration"
    shifted: bool = False
    words: Literal["training", "held_out"] = "training"
    pairings: Literal["pool", "prior"] = "pool"
    zipf: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0

    @property
    def metrics(self) -> tuple[str, ...]:
        own = ("configuration", "cell_accuracy") if self.target == "configuration" else ("valid",)
        return ("loss", *own)

    @property
    def prompt_type(self) -> PromptType:
        return CellPrompt if self.target == "configuration" else FunctionPrompt

    @property
    def headline(self) -> str:
        return "cell_accuracy" if self.target == "configuration" else "valid"

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source is `Words`, has enough of them to hold some out, and has brackets where
        pairings are drawn anew; and for shifted symbols."""
        require(isinstance(source, Words), "source", kind_name(source), "must be words for the task parsing")
        assert isinstance(source, Words)
        allowed = "must be false for the target symbol: the next symbol is the response"
        require(self.target == "configuration" or not self.shifted, "task.shifted", self.shifted, allowed)
        walk = source.walk(self.context)
        words = int(walk.words[walk.lengths, source.automaton().start.state, 0].sum())
        allowed = f"there are {words} words of at most so many letters; at least {FEWEST:,} are needed to hold some out"
        require(words >= FEWEST, "task.context", self.context, allowed)
        allowed = "must be pool for a language without brackets, or with one type of them"
        paired = source.language in BRACKETS and source.types > 1
        require(self.pairings == "pool" or paired, "task.pairings", self.pairings, allowed)
        draws.check_pool_weights(self.zipf, source.pool)

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` unless the model reads states; for configurations also one that reads the whole stream,
        which for symbols would see its own answer."""
        if self.target == "symbol" or pairing != "whole":
            check_stream(pairing, "parsing")

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `variant`."""
        return ("train", "held_out", "prior")

    def variant(self, name: str) -> "Parsing":
        """The task of the evaluator `name`: `train` (prompts as in training), `held_out` (words never trained on) or
        `prior` (such words with pairings of brackets drawn anew)."""
        if name == "train":
            return self
        return replace(self, words="held_out", pairings="prior" if name == "prior" else self.pairings)

    def cells(self, source: SourceLike) -> int:
        """Number of cells of a configuration; 0 for the target "symbol"."""
        assert isinstance(source, Words)
        return 1 + source.depth if self.target == "configuration" else 0

    def outputs(self, source: SourceLike) -> int:
        """Number of symbols; of configurations the number of cells times that of their values."""
        assert isinstance(source, Words)
        return self.cells(source) * source.values or source.sizes().dim

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: WordBank, split: Split
    ) -> FunctionPrompt:
        """Prompts with the numbers `index` of the stream `key`."""
        assert isinstance(source, Words)
        prompt = function_prompts(lambda own: self._one(own, source, bank), key, index)
        return CellPrompt(*prompt) if self.target == "configuration" else prompt

    def _one(self, key: Key[Array, ""], source: Words, bank: WordBank) -> Parts:
        pairing_key, word_key = jax.random.split(key)
        pooled = self.pairings == "pool" and source.pool > 0
        member = draws.pool_member(pairing_key, source.pool, self.zipf) if pooled else jnp.int32(-1)
        pairing = bank.pairings[member] if pooled else jax.random.permutation(pairing_key, source.types)
        word = source.draw(word_key, bank, pairing, self.context, self.words == "held_out")
        latent = {"letters": word.letters, "pairing": pairing, "member": member}
        if self.target == "symbol":
            responses = jnp.append(word.symbols, END)
            latent["valid"] = source.next_symbols(word.states, word.stacks, pairing)
        else:
            cells = jnp.concatenate([word.states[:, None], word.stacks], axis=-1)
            responses = jnp.concatenate([cells[1:], jnp.full_like(cells[:1], ENDED)]) if self.shifted else cells
        symbols = jnp.concatenate([jnp.full(1, START), word.symbols])
        return jax.nn.one_hot(symbols, source.sizes().dim), responses, jnp.ones(self.context, bool), latent
