"""Experiments of the transience paper and of Chan et al. 2022 on the data: classes, variation, skew, burstiness."""

from ebbtide.papers.transience.models import (
    ACCELERATOR,
    LARGE,
    PAPER_SCALE,
    QUICK_SCALE,
    SHORT,
    TENTH,
)
from ebbtide.studies.claim import above, below, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point


def _classes(fewest: int) -> dict[str, Point]:
    names = ("fewest classes", "twice as many", "four times as many")
    return {name: {"source.classes": fewest * 2**i} for i, name in enumerate(names)}


CLASSES = Experiment(
    name="classes",
    question="Do more classes delay the fall of ICL?",
    section="section 4.2: more classes, later and slower decay",
    claims=(
        above("fades", "with few classes ICL falls", "section 4.2", "transience", "fewest classes", TENTH),
        larger("later", "the peak comes later", "section 4.2", "peak_sequences", "twice as many", "fewest classes"),
        larger("keeps", "more is left", "section 4.2", "icl_final", "twice as many", "fewest classes", TENTH),
        larger(
            "keeps more", "twice again: more still", "section 4.2", "icl_final", "four times as many", "twice as many"
        ),
    ),
    presets={
        "quick": Preset(Comparison(arms=_classes(512), base=SHORT), 5, f"512, 1,024 and 2,048 classes; {QUICK_SCALE}"),
        "paper": Preset(
            Comparison(arms=_classes(400), base=LARGE, preset="paper", resources=ACCELERATOR, task_members=10),
            None,
            PAPER_SCALE,
            needs="Omniglot features",
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
        above(
            "identical", "one exemplar a class: ICL is learned", "2503.05631, Fig. 6", "icl_peak", "1 exemplar", 0.75
        ),
        below("stays", "and does not fade", "2503.05631: an exact match persists", "transience", "1 exemplar", TENTH),
        larger("noise", "more noise keeps more ICL", _ANY, "icl_final", "2, noise 1.6", "2 exemplars"),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    "1 exemplar": {"source.exemplars": 1},
                    **{f"{n} exemplars": {"source.exemplars": n} for n in (2, 5, 20)},
                },
                base=SHORT,
            ),
            5,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                arms={
                    "1 exemplar": {"source.exemplars": 1},
                    **{f"{n} exemplars": {"source.exemplars": n} for n in (2, 5, 10, 20)},
                    "always new": {"source.exemplars": 2, "source.infinite": True},
                    "2, noise 1.0": {"source.exemplars": 2, "source.noise": 1.0},
                    "2, noise 1.6": {"source.exemplars": 2, "source.noise": 1.6},
                },
                base=SHORT | {"sequences": 2_560_000, "schedule.evaluations": 41},
            ),
            27,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                arms={
                    "1 exemplar": {"source.exemplars": 1},
                    **{f"{n} exemplars": {"source.exemplars": n} for n in (2, 5, 10, 20)},
                },
                base=LARGE,
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            PAPER_SCALE,
            needs="Omniglot features",
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
_BOTH = "Chan et al. 2022: both near 1"
ZIPF = Experiment(
    name="zipf",
    question="Does a skewed distribution of classes delay the fall, and let both strategies live?",
    section="section 4.2; Chan et al. 2022: an exponent near 1 allows both",
    claims=(
        above("fades", "uniform classes: ICL falls", "Fig. 1", "transience", "exponent 0", TENTH),
        larger("delays", "skew keeps ICL", "section 4.2", "icl_final", "exponent 1", "exponent 0", TENTH),
        above(
            "icl", "exponent 1: ICL on held-out classes", "Chan et al. 2022", "icl_holdout_final", "exponent 1", 0.75
        ),
        above("rare", "exponent 1: ICL on rare classes", "Chan et al. 2022", "icl_rare_final", "exponent 1", 0.75),
        above("iwl", "exponent 1: IWL of common classes", "Chan et al. 2022", "iwl_common_final", "exponent 1", 0.5),
        below("too much", "exponent 2: no ICL", "Chan et al. 2022", "icl_peak", "exponent 2", 0.75),
    ),
    presets={
        "quick": Preset(
            Comparison(arms={f"exponent {z:g}": {"task.zipf": z} for z in (0.0, 1.0, 2.0)}, base=SHORT | BY_RANK),
            5,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                arms={f"exponent {z:g}": {"task.zipf": z} for z in (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)},
                base=SHORT | BY_RANK | {"sequences": 2_560_000, "schedule.evaluations": 41},
            ),
            14,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                arms={f"exponent {z:g}": {"task.zipf": z} for z in (0.0, 0.5, 1.0, 1.5, 2.0)},
                base=LARGE | BY_RANK,
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            PAPER_SCALE,
            needs="Omniglot features",
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
            "needs", "bursty data give ICL, i.i.d. data do not", "Chan et al. 2022", "icl_peak", "p = 1", "p = 0", 0.2
        ),
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
            Comparison(arms={f"p = {p:g}": {"task.p_bursty": p} for p in (0.0, 0.5, 1.0)}, base=SHORT), 5, QUICK_SCALE
        ),
        "paper": Preset(
            Comparison(
                arms={f"p = {p:g}": {"task.p_bursty": p} for p in (0.0, 0.5, 0.9, 1.0)},
                base=LARGE | {"sequences": 16_000_000},
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            f"500,000 steps, as in Chan et al. 2022; {PAPER_SCALE}",
            needs="Omniglot features",
        ),
    },
)

_MANY = "Chan et al. 2022: multiplicity of labels"


def _labels(*counts: int) -> dict[str, Point]:
    return {f"{n} a class": {"task.labels": {"type": "polysemy", "per_class": n}} for n in counts}


LABELS = Experiment(
    name="labels",
    question="Do several labels for each class give ICL?",
    section="Chan et al. 2022: the more labels a class has, the more ICL and the less IWL",
    claims=(
        larger("icl", "16 labels a class: more ICL than 1", _MANY, "icl_peak", "16 a class", "1 a class", TENTH),
        larger("iwl", "and less IWL", _MANY, "iwl_final", "1 a class", "16 a class", TENTH),
        below("one", "1 label of its own: no ICL at this size", _MANY, "icl_peak", "1 a class", 0.75),
    ),
    presets={
        "quick": Preset(
            Comparison(arms=_labels(1, 16), base=SHORT | {"sequences": 384_000, "schedule.evaluations": 13}),
            4,
            f"labels of their own, as in the paper, in place of shared ones; else {QUICK_SCALE}",
        ),
        "cpu": Preset(
            Comparison(arms=_labels(1, 4, 16), base=SHORT),
            13,
            f"labels of their own, as in the paper, in place of shared ones; else {QUICK_SCALE}",
        ),
        "paper": Preset(
            Comparison(
                arms=_labels(1, 4, 16),
                base=LARGE | {"sequences": 16_000_000},
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            f"500,000 steps, as in Chan et al. 2022; {PAPER_SCALE}",
            needs="Omniglot features",
        ),
    },
)

DATA_EXPERIMENTS = (CLASSES, VARIATION, ZIPF, BURSTINESS, LABELS)
