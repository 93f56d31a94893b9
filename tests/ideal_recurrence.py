"""Made-up evidence of study `affine-recurrence`: models that copy, then subtract what is similar, and models that know
their pool by heart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions, PromptSet, fresh_prompts
from ebbtide.evaluation.recurrences import MEAN, affine_ridge, naive_predictions, pool_posterior
from ebbtide.papers.affine_recurrence import passes, pools
from ebbtide.papers.affine_recurrence.passes import Pass
from ebbtide.papers.affine_recurrence.study import AFFINE_RECURRENCE
from ebbtide.runs.folder import RunFolder, Snapshot
from ebbtide.sources.recurrences import Recurrences
from ebbtide.studies.evidence import Arm, Evidence
from ebbtide.studies.rehearsal import UntrainedRun
from ebbtide.studies.study import Experiment
from ebbtide.training.spec import Spec
from ideal_functions import both_of, compile_init, path_of
from ideal_tools import specs_of

MEMBERS = 6
"""Members of an arm: the fewest with which a claim can hold."""
PROMPTS = 100
STAGES = (0.0, 0.3, 0.6, 1.0)
"""Shares of training: before it, with copies, with a head for similar terms, at the end."""
HEADS = 4


def exact_pass(prompts: PromptSet, share: float) -> Pass:
    """A pass of a model whose layers but the last give the mean of the last two terms, and whose last layer has a head
    that attends to similar terms, and subtracts them, from .6 of the training on."""
    x = prompts.inputs[..., 0]
    copies, exact = naive_predictions(prompts.inputs)[MEAN][..., 0], affine_ridge(prompts.inputs, 1e-10)[..., 0]
    answer = 0 * x if share < 0.3 else copies if share < 1 else exact
    near = -np.abs(x.T[:, :, None] - x.T[:, None])
    scores = np.zeros((x.shape[1], HEADS, len(x), len(x)))
    if share >= 0.6:
        scores[:, 1] = near
    pattern = np.tril(np.exp(scores))
    pattern /= pattern.sum(-1, keepdims=True)
    direct = np.einsum("bhqs,sb->qbh", pattern, x) * np.asarray([0.1, -0.3, 0.1, 0.1])
    wrong = np.asarray([0.1, 1.0, 0.1, 0.1])[:, None, None] * np.ones_like(x)
    lens = np.stack([copies, copies, answer])
    return Pass(lens, lens, scores, pattern, direct, answer + wrong)


class MadeUpMembers(RunFolder):
    """A run of such models, or, unless it `learns`, of nets as they were drawn."""

    def __init__(self, spec: Spec, learns: bool):
        self.spec, self.learns, self.path = spec, learns, Path(f"made up recurrence/{len(RUNS)}")
        RUNS.append(self)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.path, "")

    def passes(self, place: int, last: bool) -> Iterator[tuple[int, Pass, PromptSet]]:
        """What `passes` yields of a trained model."""
        spec = self.spec.world(place)
        prompts, model = fresh_prompts(spec, "prior", PROMPTS), spec.model
        for share in STAGES[-1:] if last else STAGES:
            if self.learns:
                one = exact_pass(prompts, share)
            else:
                params = compile_init(model, **spec.shape())(jax.random.key(place))
                one = passes.finish_pass(passes.compile_pass(model)(params, prompts.prompt), prompts)
            yield int(share * spec.sequences), one, prompts


RUNS: list[MadeUpMembers] = []


def passes_made_up(run: Snapshot, place: int, last: bool) -> Any:
    """In place of `passes`."""
    return RUNS[int(run.path.name)].passes(place, last)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts made-up members in the place of trained ones."""
    monkeypatch.setattr(passes, "passes", passes_made_up)


def copies_then_subtracts(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Bhargav & Gu: the first layer copies, a negative similarity head of the last one refines; and untrained nets."""
    made = []
    for learns in (True, False):
        arms = {}
        for arm, spec in specs_of(AFFINE_RECURRENCE, experiment, preset).items():
            small = replace(spec.model, width=16, heads=2) if not learns else spec.model
            run = MadeUpMembers(replace(spec, model=small), learns)
            curves = UntrainedRun(replace(spec, members=MEMBERS)).metrics()
            arms[arm] = Arm(curves, states=("finished",) * MEMBERS, runs=tuple((m, run) for m in range(MEMBERS)))
        made.append(Evidence(arms))
    return made[0], made[1]


def exact(asked: Predictions) -> np.ndarray:
    """Least squares, which is exact from the third term on."""
    return affine_ridge(asked.inputs)


def pooled(asked: Predictions) -> np.ndarray:
    """The posterior of the pool."""
    source = asked.spec.source
    assert isinstance(source, Recurrences)
    bank = source.build()
    return pool_posterior(asked.inputs, np.asarray(bank.matrices), np.asarray(bank.offsets), 1e-3).predictions


def general_then_pooled(experiment: Experiment, preset: str) -> tuple[Evidence, Evidence]:
    """Transience: least squares, then the pool; with the fewest recurrences the pool at once."""
    specs = specs_of(AFFINE_RECURRENCE, experiment, preset)
    says = {pools.FRESH: path_of((0.5, exact))}
    says |= dict.fromkeys((pools.MANY, pools.SOME), path_of((0.4, exact), (1.0, pooled)))
    return both_of(specs, says | {pools.FEW: path_of((1.0, pooled))})


ON_RECURRENCES = {
    "affine-recurrence/in-context": copies_then_subtracts,
    "affine-recurrence/pools": general_then_pooled,
}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
