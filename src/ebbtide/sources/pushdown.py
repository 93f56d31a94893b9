"""Pushdown automata of bounded depth: the reference by which words are accepted, and traced symbol by symbol.

Plain Python, one word at a time, written from the definitions of the languages. The sampler of words
(`sources/words.py`) is built in another way, from probabilities of choices, and is checked against these.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ebbtide.errors import require

Language = Literal["dyck", "blocks", "palindromes", "parity"]
START, END, FIRST = 0, 1, 2
"""Symbols that are no letters: before a word, and after it. Letters are numbered from `FIRST` on."""
ENDED, FORWARD, BACKWARD = 0, 1, 2
"""States. `ENDED`: after the word. What the other two mean depends on the language (`Pushdown`)."""
STATES = 3
START_STATE: dict[Language, int] = {"dyck": FORWARD, "blocks": BACKWARD, "palindromes": BACKWARD, "parity": FORWARD}


class Configuration(NamedTuple):
    """A state, and the stack from its bottom to its top: numbers from 1 on."""

    state: int
    stack: tuple[int, ...]


class Pushdown(NamedTuple):
    r"""The pushdown automaton of a language with `types` k and a stack of at most `depth` m symbols (Shi et al. 2022,
    arXiv 2112.09174).

    - `dyck`: k pairs of brackets, each opened before it is closed, at most m open at a time. Letters: k opening
      brackets, then k closing ones. One state.
    - `blocks`: concatenations of blocks, each of 1 to m opening brackets and then all that close them: the words that
      the paper's public code calls Dyck words. With one type they are $(a^n b^n)^*$. `FORWARD`: opening brackets,
      `BACKWARD`: closing ones, or between blocks.
    - `palindromes`: concatenations of $w\,c\,w^R$, w of 1 to m letters, $w^R$ reversed. Letters: k, then c. `FORWARD`:
      before c, `BACKWARD`: after it, or between.
    - `parity`: zeros and ones, the number of zeros even. Letters: zero, one. `FORWARD`: even, `BACKWARD`: odd; the
      stack stays empty.

    Args:
        language: the name of the language.
        types: the number of types of brackets, or of letters of a palindrome.
        depth: the largest number of symbols on the stack.
        pairing: the number of the closing bracket of each opening one, from 0; its own number, where none are given.

    >>> automaton = Pushdown("dyck", types=2, depth=3)
    >>> [automaton.accepts(word) for word in ([2, 3, 5, 4], [2, 3, 4, 5], [2])]
    [True, False, False]
    >>> automaton.trace([2, 3])[-1]
    Configuration(state=1, stack=(1, 2))
    """

    language: Language
    types: int
    depth: int
    pairing: tuple[int, ...] = ()

    @property
    def letters(self) -> int:
        """Number of letters."""
        return {"palindromes": self.types + 1, "parity": 2}.get(self.language, 2 * self.types)

    @property
    def start(self) -> Configuration:
        """Configuration before the first letter."""
        return Configuration(START_STATE[self.language], ())

    def step(self, at: Configuration, symbol: int) -> Configuration | None:
        """Configuration after one more letter; None where the language has no such word. Raises `InputError` for a
        symbol that is no letter."""
        most = FIRST + self.letters - 1
        require(FIRST <= symbol <= most, "symbol", symbol, f"must be a letter, from {FIRST} to {most}")
        letter = symbol - FIRST
        if self.language == "parity":
            odd = (at.state == BACKWARD) != (letter == 0)
            return Configuration(BACKWARD if odd else FORWARD, ())
        if self.language == "palindromes":
            return self._step_of_palindrome(at, letter)
        return self._step_of_brackets(at, letter)

    def _step_of_brackets(self, at: Configuration, letter: int) -> Configuration | None:
        blocks = self.language == "blocks"
        if letter < self.types:  # an opening bracket
            closing = blocks and at.state == BACKWARD and at.stack
            return None if closing or len(at.stack) == self.depth else Configuration(FORWARD, (*at.stack, letter + 1))
        partner = self.pairing or range(self.types)
        if not at.stack or partner[at.stack[-1] - 1] != letter - self.types:
            return None
        return Configuration(BACKWARD if blocks else FORWARD, at.stack[:-1])

    def _step_of_palindrome(self, at: Configuration, letter: int) -> Configuration | None:
        if letter == self.types:  # the centre
            return Configuration(BACKWARD, at.stack) if at.state == FORWARD else None
        if at.state == BACKWARD and at.stack:
            return Configuration(BACKWARD, at.stack[:-1]) if at.stack[-1] == letter + 1 else None
        return None if len(at.stack) == self.depth else Configuration(FORWARD, (*at.stack, letter + 1))

    def trace(self, word: Iterable[int]) -> list[Configuration] | None:
        """Configurations before the first letter and after every one; None where a letter is refused."""
        found = [self.start]
        for symbol in word:
            after = self.step(found[-1], symbol)
            if after is None:
                return None
            found.append(after)
        return found

    def may_end(self, at: Configuration) -> bool:
        """Whether a word may end here: with an empty stack, and in the state of the start."""
        return at == self.start

    def accepts(self, word: Iterable[int]) -> bool:
        """Whether a word belongs to the language."""
        found = self.trace(word)
        return found is not None and self.may_end(found[-1])

    def next_symbols(self, at: Configuration) -> set[int]:
        """Symbols that may follow, `END` among them where the word may end. Every such letter can be completed to a
        word."""
        letters = range(FIRST, FIRST + self.letters)
        found = {symbol for symbol in letters if self.step(at, symbol) is not None}
        return found | {END} if self.may_end(at) else found
