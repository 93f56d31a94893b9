"""Made-up evidence of urns: the turn from counts to memory that the paper describes, and an untrained net."""

from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions
from ebbtide.evaluation.pool_predictors import pool_predictors
from ebbtide.papers.urns import pools
from ebbtide.papers.urns.measures import COUNTS, MEMORY
from ebbtide.papers.urns.study import URNS
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_chains import both_of
from ideal_functions import Predictor, Says, path_of
from ideal_tools import specs_of


def exact(which: int) -> Predictor:
    """Log-probabilities of counts, or of memory."""

    def log_probs(asked: Predictions) -> np.ndarray:
        return pool_predictors(asked.spec.source, asked.spec.task, asked.inputs.argmax(-1))[which]

    return log_probs


def with_a_pool(spec: Spec) -> Spec:
    """The spec with eight urns, whatever its arm has: programs are compiled once for all, and the predictors are exact
    for any pool."""
    return replace(spec, source=replace(spec.source, pool=8))


def later_with_more(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Wurgaft et al.: few urns are memorised at once; more are after counts, the later the more; many are not."""
    specs = {arm: with_a_pool(spec) for arm, spec in specs_of(URNS, experiment, preset).items()}

    def turning(begins: float, ends: float) -> Says:
        return path_of((0.1, exact(COUNTS)), (begins, exact(COUNTS)), (ends, exact(MEMORY)))

    turns = zip(pools.TURNS, ((0.11, 0.3), (0.2, 0.5), (0.3, 0.8), (0.6, 1.0)), strict=True)
    says = dict.fromkeys(specs, path_of((0.1, exact(COUNTS))))
    says |= {pools.arm_of(pool): turning(*when) for pool, when in turns} | {pools.FEW: path_of((0.1, exact(MEMORY)))}
    return both_of(specs, says)


ON_URNS: dict[str, Callable[[Experiment, str], tuple[Evidence, Evidence]]] = {"urns/pools": later_with_more}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
