"""Study `transience`: in-context learning emerges, then fades, while the loss keeps falling."""

from msgspec.structs import replace

from ebbtide.models.positions import Sinusoidal
from ebbtide.models.transformer import Transformer
from ebbtide.papers.transience.claims import transience_claims
from ebbtide.papers.transience.data import DATA_EXPERIMENTS
from ebbtide.papers.transience.models import MODEL_EXPERIMENTS, PAPER_SCALE
from ebbtide.papers.transience.sources import SOURCE_EXPERIMENTS
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.omniglot import Omniglot
from ebbtide.studies.comparison import fresh_seeds
from ebbtide.studies.single_run import SingleRun
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Spec

PAPER = "Singh et al. 2023, The Transient Nature of Emergent In-Context Learning in Transformers, arXiv 2311.08360"


CLAIMS = transience_claims()

EVALUATORS = ("train", "icl", "icl_holdout", "iwl", "ciwl", "flip")

QUICK = Spec(
    task=FewShot(context=2, burst=1, labels=Shared(4), exemplar_draw="without_replacement"),
    source=Gaussian(classes=256, exemplars=5, dim=24, noise=0.7, holdout_classes=128, holdout_exemplars=2),
    model=Transformer(layers=2, width=32, heads=4),
    optimizer=Adam(lr=3e-3, schedule=Constant(warmup=4000)),
    batch=16,
    sequences=2_560_000,
    members=12,
    schedule=Schedule(evaluations=41, checkpoints=6),
    evaluators=EVALUATORS,
    evaluation_sequences=600,
    seeds=fresh_seeds("transience", "quick", round=1),
)

CPU = replace(
    QUICK,
    task=FewShot(context=2, burst=1, labels=Shared(8), exemplar_draw="without_replacement"),
    source=Omniglot(features="pca64", classes=256, exemplars=15, holdout_classes=100, holdout_exemplars=5),
    model=Transformer(layers=2, width=64, heads=8),
    optimizer=Adam(lr=1e-3, schedule=Constant(warmup=100)),
    batch=32,
    sequences=8_000_000,
    schedule=Schedule(evaluations=51, checkpoints=11),
    evaluation_sequences=1000,
    seeds=fresh_seeds("transience", "cpu", round=1),
)

PAPER_SIZE = Spec(
    task=FewShot(context=8, burst=3, reserved_labels=0),
    source=Omniglot(
        features="resnet18",
        standardise="none",
        classes=1600,
        exemplars=20,
        holdout_classes=23,
        holdout_exemplars=0,
    ),
    model=Transformer(layers=12, width=64, heads=8, positions=Sinusoidal(max_time=30.0)),
    optimizer=Adam(lr=3e-4),
    batch=32,
    sequences=1_600_000_000,
    members=9,
    schedule=Schedule(evaluations=3201, checkpoints=41),
    evaluators=EVALUATORS,
    evaluation_sequences=1000,
    seeds=fresh_seeds("transience", "paper", round=1),
)
"""As the public code for frozen features (github.com/aadityasingh/icl-dynamics) trains its model of 12 layers."""

BASES = {
    "quick": Base(QUICK, "Gaussian classes, 2 layers, shared labels; no query is a copy; no data needed"),
    "cpu": Base(CPU, "Omniglot as frozen features, 2 layers, shared labels"),
    "paper": Base(PAPER_SIZE, f"12 layers, 1,600 classes; {PAPER_SCALE}"),
}
QUESTION = "Does in-context learning fade after it has emerged, while the loss keeps falling?"
OWN = Experiment(
    name="transience",
    question=QUESTION,
    section="Fig. 1",
    claims=CLAIMS,
    presets={
        name: Preset(SingleRun(name), minutes, BASES[name].note)
        for name, minutes in {"quick": 4, "cpu": None, "paper": None}.items()
    },
)

TRANSIENCE = Study(
    name="transience",
    paper=PAPER,
    question=QUESTION,
    experiments=(OWN, *SOURCE_EXPERIMENTS, *DATA_EXPERIMENTS, *MODEL_EXPERIMENTS),
    bases=BASES,
)
