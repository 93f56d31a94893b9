"""Experiment `scaling` of `bayesian-averaging`: how regret grows with the concepts, and what few prompts cost."""

from functools import partial

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.predictions import SEEN, Answers, answers, series
from ebbtide.papers.bayesian_averaging.measures import distance, each, exact, gap, log, regret, said
from ebbtide.report.functions_figure import Line, distances_figure
from ebbtide.report.scaling_figure import Panel, scaling_figure
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence, Series
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point

CONCEPTS = (2, 8, 32)
PROMPTS = (2_000, 8_000, 32_000)
NO_GAP = 1e-6
"""Nats a slot below which a generalisation gap counts as this: its logarithm is asked for."""


def _concepts(count: int) -> str:
    return f"{count} concepts"


def _prompts(count: int) -> str:
    return f"8 concepts, {count:,} prompts"


EIGHT, FEW = _concepts(8), _prompts(PROMPTS[0])


def least_regret(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """The regret of the exact average itself on an arm's prompts, nats a prompt."""

    def one(found: Answers) -> float:
        here = exact(found)
        return float((said(here.truth, found.responses) - said(here.average, found.responses)).mean(1).sum())

    return each(evidence, arm, "train", one)


def slope(x: tuple[int, ...], y: Float[np.ndarray, "points member"]) -> Float[np.ndarray, " member"]:
    """The least-squares slope of y by log(x)."""
    centred = np.log(x) - np.log(x).mean()
    return centred @ y / (centred @ centred)


def _lost(found: Answers) -> float:
    """Log loss of the model - of the exact average on the same prompts, nats a slot: 0 of the average itself."""
    here = said(exact(found).average, found.responses) - said(log(found)[-1], found.responses)
    return float(here.mean())


def generalisation_gap(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Log loss on fresh prompts - on those of training, each less the exact average's on the same prompts (which
    differs from one set of prompts to the next), nats a slot."""
    fresh, seen = (each(evidence, arm, which, _lost) for which in ("train", SEEN))
    return fresh - seen


def over_training(evidence: Evidence, arm: str) -> Series:
    """KL(average || model) on fresh prompts at every checkpoint, nats a slot."""
    return series(answers(evidence, arm, "train"), lambda one: distance(exact(one).average, one))


def _left(evidence: Evidence, arm: str) -> np.ndarray:
    values = over_training(evidence, arm).values
    return values[:, -1] - values.min(1)


def _falls(evidence: Evidence, arm: str) -> np.ndarray:
    """How much the training loss falls from the checkpoint nearest to the average to the end."""
    distances = over_training(evidence, arm)
    nearest = np.nan_to_num(distances.values, nan=np.inf).argmin(1)
    return evidence.curve(arm, "train_loss").fall_since(distances.sequences[nearest])


def _grows(evidence: Evidence) -> np.ndarray:
    ours, best = (
        slope(CONCEPTS, np.stack([of(evidence, _concepts(count)) for count in CONCEPTS]))
        for of in (regret, least_regret)
    )
    return 0.15 - np.abs(ours / best - 1)


def _steps(evidence: Evidence) -> np.ndarray:
    logs = np.log(np.stack([gap(evidence, arm) for arm in (*map(_prompts, PROMPTS), EIGHT)]))
    return -np.diff(logs, axis=0).max(0)


def _rate(evidence: Evidence) -> np.ndarray:
    gaps = np.stack([generalisation_gap(evidence, _prompts(count)) for count in PROMPTS])
    return -0.5 - slope(PROMPTS, np.log(np.maximum(gaps, NO_GAP)))


CLAIMS = (
    Claim(
        "concepts",
        "regret grows with log |Z| as the exact average's does",
        "regret bound log |Z|; .15 of the average's slope set beforehand",
        ".15 - |slope of a prompt's regret by log |Z|: the model's / the exact average's - 1| (2, 8, 32 concepts)",
        0.0,
        _grows,
        tuple(map(_concepts, CONCEPTS)),
    ),
    Claim(
        "data",
        "the more prompts there are to train on, the nearer is the model to the average",
        "generalisation error falls with the number of training sequences",
        "smallest fall of log KL(average || model) from 2,000 to 8,000 to 32,000 prompts to all new ones",
        0.0,
        _steps,
        (*map(_prompts, PROMPTS), EIGHT),
    ),
    Claim(
        "rate",
        "the generalisation gap falls at least like 1 / sqrt(prompts)",
        "PAC-Bayes bound, an upper one",
        "-.5 - slope of log generalisation gap by log prompts (2,000, 8,000, 32,000)",
        0.0,
        _rate,
        tuple(map(_prompts, PROMPTS)),
    ),
    Claim(
        "memorises",
        "on the few prompts that it was trained on the model beats the exact average: it has memorised them",
        "own: in-weights learning of prompts",
        f"log loss of the average - of the model on training's prompts ({FEW})",
        0.0,
        lambda evidence: -each(evidence, FEW, SEEN, _lost),
        (FEW,),
    ),
    Claim(
        "transient",
        "and the average is transient: the model nears it, then goes .02 nats a slot away from it",
        "own: transience in a mixture of concepts; .02: the limit of being near, as in averaging",
        f"KL(average || model) at the end - at the nearest ({FEW})",
        0.02,
        lambda evidence: _left(evidence, FEW),
        (FEW,),
    ),
    Claim(
        "loss",
        "the training loss falls meanwhile",
        "own: as in transience",
        f"1 - training loss at the end / at the nearest to the average ({FEW})",
        0.0,
        lambda evidence: _falls(evidence, FEW),
        (FEW,),
    ),
)


def _figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """distances.png: how far from the average every arm is over training; scaling.png: by concepts and by prompts."""
    lines: dict[str, Line] = {}
    for arm in evidence.finished():
        distances = over_training(evidence, arm)
        lines[arm] = distances.sequences, distances.values
    panels = {"to the exact average, on fresh prompts": lines}
    drawn = {"distances.png": distances_figure(title, "KL to the model (nats a slot)", panels)["png"]}
    measured = set(evidence.finished())
    if not measured >= {*map(_concepts, CONCEPTS), *map(_prompts, PROMPTS)}:
        return drawn
    by_concepts = [np.stack([of(evidence, _concepts(count)) for count in CONCEPTS], 1) for of in (regret, least_regret)]
    by_prompts = [
        np.stack([of(evidence, _prompts(count)) for count in PROMPTS], 1)
        for of in (generalisation_gap, partial(each, evaluator=SEEN, of=lambda one: -_lost(one)), gap)
    ]
    root = by_prompts[0][:, 0].mean() * np.sqrt(PROMPTS[0] / np.asarray(PROMPTS))
    shown = [
        Panel(
            "concepts",
            "regret of a prompt (nats)",
            np.asarray(CONCEPTS),
            {"the model": by_concepts[0]},
            {"the exact average": by_concepts[1].mean(0), "log |Z|, the bound": np.log(CONCEPTS)},
        ),
        Panel(
            "prompts to train on",
            "nats a slot",
            np.asarray(PROMPTS),
            {
                "generalisation gap": by_prompts[0],
                "below the average on prompts seen": by_prompts[1],
                "KL to the average": by_prompts[2],
            },
            {"1 / sqrt(prompts)": root},
            log=True,
        ),
    ]
    return drawn | {"scaling.png": scaling_figure(title, shown)["png"]}


ARMS: dict[str, Point] = {_concepts(count): {"source.concepts": count} for count in CONCEPTS} | {
    _prompts(count): {"source.concepts": 8, "distinct": count} for count in PROMPTS
}
SMALLER = "tables of 5 cues and 4 responses, 12 pairs, 2 layers of width 32; theory there"
SCALING = Experiment(
    name="scaling",
    question="What does the model regret by the number of concepts, and by the number of prompts to train on?",
    section="regret bound, and generalisation error by the number of training sequences",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=ARMS, base={"sequences": 256_000}), 7, SMALLER),
        "cpu": Preset(Comparison(arms=ARMS, base={"sequences": 1_280_000}), None, f"5 times as long; {SMALLER}"),
        "paper": Preset(
            Comparison(arms=ARMS, base={}, preset="paper"),
            None,
            "10 cues, 8 responses, 24 pairs, 8 layers of width 128",
        ),
    },
    shows=("train", "prior"),
    scalars=("train_final", "prior_final", "train_loss_final"),
    figures=_figures,
)
