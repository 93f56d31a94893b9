"""The settings of study `induction-heads`: its spec, the paper's data and rate, interventions as fields of arms."""

from msgspec import to_builtins

from ebbtide.mechanisms.interventions import Ablate, AnyIntervention
from ebbtide.models.positions import Rotary
from ebbtide.models.transformer import Transformer
from ebbtide.sources.glyphs import Glyphs
from ebbtide.sources.omniglot import Omniglot
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import PerSequence
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec

PAPER = "Singh et al. 2024, What needs to go right for an induction head?, arXiv 2404.07129"
HEAD, HEADS = 3, 8
"""Index of the head of layer 1 that stays where the others are ablated, as in the paper; number of heads of a layer."""
ALONE = Ablate(at="blocks.1.attn.hook_z", heads=tuple(h for h in range(HEADS) if h != HEAD))
ALL, ONE = "all heads", "one head"

QUICK = Spec(
    task=FewShot(context=2, burst=1, labels=PerSequence(5), reserved_labels=0),
    source=Glyphs(features="pixels", classes=50, exemplars=1, holdout_classes=100, holdout_exemplars=4),
    model=Transformer(layers=2, width=64, heads=HEADS, mlp_ratio=0, positions=Rotary()),
    optimizer=Adam(lr=1e-4),
    batch=32,
    sequences=256_000,
    schedule=Schedule(evaluations=41, checkpoints=9),
    evaluators=("train", "icl", "icl_holdout"),
    evaluation_sequences=500,
)

CPU: Point = {"optimizer.lr": 1e-5, "sequences": 1_024_000, "schedule.evaluations": 65}
"""The paper's learning rate and length."""
ORIGINAL: Point = CPU | {
    "source": to_builtins(Omniglot(features="full", classes=50, exemplars=1, holdout_classes=100, holdout_exemplars=4)),
    "task.labels.holdout_pairs": 2,
}
"""The paper's rate, length and characters, with two of the ten pairs of labels held out."""
SCALED = "pixels of 50 drawn characters in place of ResNet-18 features of Omniglot; all pairs of labels are trained on"
FASTER = f"learning rate 1e-4 in place of 1e-5, 256,000 sequences in place of a million; {SCALED}"
PAPER_SCALE = "EfficientNet features of Omniglot in place of ResNet-18's; else the original's sizes, rate and length"
DATA = "Omniglot features"
"""What the preset `paper` needs on the machine."""


def intervene(*interventions: AnyIntervention) -> Point:
    """Fields of an arm with interventions."""
    return {"interventions": [to_builtins(one) for one in interventions]}
