"""Experiments `pasting` and `front-ends` of `representations`: do the upper layers of a trained model learn linearly in
context by themselves, under a new front end, and which front end do they need?"""

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.report.contest_figure import Contest, bars_figure
from ebbtide.studies.answers import Answers
from ebbtide.studies.donor import Donor
from ebbtide.studies.experiment import Arms, Experiment, Setting
from ebbtide.studies.representations_measures import QUICK, SCALED, clean, each, exact, last, model_errors, setting
from ebbtide.studies.study import Claim
from ebbtide.sweeps.axes import Point
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Seeds

DONOR = Donor(
    "representations-donor",
    replace(
        QUICK,
        members=5,
        schedule=Schedule(evaluations=9, checkpoints=2),
        seeds=Seeds(init=50, data=51, evaluation=50),  # other sequences than those of what starts from it
    ),
    {"donor": "representations/pasting"},
)
UPPER = ("blocks.1.*", "blocks.2.*", "blocks.3.*", "norm.*", "readout.*")
"""What is pasted, and stays as it is: all but the embeddings and the first layer, which are new and trained."""
PASTED, RANDOM, WHOLE = "pasted", "random upper layers", "trained whole"
EMBEDDED, COPIED = "embeddings", "embeddings with copies"
LINEAR: Point = {"source.layers": 0}
"""The task of the front end: responses linear in the inputs themselves."""
PASTING_ARMS: dict[str, Point] = {
    PASTED: LINEAR | DONOR.graft(QUICK.sequences, UPPER),
    RANDOM: LINEAR | {"freeze": list(UPPER)},
    WHOLE: LINEAR,
}
UPPER_ALONE: Point = (
    LINEAR | {"model.layers": 3} | DONOR.graft(QUICK.sequences, ("blocks.*", "norm.*", "readout.*"), skip=1)
)
"""The same upper layers with nothing below: only embeddings and positions are new and trained."""
FRONT_ARMS: dict[str, Point] = {EMBEDDED: UPPER_ALONE, COPIED: UPPER_ALONE | {"model.pairing": "copied"}}


def _total(found: Answers) -> float:
    """Mean squared error at the query, its own noise included."""
    return float(model_errors(found).mean()) + setting(found)[1] ** 2


def _ridge(found: Answers) -> Float[np.ndarray, " prompt"]:
    """The posterior mean's squared errors, before the noise: ridge on the inputs."""
    return (exact(found)[-1] - clean(found)[-1]) ** 2


def to_ridge(found: Answers) -> float:
    """The model's error over ridge's, both with the query's noise."""
    return _total(found) / (float(_ridge(found).mean()) + setting(found)[1] ** 2)


CLAIMS = (
    Claim(
        "ridge",
        "under one new layer the pasted upper layers come near ridge",
        "pasting: upper layers alone learn linearly; 1.5 times set beforehand",
        f"1.5 - error / ridge's, the query's noise included ({PASTED})",
        0.0,
        lambda arms: 1.5 - each(arms, PASTED, to_ridge),
        (PASTED,),
    ),
    Claim(
        "control",
        "random upper layers do not: they err at least twice as much",
        "pasting: the control; half set beforehand",
        f".5 - error of {PASTED} / of {RANDOM}",
        0.0,
        lambda arms: 0.5 - each(arms, PASTED, _total) / each(arms, RANDOM, _total),
        (PASTED, RANDOM),
    ),
)


FRONT_CLAIMS = (
    Claim(
        "ridge",
        "under embeddings alone, with inputs copied to their responses' tokens, upper layers come near ridge",
        "pasting: linear embedding with copied format; 1.5 times, as for one layer",
        f"1.5 - error / ridge's, the query's noise included ({COPIED})",
        0.0,
        lambda arms: 1.5 - each(arms, COPIED, to_ridge),
        (COPIED,),
    ),
    Claim(
        "copies",
        "without the copies they err more",
        "pasting: a linear embedding is worse",
        f"error of {EMBEDDED} - of {COPIED}",
        0.0,
        lambda arms: each(arms, EMBEDDED, _total) - each(arms, COPIED, _total),
        (EMBEDDED, COPIED),
    ),
)


def _figures(arms: Arms, title: str) -> dict[str, bytes]:
    """contest.png: the errors of every arm's members and of ridge, before the query's noise."""
    contests = {}
    for arm in arms.measured():
        found = [one for one in last(arms, arm) if one is not None]
        errors = each(arms, arm, lambda one: float(model_errors(one).mean()))
        ridge = {"ridge": paired_bootstrap(_ridge(found[0]), seed=0)}
        contests[arm] = Contest("squared error for the query", errors, ridge)
    return {"contest.png": bars_figure(title, contests)["png"]} if contests else {}


PASTING = Experiment(
    name="pasting",
    question="Do the upper layers learn linearly in context by themselves?",
    section="the pasting experiment: upper layers under a new front end, on linear prompts",
    claims=CLAIMS,
    settings={
        "quick": Setting(
            arms=PASTING_ARMS,
            base={},
            minutes=12,
            scaled=f"{SCALED}; the front end is one layer; front-ends has the two others",
            task_members=3,
            donor=DONOR,
        ),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_figures,
)

FRONT_ENDS = Experiment(
    name="front-ends",
    question="Do the upper layers need more below them than embeddings, and inputs copied to their responses?",
    section="the pasting experiment: linear embedding, and with copied format",
    claims=FRONT_CLAIMS,
    settings={
        "quick": Setting(arms=FRONT_ARMS, base={}, minutes=12, scaled=SCALED, task_members=3, donor=DONOR),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_figures,
)
