"""Experiment `dynamics` of `representations`: states of a random system whose next state is linear in a fixed
representation of the last ones."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.analysis.layer_probes import LayerScores, Targets, probe_members, probe_values
from ebbtide.analysis.predictions import Predictions, cache_per_prompt_set
from ebbtide.evaluation.baselines import linear_posterior
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.papers.representations.measures import (
    NINE,
    best_ridge_errors,
    final_values,
    layer_maps,
    layers_after,
    pool_bars,
    predict_final,
)
from ebbtide.report.contest_figure import Contest, bars_figure
from ebbtide.report.functions_figure import layers_figure
from ebbtide.sources.functions import Functions, represent_float64
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.dynamics import Dynamics, scale_to_unit_rms

States = Float[np.ndarray, "slots prompt dim"]
Features = Float[np.ndarray, "slots prompt features"]
SYSTEM = "dynamical system"


def _source_and_noise(predictions: Predictions) -> tuple[Functions, float]:
    """The source of the system's functions, and the standard deviation of the noise."""
    source, task = predictions.spec.source, predictions.spec.task
    assert isinstance(source, Functions) and isinstance(task, Dynamics)
    return source, task.noise


def state_histories(predictions: Predictions) -> Features:
    """The last states side by side at every slot, the latest at the end, zeros before the first, scaled as the system
    scales its states."""
    x, back = predictions.inputs, _source_and_noise(predictions)[0].history
    long = np.concatenate([np.zeros((back - 1, *x.shape[1:])), x])
    return scale_to_unit_rms(np.concatenate([long[i : i + len(x)] for i in range(back)], axis=-1))


def noiseless_states(predictions: Predictions) -> States:
    """The next states without their noise."""
    features = represent_float64(layer_maps(_source_and_noise(predictions)[0])[0], state_histories(predictions))
    return np.einsum("sbf,bdf->sbd", features, predictions.latent["weights"])


@cache_per_prompt_set
def posterior_mean(predictions: Predictions) -> States:
    """The posterior mean at every slot: ridge on the representation, coordinate by coordinate."""
    source, noise = _source_and_noise(predictions)
    known = represent_float64(layer_maps(source)[0], state_histories(predictions))
    penalty = penalty_of(noise, source.deviation)
    every = [linear_posterior(known, y, penalty).mean for y in np.moveaxis(predictions.responses, -1, 0)]
    return np.stack(every, axis=-1)


def query_errors(truth: States, predicted: States) -> Float[np.ndarray, " prompt"]:
    """Squared error at the query, mean over coordinates."""
    return ((predicted[-1] - truth[-1]) ** 2).mean(-1)


@cache_per_prompt_set
def predictor_errors(predictions: Predictions) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Squared errors at the query, by predictor: the posterior mean, which knows the representation; and ridge, with
    the best of the penalties, on the states themselves and on another random representation."""
    source, truth = _source_and_noise(predictions)[0], noiseless_states(predictions)
    states, responses = state_histories(predictions), predictions.responses
    other = represent_float64(layer_maps(replace(source, seed=source.seed + 1000))[0], states)
    errors = {"posterior mean": query_errors(truth, posterior_mean(predictions))}
    for name, features in {"ridge on states": states, "another representation": other}.items():
        errors[name] = best_ridge_errors(features, responses, truth[-1])
    return errors


def model_errors(predictions: Predictions) -> Float[np.ndarray, " prompt"]:
    """Squared errors of a member's last checkpoint at the query, mean over coordinates."""
    return query_errors(noiseless_states(predictions), predictions.outputs[-1])


def relative_excess(predictions: Predictions) -> float:
    """Mean error of the model less the posterior mean's, in units of the same difference for the best other
    predictor."""
    errors = {name: one.mean() for name, one in predictor_errors(predictions).items()}
    best = errors.pop("posterior mean")
    return float((model_errors(predictions).mean() - best) / (min(errors.values()) - best))


def probe_targets(predictions: Predictions) -> Targets:
    """Features that probes read at the states' tokens: the previous state, the representation, the posterior mean."""
    before = np.concatenate([np.zeros_like(predictions.inputs[:1]), predictions.inputs[:-1]])
    known = represent_float64(layer_maps(_source_and_noise(predictions)[0])[0], state_histories(predictions))
    return Targets({"state before": before, "phi": known, "posterior mean": posterior_mean(predictions)}, {})


def _probe_values(evidence: Evidence, measure: Callable[[LayerScores], float]) -> Float[np.ndarray, " member"]:
    return probe_values(evidence, SYSTEM, probe_targets, lambda here: measure(here.inputs))


def r2_gain(explained: Float[np.ndarray, " layer"]) -> Float[np.ndarray, " layer"]:
    """R^2 by layer less the embedding's R^2, which is above 0 in any system: a state predicts part of the next one."""
    return explained - explained[0]


def _delay_layers(r2: LayerScores) -> float:
    """Number of layers by which what layers add to the posterior mean can be read later than phi (`layers_after`)."""
    return layers_after(r2_gain(r2["posterior mean"]), r2["phi"], at_least=0.1)


CLAIMS = (
    Claim(
        "near",
        "the model is near the posterior mean, ridge on the representation of the last states",
        "dynamical setting; .3 of what the better of two other ridges loses: set beforehand",
        f".3 - (error - the posterior mean's) / (the better other's - the posterior mean's) ({SYSTEM})",
        0.0,
        lambda evidence: 0.3 - final_values(evidence, SYSTEM, relative_excess),
        (SYSTEM,),
    ),
    Claim(
        "copied",
        "the state before is copied to the token of each state",
        "dynamical setting: copying; half of the variance more than at the embedding: set beforehand",
        f"best R^2 over layers of the state before - that at the embedding - .5 ({SYSTEM})",
        0.0,
        lambda evidence: _probe_values(evidence, lambda r2: r2_gain(r2["state before"]).max()) - 0.5,
        (SYSTEM,),
    ),
    Claim(
        "before",
        "the representation can be read in lower layers than the answer",
        "probes: lower layers transform, upper layers learn; 95 % of the best, half of what layers add: set beforehand",
        f"first layer of half of what layers add to the posterior mean's R^2, if they add a tenth - of 95 % of the "
        f"best of phi's ({SYSTEM})",
        0.0,
        lambda evidence: _probe_values(evidence, _delay_layers),
        (SYSTEM,),
    ),
)


def _draw_figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """contest.png: errors of the model and of every predictor; probes.png: R^2 of every probe target by layer."""
    members = [one for one in predict_final(evidence, SYSTEM) if one is not None]
    if not members:
        return {}
    bars = pool_bars(members, predictor_errors)
    own = final_values(evidence, SYSTEM, lambda one: float(model_errors(one).mean()))
    figures = {"contest.png": bars_figure(title, {SYSTEM: Contest("squared error for the query", own, bars)})["png"]}
    seen = [one.inputs for one in probe_members(evidence, SYSTEM, probe_targets) if one is not None]
    panels = {"at states": {name: np.stack([one[name] for one in seen]) for name in seen[0]}}
    return figures | {"probes.png": layers_figure(title, panels)["png"]}


def _arm(context: int, source: Functions) -> Point:
    """Fields of the arm whose task is the dynamical system, in place of the study's regression."""
    system = {"task": to_builtins(Dynamics(context=context)), "source": to_builtins(source)}
    return system | {"model.pairing": "states", "evaluators": ["train"]}


ARMS = {SYSTEM: _arm(24, Functions(dim=2, history=2, layers=1))}
PAPER_ARMS = {SYSTEM: _arm(40, Functions(dim=10, history=3, layers=1))}
SMALLER = (
    "states of 2 numbers, 24 of them, 4 layers of width 32, in place of 12 layers of width 256; how the paper keeps "
    "its systems within bounds is not known: ours scale the last states"
)
DYNAMICS = Experiment(
    name="dynamics",
    question="Does a model of a dynamical system copy its past, represent it, and learn linearly in context?",
    section="dynamical systems with representation",
    claims=CLAIMS,
    presets={
        "quick": Preset(Comparison(round=1, arms=ARMS, base={"sequences": 384_000}, task_members=3), 7, SMALLER),
        "cpu": Preset(
            Comparison(round=1, arms=ARMS, base={"sequences": 1_536_000}, task_members=3),
            None,
            f"4 times as long; {SMALLER}",
        ),
        "paper": Preset(
            Comparison(round=1, arms=PAPER_ARMS, base={}, preset="paper"),
            None,
            f"{NINE}; 40 states of 10 numbers, the next from 3: the paper's own numbers were not found",
        ),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_draw_figures,
)
