"""Study `representations`: does a transformer learn linearly in context on a fixed representation of its inputs?"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from msgspec.structs import replace

from ebbtide.evaluation.baselines import Inputs, Responses, linear_posterior
from ebbtide.evaluation.bayes import mixed_features, penalty_of
from ebbtide.evaluation.statistics import paired_bootstrap
from ebbtide.models.positions import Learned
from ebbtide.models.transformer import Transformer
from ebbtide.report.contest_figure import Contest, bars_figure
from ebbtide.report.functions_figure import layers_figure
from ebbtide.sources.functions import Functions, represented
from ebbtide.studies.answers import Answers, answers
from ebbtide.studies.contests import by_member
from ebbtide.studies.experiment import Arms, Experiment, Setting
from ebbtide.studies.layer_probes import Read, Targets, probes
from ebbtide.studies.study import Claim, Preset, Study
from ebbtide.studies.transience import TRANSIENCE
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Cosine, Schedule
from ebbtide.training.spec import Seeds, Spec

PAPER = (
    "Guo et al. 2023, How Do Transformers Learn In-Context Beyond Simple Functions? A Case Study on Learning with "
    "Representations, ICLR 2024, arXiv 2310.10616"
)

QUICK = Spec(
    task=Regression(context=12, noise=(0.1,)),
    source=Functions(dim=3, layers=1, seed=5),
    model=Transformer(layers=4, width=32, heads=4, positions=Learned(init_sd=1.0)),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=300)),
    batch=64,
    sequences=256_000,
    schedule=Schedule(evaluations=21, spacing="log", first=3200, checkpoints=2),
    evaluators=("train", "prior"),
    evaluation_sequences=1000,
    keep_best=None,
    seeds=Seeds(init=50, data=50, evaluation=50),
)
PENALTIES = tuple(float(p) for p in np.geomspace(1e-3, 10, 20))
"""Of the baselines that do not know the representation: the best of them counts."""
SHALLOW, DEEP = "1 layer", "2 layers"
MIXTURE = "3 representations"


def _setting(found: Answers) -> tuple[Functions, float]:
    source, task = found.spec.source, found.spec.task
    assert isinstance(source, Functions) and isinstance(task, Regression)
    return source, task.noise[0]


def features(found: Answers) -> list[Inputs]:
    """The inputs under every representation of the source, in float64."""
    maps = np.asarray(_setting(found)[0].build().maps, np.float64)
    return [represented(one, found.inputs) for one in maps]


def clean(found: Answers) -> Responses:
    """The responses without their noise."""
    chosen = np.stack(features(found))[found.latent["representation"], :, np.arange(found.inputs.shape[1])]
    return np.einsum("bsd,bd->sb", chosen, found.latent["weights"])


def _best(found: Answers, inputs: Inputs) -> Float[np.ndarray, " prompt"]:
    """The query's squared error of ridge on `inputs`, with the best of the penalties."""
    errors = [(linear_posterior(inputs, found.responses, p).mean[-1] - clean(found)[-1]) ** 2 for p in PENALTIES]
    return min(errors, key=lambda one: one.mean())


def exact(found: Answers) -> Responses:
    """The posterior mean at every slot: ridge on the representation, or where there are several the average of ridge
    on each, weighed by the evidence."""
    source, noise = _setting(found)
    return mixed_features(features(found), found.responses, noise, source.deviation).predictions


def predictors(found: Answers) -> dict[str, Float[np.ndarray, " prompt"]]:
    """Squared errors at the query, before its noise, of what does and of what does not know the representation: ridge
    on the inputs, and on as many random features as the model has units (leaky layers of other random maps)."""
    source, noise = _setting(found)
    known = features(found)
    made = {"posterior mean": (exact(found)[-1] - clean(found)[-1]) ** 2}
    if len(known) > 1:
        each = [linear_posterior(x, found.responses, penalty_of(noise, source.deviation)).mean[-1] for x in known]
        made["mean of ridges"] = (np.mean(each, axis=0) - clean(found)[-1]) ** 2
        made["ridge on all"] = _best(found, np.concatenate(known, axis=-1))
    other = replace(source, representations=8, layers=1, seed=source.seed + 1000)
    maps = np.asarray(other.build().maps, np.float64)
    made["ridge on x"] = _best(found, found.inputs)
    made["random features"] = _best(found, np.concatenate([represented(one, found.inputs) for one in maps], axis=-1))
    return made


def _last(arms: Arms, arm: str) -> list[Answers | None]:
    return answers(arms, arm, "train", last=True)


def model_errors(found: Answers) -> Float[np.ndarray, " prompt"]:
    """Those of a member's last checkpoint."""
    return (found.values()[-1, -1] - clean(found)[-1]) ** 2


def lost(found: Answers, to: str) -> float:
    """What the model loses to the posterior mean, in units of what the predictor `to` loses to it."""
    made = predictors(found)
    best = made["posterior mean"].mean()
    return float((model_errors(found).mean() - best) / (made[to].mean() - best))


def gain(found: Answers, over: str) -> float:
    """How much smaller the model's mean error is than that of the predictor `over`."""
    return float(predictors(found)[over].mean() - model_errors(found).mean())


def _each(arms: Arms, arm: str, measure: Callable[[Answers], float]) -> Float[np.ndarray, " member"]:
    return by_member(_last(arms, arm), measure)


def targets(found: Answers) -> Targets:
    """What is looked for in the residual streams of inputs and of responses: x, phi(x), the posterior mean, y; of
    several representations, ridge's answer under each, apart into the prompt's own and the others."""
    known, source = features(found), _setting(found)[0]
    y = found.responses[..., None]
    if len(known) == 1:
        at_inputs = {"x": found.inputs, "phi(x)": known[0], "posterior mean": exact(found)[..., None]}
        return Targets(at_inputs, {"x": found.inputs, "phi(x)": known[0], "y": y})
    penalty = penalty_of(_setting(found)[1], source.deviation)
    each = np.stack([linear_posterior(x, found.responses, penalty).mean for x in known])
    own, prompt = found.latent["representation"], np.arange(y.shape[1])
    others = {f"ridge, other {i}": each[(own + i) % len(known), :, prompt].T[..., None] for i in range(1, len(known))}
    return Targets({"ridge, own": each[own, :, prompt].T[..., None], **others}, {})


def _half(values: Float[np.ndarray, " layer"], share: float = 0.5) -> float:
    """The first layer (0: the embedding) at which a share of the last value is reached."""
    return float(np.argmax(values >= share * values[-1]))


def _read(arms: Arms, arm: str, measure: Callable[[Read], float]) -> Float[np.ndarray, " member"]:
    """A number from the probes of every member, nan where it has not finished."""
    return np.asarray([np.nan if here is None else measure(here) for here in probes(arms, arm, targets)])


def transforms_first(arms: Arms, arm: str) -> Float[np.ndarray, " member"]:
    """How many layers after phi(x), to 95 % of its best, half of the final posterior mean can be read."""

    def one(found: dict[str, Float[np.ndarray, " layer"]]) -> float:
        phi = found["phi(x)"]
        return _half(found["posterior mean"]) - float(np.argmax(phi >= 0.95 * phi.max()))

    return _read(arms, arm, lambda here: one(here.inputs))


def copied(arms: Arms, arm: str) -> Float[np.ndarray, " member"]:
    """The best R^2 over layers of an input in the stream of its response."""
    return _read(arms, arm, lambda here: float(here.responses["x"].max()))


def dropped(arms: Arms, arm: str) -> Float[np.ndarray, " member"]:
    """How much less of the other ridges' answers can be read at the end than at their best, mean over them."""

    def one(found: dict[str, Float[np.ndarray, " layer"]]) -> float:
        return float(np.mean([r.max() - r[-1] for name, r in found.items() if "other" in name]))

    return _read(arms, arm, lambda here: one(here.inputs))


def _near(arm: str) -> Claim:
    return Claim(
        f"near, {arm}",
        f"with a representation of {arm} the model is near the posterior mean, ridge on phi(x)",
        "Fig. of the supervised setting; .3 of what ridge on x loses: set beforehand",
        f".3 - (error - the posterior mean's) / (ridge on x's - the posterior mean's) ({arm})",
        0.0,
        lambda arms: 0.3 - _each(arms, arm, lambda one: lost(one, "ridge on x")),
        (arm,),
    )


def _before(arm: str) -> Claim:
    return Claim(
        f"before, {arm}",
        f"phi(x) can be read in lower layers than the answer ({arm})",
        "probes: lower layers transform, upper layers learn; 95 % of the best, half of the last value: set beforehand",
        f"first layer of half the posterior mean's R^2 - of 95 % of the best of phi(x)'s, at inputs ({arm})",
        0.0,
        lambda arms: transforms_first(arms, arm),
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
        lambda arms: _each(arms, DEEP, lambda one: gain(one, "random features")),
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
        lambda arms: copied(arms, SHALLOW) - 0.5,
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
        lambda arms: 0.3 - _each(arms, MIXTURE, lambda one: lost(one, "ridge on all")),
        (MIXTURE,),
    ),
    Claim(
        "selects",
        "and better than the mean of the three ridges: it selects by the prompt",
        "mixture setting: post-ICL selection",
        f"error of the mean of ridges - the model's ({MIXTURE})",
        0.0,
        lambda arms: _each(arms, MIXTURE, lambda one: gain(one, "mean of ridges")),
        (MIXTURE,),
    ),
    Claim(
        "dropped",
        "ridge under the other representations can be read in the middle, and less at the end",
        "probes of the mixture; a tenth of the variance: what a figure shows",
        f"best R^2 over layers - last, mean over the two other ridges ({MIXTURE})",
        0.1,
        lambda arms: dropped(arms, MIXTURE),
        (MIXTURE,),
    ),
)


def _figures(arms: Arms, title: str) -> dict[str, bytes]:
    """contest.png: the model's error and every predictor's; probes.png: what can be read in which layer."""
    contests, panels = {}, {}
    for arm in arms.measured():
        found = [one for one in _last(arms, arm) if one is not None]
        others = predictors(found[0])
        gap = paired_bootstrap(np.mean([model_errors(one) for one in found], 0) - others["posterior mean"], seed=0)
        words = f"{arm}\nmodel - posterior mean:\n{gap[0]:.4f} [{gap[1]:.4f}, {gap[2]:.4f}]"
        bars = {name: paired_bootstrap(each, seed=0) for name, each in others.items()}
        errors = _each(arms, arm, lambda one: float(model_errors(one).mean()))
        contests[words] = Contest("squared error for the query", errors, bars)
        seen = [one for one in probes(arms, arm, targets) if one is not None]
        for where in ("inputs", "responses"):
            each = [getattr(one, where) for one in seen]
            if each and each[0]:
                panels[f"{arm}: at {where}"] = {name: np.stack([one[name] for one in each]) for name in each[0]}
    drawn = {"contest.png": bars_figure(title, contests)["png"]} if contests else {}
    return drawn | ({"probes.png": layers_figure(title, panels)["png"]} if panels else {})


SUPERVISED_ARMS: dict[str, Point] = {SHALLOW: {"source.layers": 1}, DEEP: {"source.layers": 2}}
MIXTURE_ARMS: dict[str, Point] = {MIXTURE: {"source.layers": 1, "source.representations": 3}}
SCALED = (
    "3 dimensions, 12 pairs, noise .1, 4 layers of width 32, in place of 20 dimensions, 40 pairs, 12 layers of "
    "width 256"
)
LONGER = f"4 times as long; {SCALED}"
FIVE = "5 members an arm, the paper trains one"
SHOWS = {"shows": ("train",), "scalars": ("train_final", "train_loss_final"), "figures": _figures}
SUPERVISED = Experiment(
    name="supervised",
    question="Is the model ridge on a fixed representation, and where is the representation?",
    section="supervised learning with representation; probes",
    claims=SUPERVISED_CLAIMS,
    settings={
        "quick": Setting(arms=SUPERVISED_ARMS, base={}, minutes=8, scaled=SCALED),
        "cpu": Setting(arms=SUPERVISED_ARMS, base={"sequences": 1_024_000}, minutes=None, scaled=LONGER),
        "paper": Setting(arms=SUPERVISED_ARMS, base={}, minutes=None, scaled=FIVE, preset="paper"),
    },
    **SHOWS,
)
MIXED = Experiment(
    name="mixture",
    question="Does it select among representations by the prompt?",
    section="mixture of representations",
    claims=MIXTURE_CLAIMS,
    settings={
        "quick": Setting(arms=MIXTURE_ARMS, base={"sequences": 384_000}, minutes=4, task_members=3, scaled=SCALED),
        "cpu": Setting(arms=MIXTURE_ARMS, base={"sequences": 1_536_000}, minutes=None, scaled=LONGER),
        "paper": Setting(arms=MIXTURE_ARMS, base={}, minutes=None, scaled=FIVE, preset="paper"),
    },
    **SHOWS,
)
PAPER_SIZE = replace(
    QUICK,
    task=Regression(context=40, noise=(0.1,)),
    source=Functions(dim=20, layers=1, seed=5),
    model=Transformer(layers=12, width=256, heads=8),
    optimizer=Adam(lr=1e-4, schedule=Constant()),
    sequences=19_200_000,
    schedule=Schedule(evaluations=41, checkpoints=2),
)
REPRESENTATIONS = Study(
    name="representations",
    paper=PAPER,
    question="Do transformers learn in context beyond linear functions, by a representation and linear learning on it?",
    claims=(),
    presets={
        "quick": Preset(QUICK, None, "3 dimensions, 12 pairs, a representation of 1 layer"),
        "paper": Preset(PAPER_SIZE, None, "20 dimensions, 40 pairs, 12 layers of width 256"),
    },
    summarise=TRANSIENCE.summarise,
    figure=TRANSIENCE.figure,
    experiments=(SUPERVISED, MIXED),
)
