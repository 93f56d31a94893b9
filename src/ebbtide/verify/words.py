"""Exact checks of words of context-free languages: what is drawn, what the automata accept, and the predictors, all
against plain enumeration of every word."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import jax.numpy as jnp
import numpy as np

from ebbtide.checks import Check
from ebbtide.compile import compile_fast
from ebbtide.evaluation.words import next_cell_probs, next_symbol_probs, read_words
from ebbtide.keys import Purpose, root
from ebbtide.sources.pushdown import END, FIRST, FORWARD, Configuration, Pushdown
from ebbtide.sources.words import Words, every_pairing
from ebbtide.tasks.parsing import Parsing

LONGEST = 8
SOURCES = (
    Words(language="dyck", types=2, depth=3, open=0.4),
    Words(language="blocks", types=2, depth=3),
    Words(language="palindromes", types=2, depth=2),
    Words(language="parity", types=1, depth=1),
)
Word = tuple[int, ...]


def every_word(automaton: Pushdown, longest: int = LONGEST) -> list[Word]:
    """Every word of 1 to `longest` letters that the automaton accepts, by trying all letters."""

    def after(word: Word, at: Configuration) -> Iterator[Word]:
        if word and automaton.may_end(at):
            yield word
        for letter in range(FIRST, FIRST + automaton.letters) if len(word) < longest else ():
            then = automaton.step(at, letter)
            if then is not None:
                yield from after((*word, letter), then)

    return list(after((), automaton.start))


@lru_cache
def word_probabilities(source: Words, pairing: Word = (), longest: int = LONGEST) -> dict[Word, float]:
    """The probability of every word, letter by letter: of the choices with which some word of this length begins, each
    by its own weight."""
    automaton = source.automaton(pairing)
    words = every_word(automaton, longest)
    lengths = {len(word) for word in words}
    prefixes = defaultdict(set)
    for word in words:
        for t in range(len(word)):
            prefixes[len(word), word[:t]].add(word[t])
    found = {}
    for word in words:
        chance, at = 1 / len(lengths), automaton.start
        for t, letter in enumerate(word):
            weights = {one: _weight(source, at, one) for one in prefixes[len(word), word[:t]]}
            pushes = [one for one in weights if _pushes(source, at, one)]
            share = 1 / len(pushes) if letter in pushes else 1.0  # types are uniform
            same = pushes if letter in pushes else [letter]
            whole = sum(weights[one] for one in weights if one not in pushes) + (weights[pushes[0]] if pushes else 0)
            chance *= share * weights[same[0]] / whole
            then = automaton.step(at, letter)
            assert then is not None
            at = then
        found[word] = chance
    return found


def _pushes(source: Words, at: Configuration, letter: int) -> bool:
    after = source.automaton().step(at, letter)
    return after is not None and len(after.stack) > len(at.stack)


def _weight(source: Words, at: Configuration, letter: int) -> float:
    """The weight of a letter's choice: pushing (all types together) or not."""
    pushing, held = _pushes(source, at, letter), len(at.stack)
    if source.language == "dyck":
        return source.open if pushing else 1 - source.open
    if source.language == "parity" or held == 0 or at.state != FORWARD:
        return 1.0
    longer = source.depth - held  # of 1 to `depth` letters pushed, all equally likely, so many have more than `held`
    return longer / (longer + 1) if pushing else 1 / (longer + 1)


def _as_symbols(words: list[Word]) -> np.ndarray:
    """Words as the predictors take them, [slots, word]."""
    return np.asarray([(0, *word, *[END] * (LONGEST - len(word))) for word in words]).T


def counted_words() -> Check:
    """The walk reaches every word that the automaton accepts: its counts of words by length are those of trying all
    letters, and no word of which one letter has been changed is accepted."""
    wrong, words, changed = 0, 0, 0
    for source in SOURCES:
        automaton, walk = source.automaton(), source.walk(LONGEST)
        every = every_word(automaton)
        counts = np.bincount([len(word) for word in every], minlength=LONGEST + 1)
        wrong += int(np.abs(counts[1:] - walk.words[1:, automaton.start.state, 0]).sum())
        words += len(every)
        for word in every[:: 1 + len(every) // 300]:
            for t in range(len(word)):
                others = [one for one in range(FIRST, FIRST + automaton.letters) if one != word[t]]
                changed += len(others)
                wrong += sum(automaton.accepts((*word[:t], one, *word[t + 1 :])) for one in others)
    detail = f"{wrong} differences in {words:,} words of 4 languages and {changed:,} with a changed letter, allowed 0"
    return Check("words: the walk = the automaton", wrong == 0, detail)


def drawn_words() -> Check:
    """Every drawn word is accepted by the automaton with its own pairing, every configuration is the automaton's, and
    the predictors read the same."""
    task, n, wrong, letters = Parsing(context=24), 100, 0, 0
    for source in (*SOURCES[2:], Words(types=3, depth=4, pool=0), Words(language="blocks", types=3, depth=4, pool=4)):
        index, bank = jnp.arange(n, dtype=jnp.uint32), source.build()
        draw = compile_fast(
            partial(task.sample, root(0, Purpose.DATA), source=source, bank=bank, split=source.sizes().split())
        )
        prompt = draw(index)
        symbols, cells = np.asarray(prompt.inputs).argmax(-1), np.asarray(prompt.responses)
        wrong += int((read_words(symbols, source).cells() != cells).sum())
        for i, pairing in enumerate(np.asarray(prompt.latent["pairing"]).tolist()):
            count = int(prompt.latent["letters"][i])
            automaton = source.automaton(tuple(pairing))
            trace = automaton.trace(symbols[1 : count + 1, i].tolist())
            wrong += trace is None or not automaton.may_end(trace[-1])
            wrong += sum(_cells(one, source.depth) != cells[t, i].tolist() for t, one in enumerate(trace or ()))
            wrong += int(cells[count + 1 :, i].any())
            letters += count
    detail = f"{wrong} differences in {letters:,} letters of {4 * n} words, allowed 0"
    return Check("words: drawn ones are accepted and traced", wrong == 0, detail)


def _cells(one: Configuration, depth: int) -> list[int]:
    return [one.state, *one.stack, *[0] * (depth - len(one.stack))]


def valid_symbols() -> Check:
    """In Dyck words of k types and depth m, k opening brackets may follow where fewer than m are open, one closing one
    where any is, and the end where none is: of the automaton, and of what prompts say is valid."""
    source = Words(types=3, depth=3)
    automaton, wrong, configurations = source.automaton(), 0, set()
    for word in every_word(automaton, 7):
        configurations |= set(automaton.trace(word) or ())
    for at in configurations:
        held = len(at.stack)
        wrong += len(automaton.next_symbols(at)) != 3 * (held < 3) + (held > 0) + (held == 0)
    for one in (source, *SOURCES):
        automaton = one.automaton()
        seen = sorted({at for word in every_word(automaton, 6) for at in automaton.trace(word) or ()})
        states, stacks = jnp.asarray([at.state for at in seen]), jnp.asarray([_cells(at, one.depth)[1:] for at in seen])
        said = np.asarray(compile_fast(one.next_symbols)(states, stacks, jnp.arange(one.types)))
        wrong += sum(set(np.flatnonzero(row)) != automaton.next_symbols(at) for row, at in zip(said, seen, strict=True))
    detail = f"{wrong} differences in {len(configurations)} configurations of depth 3 and in four languages, allowed 0"
    return Check("words: valid next symbols", wrong == 0, detail)


def predicted_symbols() -> Check:
    """The best prediction of the next symbol, with one pairing of brackets and with all of them equally likely, is the
    ratio of probabilities summed over every word; its loss is the entropy of a symbol."""
    errors, entropies = [], []
    for source, pairings in (*((one, None) for one in SOURCES), *((one, every_pairing(2)) for one in SOURCES[:2])):
        joint: dict[Word, float] = defaultdict(float)
        for pairing in [()] if pairings is None else pairings.tolist():
            for word, chance in word_probabilities(source, tuple(pairing)).items():
                joint[word] += chance / (1 if pairings is None else len(pairings))
        words = list(joint)
        chances, symbols = np.asarray([joint[word] for word in words]), _as_symbols(words)
        begun: dict[Word, float] = defaultdict(float)
        for column, chance in zip(symbols.T.tolist(), chances, strict=True):
            for t in range(len(column)):
                begun[tuple(column[: t + 1])] += chance
        found = next_symbol_probs(symbols, source, pairings)
        said = np.take_along_axis(found[:-1], symbols[1:, :, None], axis=-1)[..., 0]
        by_hand = [[begun[tuple(c[: t + 2])] / begun[tuple(c[: t + 1])] for t in range(LONGEST)] for c in symbols.T]
        errors += [np.abs(said - np.asarray(by_hand).T).max(), abs(chances.sum() - 1), np.abs(found.sum(-1) - 1).max()]
        entropy = -(chances * np.log(chances)).sum()
        errors.append(abs(entropy + (chances * np.log(said)).sum()))
        entropies.append(entropy / (chances * [len(word) + 1 for word in words]).sum())
    written = ", ".join(f"{one:.3f}" for one in entropies)
    detail = f"largest difference {max(errors):.1e}, allowed 1e-12; entropy {written} nats a symbol"
    return Check("words: next symbols = enumeration", bool(max(errors) <= 1e-12), detail)


def predicted_cells() -> Check:
    """Probabilities of the cells after the next symbol, by summing over every word."""
    errors = []
    for source in SOURCES:
        chances = word_probabilities(source)
        symbols = _as_symbols(list(chances))
        weight = np.asarray(list(chances.values()))
        cells = read_words(symbols, source).cells()
        found = next_cell_probs(symbols, source)
        for t in range(LONGEST):
            same: dict[Word, list[int]] = defaultdict(list)
            for i, column in enumerate(symbols[: t + 1].T.tolist()):
                same[tuple(column)].append(i)
            for rows in same.values():
                shown = cells[t + 1, rows][..., None] == np.arange(source.values)
                by_hand = (weight[rows, None, None] * shown).sum(0) / weight[rows].sum()
                errors.append(np.abs(found[t, rows[0]] - by_hand).max())
    detail = f"largest difference {max(errors):.1e} in {len(errors):,} beginnings of words, allowed 1e-12"
    return Check("words: cells after the next symbol = enumeration", bool(max(errors) <= 1e-12), detail)


WORD_CHECKS: tuple[Callable[[], Check], ...] = (
    counted_words,
    drawn_words,
    valid_symbols,
    predicted_symbols,
    predicted_cells,
)
