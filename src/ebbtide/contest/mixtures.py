r"""Strategy fractions of few-shot models, from the scores of their evaluators.

On evaluator e an oracle that follows strategy k scores $T_{ek}$ (`evaluation.oracles.expected`). A model that answers a
share $w_k$ of the prompts by strategy k scores $\sum_k T_{ek} w_k$, so the fractions are the weights on the simplex
whose scores are nearest to the measured ones $y_e$:
$$w = \arg\min_{w \ge 0, \sum w = 1} \sum_e \Big(y_e - \sum_k T_{ek} w_k\Big)^2.$$

The strategies are ICL, IWL, CIWL and guessing; the memorising fraction is that of IWL and CIWL together. They need no
models, only the recorded curves; `evaluation.strategies`, which has the models, gives standard errors as well.
"""

from itertools import combinations

import numpy as np
from jaxtyping import Float

from ebbtide.contest.theory import GENERALISING, MEMORISING, NEITHER, STRATEGIES
from ebbtide.errors import require
from ebbtide.evaluation.oracles import expected
from ebbtide.evaluation.summary import Curves

ORACLES = {"ICL": GENERALISING, "IWL": MEMORISING, "CIWL": MEMORISING, "random": NEITHER}
"""The oracles of the table, each with the place of its strategy in `STRATEGIES`."""
READ = ("icl", "flip", "ciwl", "iwl")
"""The evaluators of the table. The training distribution is left out: what ICL scores on it depends on the task."""


def oracle_table(names: tuple[str, ...], chance: dict[str, float]) -> Float[np.ndarray, "evaluator oracle"]:
    """What each of `ORACLES` scores on some of `READ` by the headline metric; `chance` is that of a run.

    >>> oracle_table(("icl", "flip"), {"icl": 0.5, "flip": 0.5}).tolist()
    [[1.0, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, 0.5]]
    """
    outputs = round(1 / chance.get("iwl", 1.0))  # a guess over all labels
    rows = [[expected(oracle, name, chance[name], outputs) for oracle in ORACLES] for name in names]
    return np.asarray(rows, np.float64)


def nearest_mixture(
    table: Float[np.ndarray, "score strategy"], scores: Float[np.ndarray, "*batch score"]
) -> Float[np.ndarray, "*batch strategy"]:
    """The weights on the simplex by which a table's columns come nearest to some scores, in the sum of squares. Exact:
    the least-squares solutions on all faces of the simplex are compared. Strategies with equal columns share their
    weight; scores that are not finite have weights that are nan.

    >>> table = np.array([[1.0, 0.0], [0.5, 1.0]])
    >>> nearest_mixture(table, np.array([[0.25, 0.875], [3.0, 0.5]])).round(6).tolist()
    [[0.25, 0.75], [1.0, 0.0]]
    """
    count = table.shape[1]
    flat = scores.reshape(-1, table.shape[0])
    known = np.isfinite(flat.sum(axis=1))
    measured = np.where(known[:, None], flat, 0.0)
    best, least = np.full((len(flat), count), np.nan), np.full(len(flat), np.inf)
    for size in range(count, 0, -1):
        for face in map(list, combinations(range(count), size)):
            even = np.full(size, 1 / size)
            basis = np.linalg.svd(np.ones((1, size)))[2][1:].T  # the directions that keep the sum
            columns = table[:, face]
            away = (measured - columns @ even) @ np.linalg.pinv(columns @ basis).T
            weights = even + away @ basis.T
            misfit = ((measured - weights @ columns.T) ** 2).sum(axis=1)
            better = (weights >= -1e-9).all(axis=1) & (misfit < least - 1e-12)
            best[better] = 0.0
            best[np.ix_(better, face)] = np.maximum(weights[better], 0.0)
            least = np.where(better, misfit, least)
    best[~known] = np.nan
    return best.reshape(*scores.shape[:-1], count)


def few_shot_fractions(curves: Curves, chance: dict[str, float]) -> Float[np.ndarray, "member evaluation strategy"]:
    """Strategy fractions of every member at every evaluation, from the curves of a run (`Run.metrics`). Raises
    `InputError` where its evaluators do not determine them.

    >>> curves = {"icl": np.array([[0.5, 0.8]]), "ciwl": np.array([[0.5, 0.7]])}
    >>> few_shot_fractions(curves, {"icl": 0.5, "ciwl": 0.5}).round(6).tolist()
    [[[0.0, 0.0, 1.0], [0.6, 0.4, 0.0]]]
    """
    names = tuple(name for name in READ if name in curves)
    enough = "icl" in names and ("flip" in names or "ciwl" in names)
    allowed = "must have icl, and flip or ciwl: else no score tells memorising from guessing"
    require(enough, "evaluators", ", ".join(names) or "none of few-shot prompts", allowed)
    scores = np.stack([curves[name] for name in names], axis=-1).astype(np.float64)
    weights = nearest_mixture(oracle_table(names, chance), scores)
    fractions = np.zeros((*weights.shape[:-1], len(STRATEGIES)))
    for place, strategy in enumerate(ORACLES.values()):
        fractions[..., strategy] += weights[..., place]
    return fractions
