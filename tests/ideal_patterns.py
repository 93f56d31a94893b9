"""Made-up evidence of study `nonlinear-generalisation`: the exact posterior in a layer with the parts that the paper
describes, and curves of models that learn in context or by heart."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.evaluation.rules import rule_log_odds
from ebbtide.models.one_layer import OneLayer
from ebbtide.papers.nonlinear_generalisation import label_norm, measures
from ebbtide.papers.nonlinear_generalisation.settings import NOISY, ONE
from ebbtide.papers.nonlinear_generalisation.study import NONLINEAR_GENERALISATION
from ebbtide.runs.folder import RunFolder, Snapshot
from ebbtide.sources.patterns import Patterns
from ebbtide.studies.evidence import Arm, Evidence
from ebbtide.studies.rehearsal import UntrainedRun
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_tools import specs_of

MEMBERS = 6
"""Members of an arm: the fewest with which a claim can hold."""
STAGES = (0.0, 0.3, 0.6, 1.0)
"""How far the query has learned to attend to its own pattern, at every checkpoint."""
SCORE = 1.1
"""Score of a query all of whose attention is on pairs of its own pattern."""
CHANCE = 0.5
Courses = dict[str, list[tuple[float, ...]]]


class LayerRun(RunFolder):
    """A run of layers whose keys and queries grow, and whose units read the label that is attended to: one half of the
    units, the others are small, or with `even` all alike. Or, unless it `learns`, of layers as they were drawn."""

    def __init__(self, spec: Spec, learns: bool, even: bool):
        self.spec, self.learns, self.even = spec, learns, even
        self.path = Path(f"made up layer/{len(RUNS)}")
        RUNS.append(self)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.path, "")

    def member(self, place: int) -> measures.Trained:
        """What `trained_member` returns of a trained model."""
        spec = self.spec.world(place)
        assert isinstance(spec.model, OneLayer)
        fresh = spec.model.init(jax.random.key(place), **spec.shape())
        if not self.learns:
            return measures.Trained(spec, np.arange(len(STAGES)), [fresh] * len(STAGES))
        square, units = jnp.eye(len(fresh["q"])), spec.model.units
        size = np.where(np.arange(units) < units / 2, 1.0, 1.0 if self.even else 0.01)
        size = SCORE * size / (spec.model.scale * size[::2].sum() / units**0.5)
        rows = jnp.zeros_like(fresh["o"]).at[:, -1].set(size * np.sign(spec.model.readout()))
        grown = [fresh | {"q": (0.2 + stage) * square, "k": (0.2 + stage) * square, "o": rows} for stage in STAGES]
        return measures.Trained(spec, np.arange(len(STAGES)), grown)


RUNS: list[LayerRun] = []


def trained_made_up(run: Snapshot, place: int) -> measures.Trained:
    """In place of `trained_member`."""
    return RUNS[int(run.path.name)].member(place)


def errors_made_up(spec, params, prompt, lengths=measures.LENGTHS) -> np.ndarray:
    """In place of `errors_by_length`: the errors of the exact posterior for layers that have learned, of others their
    own."""
    if np.asarray(params["q"])[0, 0] < 0.5:
        return measure_errors(spec, params, prompt, lengths)
    assert isinstance(spec.source, Patterns)
    pattern, signs = np.asarray(prompt.latent["pattern"]).T, np.sign(np.asarray(prompt.responses, np.float64))
    found = []
    for n in lengths:
        own = [*range(n), -1]
        odds = rule_log_odds(pattern[own], signs[own], spec.source.relevant, spec.task.informative)
        found.append((odds * signs[-1] <= 0).mean())
    return np.asarray(found)


measure_errors = measures.errors_by_length


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts made-up layers in the place of trained ones."""
    monkeypatch.setattr(measures, "trained_member", trained_made_up)
    monkeypatch.setattr(measures, "errors_by_length", errors_made_up)
    monkeypatch.setattr(measures, "PROMPTS", 300)


def learns_in_context(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Li et al.: no errors on unseen pairs and outside, by the layer that the theorems describe; and untrained nets."""
    specs = specs_of(NONLINEAR_GENERALISATION, experiment, preset)
    made = []
    for learns in (True, False):
        arms = {}
        for arm, spec in specs.items():
            curves = UntrainedRun(replace(spec, members=MEMBERS)).metrics()
            for name in spec.evaluators:
                curves[name] = np.full_like(curves[name], 1.0 if learns else CHANCE)
            run = LayerRun(spec, learns, even=arm == NOISY) if arm in (ONE, NOISY) else None
            arms[arm] = Arm(curves, states=("finished",) * MEMBERS, runs=tuple((m, run) for m in range(MEMBERS)))
        made.append(Evidence(arms))
    return made[0], made[1]


def reads_or_knows_by_heart(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Models that learn in context at once; one that knows its pairs by heart, with a time of learning in context that
    is transient; and untrained nets."""
    specs = specs_of(NONLINEAR_GENERALISATION, experiment, preset)
    chance, reads = (0.0, 0.5, 0.5, 0.5), [(0.0, 0.5, 0.5, 0.5), (0.2, 1.0, 1.0, 1.0)]
    by_heart = [chance, (0.05, 0.95, 0.5, 0.2), (0.2, 1.0, 0.95, 0.9), (0.5, 1.0, 0.8, 0.7)]
    courses: Courses = {arm: by_heart if arm == label_norm.BY_HEART else reads for arm in specs}
    return _curves(specs, courses), _curves(specs, {arm: [chance] for arm in specs})


def _curves(specs: dict[str, Spec], courses: Courses) -> Evidence:
    """Curves through these points: a share of training, accuracies on trained, unseen and reversed pairs."""
    arms = {}
    for arm, spec in specs.items():
        curves = UntrainedRun(replace(spec, members=MEMBERS)).metrics()
        at, *scores = np.asarray(courses[arm]).T
        for name, score in zip(("train", "unseen", "reversed"), scores, strict=True):
            if name in spec.evaluators:
                value = np.interp(curves["sequences"] / spec.sequences, at, score)
                curves[name] = np.tile(value, (MEMBERS, 1))
        arms[arm] = Arm(curves, states=("finished",) * MEMBERS)
    return Evidence(arms)


ON_LAYERS = {
    "nonlinear-generalisation/in-context": learns_in_context,
    "nonlinear-generalisation/label-norm": reads_or_knows_by_heart,
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
