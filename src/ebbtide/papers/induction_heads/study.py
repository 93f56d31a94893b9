"""Study `induction-heads`: what has to go right for an induction head, by clamping its parts through training."""

import numpy as np
from jaxtyping import Float
from msgspec import to_builtins

from ebbtide.mechanisms.interventions import (
    Ablate,
    AnyIntervention,
    Induction,
    PerfectCopy,
    PerfectPrevious,
    PreviousToken,
)
from ebbtide.models.positions import Rotary
from ebbtide.models.transformer import Transformer
from ebbtide.sources.glyphs import Glyphs
from ebbtide.sources.omniglot import Omniglot
from ebbtide.studies.claim import Claim, above
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study
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

QUICK = Spec(
    task=FewShot(context=2, burst=1, labels=PerSequence(5), reserved_labels=0),
    source=Glyphs(features="pixels", classes=50, exemplars=1, holdout_classes=100, holdout_exemplars=4, seed=5),
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
REAL: Point = {
    "source": to_builtins(Omniglot(features="full", classes=50, exemplars=1, holdout_classes=100, holdout_exemplars=4))
}
SCALED = "pixels of 50 drawn characters in place of ResNet-18 features of Omniglot; all pairs of labels are trained on"
FASTER = f"learning rate 1e-4 in place of 1e-5, 256,000 sequences in place of a million; {SCALED}"


def intervene(*interventions: AnyIntervention) -> Point:
    """Fields of an arm with interventions."""
    return {"interventions": [to_builtins(one) for one in interventions]}


def sequences_to_loss(evidence: Evidence, arm: str, loss: float) -> Float[np.ndarray, " member"]:
    """Sequences after which a member's training loss is first below `loss` (nats), interpolated between evaluations;
    the length of the run where the loss never is; nan for a member that has not finished."""
    curve = evidence.curve(arm, "train_loss")
    crossed = curve.first_crossing(loss, falling=True)
    ends = np.where(np.isnan(crossed), curve.sequences[-1], crossed)
    return np.where(np.isnan(curve.values[:, 1:]).any(1) | (curve.values.shape[1] < 2), np.nan, ends)


HALF = float(np.log(2) / 2)
"""Half the loss of copying either label of the context at random, ln 2."""


def sooner_claim(name: str, statement: str, source: str, arm: str, than: str, by: float = 0.0) -> Claim:
    """The claim that `arm` reaches a training loss of ln(2)/2 after fewer sequences than `than`, by more than the share
    `by` of the sequences that `than` takes."""

    def estimate(evidence: Evidence) -> np.ndarray:
        return 1 - sequences_to_loss(evidence, arm, HALF) / sequences_to_loss(evidence, than, HALF)

    metric = f"1 - sequences until loss ln(2)/2: {arm} / {than}"
    return Claim(name, statement, source, metric, by, estimate, (arm, than))


def _plateau_claim(arm: str) -> Claim:
    """The claim that the loss falls from .8 to .6 in more sequences than from .6 to .2."""

    def estimate(evidence: Evidence) -> np.ndarray:
        high, middle, low = (sequences_to_loss(evidence, arm, loss) for loss in (0.8, 0.6, 0.2))
        return (middle - high) / np.maximum(low - middle, 1.0) - 1

    metric = f"sequences from loss .8 to .6 / from .6 to .2, - 1 ({arm})"
    words = "the loss stays near ln 2, then drops in less time than it stayed"
    return Claim("plateau", words, "Fig. 3a", metric, 0.0, estimate, (arm,))


ALL, ONE = "all heads", "one head"
PREVIOUS, FIRST, MATCH, COPY, BOTH = (
    "a previous-token head",
    "perfect layer 0",
    "perfect match",
    "perfect copy",
    "perfect layer 0 and copy",
)
CLAMPS = Experiment(
    name="clamps",
    question="Which parts of an induction head make its learning abrupt?",
    section="Fig. 3a, 4b and 5b: sub-circuits clamped through training",
    claims=(
        _plateau_claim(ALL),
        above("learns", "the training data are learned", "Fig. 3a", "train_final", ALL, 0.95),
        sooner_claim("diversity", "eight heads learn sooner than one", "Fig. 4b", ALL, ONE),
        sooner_claim("previous", "a given previous-token head shortens the plateau", "Fig. 5b (1)", PREVIOUS, ONE),
        sooner_claim("first", "a perfect layer 0 shortens it more than that", "Fig. 5b (1, 2)", FIRST, PREVIOUS),
        sooner_claim("match", "a perfect match leaves little to learn", "Fig. 5b (1, 2, 3qk, 4)", MATCH, ONE, 0.5),
        sooner_claim("copy", "a perfect copy shortens it", "Fig. 5b (3v, 5)", COPY, ONE),
        sooner_claim(
            "both", "a perfect layer 0 and copy: soonest, sooner than copy", "Fig. 5b (1, 2, 3v, 5)", BOTH, COPY
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    ALL: intervene(),
                    ONE: intervene(ALONE),
                    PREVIOUS: intervene(ALONE, PreviousToken(layer=0, heads=(2,), rows="all")),
                    FIRST: intervene(ALONE, PerfectPrevious(layer=1)),
                    MATCH: intervene(ALONE, Induction(layer=1, heads=(HEAD,))),
                    COPY: intervene(PerfectCopy(layer=1, head=HEAD)),
                    BOTH: intervene(PerfectPrevious(layer=1), PerfectCopy(layer=1, head=HEAD)),
                },
                base={"source.seed": 5},
            ),
            5,
            FASTER,
        ),
    },
    shows=("train", "icl_holdout"),
)


def _probe_claim(name: str, words: str, source: str, measure: str, threshold: float, pick: str) -> Claim:
    """A claim about a measure of heads (`measure`, reduced by `pick`) at the last checkpoint of the arm `ALL`, on
    prompts as in training."""
    picks = {
        "largest of layer 1": lambda x: x[:, 1].max(-1),
        "second largest of layer 1": lambda x: np.sort(x[:, 1], axis=-1)[:, -2],
        "smallest without a head of layer 1": lambda x: np.sort(x[:, 1], axis=-1)[:, 1],
        "heads of layer 0 gone, layer 1's attention kept": lambda x: x[:, 1],
        "kept - all felt": lambda x: x[:, 1] - x[:, 5],
    }

    def estimate(evidence: Evidence) -> np.ndarray:
        return picks[pick](evidence.probe(ALL, measure, "train").values[:, -1])

    return Claim(name, words, source, f"{measure}: {pick}", threshold, estimate, (ALL,))


WIRING = Experiment(
    name="heads",
    question="What do the heads of a trained model do?",
    section="Fig. 3b and 4a, Table 1",
    claims=(
        _probe_claim(
            "strong",
            "one head is a strong induction head",
            "Fig. 3b (.82 to .91)",
            "induction_strength",
            0.6,
            "largest of layer 1",
        ),
        _probe_claim(
            "several", "and it is not alone", "Fig. 3b", "induction_strength", 0.2, "second largest of layer 1"
        ),
        _probe_claim(
            "redundant",
            "any head but one can go",
            "Fig. 4a (about 1.0)",
            "without_head",
            0.9,
            "smallest without a head of layer 1",
        ),
        _probe_claim(
            "indirect",
            "layer 0 acts through layer 1's attention alone",
            "section 4 (.9999)",
            "composition",
            0.95,
            "heads of layer 0 gone, layer 1's attention kept",
        ),
        _probe_claim("needed", "and there it is needed", "Table 1", "composition", 0.2, "kept - all felt"),
    ),
    presets={
        "quick": Preset(Comparison(arms={ALL: intervene()}, base={"source.seed": 5}), 4, FASTER),
        "cpu": Preset(
            Comparison(arms={ALL: intervene()}, base=CPU | {"source.seed": 5}),
            4,
            f"the paper's learning rate and length; {SCALED}",
        ),
        "omniglot": Preset(
            Comparison(arms={ALL: intervene()}, base=CPU | REAL),
            4,
            "EfficientNet features of Omniglot in place of ResNet-18's; all pairs of labels are trained on",
            needs="Omniglot features",
        ),
    },
    shows=("train", "icl_holdout"),
)

DIVERSITY = Experiment(
    name="data",
    question="Do more classes and more labels delay it?",
    section="Fig. 6: more of either delays the change",
    claims=(
        sooner_claim(
            "classes",
            "50 classes: sooner than 200",
            "Fig. 6 (2.5e5, 3.8e5)",
            "50 classes, 5 labels",
            "200 classes, 5 labels",
        ),
        sooner_claim(
            "labels",
            "5 labels: sooner than 15",
            "Fig. 6 (2.5e5, 1.3e6)",
            "50 classes, 5 labels",
            "50 classes, 15 labels",
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    "50 classes, 5 labels": {"source.classes": 50},
                    "200 classes, 5 labels": {"source.classes": 200},
                    "50 classes, 15 labels": {"task.labels.count": 15},
                },
                base={"source.seed": 5, "sequences": 512_000},
            ),
            5,
            FASTER.replace("256,000", "512,000"),
        ),
    },
    shows=("train", "icl_holdout"),
)

HELD_OUT = "8 of 10 pairs of labels"
PAIRS = Experiment(
    name="pairs",
    question="Does copying carry over to labels that never occurred together?",
    section="Fig. 3a: 8 of the 10 pairs of labels in training; at the end the loss is .003, on the other pairs .03",
    claims=(
        above("learns", "the training data are learned", "Fig. 3a (.99999)", "train_final", HELD_OUT, 0.95),
        above("copies", "pairs never seen are copied as well", "Fig. 3a", "icl_pairs_final", HELD_OUT, 0.95),
        Claim(
            "easier",
            "that is easier than classes never seen",
            "Fig. 3a (.03, .12)",
            f"icl_pairs_final - icl_holdout_final ({HELD_OUT})",
            0.0,
            lambda evidence: (
                evidence.scalar(HELD_OUT, "icl_pairs_final") - evidence.scalar(HELD_OUT, "icl_holdout_final")
            ),
            (HELD_OUT,),
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={HELD_OUT: {"task.labels.holdout_pairs": 2}},
                base={"source.seed": 5, "evaluators": ["train", "icl", "icl_pairs", "icl_holdout"]},
            ),
            2,
            FASTER.replace("; all pairs of labels are trained on", ""),
        ),
    },
    shows=("train", "icl_pairs", "icl_holdout"),
    scalars=("train_final", "icl_pairs_final", "icl_holdout_final", "train_loss_final"),
)

INDUCTION_HEADS = Study(
    name="induction-heads",
    paper=PAPER,
    question="What has to go right for an induction head to form, and why is its learning abrupt?",
    bases={"quick": Base(QUICK, "drawn characters, 2 layers of attention alone, labels anew for every sequence")},
    experiments=(CLAMPS, WIRING, DIVERSITY, PAIRS),
)
