"""Study `positions`: do models whose answer is a function of the set of pairs hold up better when prompts shift?"""

from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.models.deepset import DeepSet
from ebbtide.models.model import Model
from ebbtide.models.positions import Identical, Learned, NoPositions, Positions, Rotary, Sinusoidal
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.studies.experiment import Experiment, Setting
from ebbtide.studies.positions_measures import (
    LONGER,
    SHIFTS,
    error,
    figures,
    gap,
    shifts_won,
)
from ebbtide.studies.study import Claim, Preset, Study
from ebbtide.studies.transience import TRANSIENCE
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.regression import Regression
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Cosine, Schedule
from ebbtide.training.spec import Spec

PAPER = "Chen et al. 2023, Positional Information Matters for Invariant In-Context Learning, arXiv 2311.18194"

CONTEXT = 10
QUICK = Spec(
    task=Regression(context=CONTEXT, noise=(0.2,)),
    source=Functions(dim=3, seed=5),
    model=Transformer(layers=3, width=32, heads=4),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=200)),
    batch=32,
    sequences=256_000,
    schedule=Schedule(evaluations=11, spacing="log", first=4000, checkpoints=2),
    evaluators=("train", *SHIFTS),
    evaluation_sequences=500,
    keep_best=None,
)
PAPER_SIZE: Point = {
    "task.context": 40,
    "source.dim": 20,
    "batch": 64,
    "optimizer.lr": 1e-4,
    "optimizer.schedule.warmup": 2000,
}

CAUSAL, BARE, SAME = "causal, learned", "causal, none", "causal, identical"
SET, SET_SAME, SET_LEARNED = "no mask, none", "no mask, identical", "no mask, learned"
DEEPSET = "DeepSet"
ARMS = (CAUSAL, BARE, SAME, SET, SET_SAME, SET_LEARNED, DEEPSET)
INVARIANT = (SET, SET_SAME, DEEPSET)
SINE, ROTARY = "causal, sinusoidal", "causal, rotary"


def arms(transformer: Transformer, deepset: DeepSet, context: int, sequences: int) -> dict[str, Point]:
    """Every arm at a size. Interleaved causal models answer every prefix of a prompt, as does the DeepSet; transformers
    without a mask are over joint tokens, read the query alone, and get prompts of random lengths. Arms take about the
    same time: a prompt costs those about half as much, so they get twice as many. Learned positions have spare vectors
    for the longest prompts."""

    def arm(model: Model, lengths: str = "full", times: int = 1) -> Point:
        return {"model": to_builtins(model), "task.lengths": lengths, "sequences": times * sequences}

    open_ = replace(transformer, mask="none", pairing="joint")
    longest = (max(LONGER) - 1) * context
    return {
        CAUSAL: arm(replace(transformer, positions=Learned(spare=2 * longest))),
        BARE: arm(replace(transformer, positions=NoPositions())),
        SAME: arm(replace(transformer, positions=Identical())),
        SET: arm(replace(open_, positions=NoPositions()), "random", 2),
        SET_SAME: arm(replace(open_, positions=Identical()), "random", 2),
        SET_LEARNED: arm(replace(open_, positions=Learned(spare=longest)), "random", 2),
        DEEPSET: arm(deepset),
    }


def kinds(made: dict[str, Point]) -> dict[str, Point]:
    """Of all arms the causal one with every kind of position, and the invariant transformer that has any."""

    def turned(positions: Positions) -> Point:
        return made[CAUSAL] | {"model": made[CAUSAL]["model"] | {"positions": to_builtins(positions)}}

    found = {CAUSAL: made[CAUSAL], SINE: turned(Sinusoidal(max_time=10_000.0)), ROTARY: turned(Rotary())}
    return found | {SET_SAME: made[SET_SAME]}


def _alike(arm: str, to: str = SET) -> Claim:
    return Claim(
        f"alike: {arm}",
        f"in distribution {arm} is within 1.5 times of {to}",
        "all about equal in distribution [design: the limit]",
        f"1.5 - error on train: {arm} / {to}",
        0.0,
        lambda found: 1.5 - error(found, arm) / error(found, to),
        (arm, to),
    )


def _invariant(arm: str) -> Claim:
    return Claim(
        f"invariant: {arm}",
        f"{arm}: the order of the pairs does not matter",
        "ICL invariance [design: the limit]",
        f"1e-8 - |f(permuted S, q) - f(S, q)|^2 / Var y ({arm})",
        0.0,
        lambda found: 1e-8 - gap(found, arm),
        (arm,),
    )


def _ordered(arm: str, why: str) -> Claim:
    return Claim(
        f"ordered: {arm}",
        f"{arm}: it does, {why}",
        "positions break invariance [design: the limit]",
        f"|f(permuted S, q) - f(S, q)|^2 / Var y ({arm})",
        1e-3,
        lambda found: gap(found, arm),
        (arm,),
    )


def _better(arm: str, than: str, source: str) -> Claim:
    return Claim(
        f"shifts: {arm}, {than}",
        f"on more than half of the shifts {arm} is better than {than}",
        source,
        f"shifts of {len(SHIFTS)} on which the error of {than} - {arm} is surely above 0 "
        "(bootstrap over 2,000 prompts)",
        len(SHIFTS) / 2,
        lambda found: shifts_won(found, arm, than),
        (arm, than),
    )


def _longer(arm: str) -> Claim:
    return Claim(
        f"longer: {arm}",
        f"{arm}: prompts twice as long help",
        "invariant models go on falling [design]",
        f"log of the error at training's length / at twice that ({arm})",
        0.0,
        lambda found: -error(found, arm, times=2, log=True) + error(found, arm, log=True),
        (arm,),
    )


def _extrapolates(arm: str, times: int, than: str = CAUSAL) -> Claim:
    return Claim(
        f"{times} times: {arm}, {than}",
        f"at {times} times the length of training {arm} is better than {than}",
        "positions fail beyond training's length [design]",
        f"log of the error at {times} times the pairs: {than} / {arm}",
        0.0,
        lambda found: error(found, than, times=times, log=True) - error(found, arm, times=times, log=True),
        (arm, than),
    )


SMALLER = (
    "3 dimensions, 10 pairs, 3 layers of width 32; arms that take half the time get twice the sequences; the sizes of "
    "the paper were not found, those of the work it builds on have 20 dimensions, 40 pairs, 12 layers of width 256"
)
LARGE = (
    "the sizes of Garg et al. 2022 without their curriculum, 200,000 steps in place of 500,000; "
    "the paper's own were not found"
)
SHIFTED = Experiment(
    name="shifts",
    question="Do models of the set of pairs hold up better than models of their sequence?",
    section="abstract: shifts, DeepSet against transformers, identical positions; lengths beyond training's",
    claims=(
        *(_alike(arm) for arm in ARMS if arm != SET),
        *(_invariant(arm) for arm in INVARIANT),
        _ordered(CAUSAL, "by its positions and its mask"),
        _ordered(BARE, "by its mask alone"),
        _ordered(SAME, "by its mask alone"),
        _ordered(SET_LEARNED, "by its positions alone"),
        _better(DEEPSET, CAUSAL, "abstract: DeepSet beats transformers across shifts"),
        _better(SET, CAUSAL, "abstract: invariance helps across shifts"),
        _better(SET_SAME, CAUSAL, "abstract: identical positions do best"),
        _better(SET_SAME, DEEPSET, "abstract: identical positions do best"),
        _better(SAME, CAUSAL, "abstract: identical positions do best [design: under a causal mask]"),
        _better(SET_SAME, SET_LEARNED, "the same, with nothing but positions changed [design]"),
        *(_longer(arm) for arm in INVARIANT),
        Claim(
            f"longer: {CAUSAL}",
            f"{CAUSAL}: prompts twice as long harm",
            "learned positions fail beyond training's length [design]",
            f"log of the error at twice training's length / at that ({CAUSAL})",
            0.0,
            lambda found: error(found, CAUSAL, times=2, log=True) - error(found, CAUSAL, log=True),
            (CAUSAL,),
        ),
        *(_extrapolates(arm, times) for arm in INVARIANT for times in LONGER),
    ),
    settings={
        "quick": Setting(
            arms=arms(Transformer(layers=3, width=32, heads=4), DeepSet(layers=3, width=128), CONTEXT, 256_000),
            base={"source.seed": 5},
            minutes=11,
            scaled=SMALLER,
        ),
        "cpu": Setting(
            arms=arms(Transformer(layers=3, width=32, heads=4), DeepSet(layers=3, width=128), CONTEXT, 1_024_000),
            base={"source.seed": 5},
            minutes=None,
            scaled=f"4 times as long; {SMALLER}",
        ),
        "paper": Setting(
            arms=arms(Transformer(layers=12, width=256, heads=8), DeepSet(layers=4, width=512), 40, 12_800_000),
            base=PAPER_SIZE | {"source.seed": 5},
            minutes=None,
            scaled=LARGE,
        ),
    },
    shows=("train", "skewed", "orthants", "sorted"),
    scalars=("train_final", *(f"{name}_final" for name in SHIFTS), "train_loss_final"),
    figures=lambda found, title: figures(found, title, ARMS),
)

KIND = Experiment(
    name="kinds",
    question="Does it matter which positions a causal model has?",
    section="transformers with positional encodings, of whatever kind, against invariant ones",
    claims=(
        *(_alike(arm, CAUSAL) for arm in (SINE, ROTARY)),
        *(_ordered(arm, "by its positions and its mask") for arm in (SINE, ROTARY)),
        *(_better(SET_SAME, arm, "abstract: identical positions do best") for arm in (SINE, ROTARY)),
        *(_extrapolates(SET_SAME, times, arm) for arm in (SINE, ROTARY) for times in LONGER),
    ),
    settings={
        name: setting._replace(arms=kinds(setting.arms), minutes=None) for name, setting in SHIFTED.settings.items()
    },
    shows=SHIFTED.shows,
    scalars=SHIFTED.scalars,
    figures=lambda found, title: figures(found, title, tuple(KIND.settings["quick"].arms)),
)

POSITIONS = Study(
    name="positions",
    paper=PAPER,
    question="Does a model that ignores the order of its examples learn in context more robustly?",
    claims=(),
    presets={"quick": Preset(QUICK, 11, "noisy linear functions of 3 dimensions, 10 pairs; shifts of the inputs")},
    summarise=TRANSIENCE.summarise,
    figure=TRANSIENCE.figure,
    experiments=(SHIFTED, KIND),
)
