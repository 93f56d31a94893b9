"""Made-up evidence of classification in context: what the paper's theorems would give, and an untrained net."""

from collections.abc import Callable

import numpy as np

from ebbtide.analysis.predictions import Predictions
from ebbtide.papers.gmm_convergence import attention, descent
from ebbtide.papers.gmm_convergence.study import GMM_CONVERGENCE
from ebbtide.studies.computation import Computed
from ebbtide.studies.evidence import ONLY, Arm, Evidence
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_functions import MadeUpRun, Says, UntrainedNets, evidence_of
from ideal_tools import specs_of

SETTING = descent.Descents(seeds=12)


def descents(learns: bool) -> Evidence:
    """Scalars of descents that go straight to the optimum, or of matrices that stay where they begin."""
    steps = np.arange(0, SETTING.steps + 1, SETTING.every)
    arrays: Computed = {"steps": steps}
    share = np.minimum(steps / 400, 1.0) if learns else np.zeros(len(steps))
    for classes in SETTING.classes:
        chance, end = 1 / classes, {"train": 0.1, "norms": 0.3, "covariance": 0.4}
        own: Computed = {
            "distance": np.exp(-0.002 * steps * learns),
            "expected": np.array(-0.002),
            "test": 0.3 * np.array(SETTING.test_pairs) ** (-0.5 * learns),
            "train": 3.0 * np.array(SETTING.train_pairs) ** (-1.0 * learns),
        }
        for name in descent.SHIFTS:
            own[f"error/{name}"] = 1 - (1 - end[name]) * share
            own[f"accuracy/{name}"] = chance + 0.4 * share
            own[f"bayes/{name}"], own[f"guess/{name}"] = np.array(chance + 0.4), np.array(1.0)
        if learns:
            own["accuracy/covariance"] = own["accuracy/covariance"] - 0.1 * steps / steps[-1]
        arrays |= {f"{classes}/{name}": np.stack([value] * SETTING.seeds) for name, value in own.items()}
    return Evidence({ONLY: Arm(scalars=descent.summarise(SETTING, arrays))})


def straight_descents(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Shen et al.: linear convergence, errors as in the bounds; with another covariance a fall."""
    return descents(learns=True), descents(learns=False)


def yardstick(name: str) -> Says:
    """Logits of a predictor that reads the same prompts."""

    def says(asked: Predictions, share: float, seen: bool) -> np.ndarray:
        return np.log(np.maximum(attention.YARDSTICKS[name](asked), 1e-12))[None]

    return says


def nothing(asked: Predictions, share: float, seen: bool) -> np.ndarray:
    """Equal logits: the answer of W = 0."""
    return np.zeros_like(attention.exact_probabilities(asked))[None]


def near_bayes(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Shen et al.: the one matrix and linear attention come to the optimum; softmax attention does as well, and three
    layers classify as somebody does who knows the covariance."""
    specs = specs_of(GMM_CONVERGENCE, experiment, preset)
    best = {arm: attention.KNOWN if "three" in arm else attention.MATRIX for arm in specs}
    ideal = evidence_of({arm: MadeUpRun(spec, yardstick(best[arm])) for arm, spec in specs.items()}, learns=True)
    return ideal, evidence_of({arm: untrained(spec) for arm, spec in specs.items()}, learns=False)


def untrained(spec: Spec) -> MadeUpRun:
    """A run whose members are as they begin."""
    return MadeUpRun(spec, nothing) if spec.model.__struct_config__.tag == "one_matrix" else UntrainedNets(spec)


ON_MIXTURES: dict[str, Callable[[Experiment, str], tuple[Evidence, Evidence]]] = {
    "gmm-convergence/descent": straight_descents,
    "gmm-convergence/attention": near_bayes,
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
