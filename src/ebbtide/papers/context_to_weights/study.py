"""Study `context-to-weights`: can what a model reads in its context be put into its weights, exactly?"""

from msgspec.structs import replace

from ebbtide.mechanisms.conversion import with_biases
from ebbtide.models.linearized import Linearized
from ebbtide.models.positions import NoPositions, Rotary
from ebbtide.models.transformer import Transformer
from ebbtide.papers.context_to_weights import claims
from ebbtide.papers.context_to_weights.claims import DIM, LABELS, LINEAR, LINEARIZED, NOISE, PAIRS, SOFTMAX, SYMBOLS
from ebbtide.papers.context_to_weights.through_training import THROUGH_TRAINING, TRANSIENT
from ebbtide.sources.functions import Functions
from ebbtide.sources.gaussian import Gaussian
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import PerSequence
from ebbtide.tasks.regression import Regression
from ebbtide.tasks.trigger import Trigger
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Cosine, Schedule
from ebbtide.training.spec import Spec

PAPER = (
    "Chen, Hu, Jin, Lee & Kawaguchi 2024, Exact Conversion of In-Context Learning to Model Weights in "
    "Linearized-Attention Transformers, arXiv 2406.02847"
)
RECALL = Spec(
    task=FewShot(context=8, burst=1, distractor=False, rest="unique", labels=PerSequence(LABELS), reserved_labels=0),
    source=Gaussian(classes=64, exemplars=1, dim=32, noise=0.0, holdout_classes=0),
    model=Transformer(layers=2, width=64, heads=4, mlp_ratio=0, attention=Linearized(), positions=Rotary()),
    optimizer=Adam(lr=2e-3, schedule=Cosine(warmup=200)),
    batch=64,
    sequences=320_000,
    schedule=Schedule(evaluations=21, checkpoints=2),
    evaluators=("train",),
    evaluation_sequences=1000,
    keep_best=None,
)
INDUCTION = replace(
    RECALL,
    task=Trigger(context=31),
    source=Gaussian(classes=SYMBOLS, exemplars=1, dim=64, noise=0.0, holdout_classes=0),
    model=replace(RECALL.model, pairing="states"),
    sequences=64_000,
)
BY_SOFTMAX = replace(
    RECALL,
    model=replace(RECALL.model, attention="softmax", positions=NoPositions(), pairing="joint"),
    sequences=96_000,
)
REGRESSION = replace(
    RECALL,
    task=Regression(context=PAIRS, noise=(NOISE,)),
    source=Functions(dim=DIM),
    model=Transformer(
        layers=1,
        width=8,
        heads=1,
        mlp_ratio=0,
        norm="none",
        pairing="joint",
        attention=Linearized("identity", normalizer=False),
        positions=NoPositions(),
    ),
    optimizer=Adam(lr=1e-2, schedule=Cosine(warmup=200)),
    sequences=1_536_000,
)
SCALED = "a recall task of ours in place of the paper's induction-head task; models of about 40,000 parameters"
SMALL = "the paper's task; a vocabulary of 45, streams of 32 symbols, models of about 40,000 parameters: own sizes"
OWN = "not in the paper; 4 dimensions, 16 pairs, one layer of linear attention without norms"
SHOWN = {"shows": ("train",), "scalars": ("train_final", "train_loss_final")}


def _quick(arm: str, field: str, value: str, preset: str, scaled: str) -> dict[str, Preset]:
    """The preset `quick` of an experiment with one arm, which the field's value names."""
    return {"quick": Preset(Comparison({arm: {field: value}}, base={}, preset=preset, round=1), 2, scaled)}


def _conversion(name: str, question: str, own: tuple[Claim, ...], preset: str, scaled: str) -> Experiment:
    """The experiment on models of linearized attention that recall what their context shows."""
    return Experiment(
        name=name,
        question=question,
        section="the induction-head task",
        claims=own,
        presets=_quick(LINEARIZED, "model.attention.features", "elu", preset, scaled),
        check=lambda spec: with_biases(spec.model),
        **SHOWN,
    )


CONTEXT_TO_WEIGHTS = Study(
    name="context-to-weights",
    paper=PAPER,
    question="Can what a model reads in its context be put into its weights, exactly?",
    bases={
        "quick": Base(RECALL, "recall of one of 8 pairs, 32 labels, two layers of linearized attention"),
        "softmax": Base(BY_SOFTMAX, "the same pairs as single tokens, softmax attention"),
        "regression": Base(REGRESSION, "regression in 4 dimensions, one layer of linear attention"),
        "transient": Base(TRANSIENT, "Gaussian classes with shared labels, two layers of linearized attention"),
        "induction": Base(INDUCTION, "the symbol after a trigger, of 45, two layers of linearized attention"),
    },
    experiments=(
        _conversion(
            "recall",
            "Does the converted model recall its context without the context's tokens?",
            claims.RECALL,
            "quick",
            SCALED,
        ),
        _conversion(
            "induction",
            "Does the converted model say which symbol followed the trigger, without the context's tokens?",
            claims.INDUCTION,
            "induction",
            SMALL,
        ),
        Experiment(
            name="approximation",
            question="Do random features convert the context of softmax attention approximately?",
            section="the approximate conversion of softmax attention",
            claims=claims.APPROXIMATE,
            presets=_quick(SOFTMAX, "model.attention", "softmax", "softmax", SCALED),
            check=lambda spec: with_biases(spec.model, random_features=1),
            **SHOWN,
        ),
        Experiment(
            name="regression",
            question="What is in the biases: is it a step of gradient descent?",
            section="own",
            claims=claims.REGRESSION,
            presets=_quick(LINEAR, "model.attention.features", "identity", "regression", OWN),
            check=lambda spec: with_biases(spec.model),
            **SHOWN,
        ),
        THROUGH_TRAINING,
    ),
)
