"""Experiments `pasting` and `front-ends` of `representations`: do the upper layers of a trained model learn linearly in
context by themselves, under a new front end, and which front end do they need?"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.analysis.predictions import Predictions
from ebbtide.models.transformer import Transformer
from ebbtide.papers.representations.measures import (
    NINE,
    PAPER_SIZE,
    QUICK,
    SCALED,
    final_values,
    model_errors,
    noiseless_responses,
    pool_bars,
    posterior_mean,
    predict_final,
    source_and_noise,
)
from ebbtide.report.contest_figure import Contest, bars_figure
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison, donor_seeds
from ebbtide.studies.donor import Donor
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec


def _donor(experiment: str, preset: str, spec: Spec) -> Donor:
    """The model whose upper layers are pasted in an experiment, in the worlds of its arms."""
    seeds = donor_seeds(f"representations/{experiment}", preset, round=1)
    spec = replace(spec, members=9, schedule=Schedule(evaluations=9, checkpoints=2), seeds=seeds)
    return Donor("representations-donor", spec, {"donor": f"representations/{experiment}"})


UPPER, PAPER_UPPER = 3, 8
"""Number of the donor's layers that are pasted."""
PASTED, RANDOM, WHOLE = "pasted", "random upper layers", "trained whole"
EMBEDDED, COPIED, WHOLE_COPIED = "embeddings", "embeddings with copies", "trained whole, with copies"
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
    with and without inputs copied to the tokens of their responses; and as many layers with copies, trained whole."""
    parts = ("blocks.*", "norm.*", "readout.*")
    alone: Point = LINEAR | {"model.layers": upper}
    copies: Point = alone | {"model.pairing": "copied"}
    grafted = donor.graft(donor.spec.sequences, parts, skip=_layers_of(donor) - upper)
    return {EMBEDDED: alone | grafted, COPIED: copies | grafted, WHOLE_COPIED: copies}


def _presets(experiment: str, arms: Callable[[Donor, int], dict[str, Point]], words: str = "") -> dict[str, Preset]:
    quick = _donor(experiment, "quick", QUICK)
    long = _donor(experiment, "cpu", replace(QUICK, sequences=1_024_000))
    large = _donor(experiment, "paper", PAPER_SIZE)
    return {
        "quick": Preset(
            Comparison(round=1, arms=arms(quick, UPPER), base={}, task_members=3, donor=quick), 10, SCALED + words
        ),
        "cpu": Preset(
            Comparison(
                round=1,
                arms=arms(long, UPPER),
                base={"sequences": long.spec.sequences},
                task_members=3,
                donor=long,
            ),
            None,
            f"4 times as long; {SCALED}{words}",
        ),
        "paper": Preset(
            Comparison(round=1, arms=arms(large, PAPER_UPPER), base={}, preset="paper", donor=large),
            None,
            f"{NINE}; which layers it pastes was not found: here the upper eight of twelve{words}",
        ),
    }


def _total_error(predictions: Predictions) -> float:
    """Mean squared error of the model at the query, the query's own noise included."""
    return float(model_errors(predictions).mean()) + source_and_noise(predictions)[1] ** 2


def _unexplained(predictions: Predictions) -> float:
    """`_total_error` in units of that of an answer of 0."""
    silent = float((noiseless_responses(predictions)[-1] ** 2).mean()) + source_and_noise(predictions)[1] ** 2
    return _total_error(predictions) / silent


def _ridge_errors(predictions: Predictions) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Squared errors at the query of the posterior mean (ridge on the inputs), the query's noise left out."""
    return {"ridge": (posterior_mean(predictions)[-1] - noiseless_responses(predictions)[-1]) ** 2}


def _whole_claim(statement: str, source: str, arm: str, whole: str) -> Claim:
    """The claim that the pasted layers of `arm` err at most 1.5 times as much as the model `whole`, of the same size
    and trained whole, which has learned to answer."""

    def estimate(evidence: Evidence) -> np.ndarray:
        ratio = final_values(evidence, arm, _total_error) / final_values(evidence, whole, _total_error)
        return np.minimum(1.5 - ratio, 0.5 - final_values(evidence, whole, _unexplained))

    return Claim(
        "whole",
        statement,
        f"{source}; 1.5 times what a model of this size reaches, which explains half of the variance: set beforehand",
        f"smaller of: 1.5 - error of {arm} / of {whole}, .5 - error of {whole} / of an answer of 0; the query's noise "
        "included",
        0.0,
        estimate,
        (arm, whole),
    )


CLAIMS = (
    _whole_claim(
        "under one new layer the pasted upper layers come near a model trained whole",
        "pasting: upper layers alone learn linearly, near ridge",
        PASTED,
        WHOLE,
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
    _whole_claim(
        "under embeddings alone, with inputs copied to their responses' tokens, upper layers come near a model trained "
        "whole",
        "pasting: linear embedding with copied format, near ridge",
        COPIED,
        WHOLE_COPIED,
    ),
    Claim(
        "copies",
        "without the copies they err more, by a tenth at least",
        "pasting: a linear embedding is worse; a tenth set beforehand",
        f"1 - error of {COPIED} / of {EMBEDDED}",
        0.1,
        lambda evidence: (
            1 - final_values(evidence, COPIED, _total_error) / final_values(evidence, EMBEDDED, _total_error)
        ),
        (EMBEDDED, COPIED),
    ),
)


def _draw_figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """contest.png: errors of every arm's members and of ridge, the query's noise left out, on one scale: arms answer
    the same prompts, member by member."""
    contests = {}
    for arm in evidence.finished_arms():
        members = [one for one in predict_final(evidence, arm) if one is not None]
        errors = final_values(evidence, arm, lambda one: float(model_errors(one).mean()))
        contests[arm] = Contest("squared error for the query", errors, pool_bars(members, _ridge_errors))
    return {"contest.png": bars_figure(title, contests, one_scale=True)["png"]} if contests else {}


PASTING = Experiment(
    name="pasting",
    question="Do the upper layers learn linearly in context by themselves?",
    section="the pasting experiment: upper layers under a new front end, on linear prompts",
    claims=CLAIMS,
    presets=_presets("pasting", _pasting_arms, "; the front end is one layer; front-ends has the two others"),
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_figures,
)

FRONT_ENDS = Experiment(
    name="front-ends",
    question="Do the upper layers need more below them than embeddings, and inputs copied to their responses?",
    section="the pasting experiment: linear embedding, and with copied format",
    claims=FRONT_CLAIMS,
    presets=_presets("front-ends", _front_end_arms),
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_figures,
)
