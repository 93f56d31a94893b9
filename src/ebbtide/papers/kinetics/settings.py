"""Settings of study `kinetics`: the paper, the base spec, the places of weight decay."""

from ebbtide.models.one_head import OneHead
from ebbtide.papers.transience.models import weight_decay
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import SGD, WeightDecay
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec

PAPER = (
    "Nguyen & Reddy 2024, Differential learning kinetics govern the transition from memorization to generalization "
    "during in-context learning, ICLR 2025, arXiv 2412.00104"
)
BATCH = 32
QUICK = Spec(
    task=FewShot(context=4, burst=1, distractor=False, labels=Shared(2), reserved_labels=0),
    source=Gaussian(
        classes=512, exemplars=1, dim=32, noise=0.0, scale="norm", holdout_classes=512, holdout_exemplars=0
    ),
    model=OneHead(hidden=128),
    optimizer=SGD(lr=0.1, decay=WeightDecay(coefficient=0.0, on="attention")),
    batch=BATCH,
    sequences=BATCH * 10_000,
    schedule=Schedule(evaluations=41, checkpoints=41),
    evaluators=("train", "icl", "icl_holdout", "iwl", "flip"),
    evaluation_sequences=500,
    keep_best=None,
)
"""The paper's task and model, smaller. Of the context one slot has the query's class and the others are drawn from all
classes: the same distribution as in the public code, which draws all classes and then, if the query's is not in
context, makes the query one of the context."""

COEFFICIENT = 0.02
"""The coefficient of L2 where its place is asked for; in the paper's runs .001 to .01."""
SCALED = (
    "4 pairs, 512 classes of 32 features, an MLP of two hidden layers of 128 units, learning rate .1, batch 32, L2 of "
    ".015 to .03, 10,000 to 12,000 steps; the paper: 100, 10,000 of 63, 512, .01, 128, .003, 23 million"
)
NONE, ATTENTION, MLP, ALL = "no L2", "L2 on attention", "L2 on MLP", "L2 on all"
PLACES: dict[str, Point] = {
    NONE: weight_decay(0.0, on="attention"),
    ATTENTION: weight_decay(COEFFICIENT, on="attention"),
    MLP: weight_decay(COEFFICIENT, on="mlp"),
    ALL: weight_decay(COEFFICIENT, on="all"),
}
"""The same L2 on queries, keys, values and the norm of the tokens; on the MLP; on both."""
