"""The exact predictor of the induction-head task (task `Trigger`)."""

import numpy as np
from jaxtyping import Float, Int

from ebbtide.errors import require
from ebbtide.tasks.trigger import FEWEST, TRIGGER


def trigger_probs(
    symbols: Int[np.ndarray, "slots batch"], vocabulary: int, seen: int | None = None
) -> Float[np.ndarray, "batch vocabulary"]:
    r"""Probabilities of the symbol that followed the trigger, given the last m of the M symbols of the context.

    Where the trigger is among them, the symbol after it has probability 1. Else it stood at one of the M - m places
    before, all equally likely, and with V the vocabulary and $x_1$ the first symbol seen

    $$P(t) = \frac{[t = x_1]}{M - m} + \Big(1 - \frac{1}{M - m}\Big) \frac{1}{V - 1}$$

    for every t but the trigger; with m = 0 it is 1 / (V - 1). No predictor is right more often: always with the whole
    context, in 1 / (V - 1) of all prompts without.

    Args:
        symbols: the streams [slots, batch], whole numbers from 0, the query last; 0 is the trigger.
        vocabulary: the number V of symbols, the trigger among them.
        seen: the number m of symbols before the query that are known; None: all.

    Raises:
        InputError: streams that the task does not draw, or numbers out of range.

    Source: Bayes' rule for the task as `Trigger` defines it.

    >>> from ebbtide.evaluation.trigger import trigger_probs
    >>> stream = np.asarray([[0], [2], [1], [0]])  # the trigger, 2, 1; then the trigger again
    >>> trigger_probs(stream, 3)[0].tolist(), trigger_probs(stream, 3, seen=1)[0].tolist()
    ([0.0, 0.0, 1.0], [0.0, 0.75, 0.25])
    """
    at, context = _trigger_slots(symbols, vocabulary), len(symbols) - 1
    seen = context if seen is None else seen
    require(0 <= seen <= context, "seen", seen, f"must be from 0 to {context}, the length of the context")
    batch, hidden = np.arange(symbols.shape[1]), context - seen
    guess = np.full((len(batch), vocabulary), 1 / (vocabulary - 1))
    guess[:, TRIGGER] = 0
    if seen and hidden:
        guess *= 1 - 1 / hidden
        guess[batch, symbols[hidden]] += 1 / hidden
    certain = np.zeros_like(guess)
    certain[batch, symbols[at + 1, batch]] = 1
    return np.where((at >= hidden)[:, None], certain, guess)


def _trigger_slots(symbols: Int[np.ndarray, "slots batch"], vocabulary: int) -> Int[np.ndarray, " batch"]:
    """The slots of the context that show the trigger."""
    require(vocabulary >= FEWEST, "vocabulary", vocabulary, f"must be at least {FEWEST}")
    whole = symbols.ndim == 2 and len(symbols) > 2 and np.issubdtype(symbols.dtype, np.integer)
    require(whole, "shape of symbols", list(symbols.shape), "must be whole numbers [slots, batch], 3 slots or more")
    wrong = symbols[(symbols < 0) | (symbols >= vocabulary)]
    require(wrong.size == 0, "symbols", int(wrong[0]) if wrong.size else None, f"must be from 0 to {vocabulary - 1}")
    shows = symbols == TRIGGER
    once = shows[-1] & (shows[:-2].sum(0) == 1) & ~shows[-2]
    allowed = f"must show the trigger, {TRIGGER}, last, and once before, but not in the slot before the last"
    require(bool(once.all()), "symbols", symbols[:, ~once][:, :1].ravel().tolist(), allowed)
    return shows[:-1].argmax(0)
