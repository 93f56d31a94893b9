"""Experiment `dynamics` of `representations`: states of a random system whose next state is linear in a fixed
representation of the last ones."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.analysis.layer_probes import Layers, Targets, probes, read
from ebbtide.analysis.predictions import Answers, of_prompts
from ebbtide.evaluation.baselines import linear_posterior
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.papers.representations.measures import FIVE, PENALTIES, each, last, layers_after, maps_of
from ebbtide.report.contest_figure import Contest, bars_figure
from ebbtide.report.functions_figure import layers_figure
from ebbtide.sources.functions import Functions, represented
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.dynamics import Dynamics, scaled

States = Float[np.ndarray, "slots prompt dim"]
Features = Float[np.ndarray, "slots prompt features"]
SYSTEM = "dynamical system"


def _setting(found: Answers) -> tuple[Functions, float]:
    """The functions, and the standard deviation of the noise."""
    source, task = found.spec.source, found.spec.task
    assert isinstance(source, Functions) and isinstance(task, Dynamics)
    return source, task.noise


def histories(found: Answers) -> Features:
    """The last states side by side at every slot, the latest at the end, zeros before the first; scaled as the system
    scales them."""
    x, back = found.inputs, _setting(found)[0].history
    long = np.concatenate([np.zeros((back - 1, *x.shape[1:])), x])
    return scaled(np.concatenate([long[i : i + len(x)] for i in range(back)], axis=-1))


def clean(found: Answers) -> States:
    """The next states without their noise."""
    features = represented(maps_of(_setting(found)[0])[0], histories(found))
    return np.einsum("sbf,bdf->sbd", features, found.latent["weights"])


def ridge(features: Features, responses: States, penalty: float) -> States:
    """Ridge on the features before a slot, coordinate by coordinate."""
    every = [linear_posterior(features, y, penalty).mean for y in np.moveaxis(responses, -1, 0)]
    return np.stack(every, axis=-1)


@of_prompts
def exact(found: Answers) -> States:
    """The posterior mean at every slot: ridge on the representation."""
    source, noise = _setting(found)
    known = represented(maps_of(source)[0], histories(found))
    return ridge(known, found.responses, penalty_of(noise, source.deviation))


def errors(truth: States, said: States) -> Float[np.ndarray, " prompt"]:
    """Squared error at the query, mean over coordinates."""
    return ((said[-1] - truth[-1]) ** 2).mean(-1)


@of_prompts
def predictors(found: Answers) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Squared errors at the query of what does and what does not know the representation: ridge on the states
    themselves, and on another representation."""
    source, truth, there = _setting(found)[0], clean(found), histories(found)
    other = represented(maps_of(replace(source, seed=source.seed + 1000))[0], there)
    made = {"posterior mean": errors(truth, exact(found))}
    for name, features in {"ridge on states": there, "another representation": other}.items():
        tried = [errors(truth, ridge(features, found.responses, penalty)) for penalty in PENALTIES]
        made[name] = min(tried, key=lambda one: one.mean())
    return made


def model_errors(found: Answers) -> Float[np.ndarray, " prompt"]:
    """Those of a member's last checkpoint."""
    return errors(clean(found), found.outputs[-1])


def lost(found: Answers) -> float:
    """What the model loses to the posterior mean, in units of what the best of the others loses to it."""
    made = {name: one.mean() for name, one in predictors(found).items()}
    best = made.pop("posterior mean")
    return float((model_errors(found).mean() - best) / (min(made.values()) - best))


def targets(found: Answers) -> Targets:
    """What is looked for in the residual stream: the state before the token's own, the representation, the answer."""
    there = histories(found)
    before = np.concatenate([np.zeros_like(found.inputs[:1]), found.inputs[:-1]])
    known = represented(maps_of(_setting(found)[0])[0], there)
    return Targets({"state before": before, "phi": known, "posterior mean": exact(found)}, {})


def _read(evidence: Evidence, measure: Callable[[Layers], float]) -> Float[np.ndarray, " member"]:
    return read(evidence, SYSTEM, targets, lambda here: measure(here.inputs))


def gained(explained: Float[np.ndarray, " layer"]) -> Float[np.ndarray, " layer"]:
    """What layers add to an R^2: a state tells something of the next, whatever the system."""
    return explained - explained[0]


CLAIMS = (
    Claim(
        "near",
        "the model is near the posterior mean, ridge on the representation of the last states",
        "dynamical setting; .3 of what the better of two other ridges loses: set beforehand",
        f".3 - (error - the posterior mean's) / (the better other's - the posterior mean's) ({SYSTEM})",
        0.0,
        lambda evidence: 0.3 - each(evidence, SYSTEM, lost),
        (SYSTEM,),
    ),
    Claim(
        "copied",
        "the state before is copied to the token of each state",
        "dynamical setting: copying; half of the variance more than at the embedding: set beforehand",
        f"best R^2 over layers of the state before - that at the embedding - .5 ({SYSTEM})",
        0.0,
        lambda evidence: _read(evidence, lambda found: found["state before"].max() - found["state before"][0]) - 0.5,
        (SYSTEM,),
    ),
    Claim(
        "before",
        "the representation can be read in lower layers than the answer",
        "probes: lower layers transform, upper layers learn; 95 % of the best, half of what layers add: set beforehand",
        f"first layer of half of what layers add to the posterior mean's R^2 - of 95 % of the best of phi's ({SYSTEM})",
        0.0,
        lambda evidence: _read(evidence, lambda found: layers_after(gained(found["posterior mean"]), found["phi"])),
        (SYSTEM,),
    ),
)


def _figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """contest.png: the model's error and every predictor's; probes.png: what can be read in which layer."""
    found = [one for one in last(evidence, SYSTEM) if one is not None]
    if not found:
        return {}
    bars = {name: paired_bootstrap(one, seed=0) for name, one in predictors(found[0]).items()}
    own = each(evidence, SYSTEM, lambda one: float(model_errors(one).mean()))
    drawn = {"contest.png": bars_figure(title, {SYSTEM: Contest("squared error for the query", own, bars)})["png"]}
    seen = [one.inputs for one in probes(evidence, SYSTEM, targets) if one is not None]
    panels = {"at states": {name: np.stack([one[name] for one in seen]) for name in seen[0]}}
    return drawn | {"probes.png": layers_figure(title, panels)["png"]}


def _arm(context: int, source: Functions) -> Point:
    """The system in place of the study's regression."""
    system = {"task": to_builtins(Dynamics(context=context)), "source": to_builtins(source)}
    return system | {"model.pairing": "states", "evaluators": ["train"]}


ARMS = {SYSTEM: _arm(24, Functions(dim=2, history=2, layers=1, seed=5))}
PAPER_ARMS = {SYSTEM: _arm(40, Functions(dim=10, history=3, layers=1, seed=5))}
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
        "quick": Preset(Comparison(arms=ARMS, base={"sequences": 384_000}, task_members=3), 4, SMALLER),
        "cpu": Preset(
            Comparison(arms=ARMS, base={"sequences": 1_536_000}, task_members=3), None, f"4 times as long; {SMALLER}"
        ),
        "paper": Preset(
            Comparison(arms=PAPER_ARMS, base={}, preset="paper"),
            None,
            f"{FIVE}; 40 states of 10 numbers, the next from 3: the paper's own numbers were not found",
        ),
    },
    shows=("train",),
    scalars=("train_final", "train_loss_final"),
    figures=_figures,
)
