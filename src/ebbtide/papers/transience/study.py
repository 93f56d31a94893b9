"""Study `transience`: in-context learning emerges, then fades, while the loss keeps falling."""

import numpy as np
from msgspec.structs import replace

from ebbtide.evaluation.summary import summarise
from ebbtide.models.positions import Sinusoidal
from ebbtide.models.transformer import Transformer
from ebbtide.papers.transience.data import DATA_EXPERIMENTS
from ebbtide.papers.transience.models import MODEL_EXPERIMENTS
from ebbtide.papers.transience.sources import SOURCE_EXPERIMENTS
from ebbtide.report.figure import curves_figure
from ebbtide.runs.folder import Run
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.omniglot import Omniglot
from ebbtide.studies.study import Claim, Preset, Scalars, Study, Verdict
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Spec

PAPER = "Singh et al. 2023, The Transient Nature of Emergent In-Context Learning in Transformers, arXiv 2311.08360"


def _rise(s: Scalars) -> np.ndarray:
    return s["icl_peak"] - 0.5


def _fall(s: Scalars) -> np.ndarray:
    return s["transience"]


def _replacement(s: Scalars) -> np.ndarray:
    return np.fmax(s["iwl_final"] - s["iwl_at_peak"], s["ciwl_final"] - s["ciwl_at_peak"])


def _loss(s: Scalars) -> np.ndarray:
    return 1 - s["train_loss_final"] / s["train_loss_at_peak"]


CLAIMS = (
    Claim(
        "rise",
        "ICL rises well above chance",
        "Fig. 1: towards the ceiling; half the way from chance (0.5) to 1",
        "peak of icl - 0.5",
        0.25,
        _rise,
    ),
    Claim("fall", "ICL then falls", "Fig. 1; size: a fifth of all answers", "peak of icl - icl at the end", 0.2, _fall),
    Claim(
        "replacement",
        "in-weights learning rises while ICL falls",
        "Fig. 1 (IWL); CIWL after 2503.05631",
        "larger rise of iwl or ciwl from the ICL peak to the end",
        0.3,
        _replacement,
    ),
    Claim(
        "loss",
        "the training loss keeps falling",
        "Fig. 1, abstract",
        "1 - loss at the end / loss at the ICL peak",
        0.0,
        _loss,
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


def _summarise(run: Run) -> Scalars:
    return summarise(run.metrics(), run.chance())


def _figure(run: Run, verdict: Verdict) -> dict[str, bytes]:
    title = f"Transience of in-context learning ({run.header.label.get('preset', 'custom')})"
    return curves_figure(run, title)


TRANSIENCE = Study(
    name="transience",
    paper=PAPER,
    question="Does in-context learning fade after it has emerged, while the loss keeps falling?",
    claims=CLAIMS,
    presets={
        "quick": Preset(QUICK, 2, "Gaussian classes, 2 layers, shared labels; half of the queries copied; no data"),
        "cpu": Preset(CPU, 12, "Omniglot as frozen features, 2 layers, shared labels"),
        "paper": Preset(PAPER_SIZE, None, "frozen features at the original size: 12 layers, 1,600 classes"),
    },
    summarise=_summarise,
    figure=_figure,
    experiments=(*SOURCE_EXPERIMENTS, *DATA_EXPERIMENTS, *MODEL_EXPERIMENTS),
)
