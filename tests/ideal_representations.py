"""Made-up evidence of study `representations`: models that are the posterior mean, with layers in the paper's order."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ebbtide.analysis.layer_probes import ProbeScores, Targets
from ebbtide.analysis.predictions import Predictions
from ebbtide.papers.representations import dynamics
from ebbtide.papers.representations.measures import posterior_mean
from ebbtide.papers.representations.pasting import COPIED, EMBEDDED, PASTED, RANDOM, WHOLE, WHOLE_COPIED
from ebbtide.papers.representations.study import DEEP, MIXTURE, REPRESENTATIONS, SHALLOW
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_functions import MadeUpRun, Says, UntrainedNets, evidence_of
from ideal_tools import specs_of

FIRST, SECOND, LATE = np.asarray([[0.2, 0.95, 0.9, 0.9, 0.9], [0.2, 0.7, 0.95, 0.9, 0.9], [0.1, 0.1, 0.2, 0.7, 0.95]])
PASSING = np.asarray([0.0, 0.3, 0.8, 0.5, 0.2])
"""R^2 by layer: of what is best read after the first, the second and the last layer, and of what comes and goes."""
ONE = ProbeScores({"x": FIRST, "phi(x)": SECOND, "posterior mean": LATE}, {"x": FIRST, "phi(x)": SECOND, "y": FIRST})
OTHERS = dict.fromkeys(("ridge, other 1, beyond own", "ridge, other 2, beyond own"), PASSING)
LAYERS = {
    SHALLOW: ONE,
    DEEP: ONE,
    MIXTURE: ProbeScores({"ridge, own": LATE, **OTHERS}, {}),
    dynamics.SYSTEM: ProbeScores({"state before": FIRST, "phi": SECOND, "posterior mean": LATE}, {}),
}
"""What probes read in the models of the paper."""


class LayeredRun(MadeUpRun):
    """A run whose members answer what `says` makes of their prompts, by layers from which probes read `scores`."""

    def __init__(self, spec: Spec, says: Says, scores: ProbeScores | None):
        super().__init__(spec, says)
        self.scores = scores

    def probe(self, place: int, targets: Callable[[Predictions], Targets]) -> ProbeScores:
        assert self.scores is not None
        return self.scores


def both_of(specs: Mapping[str, Spec], says: Mapping[str, Says]) -> tuple[Evidence, Evidence]:
    """The evidence of arms that answer so, and of arms before training."""
    ideal = {arm: LayeredRun(spec, says[arm], LAYERS.get(arm)) for arm, spec in specs.items()}
    return evidence_of(ideal, learns=True), evidence_of({a: UntrainedNets(s) for a, s in specs.items()}, learns=False)


def best(asked: Predictions, share: float, seen: bool) -> np.ndarray:
    """The posterior mean at every slot."""
    return posterior_mean(asked)[..., None]


def best_state(asked: Predictions, share: float, seen: bool) -> np.ndarray:
    """The posterior mean of the next state."""
    return dynamics.posterior_mean(asked)


def half(asked: Predictions, share: float, seen: bool) -> np.ndarray:
    """Half of the posterior mean."""
    return best(asked, share, seen) / 2


SAYS: dict[str, Says] = {
    **dict.fromkeys((SHALLOW, DEEP, MIXTURE, PASTED, WHOLE, COPIED, WHOLE_COPIED), best),
    dynamics.SYSTEM: best_state,
    **dict.fromkeys((RANDOM, EMBEDDED), half),
}


def as_the_paper(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Guo et al.: models are the posterior mean, but those of random upper layers, or of embeddings without copies."""
    specs: Any = specs_of(REPRESENTATIONS, experiment, preset)
    return both_of(specs, {arm: SAYS[arm] for arm in specs})


ON_REPRESENTATIONS = {f"representations/{one.name}": as_the_paper for one in REPRESENTATIONS.experiments}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
