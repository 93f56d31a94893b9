"""Experiments of study `coopetition` that start from models trained for CIWL alone: when is it too early, or too late,
for ICL?"""

import numpy as np
from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.models.transformer import Transformer
from ebbtide.papers.coopetition.settings import QUICK, SCALED, SECOND_HALF
from ebbtide.papers.induction_heads.claims import sooner_claim
from ebbtide.papers.transience.claims import TENTH
from ebbtide.sources.glyphs import Glyphs
from ebbtide.studies.claim import Claim, above, below, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.donor import Donor
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import PerSequence, Shared
from ebbtide.tasks.relabel import CopyQueryLabel
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Schedule, Window
from ebbtide.training.spec import Seeds, Spec

OTHER_DATA = Seeds(init=50, data=51, evaluation=50)
"""Seeds of the donors: they are trained on other sequences than the arms that start from them."""


def restrict_to_ciwl(spec: Spec) -> Spec:
    """The spec with training data that only CIWL solves: the query's label is in context, beside an exemplar of another
    class."""
    assert isinstance(spec.task, FewShot)
    task = replace(spec.task, burst=0, rest="unique", relabel=CopyQueryLabel(), distinct="label")
    return replace(spec, task=task, seeds=OTHER_DATA, keep_best=None)


def keep_checkpoints(*sequences: int) -> Schedule:
    """Schedule of 41 evaluations that keeps checkpoints at these sequence counts, beside the first and the last."""
    windows = tuple(Window(one, one, every=1, keep=True) for one in sequences)
    return Schedule(evaluations=41, checkpoints=2, windows=windows)


PLAIN, EARLY, LATER, LATE = "bursty data from the start", "after 4,000", "after 32,000", "after 320,000"
SWITCH_DONOR = Donor(
    "coopetition-ciwl-only",
    restrict_to_ciwl(replace(QUICK, sequences=320_000, schedule=keep_checkpoints(4_000, 32_000))),
    {"donor": "coopetition/switch"},
)


def _icl_rise(evidence: Evidence) -> np.ndarray:
    """Peak of true ICL - true ICL at the switch, in the arm that switches late."""
    return evidence.scalar(LATE, "flip_peak") - evidence.curve(LATE, "flip").values[:, 0]


SWITCH = Experiment(
    name="switch",
    question="Until when can a model that was trained for CIWL alone still come to ICL?",
    section="Fig. 4c: bursty data after 4M or 5M sequences of CIWL-only data: Flip .89, then falls; from 8M on no rise",
    claims=(
        above("climbs", "switched early, true ICL comes", "Fig. 4c (.89): half of it", "flip_peak", EARLY, 0.7),
        larger("higher", "higher than without CIWL first", "Fig. 4c, 1b (.89, .71)", "flip_peak", EARLY, PLAIN),
        Claim(
            "transient",
            "and it goes again",
            "Fig. 4c",
            f"flip_peak - flip_final ({EARLY})",
            TENTH,
            lambda evidence: evidence.scalar(EARLY, "flip_peak") - evidence.scalar(EARLY, "flip_final"),
            (EARLY,),
        ),
        Claim(
            "too late",
            "switched late, it never rises above its start",
            "Fig. 4c (from 8M on)",
            f".1 - (flip_peak - flip at the switch) ({LATE})",
            0.0,
            lambda evidence: TENTH - _icl_rise(evidence),
            (LATE,),
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    PLAIN: {"start": None},
                    EARLY: SWITCH_DONOR.start(4_000),
                    LATER: SWITCH_DONOR.start(32_000),
                    LATE: SWITCH_DONOR.start(320_000),
                },
                base={"source.seed": 5, "sequences": 640_000, "schedule.evaluations": 41, "schedule.checkpoints": 3},
                task_members=5,
                donor=SWITCH_DONOR,
            ),
            5,
            f"switched after 4,000, 32,000 and 320,000 sequences in place of 4M to 16M; {SCALED}",
        ),
    },
    shows=("flip", "icl", "ciwl"),
    scalars=("flip_peak", "flip_final", "icl_peak", "icl_final", "ciwl_final", "train_loss_final"),
)

CHARACTERS = replace(
    QUICK,
    task=FewShot(context=2, burst=1, labels=Shared(64), reserved_labels=0),
    source=Glyphs(features="pixels", classes=128, exemplars=2, motor=0.5, holdout_classes=100, seed=5),
    model=Transformer(layers=2, width=64, heads=8, mlp_ratio=0),
    optimizer=Adam(lr=3e-4),
    batch=32,
    evaluation_sequences=300,
)
"""A setting in which ICL-only data have a plateau: characters overlap, so the match is the slow part."""
WINDOW_DONOR = Donor(
    "coopetition-ciwl-only-characters",
    restrict_to_ciwl(replace(CHARACTERS, sequences=1_024_000, schedule=keep_checkpoints(1_600, 102_400))),
    {"donor": "coopetition/window"},
)
SCRATCH = "from scratch"
YOUNG, MIDDLE, OLD = "second half after 1,600", "second half after 102,400", "second half after 1,024,000"
STUCK = 0.9 * 0.693
"""Nine tenths of the loss of copying either label at random (ln 2): above it ICL counts as not learned."""
ICL_ONLY: Point = {
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

WINDOW = Experiment(
    name="window",
    question="When has CIWL's half of the circuit what ICL needs?",
    section="Fig. 4b: ICL-only data, second half of a CIWL-only model: loss .1 with that of 10M to 32M, else .8 to 1.9",
    claims=(
        above("too early", "with a young half it stays", "Fig. 4b (1.9, .9)", "train_loss_final", YOUNG, STUCK),
        below("in time", "with a middle one ICL is learned", "Fig. 4b (.1)", "train_loss_final", MIDDLE, 0.3),
        above("too late", "with an old one it is not", "Fig. 4b (.8)", "train_loss_final", OLD, STUCK),
        sooner_claim("helps", "a middle one: sooner than from scratch", "Fig. 4a, 4b (never)", MIDDLE, SCRATCH),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    SCRATCH: {"start": None},
                    YOUNG: WINDOW_DONOR.graft(1_600, SECOND_HALF),
                    MIDDLE: WINDOW_DONOR.graft(102_400, SECOND_HALF),
                    OLD: WINDOW_DONOR.graft(1_024_000, SECOND_HALF),
                },
                base=ICL_ONLY,
                task_members=5,
                donor=WINDOW_DONOR,
            ),
            7,
            "2 layers of attention alone, width 64, pixels of 128 drawn characters of 2 drawings with 64 labels, "
            "rate 3e-4, halves of donors trained on 1,600 to 1,024,000 sequences, in place of 12,800 transformed "
            "characters of 20 drawings with a label each, 1e-5, donors of 4M to 64M",
        ),
    },
    shows=("train", "icl_holdout"),
    scalars=("train_final", "icl_holdout_final", "train_loss_final"),
)
