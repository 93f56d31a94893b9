"""The settings of study `coopetition`: its presets, and what its experiments share."""

from msgspec.structs import replace

from ebbtide.models.positions import LearnedUniform
from ebbtide.models.transformer import Transformer
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.omniglot import Omniglot
from ebbtide.studies.comparison import fresh_seeds
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule, Window
from ebbtide.training.spec import Spec

PAPER = "Singh et al. 2025, Strategy Coopetition Explains the Emergence and Transience of ICL, arXiv 2503.05631"
SECOND_HALF = ("blocks.1.*", "norm.*", "readout.*")
"""Layer 1, the final norm and the read-out."""

QUICK = Spec(
    task=FewShot(context=2, burst=1, labels=Shared(32)),
    source=Gaussian(classes=448, exemplars=2, dim=24, noise=1.3, holdout_classes=128, holdout_exemplars=2),
    model=Transformer(layers=2, width=32, heads=4, mlp_ratio=0),
    optimizer=Adam(lr=2e-3, schedule=Constant(warmup=100)),
    batch=16,
    sequences=5_120_000,
    members=9,
    schedule=Schedule(evaluations=81, checkpoints=21),
    evaluators=("train", "icl", "icl_holdout", "iwl", "ciwl", "flip"),
    evaluation_sequences=600,
    seeds=fresh_seeds("coopetition", "quick", round=1),
)

PAPER_SIZE = replace(
    QUICK,
    task=FewShot(context=2, burst=1, reserved_labels=0),
    source=Omniglot(
        features="resnet18",
        standardise="none",
        transforms=True,
        classes=12_800,
        exemplars=20,
        holdout_classes=184,
        holdout_exemplars=0,
    ),
    model=Transformer(layers=2, width=64, heads=8, mlp_ratio=0, positions=LearnedUniform(init_sd=96**-0.5, spare=27)),
    optimizer=Adam(lr=1e-5),
    batch=32,
    sequences=64_000_000,
    schedule=Schedule(
        evaluations=321, checkpoints=21, windows=(Window(3_200_000, 10_400_000, every=400_000, keep=True),)
    ),
    evaluation_sequences=5000,
)
"""The main run of the public code (github.com/aadityasingh/icl-dynamics). The window has the phases of the paper's Fig.
1b, from 3M to 10M sequences."""

SCALED = (
    "2 layers of attention alone, width 32, 448 Gaussian classes of 2 noisy exemplars with 32 shared labels, learning "
    "rate 2e-3, in place of width 64, 12,800 transformed characters of 20 drawings with a label each, 1e-5; half "
    "of the queries are exact copies of their context exemplar, in place of one in 20"
)
"""Words on the differences between the preset `quick` and the paper's setting."""
PAPER_SCALE = (
    "the original's sizes, rate and length, trained as by the public code (github.com/aadityasingh/icl-dynamics): "
    "ResNet-18 averages as stored, exemplars drawn independently, no reserved labels, positions uniform at first"
)
DATA = "ResNet-18 features of transformed Omniglot (ebbtide data features --encoder resnet18 --augment)"
"""What the preset `paper` needs on the machine."""
