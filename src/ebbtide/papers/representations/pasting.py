"""Experiments `pasting` and `front-ends` of `representations`: do the upper layers of a trained model learn linearly in
context by themselves, under a new front end, and which front end do they need?"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions
from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.models.transformer import Transformer
from ebbtide.papers.representations.measures import (
    NINE,
    PAPER_SIZE,
    QUICK,
    SCALED,
    final_values,
    model_errors,
    noiseless_responses,
    posterior_mean,
    predict_final,
    source_and_noise,
)
from ebbtide.report.contest_figure import Contest, bars_figure
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.donor import Donor
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Seeds, Spec


def _donor(spec: Spec) -> Donor:
    """The model whose upper layers are pasted, trained on other sequences than the arms that start from it."""
    seeds, schedule = Seeds(init=50, data=51, evaluation=50), Schedule(evaluations=9, checkpoints=2)
    return Donor(
        "representations-donor",
        replace(spec, members=9, schedule=schedule, seeds=seeds),
        {"donor": "representations/pasting"},
    )


DONOR, LONG_DONOR = _donor(QUICK), _donor(replace(QUICK, sequences=1_024_000))
PAPER_DONOR = _donor(PAPER_SIZE)
UPPER, PAPER_UPPER = 3, 8
"""Number of the donor's layers that are pasted."""
PASTED, RANDOM, WHOLE = "pasted", "random upper layers", "trained whole"
EMBEDDED, COPIED = "embeddings", "embeddings with copies"
LINEAR: Point = {"source.layers": 0}
"""The task of the front end: responses linear in the inputs themselves."""


def _layers_of(donor: Donor) -> int:
    assert isinstance(donor.spec.model, Transformer)
    return donor.spec.model.layers


def _pasting_arms(donor: Donor, upper: int) -> dict[str, Point]:
    """Arms with one layer below the upper ones: pasted from the donor and frozen, random and frozen, or trained whole.
    `upper` is the number of layers that are pasted or frozen."""
    parts = (*(f"blocks.{i}.*" for i in range(1, upper + 1)), "norm.*", "readout.*")
    smaller = LINEAR | {"model.layers": upper + 1}
    return {
        PASTED: smaller | donor.graft(donor.spec.sequences, parts, skip=_layers_of(donor) - upper - 1),
        RANDOM: smaller | {"freeze": list(parts)},
        WHOLE: smaller,
    }


def _front_end_arms(donor: Donor, upper: int) -> dict[str, Point]:
    """Arms of the donor's `upper` last layers with no layer below: only embeddings and positions are new and trained,
    with and without inputs copied to the tokens of their responses."""
    parts = ("blocks.*", "norm.*", "readout.*")
    alone = donor.graft(donor.spec.sequences, parts, skip=_layers_of(donor) - upper)
    alone |= LINEAR | {"model.layers": upper}
    return {EMBEDDED: alone, COPIED: alone | {"model.pairing": "copied"}}


def _presets(arms: Callable[[Donor, int], dict[str, Point]], minutes: float, words: str = "") -> dict[str, Preset]:
    return {
        "quick": Preset(
            Comparison(arms=arms(DONOR, UPPER), base={}, task_members=3, donor=DONOR), minutes, SCALED + words
        ),
        "cpu": Preset(
            Comparison(
                arms=arms(LONG_DONOR, UPPER),
                base={"sequences": LONG_DONOR.spec.sequences},
                task_members=3,
                donor=LONG_DONOR,
            ),
            None,
            f"4 times as long; {SCALED}{words}",
        ),
        "paper": Preset(
            Comparison(arms=arms(PAPER_DONOR, PAPER_UPPER), base={}, preset="paper", donor=PAPER_DONOR),
            None,
            f"{NINE}; which layers it pastes was not found: here the upper eight of twelve{words}",
        ),
    }


def _total_error(predictions: Predictions) -> float:
    """Mean squared error of the model at the query, the query's own noise included."""
    return float(model_errors(predictions).mean()) + source_and_noise(predictions)[1] ** 2


def _ridge_errors(predictions: Predictions) -> Float[np.ndarray, " prompt"]:
    """Squared errors at the query of the posterior mean (ridge on the inputs), the query's noise left out."""
    return (posterior_mean(predictions)[-1] - noiseless_responses(predictions)[-1]) ** 2


def error_ratio_to_ridge(predictions: Predictions) -> float:
    """Ratio of the model's mean squared error to ridge's, both with the query's noise."""
    ridge = float(_ridge_errors(predictions).mean()) + source_and_noise(predictions)[1] ** 2
    return _total_error(predictions) / ridge


CLAIMS = (
    Claim(
        "ridge",
        "under one new layer the pasted upper layers come near ridge",
        "pasting: upper layers alone learn linearly; 1.5 times set beforehand",
        f"1.5 - error / ridge's, the query's noise included ({PASTED})",
        0.0,
        lambda evidence: 1.5 - final_values(evidence, PASTED, error_ratio_to_ridge),
        (PASTED,),
    ),
    Claim(
        "control",
        "random upper layers do not: they err at least twice as much",
        "pasting: the control; half set beforehand",
        f".5 - error of {PASTED} / of {RANDOM}",
        0.0,
        lambda evidence: (
            0.5 - final_values(evidence, PASTED, _total_error) / final_values(evidence, RANDOM, _total_error)
        ),
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
        lambda evidence: 1.5 - final_values(evidence, COPIED, error_ratio_to_ridge),
        (COPIED,),
    ),
    Claim(
        "copies",
        "without the copies they err more",
        "pasting: a linear embedding is worse",
        f"error of {EMBEDDED} - of {COPIED}",
        0.0,
        lambda evidence: final_values(evidence, EMBEDDED, _total_error) - final_values(evidence, COPIED, _total_error),
        (EMBEDDED, COPIED),
    ),
)


def _draw_figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """contest.png: errors of every arm's members and of ridge, the query's noise left out, on one scale: all arms
    answer the same prompts."""
    contests = {}
    for arm in evidence.finished_arms():
        members = [one for one in predict_final(evidence, arm) if one is not None]
        errors = final_values(evidence, arm, lambda one: float(model_errors(one).mean()))
        ridge = {"ridge": paired_bootstrap(_ridge_errors(members[0]), seed=0)}
        contests[arm] = Contest("squared error for the query", errors, ridge)
    return {"contest.png": bars_figure(title, contests, one_scale=True)["png"]} if contests else {}


PASTING = Experiment(
    name="pasting",
    question="Do the upper layers learn linearly in context by themselves?",
    section="the pasting experiment: upper layers under a new front end, on linear prompts",
    claims=CLAIMS,
    presets=_presets(_pasting_arms, 5, "; the front end is one layer; front-ends has the two others"),
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_figures,
)

FRONT_ENDS = Experiment(
    name="front-ends",
    question="Do the upper layers need more below them than embeddings, and inputs copied to their responses?",
    section="the pasting experiment: linear embedding, and with copied format",
    claims=FRONT_CLAIMS,
    presets=_presets(_front_end_arms, 6),
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_figures,
)
