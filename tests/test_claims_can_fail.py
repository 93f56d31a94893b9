"""Every claim is met by the ideal that the paper describes, and by no untrained net: else it says nothing."""

from typing import Any

import pytest

from ebbtide.papers.registry import STUDIES
from ebbtide.studies.claim import judge
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.single_run import SingleRun
from ebbtide.studies.study import setup
from ideal_chains import ON_CHAINS
from ideal_conversion import ON_CONVERSION, stand_in_conversion
from ideal_forecast import ON_FORECASTS, stand_in_forecast
from ideal_functions import FUNCTIONS, stand_in
from ideal_kinetics import ON_KINETICS, stand_in_kinetics
from ideal_mechanisms import MECHANISMS, PROBES
from ideal_mixtures import ON_MIXTURES
from ideal_patterns import ON_LAYERS
from ideal_patterns import stand_in as stand_in_layers
from ideal_recurrence import ON_RECURRENCES
from ideal_recurrence import stand_in as stand_in_recurrences
from ideal_representations import ON_REPRESENTATIONS
from ideal_tools import (
    BOTH,
    LATE,
    LATER,
    LATEST,
    NEVER,
    PERSISTENT,
    SHORT_LIVED,
    TRANSIENT,
    WEAK,
    WEIGHTS,
    Course,
    evidence_of,
    specs_of,
    untrained,
)
from ideal_urns import ON_URNS
from ideal_words import ON_WORDS

IDEALS: dict[str, dict[str, Course]] = MECHANISMS | {
    "transience": {"": TRANSIENT},
    "transience/main": {
        "glyphs": TRANSIENT,
        "Omniglot features": TRANSIENT,
        "glyph pixels, ResNet": TRANSIENT,
        "Omniglot pixels, ResNet": TRANSIENT,
    },
    "transience/tokens": {"1,500 clusters of 10 tokens": TRANSIENT, "3,000 clusters of 5 tokens": TRANSIENT},
    "transience/features": {
        "192 classes": TRANSIENT,
        "1,600 classes": LATE,
        "12,800 classes": LATE,
        "1,600 classes, 1.6e9 sequences": LATE,
        "12,800 classes, 1.6e9 sequences": LATE,
    },
    "transience/copies": {"half of the queries copied": TRANSIENT, "no query copied": WEIGHTS},
    "transience/classes": {"fewest classes": TRANSIENT, "more classes": LATE, "most classes": LATER},
    "transience/variation": {
        "2 exemplars": TRANSIENT,
        "5 exemplars": LATE,
        "20 exemplars": LATER,
        "always new": LATEST,
        "2, noise 1.6": LATE,
    },
    "transience/zipf": {"exponent 0": TRANSIENT, "exponent 1": BOTH, "exponent 2": [(0.0, {}), (0.5, {"IWL": 1.0})]},
    "transience/burstiness": {"p = 1": PERSISTENT, "p = 0.5": LATE, "p = 0": NEVER},
    "transience/labels": {"16 a class": PERSISTENT, "1 a class": WEAK},
    "transience/size": {
        "2 layers, width 16": TRANSIENT,
        "2 layers, width 32": TRANSIENT,
        "2 layers, width 64": LATE,
        "4 layers, width 32": TRANSIENT,
        "12 layers, width 64": TRANSIENT,
        "12 layers, width 128": LATE,
        "12 layers, width 256": LATER,
    },
    "transience/l2": {
        "no L2": TRANSIENT,
        "L2 1e-4": PERSISTENT,
        "L2 1e-3": PERSISTENT,
        "L2 1e-2": SHORT_LIVED,
        "AdamW 0.1": PERSISTENT,
        "norms 1e-2": PERSISTENT,
    },
    "transience/competition": {
        "no L2": TRANSIENT,
        "L2 on MLPs": PERSISTENT,
        "L2 on encoder": PERSISTENT,
        "L2 on attention": TRANSIENT,
        "ICL-only data": PERSISTENT,
    },
    "transience/early-stopping": {
        "to the end": TRANSIENT,
        "early stopping": TRANSIENT,
        "by validation accuracy": TRANSIENT,
    },
    "transience/architecture": {"transformer": PERSISTENT, "LSTM": NEVER, "RNN": NEVER},
    "regularisation/l2": {
        "2 layers, no L2": TRANSIENT,
        "2 layers, L2 on attention": TRANSIENT,
        "2 layers, L2 on MLPs": PERSISTENT,
        "2 layers, L2 on all": PERSISTENT,
        "1 layer, no L2": PERSISTENT,
        "1 layer, L2 on attention": TRANSIENT,
        "1 layer, L2 on MLPs": PERSISTENT,
        "1 layer, L2 on all": PERSISTENT,
    },
    "regularisation/one-head": {
        "no L2": PERSISTENT,
        "L2 on attention": TRANSIENT,
        "L2 on MLP": PERSISTENT,
        "L2 on all": PERSISTENT,
    },
    "keeping-icl": {
        "no method": LATE,
        "L2 on all": PERSISTENT,
        "L2 on MLPs": PERSISTENT,
        "label noise": PERSISTENT,
        "half bursty": WEIGHTS,
        "active forgetting": PERSISTENT,
        "temporary forgetting": [(0.0, {}), (0.5, {"icl": 0.95, "icl_holdout": 0.95, "iwl": 0.95})],
    },
}
"""What the members of every arm do if the paper is right, by experiment."""
BEST = {"no method": 0.91, "early stopping": 0.91, "by validation accuracy": 0.5}
"""ICL of the best models kept, where a claim asks for them."""
ON_MODELS = {"coopetition/own-labels": {"shared half"}}
"""Claims that ask the models themselves, which made-up curves do not have."""
ON_STREAMS = ON_RECURRENCES | ON_CHAINS | ON_URNS | ON_WORDS
ON_FUNCTIONS = (
    FUNCTIONS | ON_REPRESENTATIONS | ON_MIXTURES | ON_LAYERS | ON_CONVERSION | ON_KINETICS | ON_STREAMS | ON_FORECASTS
)
"""By experiment: from a preset the evidence of the ideal and of the untrained."""

DEAR = {
    "affine-recurrence/pools",
    "bayesian-averaging/scaling",
    "bounded-cfg/decomposition",
    "bounded-cfg/pairings",
    "gmm-convergence/attention",
    "nonlinear-generalisation/in-context",
    "positions/order",
    "representations/supervised",
}
"""Experiments whose claims are put to many models of many shapes: `make thorough` does it, and who changes one of them.
Each took 15 CPU seconds or more, and each is of a study that has another experiment, which stays. Words and thresholds
of claims cannot change unnoticed (test_identities.py); the code of their estimates can."""

CASES = [
    (study, experiment, preset)
    for study in STUDIES
    for experiment in study.experiments
    for preset, one in experiment.presets.items()
    if study.full_name(experiment) in IDEALS and isinstance(one.work, SingleRun | Comparison)
]


def test_every_experiment_is_here():
    names = {study.full_name(one) for study in STUDIES for one in study.experiments}
    assert names == {*IDEALS, *ON_FUNCTIONS}


def test_of_every_study_the_claims_of_an_experiment_are_asked_every_time():
    assert {*ON_FUNCTIONS} > DEAR
    for study in STUDIES:
        names = {study.full_name(one) for one in study.experiments}
        assert names - DEAR, study.name


@pytest.mark.parametrize(("study", "experiment", "preset"), CASES, ids=[f"{s.full_name(e)} {p}" for s, e, p in CASES])
def test_the_ideal_meets_every_claim_and_an_untrained_net_none(study, experiment, preset):
    name = study.full_name(experiment)
    specs = specs_of(study, experiment, preset)
    if max(spec.members for spec in specs.values()) < 6:
        pytest.skip("too few members for a verdict at this preset")
    courses = {arm: IDEALS[name].get(arm, NEVER) for arm in specs}
    of_ideal, of_none = PROBES.get(name, ({}, {}))
    ideal, none = evidence_of(specs, courses, BEST, of_ideal), untrained(specs, of_none)
    asked = [claim for claim in experiment.claims_on(specs) if claim.name not in ON_MODELS.get(name, ())]
    assert asked
    assert {claim.name: judge(claim, ideal).verdict for claim in asked} == {claim.name: "holds" for claim in asked}
    assert {claim.name: judge(claim, none).verdict for claim in asked} == {claim.name: "fails" for claim in asked}


def function_cases() -> list[Any]:
    """Of every experiment one preset for each list of claims: exact predictors are exact at every size."""
    experiments = [(study, one) for study in STUDIES for one in study.experiments]
    cases = {}
    for study, experiment in experiments:
        name = study.full_name(experiment)
        for preset in experiment.presets if name in ON_FUNCTIONS else ():
            claims = setup(study, experiment.name, preset).plan().claims()
            key = (name, *(claim.name for claim in claims))
            marks = [pytest.mark.thorough] if name in DEAR or preset != next(iter(experiment.presets)) else []
            cases.setdefault(key, pytest.param(name, experiment, preset, claims, marks=marks, id=f"{name} {preset}"))
    return list(cases.values())


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize(("name", "experiment", "preset", "asked"), function_cases())
def test_exact_predictors_meet_every_claim_and_an_untrained_net_none(name, experiment, preset, asked, monkeypatch):
    stand_in(monkeypatch)
    stand_in_layers(monkeypatch)
    stand_in_conversion(monkeypatch)
    stand_in_recurrences(monkeypatch)
    stand_in_kinetics(monkeypatch)
    stand_in_forecast(monkeypatch)
    ideal, none = ON_FUNCTIONS[name](experiment, preset)
    assert asked
    assert {claim.name: judge(claim, ideal).verdict for claim in asked} == {claim.name: "holds" for claim in asked}
    assert {claim.name: judge(claim, none).verdict for claim in asked} == {claim.name: "fails" for claim in asked}
