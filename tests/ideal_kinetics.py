"""Made-up evidence of study `kinetics`: members whose attention follows the theory, and untrained nets."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import ndtr

from ebbtide.papers.kinetics import measures
from ebbtide.papers.kinetics.decay import DECAY
from ebbtide.papers.kinetics.fall import COEFFICIENTS, FALL, arm_of
from ebbtide.papers.kinetics.measures import Course, predicted_weight
from ebbtide.papers.kinetics.settings import ALL, ATTENTION, MLP, NONE
from ebbtide.papers.kinetics.study import KINETICS
from ebbtide.runs.folder import RunFolder, Snapshot
from ebbtide.studies.evidence import Arm, Evidence
from ebbtide.studies.rehearsal import UntrainedRun
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_tools import specs_of

MEMBERS = 6
"""Members of an arm: the fewest with which a claim can hold."""
TIMES = np.linspace(0, 1, 41)
SPREAD = 5.0
"""Standard deviation of what the weights say of new items, nats."""


class MadeUpMembers(RunFolder):
    """A run whose members have this course, or, without one, are as they were drawn."""

    def __init__(self, spec: Spec, course: Course | None):
        self.spec, self.course = spec, course
        self.path = Path(f"made up kinetics/{len(RUNS)}")
        RUNS.append(self)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.path, "")

    def measure(self, place: int) -> Course:
        """What `measure_member` returns of a trained model."""
        if self.course is not None:
            return self.course
        if place in UNTRAINED:  # the same nets in all arms: they have the same seeds
            return UNTRAINED[place]
        spec = self.spec.world(place)
        params = spec.model.init(jax.random.key(spec.seeds.evaluation), **spec.shape())
        margins = measures._compile_margins(spec.model)(params, measures.prompts_of_world(spec))
        UNTRAINED[place] = measures.course_of(
            (TIMES * spec.sequences).astype(int), {kind: np.tile(one, (len(TIMES), 1)) for kind, one in margins.items()}
        )
        return UNTRAINED[place]


RUNS: list[MadeUpMembers] = []
UNTRAINED: dict[int, Course] = {}
"""Courses of nets before training, by their place."""


def measure_made_up(snapshot: Snapshot, place: int) -> Course:
    """In place of `measure_member`."""
    return RUNS[int(snapshot.path.name)].measure(place)


def course_by_theory(spec: Spec, coefficient: float, learned_at: float) -> Course:
    """A member that learns in context at once, whose weights then know the trained items from `learned_at` on (a share
    of training), and whose attention is at the balance of gradient and L2."""
    residual = 30 * np.exp(-8 * np.maximum(0, (TIMES - learned_at + 0.1) / 0.1))
    weight = np.minimum(1, TIMES / 0.05) * predicted_weight(residual, coefficient)
    iwl = 0.5 + 0.5 / (1 + np.exp(-(TIMES - learned_at + 0.13) / 0.02))
    fields = ndtr(weight / SPREAD), iwl, weight, residual, np.full_like(TIMES, SPREAD)
    return Course((TIMES * spec.sequences).astype(int), *fields)


def evidence_of(runs: Mapping[str, MadeUpMembers]) -> Evidence:
    """Evidence of arms of these runs."""
    arms = {}
    for arm, run in runs.items():
        curves = UntrainedRun(run.spec).metrics()
        arms[arm] = Arm(curves, states=("finished",) * MEMBERS, runs=tuple((m, run) for m in range(MEMBERS)))
    return Evidence(arms)


def both_of(specs: Mapping[str, Spec], courses: Mapping[str, Course]) -> tuple[Evidence, Evidence]:
    """The evidence of arms with these courses, and of arms before training."""
    ideal = evidence_of({arm: MadeUpMembers(spec, courses[arm]) for arm, spec in specs.items()})
    return ideal, evidence_of({arm: MadeUpMembers(spec, None) for arm, spec in specs.items()})


def ended_by_attention(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """L2 on the attention ends ICL when the weights know the answers; on all weights they come to know half."""
    specs = specs_of(KINETICS, experiment, preset)
    ends = course_by_theory(specs[ATTENTION], 0.02, 0.6)
    stays = course_by_theory(specs[NONE], 0.02, 9.0)
    half = stays._replace(icl=0.95 * stays.icl)
    return both_of(specs, {NONE: stays, ATTENTION: ends, MLP: stays, ALL: half})


def falls_by_theory(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """The more L2, the sooner the weights know the answers, and ICL is at the balance all the while."""
    specs = specs_of(KINETICS, experiment, preset)
    learned = np.linspace(0.9, 0.4, len(COEFFICIENTS))
    return both_of(
        specs,
        {
            arm_of(one): course_by_theory(specs[arm_of(one)], one, at)
            for one, at in zip(COEFFICIENTS, learned, strict=True)
        },
    )


def stand_in_kinetics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts made-up members in the place of trained ones."""
    monkeypatch.setattr(measures, "measure_member", measure_made_up)


ON_KINETICS: dict[str, Callable[[Experiment, str], tuple[Evidence, Evidence]]] = {
    f"kinetics/{DECAY.name}": ended_by_attention,
    f"kinetics/{FALL.name}": falls_by_theory,
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
