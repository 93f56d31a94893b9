"""The reference configurations, and the targets of each."""

import msgspec
from msgspec.structs import replace

from ebbtide.errors import InputError, nearest, require
from ebbtide.models.encoders import Linear
from ebbtide.models.positions import Learned
from ebbtide.models.transformer import Transformer
from ebbtide.papers.transience.study import QUICK
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Shared
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, Schedule
from ebbtide.training.spec import Seeds, Spec


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A spec with the batch sizes at which it is measured. Its targets: `roofline`, the least fraction of the roofline
    at each batch size; `over_torch`, the least ratio to the best PyTorch variant; `first_step`, the most seconds until
    the first training step is done; `memory`, the most megabytes of a run with all processes."""

    name: str
    note: str
    spec: Spec
    batches: tuple[int, ...]
    roofline: tuple[float, ...]
    over_torch: float
    first_step: float | None = None
    memory: float | None = None

    def at(self, batch: int) -> Spec:
        """The spec at one of the batch sizes."""
        return replace(self.spec, batch=batch)


_EVALUATORS = QUICK.evaluators

TWO_LAYERS = Spec(
    task=FewShot(context=2, burst=1),
    source=Gaussian(classes=12_800, exemplars=2, dim=64, noise=0.3, holdout_classes=128, holdout_exemplars=1),
    model=Transformer(layers=2, width=64, heads=8, mlp_ratio=0),
    optimizer=Adam(lr=1e-4),
    batch=32,
    sequences=8_000_000,
    members=4,
    schedule=Schedule(evaluations=51, checkpoints=11),
    evaluators=_EVALUATORS,
    evaluation_sequences=1000,
)

SHARED_WIDE = Spec(
    task=FewShot(context=2, burst=1, labels=Shared(16)),
    source=Gaussian(classes=1024, exemplars=4, dim=64, noise=1.2, holdout_classes=128, holdout_exemplars=4),
    model=Transformer(layers=2, width=64, heads=8),
    optimizer=Adam(lr=1e-3, schedule=Constant(warmup=100)),
    batch=128,
    sequences=2_560_000,
    members=4,
    schedule=Schedule(evaluations=41, checkpoints=6),
    evaluators=_EVALUATORS,
    evaluation_sequences=600,
)

TWELVE_LAYERS = Spec(
    task=FewShot(context=8, burst=3),
    source=Gaussian(classes=1600, exemplars=4, dim=512, noise=0.3, holdout_classes=32, holdout_exemplars=1),
    model=Transformer(layers=12, width=64, heads=8),
    optimizer=Adam(lr=3e-4),
    batch=32,
    sequences=1_600_000_000,
    members=2,
    schedule=Schedule(evaluations=3201, checkpoints=41),
    evaluators=_EVALUATORS,
    evaluation_sequences=1000,
)

CONFIGS = {
    config.name: config
    for config in (
        Config(
            name="2L",
            note="attention only, 12,800 labels: bound by the optimiser's memory traffic",
            spec=TWO_LAYERS,
            batches=(32, 128),
            roofline=(0.50, 0.60),
            over_torch=2.0,
            memory=1000,
        ),
        Config(
            name="2L-shared",
            note="the model and batches of study transience, preset quick; data as until 2026-11-29",
            spec=replace(
                QUICK,
                task=FewShot(context=2, burst=1, labels=Shared(4)),
                source=Gaussian(classes=512, exemplars=2, dim=24, noise=1.3, holdout_classes=128, holdout_exemplars=2),
                members=4,
                seeds=Seeds(),
            ),
            batches=(QUICK.batch,),
            roofline=(0.65,),
            over_torch=2.0,
        ),
        Config(
            name="2L-shared-wide",
            note="the same task, twice the width and eight times the batch",
            spec=SHARED_WIDE,
            batches=(128,),
            roofline=(0.65,),
            over_torch=2.0,
        ),
        Config(
            name="12L",
            note="the original's size: 12 layers, 8 pairs, 512 features, 1,600 labels",
            spec=TWELVE_LAYERS,
            batches=(32, 128),
            roofline=(0.60, 0.60),
            over_torch=1.2,
            first_step=5,
        ),
    )
}


def find_config(name: str) -> Config:
    """The configuration of this name. Raises `InputError` when there is none."""
    if name not in CONFIGS:
        raise InputError("config", name, f"must be one of {', '.join(CONFIGS)}{nearest(name, CONFIGS)}")
    return CONFIGS[name]


def plain_transformer(spec: Spec) -> Transformer:
    """The model of a spec. Raises `InputError` where the plain implementations have no such model."""
    model = spec.model
    allowed = "must be a transformer of interleaved tokens with learned positions and a linear encoder"
    if not isinstance(model, Transformer):
        raise InputError("model", model, allowed)
    kinds = isinstance(model.positions, Learned) and isinstance(model.encoder, Linear)
    require(kinds and model.pairing == "interleaved", "model", model, allowed)
    return model
