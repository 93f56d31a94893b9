"""The model and the data of the study `abrupt-learning`: those of its quick runs, and the paper's sizes."""

from ebbtide.models.transformer import Transformer
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec

QUICK = Spec(
    task=FewShot(context=8, burst=4, labels=Shared(16)),
    source=Gaussian(classes=1024, exemplars=1, infinite=True, dim=32, noise=0.1, holdout_classes=128),
    model=Transformer(layers=2, width=32, heads=1),
    optimizer=Adam(lr=1e-3),
    batch=32,
    sequences=256_000,
    schedule=Schedule(evaluations=33, checkpoints=3),
    evaluators=("train", "icl_holdout", "iwl", "iwl_common", "ciwl"),
    evaluation_sequences=1000,
)
PAPER_SIZE: Point = {
    "source.dim": 63,
    "task.labels.count": 32,
    "model.width": 128,
    "batch": 128,
    "sequences": 64_000_000,
    "optimizer": {"type": "sgd", "lr": 0.01},
}
"""Fields that the paper's runs have in place of the quick ones."""

QUICK_SCALE = (
    "width 32, MLPs of one hidden layer in place of a classifier of three, 16 labels as outputs in place of 32 label "
    "vectors, learned positions, Adam at 1e-3 in place of SGD at .01, batch 32"
)
PAPER_SCALE = "MLPs of one hidden layer in place of a classifier of three; learned positions"
