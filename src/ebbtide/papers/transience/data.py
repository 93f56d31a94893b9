"""Experiments of the transience paper and of Chan et al. 2022 on the data: classes, variation, skew, burstiness."""

import numpy as np

from ebbtide.evaluation.summary import smooth
from ebbtide.papers.transience.claims import HALF, TENTH, falls, falls_later, rises
from ebbtide.papers.transience.models import ACCELERATOR, PAPER_SCALE, QUICK_SCALE, RESNET18
from ebbtide.studies.claim import Claim, above, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point

FEWEST, MORE, MOST = "fewest classes", "more classes", "most classes"
"""Arms by their number of classes."""

CLASSES = Experiment(
    name="classes",
    question="Do more classes delay the fall of ICL, and does longer training bring it all the same?",
    section="section 4.2: more classes, later and slower decay; even with many classes ICL decays in the end",
    claims=(
        falls_later("later", "with more classes ICL falls later", "section 4.2", MORE, FEWEST),
        falls_later("later again", "with still more, later again", "section 4.2", MOST, MORE),
        falls(
            "in the end",
            "with more classes it falls by a fifth of all answers all the same, given longer training",
            MORE,
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={name: {"source.classes": n} for name, n in {FEWEST: 256, MORE: 320, MOST: 384}.items()},
                base={"sequences": 7_680_000, "schedule.evaluations": 61},
            ),
            14,
            f"256, 320 and 384 classes, three times the study's sequences; {QUICK_SCALE}",
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={name: {"source.classes": n} for name, n in {FEWEST: 400, MORE: 800, MOST: 1600}.items()},
                base={},
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            PAPER_SCALE,
            needs=RESNET18,
        ),
    },
)

_ANY = "section 4.2: harder to memorise"
VARIATION = Experiment(
    name="variation",
    question="Does in-class variation prolong ICL?",
    section="section 4.2 and Chan et al. 2022: exemplars that differ are harder to memorise",
    claims=(
        larger("five", "5 exemplars keep more ICL than 2", _ANY, "icl_final", "5 exemplars", "2 exemplars"),
        larger("twenty", "20 exemplars keep more than 2", _ANY, "icl_final", "20 exemplars", "2 exemplars", TENTH),
        larger("endless", "new exemplars each time: more than 20", _ANY, "icl_final", "always new", "20 exemplars"),
        larger("noise", "more noise keeps more ICL", _ANY, "icl_final", "2, noise 1.6", "2 exemplars"),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={f"{n} exemplars": {"source.exemplars": n} for n in (2, 5, 20)},
                base={},
            ),
            7,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                round=1,
                arms={
                    **{f"{n} exemplars": {"source.exemplars": n} for n in (2, 5, 10, 20)},
                    "always new": {"source.exemplars": 2, "source.infinite": True},
                    "2, noise 1.0": {"source.exemplars": 2, "source.noise": 1.0},
                    "2, noise 1.6": {"source.exemplars": 2, "source.noise": 1.6},
                },
                base={},
            ),
            None,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={
                    **{f"{n} exemplars": {"source.exemplars": n} for n in (2, 5, 10, 20)},
                },
                base={},
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            PAPER_SCALE,
            needs=RESNET18,
        ),
    },
)

BY_RANK: Point = {
    "evaluators": [
        "train",
        "icl",
        "icl_holdout",
        "iwl",
        "ciwl",
        "flip",
        "icl_common",
        "icl_rare",
        "iwl_common",
        "iwl_rare",
    ]
}

LONGER: Point = {"source.classes": 320, "sequences": 5_120_000}
"""With 256 classes skew sends the model to the weights at once: with 320 ICL comes first."""


def _side_by_side(evidence: Evidence, arm: str) -> np.ndarray:
    """Largest over training of the smallest of: ICL on held-out and on rare classes - half the way to 1, IWL of common
    classes - one half."""
    icl = [smooth(evidence.curve(arm, name).values) - HALF for name in ("icl_holdout", "icl_rare")]
    iwl = smooth(evidence.curve(arm, "iwl_common").values) - 0.5
    return np.minimum.reduce([*icl, iwl]).max(axis=1)


def _weights_instead(evidence: Evidence) -> np.ndarray:
    """Smaller of: half the way to ICL - its peak, IWL of common classes at the end - one half."""
    icl, iwl = (evidence.scalar("exponent 2", name) for name in ("icl_peak", "iwl_common_final"))
    return np.minimum(HALF - icl, iwl - 0.5)


_BOTH = "largest over training of the smallest of: icl_holdout - 0.75, icl_rare - 0.75, iwl_common - 0.5"
ZIPF = Experiment(
    name="zipf",
    question="Does a skewed distribution of classes delay the fall, and let both strategies live?",
    section="section 4.2; Chan et al. 2022: an exponent near 1 allows both",
    claims=(
        falls_later("delays", "with skewed classes ICL falls later", "section 4.2", "exponent 1", "exponent 0"),
        Claim(
            "both",
            "exponent 1: at one time ICL on held-out and on rare classes, and IWL of common classes",
            "Chan et al. 2022: both in one model; half the way to 1 each",
            f"{_BOTH} (exponent 1)",
            0.0,
            lambda evidence: _side_by_side(evidence, "exponent 1"),
            ("exponent 1",),
        ),
        Claim(
            "more of both",
            "and more of both than without skew",
            "Chan et al. 2022",
            f"{_BOTH}: exponent 1 - exponent 0",
            0.0,
            lambda evidence: _side_by_side(evidence, "exponent 1") - _side_by_side(evidence, "exponent 0"),
            ("exponent 1", "exponent 0"),
        ),
        Claim(
            "too much",
            "exponent 2: IWL of common classes in place of ICL",
            "Chan et al. 2022",
            "smaller of: 0.75 - icl_peak, iwl_common_final - 0.5 (exponent 2)",
            0.0,
            _weights_instead,
            ("exponent 2",),
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={f"exponent {z:g}": {"task.zipf": z} for z in (0.0, 1.0, 2.0)},
                base=BY_RANK | LONGER,
            ),
            13,
            f"320 classes, twice the study's sequences; {QUICK_SCALE}",
        ),
        "cpu": Preset(
            Comparison(
                round=1,
                arms={f"exponent {z:g}": {"task.zipf": z} for z in (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)},
                base=BY_RANK | LONGER,
            ),
            None,
            f"320 classes, twice the study's sequences; {QUICK_SCALE}",
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={f"exponent {z:g}": {"task.zipf": z} for z in (0.0, 0.5, 1.0, 1.5, 2.0)},
                base=BY_RANK,
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            PAPER_SCALE,
            needs=RESNET18,
        ),
    },
    shows=("icl", "icl_holdout", "icl_rare", "iwl_common", "iwl_rare", "ciwl"),
)

BURSTINESS = Experiment(
    name="burstiness",
    question="Does ICL need bursty sequences?",
    section="Chan et al. 2022: ICL grows with the share of bursty sequences",
    claims=(
        larger(
            "more",
            "half the sequences bursty: less ICL at the end",
            "Chan et al. 2022",
            "icl_final",
            "p = 1",
            "p = 0.5",
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(round=1, arms={f"p = {p:g}": {"task.p_bursty": p} for p in (0.0, 0.5, 1.0)}, base={}),
            5,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={f"p = {p:g}": {"task.p_bursty": p} for p in (0.0, 0.5, 0.9, 1.0)},
                base={"sequences": 16_000_000},
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            f"500,000 steps, as in Chan et al. 2022; {PAPER_SCALE}",
            needs=RESNET18,
        ),
    },
)

_MANY = "Chan et al. 2022: multiplicity of labels"


MATCHED: Point = {"source.classes": 1024, "source.noise": 0.2}
"""Classes that are matched easily: 256 at noise .7 do not give ICL with 16 labels of their own each."""
OWN_LABELS = f"1,024 classes at noise .2, labels of their own, as in the paper, in place of shared ones; {QUICK_SCALE}"


def _labels(*counts: int) -> dict[str, Point]:
    return {f"{n} a class": {"task.labels": {"type": "polysemy", "per_class": n}} for n in counts}


LABELS = Experiment(
    name="labels",
    question="Do several labels for each class give ICL?",
    section="Chan et al. 2022: the more labels a class has, the more ICL and the less IWL",
    claims=(
        larger("icl", "16 labels a class: more ICL than 1", _MANY, "icl_peak", "16 a class", "1 a class", TENTH),
        larger("iwl", "and less IWL", _MANY, "iwl_final", "1 a class", "16 a class", TENTH),
        above("one", "with a label a class ICL is learned", "the setting of Fig. 1", "icl_peak", "1 a class", HALF),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms=_labels(1, 16),
                base=MATCHED | {"sequences": 384_000, "schedule.evaluations": 21},
            ),
            None,
            OWN_LABELS,
        ),
        "cpu": Preset(
            Comparison(round=1, arms=_labels(1, 4, 16), base=MATCHED),
            None,
            OWN_LABELS,
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms=_labels(1, 4, 16),
                base={"sequences": 16_000_000},
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            f"500,000 steps, as in Chan et al. 2022; {PAPER_SCALE}",
            needs=RESNET18,
        ),
    },
)

COPIED, UNCOPIED = "half of the queries copied", "no query copied"
EARLIER: Point = {
    "source.classes": 512,
    "source.exemplars": 2,
    "source.noise": 1.3,
    "optimizer.lr": 2e-3,
    "optimizer.schedule.warmup": 100,
}
"""The study's quick setting until 2026-11-29: two exemplars of a class, drawn independently."""
COPIES = Experiment(
    name="copies",
    question="In data where half of the queries are copies of a context exemplar: does ICL rest on them?",
    section="section 3: exemplars are drawn without replacement, so that no query is a copy",
    claims=(
        rises(
            "rise without copies",
            "trained with copies, ICL rises half the way on queries that are none",
            COPIED,
            "icl_no_copy",
        ),
        falls("fall without copies", "and falls there by a fifth of all answers", COPIED, "icl_no_copy"),
        larger("start", "without copies ICL rises less", "section 3", "icl_peak", COPIED, UNCOPIED, TENTH),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={
                    COPIED: {"task.exemplar_draw": "independent"},
                    UNCOPIED: {"task.exemplar_draw": "without_replacement"},
                },
                base=EARLIER | {"evaluators": ["train", "icl", "icl_no_copy", "iwl", "ciwl", "flip", "flip_no_copy"]},
            ),
            5,
            "512 Gaussian classes of 2 exemplars at noise 1.3, learning rate 2e-3; else as the study's quick setting",
        ),
    },
    shows=("icl", "icl_no_copy", "flip", "flip_no_copy", "ciwl"),
    scalars=("icl_peak", "icl_no_copy_peak", "icl_final", "icl_no_copy_final", "flip_no_copy_peak", "ciwl_final"),
)

DATA_EXPERIMENTS = (COPIES, CLASSES, VARIATION, ZIPF, BURSTINESS, LABELS)
