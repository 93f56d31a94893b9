"""Settings of study `nonlinear-generalisation`: the paper, the base spec, names of arms."""

from ebbtide.models.one_layer import OneLayer
from ebbtide.sources.patterns import Patterns
from ebbtide.tasks.pattern_pairs import PatternPairs
from ebbtide.training.optimizer import SGD
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec

PAPER = (
    "Li, Wang, Lu, Cui, Chen 2024, How Do Nonlinear Transformers Learn and Generalize in In-Context Learning?, ICML "
    "2024, arXiv 2402.15607"
)
BATCH = 128
QUICK = Spec(
    task=PatternPairs(),
    source=Patterns(),
    model=OneLayer(),
    optimizer=SGD(lr=0.2),
    batch=BATCH,
    sequences=BATCH * 1600,
    schedule=Schedule(evaluations=13, spacing="log", first=BATCH * 12, checkpoints=13),
    evaluators=("train", "unseen", "reversed", "outside"),
    evaluation_sequences=2000,
    keep_best=None,
)
"""The paper's one-layer model and data."""

ONE, NOISY = "one layer", "one layer, large initial noise"
TRANSFORMER, MORE_PAIRS = "3-layer transformer", "3-layer transformer, 24 pairs"
