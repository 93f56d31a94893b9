"""Study `transience`: in-context learning emerges, then fades, while the loss keeps falling."""

import numpy as np
from msgspec.structs import replace

from ebbtide.models.positions import Sinusoidal
from ebbtide.models.transformer import Transformer
from ebbtide.papers.transience.data import DATA_EXPERIMENTS
from ebbtide.papers.transience.models import MODEL_EXPERIMENTS
from ebbtide.papers.transience.sources import SOURCE_EXPERIMENTS
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.omniglot import Omniglot
from ebbtide.studies.claim import Claim
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.single_run import SingleRun
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Spec

PAPER = "Singh et al. 2023, The Transient Nature of Emergent In-Context Learning in Transformers, arXiv 2311.08360"


def _icl_rise(evidence: Evidence) -> np.ndarray:
    """Peak of ICL above chance (.5)."""
    return evidence["icl_peak"] - 0.5


def _icl_fall(evidence: Evidence) -> np.ndarray:
    """Peak of ICL - ICL at the end."""
    return evidence["transience"]


def _weights_rise(evidence: Evidence) -> np.ndarray:
    """Rise of IWL or of CIWL, whichever is larger, from the ICL peak to the end."""
    return np.fmax(evidence["iwl_final"] - evidence["iwl_at_peak"], evidence["ciwl_final"] - evidence["ciwl_at_peak"])


def _loss_fall(evidence: Evidence) -> np.ndarray:
    """Share by which the training loss falls from the ICL peak to the end."""
    return 1 - evidence["train_loss_final"] / evidence["train_loss_at_peak"]


CLAIMS = (
    Claim(
        "rise",
        "ICL rises well above chance",
        "Fig. 1: towards the ceiling; half the way from chance (0.5) to 1",
        "peak of icl - 0.5",
        0.25,
        _icl_rise,
    ),
    Claim(
        "fall", "ICL then falls", "Fig. 1; size: a fifth of all answers", "peak of icl - icl at the end", 0.2, _icl_fall
    ),
    Claim(
        "replacement",
        "in-weights learning rises while ICL falls",
        "Fig. 1 (IWL); CIWL after 2503.05631",
        "larger rise of iwl or ciwl from the ICL peak to the end",
        0.3,
        _weights_rise,
    ),
    Claim(
        "loss",
        "the training loss keeps falling",
        "Fig. 1, abstract",
        "1 - loss at the end / loss at the ICL peak",
        0.0,
        _loss_fall,
    ),
)

EVALUATORS = ("train", "icl", "icl_reserved", "icl_holdout", "iwl", "ciwl", "flip")

QUICK = Spec(
    task=FewShot(context=2, burst=1, labels=Shared(4)),
    source=Gaussian(classes=512, exemplars=2, dim=24, noise=1.3, holdout_classes=128, holdout_exemplars=2),
    model=Transformer(layers=2, width=32, heads=4),
    optimizer=Adam(lr=2e-3, schedule=Constant(warmup=100)),
    batch=16,
    sequences=2_560_000,
    members=4,
    schedule=Schedule(evaluations=41, checkpoints=6),
    evaluators=EVALUATORS,
    evaluation_sequences=600,
)

CPU = replace(
    QUICK,
    task=FewShot(context=2, burst=1, labels=Shared(8)),
    source=Omniglot(features="pca64", classes=256, exemplars=15, holdout_classes=100, holdout_exemplars=5),
    model=Transformer(layers=2, width=64, heads=8),
    optimizer=Adam(lr=1e-3, schedule=Constant(warmup=100)),
    batch=32,
    sequences=8_000_000,
    schedule=Schedule(evaluations=51, checkpoints=11),
    evaluation_sequences=1000,
)

PAPER_SIZE = Spec(
    task=FewShot(context=8, burst=3),
    source=Omniglot(features="full", classes=1600, exemplars=20, holdout_classes=23, holdout_exemplars=0),
    model=Transformer(layers=12, width=64, heads=8, positions=Sinusoidal(max_time=30.0)),
    optimizer=Adam(lr=3e-4),
    batch=32,
    sequences=1_600_000_000,
    members=2,
    schedule=Schedule(evaluations=3201, checkpoints=41),
    evaluators=EVALUATORS,
    evaluation_sequences=1000,
)


BASES = {
    "quick": Base(QUICK, "Gaussian classes, 2 layers, shared labels; half of the queries copied; no data"),
    "cpu": Base(CPU, "Omniglot as frozen features, 2 layers, shared labels"),
    "paper": Base(PAPER_SIZE, "frozen features at the original size: 12 layers, 1,600 classes"),
}
QUESTION = "Does in-context learning fade after it has emerged, while the loss keeps falling?"
OWN = Experiment(
    name="transience",
    question=QUESTION,
    section="Fig. 1",
    claims=CLAIMS,
    presets={
        name: Preset(SingleRun(name), minutes, BASES[name].note)
        for name, minutes in {"quick": 2, "cpu": 12, "paper": None}.items()
    },
)

TRANSIENCE = Study(
    name="transience",
    paper=PAPER,
    question=QUESTION,
    experiments=(OWN, *SOURCE_EXPERIMENTS, *DATA_EXPERIMENTS, *MODEL_EXPERIMENTS),
    bases=BASES,
)
