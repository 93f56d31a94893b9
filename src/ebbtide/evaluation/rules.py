"""The exact predictor of a sign in context where a rule gives one pattern +1 and another one -1."""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from ebbtide.errors import require


def rule_log_odds(
    pattern: Int[np.ndarray, "slots batch"], signs: Float[np.ndarray, "slots batch"], patterns: int, informative: float
) -> Float[np.ndarray, " batch"]:
    r"""Log odds that the query's sign is +1, given the pairs before it: those of the posterior over the rules (a, b).

    All ordered pairs of different patterns are equally probable before. Under a rule a context slot has pattern a and
    the sign +1 with probability $\alpha/2$, pattern b and -1 with as much, and any other pattern with either sign with
    probability $(1 - \alpha) / (2 (M - 2))$; the query has a or b, equally often. No predictor that knows the patterns
    errs less often (the task of Li et al. 2024, arXiv 2402.15607; with $\alpha < 1$).

    Args:
        pattern: the pattern of every slot, from 0; the query is the last slot.
        signs: the sign of every slot, -1 or +1; that of the query is not read.
        patterns: the number M of patterns, at least 3.
        informative: $\alpha$, from 0 to below 1.

    Raises:
        InputError: a number is outside its range.

    >>> pattern, signs = np.asarray([[0], [1], [0]]), np.asarray([[1.0], [-1.0], [0.0]])
    >>> bool(rule_log_odds(pattern, signs, 6, 0.8)[0] > 0)
    True
    """
    require(patterns >= 3, "patterns", patterns, "must be at least 3")
    require(0 <= informative < 1, "informative", informative, "must be from 0 to below 1")
    own = np.arange(patterns)[:, None, None]
    plus, minus = (((pattern[:-1] == own) & (signs[:-1] * side > 0)).sum(1) for side in (1, -1))
    other = np.log((1 - informative) / (2 * (patterns - 2)))
    with np.errstate(divide="ignore"):
        rule = np.log(informative / 2)

    def gain(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Log-likelihood of a pattern's pairs if the rule gives it this sign, less that if it gives it none."""
        return np.where(wrong > 0, -np.inf, np.where(right > 0, right * (rule - other), 0.0))

    as_a, as_b = gain(plus, minus), gain(minus, plus)
    query, batch = pattern[-1], np.arange(pattern.shape[1])
    different = np.arange(patterns)[:, None] != query
    odds = [
        mine[query, batch] + logsumexp(np.where(different, others, -np.inf), axis=0)
        for mine, others in ((as_a, as_b), (as_b, as_a))
    ]
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(odds[0]) & np.isneginf(odds[1]), 0.0, odds[0] - odds[1])
