r"""The three predictors of streams of a pool that strategies are measured by: generalising, memorising, neither.

With theta the urn of a prompt, D urns in the pool and $n_v$ draws of colour v among the t + 1 draws so far,

$$G_v = \frac{n_v + a}{t + 1 + V a}, \qquad M_v = \sum_{k=1}^D \pi_k \theta_{kv}, \quad
\pi_k \propto P(k) \prod_u \theta_{ku}^{n_u}$$

and the third is uniform, 1/V. Of `Chains` G and M are bigram inference and bigram retrieval (`evaluation.chains`). Each
of the two is Bayes-optimal for streams of its own: M for those of the pool, G for those of the prior. As D grows, M
comes to G (Wurgaft et al. 2025, arXiv 2506.17859).
"""

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from ebbtide.errors import require
from ebbtide.evaluation.chains import (
    LogPredictive,
    Symbols,
    frequency_log_probs,
    retrieval_log_probs,
    row_log_probs,
)
from ebbtide.evaluation.pools import pool_weights
from ebbtide.sources.bank import SourceLike
from ebbtide.sources.chains import Chains
from ebbtide.sources.urns import Urns
from ebbtide.tasks.markov import Markov
from ebbtide.tasks.task import Task


def check_pool(source: SourceLike, task: Task) -> tuple[Chains, Markov]:
    """The source and the task, of which it is known that they draw streams of a pool. Raises `InputError` otherwise."""
    require(isinstance(task, Markov), "task", type(task).__name__, "must be Markov, on chains or urns")
    assert isinstance(source, Chains) and isinstance(task, Markov)
    require(source.pool > 0, "source.pool", source.pool, "must be above 0: without a pool nothing can be memorised")
    return source, task


def pool_predictors(
    source: SourceLike, task: Task, symbols: Symbols
) -> Float[np.ndarray, "strategy slots batch states"]:
    """Log-probabilities of the next symbol by the predictors that generalise, memorise, and do neither, in this order.

    Args:
        source: `Urns` or `Chains` with a pool.
        task: `Markov`, whose `zipf` says how likely the members of the pool are.
        symbols: the streams [slots, batch].

    Raises:
        InputError: another task or source, no pool, or an unknown symbol.

    >>> from ebbtide.evaluation.pool_predictors import pool_predictors
    >>> found = np.exp(pool_predictors(eb.Urns(states=3, pool=2), eb.Markov(), np.array([[0], [0]])))
    >>> found[0, :, 0].round(2).tolist(), found[2, 1, 0].round(2).tolist()
    ([[0.5, 0.25, 0.25], [0.6, 0.2, 0.2]], [0.33, 0.33, 0.33])
    """
    source, task = check_pool(source, task)
    states, weights = source.states, pool_weights(source.pool, task.zipf)
    logs = log_softmax(np.asarray(source.build().logs, np.float64), axis=-1)
    uniform: LogPredictive = np.full((*symbols.shape, states), -np.log(states))
    if isinstance(source, Urns):
        generalising = frequency_log_probs(symbols, states, source.concentration)
        memorising = retrieval_log_probs(symbols, logs, "unigram", "stationary", weights)
    else:
        generalising = row_log_probs(symbols, states, source.concentration)
        memorising = retrieval_log_probs(symbols, logs, weights=weights)
    return np.stack([generalising, memorising, uniform])
