r"""Exact readings and predictions of words of a context-free language (source `Words`).

Words are arrays `symbols` [slots, batch]: the start, letters, and `END` in every slot after them, as the inputs of the
task `Parsing`. A configuration is an array of cells: the state, and the stack from its bottom, 0 where it is empty.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ebbtide.errors import require
from ebbtide.evaluation.pools import checked_weights
from ebbtide.sources.pushdown import BACKWARD, END, FIRST, FORWARD, START, START_STATE
from ebbtide.sources.words import BRACKETS, Words

Symbols = Int[np.ndarray, "slots batch"]
Cells = Int[np.ndarray, "slots batch cells"]
Pairings = Int[np.ndarray, "pool types"]


class Reading(NamedTuple):
    """Configurations after the symbol of every slot: the state, and the stack from its bottom."""

    states: Int[np.ndarray, "*slots"]
    stacks: Int[np.ndarray, "*slots depth"]

    def cells(self) -> Int[np.ndarray, "*slots cells"]:
        """State and stack of every configuration in one array."""
        return np.concatenate([self.states[..., None], self.stacks], axis=-1)


def read_words(symbols: Symbols, source: Words) -> Reading:
    """The configurations of the automaton that reads words of the language, which must be ones: nothing is refused. The
    pairing of brackets makes no difference, since a closing bracket takes away the top of the stack whatever it is.

    Raises `InputError` for an unknown symbol, and for words that do not begin with the start.

    >>> reading = read_words(np.array([[0], [2], [3], [5]]), Words(types=2, depth=2))
    >>> reading.stacks[:, 0].tolist()
    [[0, 0], [1, 0], [1, 2], [1, 0]]
    """
    _check(symbols, source)
    at = _start(source, symbols.shape[1])
    found = [at]
    for letters in symbols[1:]:
        at = _step(at, letters, source)
        found.append(at)
    return Reading(np.stack([one.states for one in found]), np.stack([one.stacks for one in found]))


def next_symbol_probs(
    symbols: Symbols,
    source: Words,
    pairings: Pairings | None = None,
    weights: Float[np.ndarray, " pool"] | None = None,
) -> Float[np.ndarray, "slots batch symbols"]:
    r"""Probabilities of the next symbol given those up to the slot, the slot's included: the Bayes-optimal prediction,
    $$P(x_{t+1} \mid x_0 \dots x_t) = \sum_n P(n \mid x_0 \dots x_t) \sum_\sigma P(\sigma \mid x_0 \dots x_t)\,
    P(x_{t+1} \mid n, \sigma, x_0 \dots x_t),$$
    n the number of letters, $\sigma$ the pairing of brackets. A closing bracket shows what its opening one is paired
    with; pairings that agree with all that is shown are as likely among them as before.

    That some words are held out is not taken into account: a hash of the letters says which.

    Args:
        symbols: the words [slots, batch], of at most slots - 1 letters.
        source: the language.
        pairings: the pairings that words may have, [pool, types]; None: every bracket is closed by its own.
        weights: probabilities of the pairings before [pool], e.g. `pool_weights`; None: equal ones.

    Raises:
        InputError: an unknown symbol, words that do not begin with the start, no pairings, or weights that are no
            probabilities.

    >>> probs = next_symbol_probs(np.array([[0], [2], [4]]), Words(types=2, depth=2))
    >>> probs[:, 0].round(2).tolist()  # of words of at most two letters: (), then the end
    [[0.0, 0.0, 0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    """
    _check(symbols, source)
    slots, batch = symbols.shape
    every = np.arange(source.types)[None] if pairings is None else pairings
    wanted = every.ndim == 2 and len(every) > 0 and every.shape[1] == source.types
    require(wanted, "shape of pairings", list(every.shape), f"must be [pool, {source.types}]")
    walk, at = source.walk(slots - 1), _start(source, batch)
    letters = np.broadcast_to(walk.lengths[:, None], (len(walk.lengths), batch))
    likely = np.full(letters.shape, 1 / len(walk.lengths))  # each number of letters
    known = np.tile(checked_weights(weights, len(every)), (batch, 1))
    found = np.zeros((slots, batch, source.sizes().dim))
    for t in range(slots):
        left, depth = letters - t, (at.stacks > 0).sum(-1)
        first = walk.first[np.maximum(left, 0), at.states, depth]
        going = left > 0
        choices = np.stack([(likely * going * first).sum(0), (likely * going * (1 - first)).sum(0)], axis=-1)
        found[t] = _spread(choices, at, depth, known, every, source)
        found[t, :, END] = 1 - choices.sum(-1)
        if t + 1 == slots:
            break
        symbol = symbols[t + 1]
        ended = symbol == END
        second = _is_second(symbol - FIRST, at, source)
        likelihood = np.where(ended, left <= 0, going * np.where(second, 1 - first, first))
        likely = likely * likelihood
        likely = likely / likely.sum(0)
        if source.language in BRACKETS:
            closing = second & ~ended
            told = (symbol - FIRST - source.types)[:, None] == every[:, np.maximum(_top(at, depth) - 1, 0)].T
            known = known * (told | ~closing[:, None])
        at = _step(at, symbol, source)
    return found


def next_cell_probs(
    symbols: Symbols, source: Words, pairings: Pairings | None = None
) -> Float[np.ndarray, "slots batch cells values"]:
    """Probabilities of the value of every cell of the configuration after the next symbol, given the symbols up to the
    slot: what the best causal model of shifted targets can know. Arguments and errors as of `next_symbol_probs`;
    all pairings are equally likely before.

    >>> probs = next_cell_probs(np.array([[0], [2], [4]]), Words(types=2, depth=2))
    >>> probs[0, 0, 1].round(2).tolist()  # the first bracket may be of either type
    [0.0, 0.5, 0.5]
    """
    probs = next_symbol_probs(symbols, source, pairings)
    slots, batch, count = probs.shape
    reading = read_words(symbols, source)
    flat = Reading(reading.states.reshape(-1), reading.stacks.reshape(-1, source.depth))
    found = np.zeros((slots * batch, 1 + source.depth, source.values))
    for symbol in range(count):
        after = _step(flat, np.full(slots * batch, symbol), source).cells()
        found += probs.reshape(-1, count)[:, symbol, None, None] * (after[..., None] == np.arange(source.values))
    return found.reshape(slots, batch, 1 + source.depth, source.values)


def cell_accuracy(said: Cells, right: Cells) -> Float[np.ndarray, " depth"]:
    """Share of right values among the cells of the stack that are not empty, by their place from the bottom; nan for a
    place that no word reaches.

    >>> said, right = np.array([[[1, 1, 2]], [[1, 1, 0]]]), np.array([[[1, 1, 1]], [[1, 2, 0]]])
    >>> cell_accuracy(said, right).tolist()
    [0.5, 0.0]
    """
    full, agree = right[..., 1:] > 0, said[..., 1:] == right[..., 1:]
    count = full.sum((0, 1))
    return np.where(count > 0, (full & agree).sum((0, 1)) / np.maximum(count, 1), np.nan)


def stack_accuracy(said: Cells, right: Cells) -> Float[np.ndarray, " depths"]:
    """Share of stacks that are right as a whole, by the number of symbols on them, from 0. Slots after the word do not
    count; nan stands for a number that no word reaches.

    >>> said, right = np.array([[[1, 1, 2]], [[1, 1, 0]]]), np.array([[[1, 1, 2]], [[1, 2, 0]]])
    >>> stack_accuracy(said, right).tolist()
    [nan, 0.0, 1.0]
    """
    depth, inside = (right[..., 1:] > 0).sum(-1), right[..., 0] > 0
    agree = (said[..., 1:] == right[..., 1:]).all(-1)
    found = [agree[inside & (depth == held)] for held in range(right.shape[-1])]
    return np.asarray([one.mean() if one.size else np.nan for one in found])


def _start(source: Words, batch: int) -> Reading:
    return Reading(np.full(batch, START_STATE[source.language]), np.zeros((batch, source.depth), int))


def _top(at: Reading, depth: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
    return np.take_along_axis(at.stacks, np.maximum(depth - 1, 0)[:, None], axis=-1)[:, 0]


def _is_second(letters: Int[np.ndarray, " batch"], at: Reading, source: Words) -> Bool[np.ndarray, " batch"]:
    """Whether letters are those of the second choice (`Walk`)."""
    if source.language == "parity":
        return letters == 1
    if source.language == "palindromes":
        return (letters == source.types) | ((at.states == BACKWARD) & (at.stacks[:, 0] > 0))
    return letters >= source.types


def _step(at: Reading, symbols: Int[np.ndarray, " batch"], source: Words) -> Reading:
    """The configurations after one more symbol."""
    letters, depth = symbols - FIRST, (at.stacks > 0).sum(-1)
    second = _is_second(letters, at, source)
    inside = (letters >= 0) & (at.states > 0)
    if source.language == "parity":
        other = np.where(at.states == FORWARD, BACKWARD, FORWARD)
        return Reading(np.where(inside, np.where(second, at.states, other), 0), at.stacks)
    centre = (letters == source.types) & (source.language == "palindromes")
    kept = depth - (second & ~centre)
    stacks = np.where(np.arange(source.depth) < kept[:, None], at.stacks, 0)
    at_top = (np.arange(source.depth) == depth[:, None]) & ~second[:, None]
    stacks = np.where(at_top, letters[:, None] + 1, stacks)
    states = np.where(second & (source.language != "dyck"), BACKWARD, FORWARD)
    return Reading(np.where(inside, states, 0), np.where(inside[:, None], stacks, 0))


def _spread(
    choices: Float[np.ndarray, "batch 2"],
    at: Reading,
    depth: Int[np.ndarray, " batch"],
    known: Float[np.ndarray, "batch pool"],
    every: Pairings,
    source: Words,
) -> Float[np.ndarray, "batch symbols"]:
    """Probabilities of letters: those of the two choices, spread over the letters that each may be."""
    batch, k = len(choices), source.types
    found = np.zeros((batch, source.sizes().dim))
    if source.language == "parity":
        found[:, FIRST:] = choices
        return found
    found[:, FIRST : FIRST + k] = choices[:, :1] / k
    top = np.maximum(_top(at, depth) - 1, 0)
    if source.language == "palindromes":
        other = np.where(at.states == FORWARD, k, top)
        found[np.arange(batch), FIRST + other] += choices[:, 1]
        return found
    closed_by = every[:, top].T  # [batch, pool]
    total = known.sum(1)
    share = ((closed_by[..., None] == np.arange(k)) * known[..., None]).sum(1) / np.where(total > 0, total, 1)[:, None]
    found[:, FIRST + k :] = choices[:, 1:] * share
    return found


def _check(symbols: Symbols, source: Words) -> None:
    allowed = "must be [slots, batch], with two slots at least"
    require(symbols.ndim == 2 and len(symbols) > 1, "shape of symbols", list(symbols.shape), allowed)
    most = source.sizes().dim - 1
    wrong = symbols[(symbols < 0) | (symbols > most)]
    require(wrong.size == 0, "symbols", int(wrong[0]) if wrong.size else None, f"must be from 0 to {most}")
    begun = bool((symbols[0] == START).all())
    require(begun, "symbols", symbols[0].tolist()[:3], f"must begin with {START}, the start")
