"""Study `representations`: does a transformer learn linearly in context on a fixed representation of its inputs?"""

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.layer_probes import Targets, probes, read
from ebbtide.analysis.predictions import Answers
from ebbtide.evaluation.baselines import linear_posterior
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.papers.representations.dynamics import DYNAMICS
from ebbtide.papers.representations.measures import (
    FIVE,
    PAPER_SIZE,
    QUICK,
    SCALED,
    each,
    exact,
    features,
    gain,
    last,
    layers_after,
    lost,
    model_errors,
    predictors,
    setting,
)
from ebbtide.papers.representations.pasting import FRONT_ENDS, PASTING
from ebbtide.report.contest_figure import Contest, bars_figure
from ebbtide.report.functions_figure import layers_figure
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point

PAPER = (
    "Guo et al. 2023, How Do Transformers Learn In-Context Beyond Simple Functions? A Case Study on Learning with "
    "Representations, ICLR 2024, arXiv 2310.10616"
)

SHALLOW, DEEP = "1 layer", "2 layers"
MIXTURE = "3 representations"


def targets(found: Answers) -> Targets:
    """What is looked for in the residual streams of inputs and of responses: x, phi(x), the posterior mean, y; of
    several representations, ridge's answer under each, apart into the prompt's own and the others."""
    known, source = features(found), setting(found)[0]
    y = found.responses[..., None]
    if len(known) == 1:
        at_inputs = {"x": found.inputs, "phi(x)": known[0], "posterior mean": exact(found)[..., None]}
        return Targets(at_inputs, {"x": found.inputs, "phi(x)": known[0], "y": y})
    penalty = penalty_of(setting(found)[1], source.deviation)
    every = np.stack([linear_posterior(x, found.responses, penalty).mean for x in known])
    own, prompt = found.latent["representation"], np.arange(y.shape[1])
    others = {f"ridge, other {i}": every[(own + i) % len(known), :, prompt].T[..., None] for i in range(1, len(known))}
    return Targets({"ridge, own": every[own, :, prompt].T[..., None], **others}, {})


def transforms_first(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """How many layers after phi(x), to 95 % of its best, half of the final posterior mean can be read."""
    return read(evidence, arm, targets, lambda here: layers_after(here.inputs["posterior mean"], here.inputs["phi(x)"]))


def copied(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """The best R^2 over layers of an input in the stream of its response."""
    return read(evidence, arm, targets, lambda here: float(here.responses["x"].max()))


def dropped(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """How much less of the other ridges' answers can be read at the end than at their best, mean over them."""

    def one(found: dict[str, Float[np.ndarray, " layer"]]) -> float:
        return float(np.mean([r.max() - r[-1] for name, r in found.items() if "other" in name]))

    return read(evidence, arm, targets, lambda here: one(here.inputs))


def _near(arm: str) -> Claim:
    return Claim(
        f"near, {arm}",
        f"with a representation of {arm} the model is near the posterior mean, ridge on phi(x)",
        "Fig. of the supervised setting; .3 of what ridge on x loses: set beforehand",
        f".3 - (error - the posterior mean's) / (ridge on x's - the posterior mean's) ({arm})",
        0.0,
        lambda evidence: 0.3 - each(evidence, arm, lambda one: lost(one, "ridge on x")),
        (arm,),
    )


def _before(arm: str) -> Claim:
    return Claim(
        f"before, {arm}",
        f"phi(x) can be read in lower layers than the answer ({arm})",
        "probes: lower layers transform, upper layers learn; 95 % of the best, half of the last value: set beforehand",
        f"first layer of half the posterior mean's R^2 - of 95 % of the best of phi(x)'s, at inputs ({arm})",
        0.0,
        lambda evidence: transforms_first(evidence, arm),
        (arm,),
    )


SUPERVISED_CLAIMS = (
    _near(SHALLOW),
    _near(DEEP),
    Claim(
        "beats",
        "it is better than ridge on random features, which also bend x",
        "baselines; own",
        f"random features' error - the model's ({DEEP})",
        0.0,
        lambda evidence: each(evidence, DEEP, lambda one: gain(one, "random features")),
        (DEEP,),
    ),
    _before(SHALLOW),
    _before(DEEP),
    Claim(
        "copied",
        "inputs are copied to the tokens of their responses",
        "probes: copying; half of the variance: set beforehand",
        f"best R^2 over layers of x at responses - .5 ({SHALLOW})",
        0.0,
        lambda evidence: copied(evidence, SHALLOW) - 0.5,
        (SHALLOW,),
    ),
)
MIXTURE_CLAIMS = (
    Claim(
        "near",
        "with one of three representations for a prompt it is near the average of ridges, weighed by evidence",
        "mixture setting; .3 of what ridge on all three at once loses: set beforehand",
        f".3 - (error - the posterior mean's) / (ridge on all's - the posterior mean's) ({MIXTURE})",
        0.0,
        lambda evidence: 0.3 - each(evidence, MIXTURE, lambda one: lost(one, "ridge on all")),
        (MIXTURE,),
    ),
    Claim(
        "selects",
        "and better than the mean of the three ridges: it selects by the prompt",
        "mixture setting: post-ICL selection",
        f"error of the mean of ridges - the model's ({MIXTURE})",
        0.0,
        lambda evidence: each(evidence, MIXTURE, lambda one: gain(one, "mean of ridges")),
        (MIXTURE,),
    ),
    Claim(
        "dropped",
        "ridge under the other representations can be read in the middle, and less at the end",
        "probes of the mixture; a tenth of the variance: what a figure shows",
        f"best R^2 over layers - last, mean over the two other ridges ({MIXTURE})",
        0.1,
        lambda evidence: dropped(evidence, MIXTURE),
        (MIXTURE,),
    ),
)


def _figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """contest.png: the model's error and every predictor's; probes.png: what can be read in which layer."""
    contests, panels = {}, {}
    for arm in evidence.finished():
        found = [one for one in last(evidence, arm) if one is not None]
        others = predictors(found[0])
        gap = paired_bootstrap(np.mean([model_errors(one) for one in found], 0) - others["posterior mean"], seed=0)
        words = f"{arm}\nmodel - posterior mean:\n{gap[0]:.4f} [{gap[1]:.4f}, {gap[2]:.4f}]"
        bars = {name: paired_bootstrap(one, seed=0) for name, one in others.items()}
        errors = each(evidence, arm, lambda one: float(model_errors(one).mean()))
        contests[words] = Contest("squared error for the query", errors, bars)
        seen = [one for one in probes(evidence, arm, targets) if one is not None]
        for where in ("inputs", "responses"):
            layers = [getattr(one, where) for one in seen]
            if layers and layers[0]:
                panels[f"{arm}: at {where}"] = {name: np.stack([one[name] for one in layers]) for name in layers[0]}
    drawn = {"contest.png": bars_figure(title, contests)["png"]} if contests else {}
    return drawn | ({"probes.png": layers_figure(title, panels)["png"]} if panels else {})


SUPERVISED_ARMS: dict[str, Point] = {SHALLOW: {"source.layers": 1}, DEEP: {"source.layers": 2}}
MIXTURE_ARMS: dict[str, Point] = {MIXTURE: {"source.layers": 1, "source.representations": 3}}
LONGER = f"4 times as long; {SCALED}"
SHOWS = {"shows": ("train",), "scalars": ("train_final", "train_loss_final"), "figures": _figures}
SUPERVISED = Experiment(
    name="supervised",
    question="Is the model ridge on a fixed representation, and where is the representation?",
    section="supervised learning with representation; probes",
    claims=SUPERVISED_CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=SUPERVISED_ARMS, base={}), 3, SCALED),
        "cpu": Preset(Comparison(arms=SUPERVISED_ARMS, base={"sequences": 1_024_000}), 10, LONGER),
        "paper": Preset(Comparison(arms=SUPERVISED_ARMS, base={}, preset="paper"), None, FIVE),
    },
    **SHOWS,
)
MIXED = Experiment(
    name="mixture",
    question="Does it select among representations by the prompt?",
    section="mixture of representations",
    claims=MIXTURE_CLAIMS,
    presets={
        "quick": Preset(Comparison(arms=MIXTURE_ARMS, base={"sequences": 384_000}, task_members=3), 3, SCALED),
        "cpu": Preset(Comparison(arms=MIXTURE_ARMS, base={"sequences": 1_536_000}), 8, LONGER),
        "paper": Preset(Comparison(arms=MIXTURE_ARMS, base={}, preset="paper"), None, FIVE),
    },
    **SHOWS,
)
REPRESENTATIONS = Study(
    name="representations",
    paper=PAPER,
    question="Do transformers learn in context beyond linear functions, by a representation and linear learning on it?",
    bases={
        "quick": Base(QUICK, "3 dimensions, 12 pairs, a representation of 1 layer"),
        "paper": Base(PAPER_SIZE, "20 dimensions, 40 pairs, 12 layers of width 256"),
    },
    experiments=(SUPERVISED, MIXED, DYNAMICS, PASTING, FRONT_ENDS),
)
