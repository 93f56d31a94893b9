"""Experiments of the transience paper and of Chan et al. 2022 on the data: classes, variation, skew, burstiness."""

from ebbtide.studies.experiment import Experiment, Setting, above, below, larger
from ebbtide.studies.transience_models import (
    ACCELERATOR,
    LARGE,
    PAPER_SCALE,
    QUICK_SCALE,
    SHORT,
    TENTH,
)
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
    settings={
        "quick": Setting(
            arms=_classes(512),
            base=SHORT,
            minutes=3,
            scaled=f"512, 1,024 and 2,048 classes; {QUICK_SCALE}",
        ),
        "paper": Setting(
            arms=_classes(400),
            base=LARGE,
            minutes=None,
            scaled=PAPER_SCALE,
            preset="paper",
            needs="Omniglot features",
            resources=ACCELERATOR,
            task_members=10,
        ),
    },
)

VARIATION = Experiment(
    name="variation",
    question="Does in-class variation prolong ICL?",
    section="section 4.2 and Chan et al. 2022: exemplars that differ are harder to memorise",
    claims=(
        larger(
            "exemplars",
            "more exemplars: more ICL is left",
            "section 4.2",
            "icl_final",
            "20 exemplars",
            "2 exemplars",
            TENTH,
        ),
    ),
    settings={
        "quick": Setting(
            arms={f"{n} exemplars": {"source.exemplars": n} for n in (1, 2, 5, 20)},
            base=SHORT,
            minutes=4,
            scaled=QUICK_SCALE,
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
        above("iwl", "exponent 1: IWL of common classes", "Chan et al. 2022", "iwl_common_final", "exponent 1", 0.5),
        below("too much", "exponent 2: no ICL", "Chan et al. 2022", "icl_peak", "exponent 2", 0.75),
    ),
    settings={
        "quick": Setting(
            arms={f"exponent {z:g}": {"task.zipf": z} for z in (0.0, 1.0, 2.0)},
            base=SHORT | BY_RANK,
            minutes=4,
            scaled=QUICK_SCALE,
        ),
    },
    shows=("icl", "icl_holdout", "iwl_common", "iwl_rare", "ciwl"),
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
    settings={
        "quick": Setting(
            arms={f"p = {p:g}": {"task.p_bursty": p} for p in (0.0, 0.5, 1.0)},
            base=SHORT,
            minutes=3,
            scaled=QUICK_SCALE,
        ),
    },
)

DATA_EXPERIMENTS = (CLASSES, VARIATION, ZIPF, BURSTINESS)
