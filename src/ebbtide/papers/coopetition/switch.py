"""Experiments of study `coopetition` that start from other models: does CIWL's half of the circuit help ICL, and when
is it too early, or too late?"""

import numpy as np
from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.models.transformer import Transformer
from ebbtide.papers.coopetition.settings import DATA, PAPER_SCALE, PAPER_SIZE, QUICK, SCALED, SECOND_HALF
from ebbtide.papers.induction_heads.claims import sooner_claim
from ebbtide.papers.transience.claims import TENTH
from ebbtide.papers.transience.models import ACCELERATOR
from ebbtide.sources.glyphs import Glyphs
from ebbtide.studies.claim import Claim, above, below, larger
from ebbtide.studies.comparison import Comparison, donor_seeds
from ebbtide.studies.donor import Donor
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import PerSequence, Shared
from ebbtide.tasks.relabel import CopyQueryLabel
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Schedule, Window
from ebbtide.training.spec import Spec

STUCK = 0.9 * 0.693
"""Nine tenths of the loss of copying either label at random (ln 2): above it ICL counts as not learned."""
LEARNED = 0.3
"""Loss below which ICL counts as learned: the paper's Fig. 4a has .3 after 4M sequences, Fig. 4b .1 at the end."""
SCRATCH = "from scratch"


def _donor(name: str, experiment: str, preset: str, spec: Spec, *kept: int) -> Donor:
    """A run in the worlds of an experiment's arms, with checkpoints at these sequence counts beside the first and the
    last."""
    windows = tuple(Window(one, one, every=1, keep=True) for one in kept)
    schedule, seeds = Schedule(evaluations=41, checkpoints=2, windows=windows), donor_seeds(experiment, preset, round=2)
    spec = replace(spec, schedule=schedule, seeds=seeds, keep_best=None)
    return Donor(name, spec, {"donor": experiment})


def restrict_to_ciwl(spec: Spec) -> Spec:
    """The spec with training data that only CIWL solves: the query's label is in context, beside an exemplar of another
    class."""
    assert isinstance(spec.task, FewShot)
    return replace(spec, task=replace(spec.task, burst=0, rest="unique", relabel=CopyQueryLabel(), distinct="label"))


def _larger_sizes(arms: dict[str, Point], base: Point, donor: Donor) -> Preset:
    """The preset `paper` of arms that start from a donor."""
    work = Comparison(round=2, arms=arms, base=base, preset="paper", resources=ACCELERATOR, task_members=9, donor=donor)
    return Preset(work, None, PAPER_SCALE, needs=DATA)


WARM = "with the second half of a trained model"
MODEL = _donor("coopetition-model", "coopetition/cooperation", "paper", replace(PAPER_SIZE, sequences=20_000_000))
"""The paper's main run at 20M sequences."""
ICL_ONLY: Point = {
    "task.labels": to_builtins(PerSequence(12_800)),
    "sequences": 64_000_000,
    "schedule": to_builtins(Schedule(evaluations=161, checkpoints=3)),
    "evaluators": ["train", "icl", "icl_holdout"],
}


def _stuck(evidence: Evidence) -> np.ndarray:
    loss = evidence.scalar(SCRATCH, "train_loss_final")
    return np.minimum(loss - STUCK, 1 - loss)


def _helps(evidence: Evidence) -> np.ndarray:
    scratch, warm = (evidence.scalar(arm, "train_loss_final") for arm in (SCRATCH, WARM))
    return np.minimum(scratch - STUCK, LEARNED - warm)


COOPERATION = Experiment(
    name="cooperation",
    question="Can ICL be learned from ICL-only data, and does CIWL's half of the circuit help?",
    section="Fig. 4a: from scratch the loss stays above ln 2; with CIWL's second half it falls below .3",
    claims=(
        Claim(
            "stuck",
            "from scratch a copy of either label is learned, and no more",
            "Fig. 4a (.75 to .8 for 64M sequences)",
            f"smaller of: train_loss_final - .9 ln 2, 1 - train_loss_final ({SCRATCH})",
            0.0,
            _stuck,
            (SCRATCH,),
        ),
        Claim(
            "helps",
            "with CIWL's second half it falls below .3, where it stays above .9 ln 2 without",
            "Fig. 4a (.1 at the end)",
            f"smaller of: train_loss_final - .9 ln 2 ({SCRATCH}), .3 - train_loss_final ({WARM})",
            0.0,
            _helps,
            (SCRATCH, WARM),
        ),
    ),
    presets={
        "paper": _larger_sizes(
            {SCRATCH: {"start": None}, WARM: MODEL.graft(MODEL.spec.sequences, SECOND_HALF)}, ICL_ONLY, MODEL
        ),
    },
    shows=("train", "icl", "icl_holdout"),
    scalars=("train_final", "icl_holdout_final", "train_loss_final"),
)

PLAIN, EARLY, LATER, LATE = "bursty data from the start", "switched early", "switched later", "switched late"
SWITCH_DONOR = _donor(
    "coopetition-ciwl-only",
    "coopetition/switch",
    "quick",
    restrict_to_ciwl(replace(QUICK, sequences=320_000)),
    *(4_000, 32_000),
)
LARGE_SWITCH_DONOR = _donor(
    "coopetition-ciwl-only",
    "coopetition/switch",
    "paper",
    restrict_to_ciwl(replace(PAPER_SIZE, sequences=8_000_000)),
    *(4_000_000, 6_000_000),
)


def _flip_rise(evidence: Evidence, arm: str) -> np.ndarray:
    """Peak of true ICL - true ICL at the switch."""
    return evidence.scalar(arm, "flip_peak") - evidence.curve(arm, "flip").values[:, 0]


def _comes_and_goes(evidence: Evidence) -> np.ndarray:
    fall = evidence.scalar(EARLY, "flip_peak") - evidence.scalar(EARLY, "flip_final")
    return np.minimum(_flip_rise(evidence, EARLY), fall)


def _too_late(evidence: Evidence) -> np.ndarray:
    return np.minimum(TENTH - _flip_rise(evidence, LATE), _flip_rise(evidence, EARLY) - TENTH)


SWITCH = Experiment(
    name="switch",
    question="Until when can a model that was trained for CIWL alone still come to ICL?",
    section="Fig. 4c: bursty data after 4M or 5M sequences of CIWL-only data: Flip .89, then falls; from 8M on no rise",
    claims=(
        above("climbs", "switched early, true ICL comes", "Fig. 4c (.89); a tenth less", "flip_peak", EARLY, 0.79),
        larger(
            "higher",
            "higher than without CIWL first",
            "Fig. 4c, 1b (.89, .71: .18); a tenth less",
            "flip_peak",
            EARLY,
            PLAIN,
            0.08,
        ),
        Claim(
            "transient",
            "it rises after the switch, and goes again",
            "Fig. 4c; a tenth of all answers",
            f"smaller of: flip_peak - flip at the switch, flip_peak - flip_final ({EARLY})",
            TENTH,
            _comes_and_goes,
            (EARLY,),
        ),
        Claim(
            "too late",
            "switched late, it never rises above its start, as it does when switched early",
            "Fig. 4c (from 8M on); a tenth of all answers",
            f"smaller of: .1 - (flip_peak - flip at the switch) ({LATE}), the same of {EARLY} - .1",
            0.0,
            _too_late,
            (LATE, EARLY),
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=2,
                arms={
                    EARLY: SWITCH_DONOR.start(4_000),
                    LATER: SWITCH_DONOR.start(32_000),
                    LATE: SWITCH_DONOR.start(320_000),
                },
                base={"sequences": 640_000, "schedule.evaluations": 41, "schedule.checkpoints": 3},
                donor=SWITCH_DONOR,
            ),
            1,
            f"switched after 4,000, 32,000 and 320,000 sequences in place of 4M to 16M; {SCALED}",
        ),
        "paper": _larger_sizes(
            {
                PLAIN: {"start": None},
                EARLY: LARGE_SWITCH_DONOR.start(4_000_000),
                LATER: LARGE_SWITCH_DONOR.start(6_000_000),
                LATE: LARGE_SWITCH_DONOR.start(8_000_000),
            },
            {"sequences": 32_000_000, "schedule": to_builtins(Schedule(evaluations=161, checkpoints=3))},
            LARGE_SWITCH_DONOR,
        ),
    },
    shows=("flip", "icl", "ciwl"),
    scalars=("flip_peak", "flip_final", "icl_peak", "icl_final", "ciwl_final", "train_loss_final"),
)

CHARACTERS = replace(
    QUICK,
    task=FewShot(context=2, burst=1, labels=Shared(64), reserved_labels=0),
    source=Glyphs(features="pixels", classes=128, exemplars=2, motor=0.5, holdout_classes=100),
    model=Transformer(layers=2, width=64, heads=8, mlp_ratio=0),
    optimizer=Adam(lr=3e-4),
    batch=32,
    evaluation_sequences=300,
)
"""A setting in which ICL-only data have a plateau: characters overlap, so the match is the slow part."""
WINDOW_DONOR = _donor(
    "coopetition-ciwl-only-characters",
    "coopetition/window",
    "quick",
    restrict_to_ciwl(replace(CHARACTERS, sequences=1_024_000)),
    *(1_600, 102_400),
)
LARGE_WINDOW_DONOR = _donor(
    "coopetition-ciwl-only",
    "coopetition/window",
    "paper",
    restrict_to_ciwl(PAPER_SIZE),
    *(4_000_000, 20_000_000),
)
YOUNG, MIDDLE, OLD = "a young second half", "a second half in time", "an old second half"
CHARACTERS_ALONE: Point = {
    "task": to_builtins(CHARACTERS.task) | {"labels": to_builtins(PerSequence(64))},
    "source": to_builtins(CHARACTERS.source),
    "model": to_builtins(CHARACTERS.model),
    "optimizer": to_builtins(CHARACTERS.optimizer),
    "batch": CHARACTERS.batch,
    "sequences": 448_000,
    "schedule": to_builtins(Schedule(evaluations=41, checkpoints=3)),
    "evaluators": ["train", "icl", "icl_holdout"],
    "evaluation_sequences": 300,
}


def _window_arms(donor: Donor, young: int, middle: int) -> dict[str, Point]:
    """Arms with the second half of the donor at three ages, and one from scratch."""
    ages = {YOUNG: young, MIDDLE: middle, OLD: donor.spec.sequences}
    return {SCRATCH: {"start": None}} | {name: donor.graft(age, SECOND_HALF) for name, age in ages.items()}


def _outside_window(name: str, statement: str, source: str, arm: str) -> Claim:
    """The claim that with the second half of `arm` the loss stays, where with a middle one ICL is learned."""

    def estimate(evidence: Evidence) -> np.ndarray:
        stays, learned = (evidence.scalar(one, "train_loss_final") for one in (arm, MIDDLE))
        return np.minimum(stays - STUCK, LEARNED - learned)

    metric = f"smaller of: train_loss_final - .9 ln 2 ({arm}), .3 - train_loss_final ({MIDDLE})"
    return Claim(name, statement, source, metric, 0.0, estimate, (arm, MIDDLE))


WINDOW = Experiment(
    name="window",
    question="When has CIWL's half of the circuit what ICL needs?",
    section="Fig. 4b: ICL-only data, second half of a CIWL-only model: loss .1 with that of 10M to 32M, else .8 to 1.9",
    claims=(
        below("in time", "with a middle half ICL is learned", "Fig. 4b (.1)", "train_loss_final", MIDDLE, LEARNED),
        _outside_window("too early", "with a young one it is not", "Fig. 4b (1.9, .9; .1)", YOUNG),
        _outside_window("too late", "nor with an old one", "Fig. 4b (.8; .1)", OLD),
        sooner_claim("helps", "a middle one: sooner than from scratch", "Fig. 4a, 4b (never)", MIDDLE, SCRATCH),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=2,
                arms=_window_arms(WINDOW_DONOR, 1_600, 102_400),
                base=CHARACTERS_ALONE,
                donor=WINDOW_DONOR,
            ),
            5,
            "2 layers of attention alone, width 64, pixels of 128 drawn characters of 2 drawings with 64 labels, "
            "rate 3e-4, halves of donors trained on 1,600 to 1,024,000 sequences, in place of 12,800 transformed "
            "characters of 20 drawings with a label each, 1e-5, donors of 4M to 64M",
        ),
        "paper": _larger_sizes(_window_arms(LARGE_WINDOW_DONOR, 4_000_000, 20_000_000), ICL_ONLY, LARGE_WINDOW_DONOR),
    },
    shows=("train", "icl_holdout"),
    scalars=("train_final", "icl_holdout_final", "train_loss_final"),
)
