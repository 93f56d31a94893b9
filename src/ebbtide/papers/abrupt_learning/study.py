"""Study `abrupt-learning`: which data make a network learn in context, and why it does so all at once."""

import numpy as np

from ebbtide.models.transformer import Transformer
from ebbtide.papers.transience.claims import TENTH
from ebbtide.sources.gaussian import Gaussian
from ebbtide.studies.claim import Claim, above, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec

PAPER = "Reddy 2023, The mechanistic basis of data dependence and abrupt learning in an ICL task, arXiv 2312.03002"

QUICK = Spec(
    task=FewShot(context=8, burst=4, labels=Shared(16)),
    source=Gaussian(classes=2048, exemplars=1, infinite=True, dim=32, noise=0.1, holdout_classes=128, seed=5),
    model=Transformer(layers=2, width=32, heads=1),
    optimizer=Adam(lr=1e-3),
    batch=32,
    sequences=256_000,
    schedule=Schedule(evaluations=33, checkpoints=33),
    evaluators=("train", "icl", "icl_holdout", "iwl", "iwl_common", "ciwl", "flip"),
    evaluation_sequences=400,
)
PAPER_SIZE: Point = {
    "source.dim": 63,
    "task.labels.count": 32,
    "model.width": 128,
    "batch": 128,
    "sequences": 64_000_000,
    "optimizer": {"type": "sgd", "lr": 0.01},
}


MANY, SOME, FEW = "2,048 classes", "512 classes", "256 classes"
BURST4, BURST1 = "1,024 classes", "1,024 classes, burst 1"
NOISY, SKEWED = "512 classes, noise .7", "2,048 classes, Zipf 1"


def _rise_time_margin(evidence: Evidence) -> np.ndarray:
    """1 - (sequences from ICL of .6 to .9) / (sequences to .6), on held-out classes."""
    begins, ends = (evidence.curve(MANY, "icl_holdout").first_crossing(level) for level in (0.6, 0.9))
    return 1 - (ends - begins) / begins


def _attention_lead_sequences(evidence: Evidence) -> np.ndarray:
    """Sequences between layer 0's attention to the previous token being half way to its last value, and ICL being half
    way from chance to 1 (.75)."""
    probed = evidence.probe(MANY, "previous_token", "icl_holdout")
    head = probed._replace(values=probed.values[:, :, 0].max(-1))
    half = (head.values[:, 0] + head.values[:, -1]) / 2
    return evidence.curve(MANY, "icl_holdout").first_crossing(0.75) - head.first_crossing(half)


DEPENDENCE = Experiment(
    name="data",
    question="Which data give in-context learning, and why does it come abruptly?",
    section="Reddy 2023: more classes, bursts, noise favour ICL; an abrupt transition, progress measures before it",
    claims=(
        above("icl", "many classes: ICL, on classes never trained", "abstract", "icl_holdout_final", MANY, 0.9),
        Claim(
            "abrupt",
            "it comes in less time than it was away",
            "abstract: abruptly",
            f"1 - time from .6 to .9 / time to .6 (icl_holdout, {MANY})",
            0.0,
            _rise_time_margin,
            (MANY,),
        ),
        Claim(
            "precedes",
            "attention to the token before comes first",
            "abstract: progress measures precede it",
            f"sequences to icl_holdout .75 - to half of previous_token's rise ({MANY})",
            0.0,
            _attention_lead_sequences,
            (MANY,),
        ),
        larger("classes", "more classes: more ICL", "more K favours ICL", "icl_holdout_final", MANY, FEW, TENTH),
        larger("weights", "fewer classes: more IWL", "ICL stops IWL", "iwl_final", FEW, MANY, 0.5),
        larger("bursts", "bursts: more ICL", "more B favours ICL", "icl_holdout_final", BURST4, BURST1, TENTH),
        larger("noise", "noise: more ICL", "more eps favours ICL", "icl_holdout_final", NOISY, SOME, TENTH),
        above("skewed icl", "Zipf exponent 1: ICL", "alpha near 1: both", "icl_holdout_final", SKEWED, 0.75),
        above("skewed iwl", "and IWL of common classes", "alpha near 1: both", "iwl_common_final", SKEWED, 0.5),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    MANY: {"source.classes": 2048},
                    SOME: {"source.classes": 512},
                    FEW: {"source.classes": 256},
                    BURST4: {"source.classes": 1024},
                    BURST1: {"source.classes": 1024, "task.burst": 1},
                    NOISY: {"source.classes": 512, "source.noise": 0.7},
                    SKEWED: {"task.zipf": 1.0},
                },
                base={"source.seed": 5},
            ),
            9,
            "width 32, MLPs of one hidden layer in place of a classifier of three, 16 labels as outputs "
            "in place of 32 label vectors, learned positions, Adam at 1e-3 in place of SGD at .01, batch 32",
        ),
        "paper": Preset(
            Comparison(
                arms={MANY: {"source.classes": 2048}, FEW: {"source.classes": 256}, BURST1: {"task.burst": 1}},
                base=PAPER_SIZE,
            ),
            None,
            "MLPs of one hidden layer in place of a classifier of three; learned positions",
        ),
    },
    shows=("icl_holdout", "iwl", "flip"),
)

ABRUPT_LEARNING = Study(
    name="abrupt-learning",
    paper=PAPER,
    question="Which data make a network learn in context, and why all at once?",
    bases={"quick": Base(QUICK, "fresh noisy exemplars of Gaussian classes, 8 pairs, 16 shared labels")},
    experiments=(DEPENDENCE,),
)
