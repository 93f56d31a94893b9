"""Study `representations`: does a transformer learn linearly in context on a fixed representation of its inputs?"""

import numpy as np
from jaxtyping import Float

from ebbtide.analysis.layer_probes import ProbeScores, Targets, probe_members, probe_values
from ebbtide.analysis.predictions import Predictions
from ebbtide.evaluation.baselines import linear_posterior
from ebbtide.evaluation.bayes import penalty_of
from ebbtide.papers.representations.dynamics import DYNAMICS
from ebbtide.papers.representations.measures import (
    NINE,
    PAPER_SIZE,
    QUICK,
    SCALED,
    final_values,
    first_best,
    gain_over,
    layers_after,
    model_errors,
    pool_bars,
    posterior_mean,
    predict_final,
    predictor_errors,
    relative_excess,
    represented_inputs,
    source_and_noise,
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


def probe_targets(predictions: Predictions) -> Targets:
    """Features that probes read. With one representation: x, phi(x) and the posterior mean at the tokens of inputs, and
    x, phi(x) and y at those of responses. With several, at the tokens of inputs: predictions of ridge under the
    prompt's own representation, and of each other one what is left when the own one's share is taken off (its multiple
    that is nearest): predictions for the same prompt are alike, and a probe of one would read another."""
    known, source = represented_inputs(predictions), source_and_noise(predictions)[0]
    y = predictions.responses[..., None]
    if len(known) == 1:
        at_inputs = {
            "x": predictions.inputs,
            "phi(x)": known[0],
            "posterior mean": posterior_mean(predictions)[..., None],
        }
        return Targets(at_inputs, {"x": predictions.inputs, "phi(x)": known[0], "y": y})
    penalty = penalty_of(source_and_noise(predictions)[1], source.deviation)
    every = np.stack([linear_posterior(x, predictions.responses, penalty).mean for x in known])
    own, prompt = predictions.latent["representation"], np.arange(y.shape[1])
    selected = every[own, :, prompt].T
    others = {}
    for i in range(1, len(known)):
        other = every[(own + i) % len(known), :, prompt].T
        left = other - selected * (selected * other).sum() / (selected**2).sum()
        others[f"ridge, other {i}, beyond own"] = left[..., None]
    return Targets({"ridge, own": selected[..., None], **others}, {})


def answer_delay_layers(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Number of layers by which the posterior mean can be read later than phi(x) (`layers_after`)."""

    def delay(scores: ProbeScores) -> float:
        return layers_after(scores.inputs["posterior mean"], scores.inputs["phi(x)"], at_least=0.5)

    return probe_values(evidence, arm, probe_targets, delay)


def copied_input_r2(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Best R^2 over layers of a probe of an input at the token of its response."""
    return probe_values(evidence, arm, probe_targets, lambda here: float(here.responses["x"].max()))


def copy_order_layers(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Number of layers by which phi(x) can be read later than x at the token of the response; nan where x cannot."""

    def order(scores: ProbeScores) -> float:
        r2 = scores.responses
        return float(first_best(r2["phi(x)"]) - first_best(r2["x"])) if r2["x"].max() > 0.5 else float("nan")

    return probe_values(evidence, arm, probe_targets, order)


def dropped_r2(evidence: Evidence, arm: str) -> Float[np.ndarray, " member"]:
    """Best R^2 over layers - R^2 of the last layer, for probes of what ridge under the other representations has beyond
    the own one (mean over those)."""

    def drop(scores: ProbeScores) -> float:
        return float(np.mean([r2.max() - r2[-1] for name, r2 in scores.inputs.items() if "other" in name]))

    return probe_values(evidence, arm, probe_targets, drop)


def _near_claim(arm: str) -> Claim:
    return Claim(
        f"near, {arm}",
        f"with a representation of {arm} the model is near the posterior mean, ridge on phi(x)",
        "Fig. of the supervised setting; .3 of what ridge on x loses: set beforehand",
        f".3 - (error - the posterior mean's) / (ridge on x's - the posterior mean's) ({arm})",
        0.0,
        lambda evidence: 0.3 - final_values(evidence, arm, lambda one: relative_excess(one, "ridge on x")),
        (arm,),
    )


def _before_claim(arm: str) -> Claim:
    return Claim(
        f"before, {arm}",
        f"phi(x) can be read in lower layers than the answer ({arm})",
        "probes: lower layers transform, upper layers learn; 95 % of the best, half of the last value: set beforehand",
        f"first layer of half the posterior mean's R^2, if that ends above .5 - of 95 % of the best of phi(x)'s, at "
        f"inputs ({arm})",
        0.0,
        lambda evidence: answer_delay_layers(evidence, arm),
        (arm,),
    )


SUPERVISED_CLAIMS = (
    _near_claim(SHALLOW),
    _near_claim(DEEP),
    Claim(
        "beats",
        "it is better than ridge on random features, which also bend x",
        "baselines; own",
        f"random features' error - the model's ({DEEP})",
        0.0,
        lambda evidence: final_values(evidence, DEEP, lambda one: gain_over(one, "random features")),
        (DEEP,),
    ),
    _before_claim(SHALLOW),
    _before_claim(DEEP),
    Claim(
        "copied",
        "inputs are copied to the tokens of their responses",
        "probes: copying; half of the variance: set beforehand",
        f"best R^2 over layers of x at responses - .5 ({SHALLOW})",
        0.0,
        lambda evidence: copied_input_r2(evidence, SHALLOW) - 0.5,
        (SHALLOW,),
    ),
    Claim(
        "copied first",
        "and before phi(x) is",
        "probes: x is copied early, phi(x) a layer or two later",
        f"first layer of 95 % of the best R^2 of phi(x) - of x, at responses, if x is above .5 ({DEEP})",
        0.0,
        lambda evidence: copy_order_layers(evidence, DEEP),
        (DEEP,),
    ),
)
MIXTURE_CLAIMS = (
    Claim(
        "near",
        "with one of three representations for a prompt it is near the average of ridges, weighed by evidence",
        "mixture setting; .3 of what the mean of the three ridges, which does not select, loses: set beforehand",
        f".3 - (error - the posterior mean's) / (mean of ridges' - the posterior mean's) ({MIXTURE})",
        0.0,
        lambda evidence: 0.3 - final_values(evidence, MIXTURE, lambda one: relative_excess(one, "mean of ridges")),
        (MIXTURE,),
    ),
    Claim(
        "selects",
        "and better than ridge on all three at once, the best method that need not select: it selects by the prompt",
        "mixture setting: post-ICL selection",
        f"error of ridge on all - the model's ({MIXTURE})",
        0.0,
        lambda evidence: final_values(evidence, MIXTURE, lambda one: gain_over(one, "ridge on all")),
        (MIXTURE,),
    ),
    Claim(
        "dropped",
        "ridge under the other representations can be read in the middle, and less at the end",
        "probes of the mixture: all are there in the middle, the selected one alone at the end; a tenth of the "
        "variance: what a figure shows",
        f"best R^2 over layers - last, of what the two other ridges have beyond the own one ({MIXTURE})",
        0.1,
        lambda evidence: dropped_r2(evidence, MIXTURE),
        (MIXTURE,),
    ),
)


def _draw_figures(evidence: Evidence, title: str) -> dict[str, bytes]:
    """contest.png: errors of the model and of every predictor; probes.png: R^2 of every probe target by layer."""
    contests, panels = {}, {}
    for arm in evidence.finished_arms():
        members = [one for one in predict_final(evidence, arm) if one is not None]
        (gap,) = pool_bars(
            members, lambda one: {"gap": model_errors(one) - predictor_errors(one)["posterior mean"]}
        ).values()
        words = f"{arm}\nmodel - posterior mean:\n{gap[0]:.4f} [{gap[1]:.4f}, {gap[2]:.4f}]"
        bars = pool_bars(members, predictor_errors)
        errors = final_values(evidence, arm, lambda one: float(model_errors(one).mean()))
        contests[words] = Contest("squared error for the query", errors, bars)
        seen = [one for one in probe_members(evidence, arm, probe_targets) if one is not None]
        for where in ("inputs", "responses"):
            layers = [getattr(one, where) for one in seen]
            if layers and layers[0]:
                panels[f"{arm}: at {where}"] = {name: np.stack([one[name] for one in layers]) for name in layers[0]}
    figures = {"contest.png": bars_figure(title, contests)["png"]} if contests else {}
    return figures | ({"probes.png": layers_figure(title, panels)["png"]} if panels else {})


SUPERVISED_ARMS: dict[str, Point] = {SHALLOW: {"source.layers": 1}, DEEP: {"source.layers": 2}}
MIXTURE_ARMS: dict[str, Point] = {MIXTURE: {"source.layers": 1, "source.representations": 3}}
LONGER = f"4 times as long; {SCALED}"
SHOWS = {"shows": ("train",), "scalars": ("train_final", "train_loss_final"), "figures": _draw_figures}
SUPERVISED = Experiment(
    name="supervised",
    question="Is the model ridge on a fixed representation, and where is the representation?",
    section="supervised learning with representation; probes",
    claims=SUPERVISED_CLAIMS,
    presets={
        "quick": Preset(Comparison(round=1, arms=SUPERVISED_ARMS, base={}), 5, SCALED),
        "cpu": Preset(Comparison(round=1, arms=SUPERVISED_ARMS, base={"sequences": 1_024_000}), 18, LONGER),
        "paper": Preset(Comparison(round=1, arms=SUPERVISED_ARMS, base={}, preset="paper"), None, NINE),
    },
    **SHOWS,
)
MIXED = Experiment(
    name="mixture",
    question="Does it select among representations by the prompt?",
    section="mixture of representations",
    claims=MIXTURE_CLAIMS,
    presets={
        "quick": Preset(Comparison(round=1, arms=MIXTURE_ARMS, base={"sequences": 384_000}, task_members=3), 5, SCALED),
        "cpu": Preset(Comparison(round=1, arms=MIXTURE_ARMS, base={"sequences": 1_536_000}), 14, LONGER),
        "paper": Preset(Comparison(round=1, arms=MIXTURE_ARMS, base={}, preset="paper"), None, NINE),
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
