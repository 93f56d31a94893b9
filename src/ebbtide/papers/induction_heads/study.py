"""Study `induction-heads`: what has to go right for an induction head, by clamping its parts through training."""

import numpy as np
from jaxtyping import Float

from ebbtide.mechanisms.interventions import AnyIntervention, Induction, PerfectCopy, PerfectPrevious, PreviousToken
from ebbtide.papers.induction_heads.claims import saved_share, sequences_to_loss, sooner_claim
from ebbtide.papers.induction_heads.heads import WIRING
from ebbtide.papers.induction_heads.settings import (
    ALL,
    ALONE,
    DATA,
    FASTER,
    HEAD,
    ONE,
    ORIGINAL,
    PAPER,
    PAPER_SCALE,
    QUICK,
    intervene,
)
from ebbtide.papers.transience.claims import TENTH
from ebbtide.studies.claim import Claim, above
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Preset, Study
from ebbtide.sweeps.axes import Point


def _plateau_claim(arm: str) -> Claim:
    """The claim that the loss falls from .8 to .6 in more sequences than from .6 to .2."""

    def estimate(evidence: Evidence) -> np.ndarray:
        high, middle, low = (sequences_to_loss(evidence, arm, loss) for loss in (0.8, 0.6, 0.2))
        return (middle - high) / np.maximum(low - middle, 1.0) - 1

    metric = f"sequences from loss .8 to .6 / from .6 to .2, - 1 ({arm})"
    words = "the loss stays near ln 2, then drops in less time than it stayed"
    return Claim("plateau", words, "Fig. 3a", metric, 0.0, estimate, (arm,))


PREVIOUS, FIRST, MATCH, COPY, BOTH = (
    "a previous-token head",
    "perfect layer 0",
    "perfect match",
    "perfect copy",
    "perfect layer 0 and copy",
)
MATCH_GIVEN: tuple[AnyIntervention, ...] = (ALONE, Induction(layer=1, heads=(HEAD,)))
"""The match is given: what is left to learn is the copy."""
COPY_GIVEN: tuple[AnyIntervention, ...] = (PerfectPrevious(layer=1), PerfectCopy(layer=1, head=HEAD))
"""Layer 0 and the copy are given: what is left to learn is the match."""
CLAMPED: dict[str, Point] = {
    ALL: intervene(),
    ONE: intervene(ALONE),
    PREVIOUS: intervene(ALONE, PreviousToken(layer=0, heads=(2,), rows="all")),
    FIRST: intervene(ALONE, PerfectPrevious(layer=1)),
    MATCH: intervene(*MATCH_GIVEN),
    COPY: intervene(PerfectCopy(layer=1, head=HEAD)),
    BOTH: intervene(*COPY_GIVEN),
}
CLAMPS = Experiment(
    name="clamps",
    question="Which parts of an induction head make its learning abrupt?",
    section="Fig. 3a, 4b and 5b: sub-circuits clamped through training",
    claims=(
        _plateau_claim(ALL),
        above("learns", "the training data are learned", "Fig. 3a", "train_final", ALL, 0.95),
        sooner_claim(
            "diversity",
            "eight heads learn sooner than one",
            "Fig. 4b (by .11 to .59, head by head); half of the least",
            ALL,
            ONE,
            0.05,
        ),
        sooner_claim(
            "previous",
            "a given previous-token head shortens the plateau",
            "Fig. 5b, 1 (by .34); half of it",
            PREVIOUS,
            ONE,
            0.17,
        ),
        sooner_claim(
            "first",
            "a perfect layer 0 shortens it more than that",
            "Fig. 5b, 1 and 2 (by .63); half of it",
            FIRST,
            PREVIOUS,
            0.31,
        ),
        sooner_claim(
            "match",
            "a perfect match leaves little to learn",
            "Fig. 5b, 1, 2, 3qk and 4 (a tenth of the time); at most twice that",
            MATCH,
            ONE,
            0.8,
        ),
        sooner_claim(
            "copy",
            "a perfect copy leaves little to learn",
            "Fig. 5b, 3v and 5 (an eighth of the time); at most twice that",
            COPY,
            ONE,
            0.75,
        ),
        sooner_claim(
            "both", "a perfect layer 0 and copy: soonest, sooner than copy", "Fig. 5b, 1, 2, 3v and 5", BOTH, COPY
        ),
    ),
    presets={
        "quick": Preset(Comparison(round=1, arms=CLAMPED, base={}), 6, FASTER),
        "paper": Preset(
            Comparison(round=1, arms=CLAMPED, base=ORIGINAL | {"sequences": 614_400, "schedule.evaluations": 129}),
            6,
            PAPER_SCALE,
            needs=DATA,
        ),
    },
    shows=("train", "icl_holdout"),
)

PLAIN, CLASSES, LABELS = "50 classes, 5 labels", "200 classes, 5 labels", "50 classes, 15 labels"
TO_MATCH, TO_COPY = "match to learn", "copy to learn"


def _part(data: str, left: str) -> str:
    """Name of the arm on these data in which one part of the circuit is left to learn."""
    return f"{data}, {left}"


def _data_arms(whole: int, part: int, held_out: tuple[int, int]) -> dict[str, Point]:
    """Arms on three kinds of data by three circuits: the whole one, trained on `whole` sequences; the match, and the
    copy, with the rest given, on `part` sequences. `held_out` pairs of 5 and of 15 labels do not occur in training."""
    few: Point = {"task.labels.count": 5, "task.labels.holdout_pairs": held_out[0]}
    many: Point = {"task.labels.count": 15, "task.labels.holdout_pairs": held_out[1]}
    data: dict[str, Point] = {
        PLAIN: few | {"source.classes": 50},
        CLASSES: few | {"source.classes": 200},
        LABELS: many | {"source.classes": 50},
    }
    arms = {name: point | intervene(ALONE) | {"sequences": whole} for name, point in data.items()}
    for left, given in ((TO_MATCH, COPY_GIVEN), (TO_COPY, MATCH_GIVEN)):
        fields = intervene(*given) | {"sequences": part}
        arms |= {_part(name, left): point | fields for name, point in data.items()}
    return arms


def _delay_claim(name: str, statement: str, source: str, data: str, more: str, less: str) -> Claim:
    """The claim that these data delay one part of the circuit by more than another, by a tenth of the time."""

    def delay(evidence: Evidence, left: str) -> Float[np.ndarray, " member"]:
        return saved_share(evidence, _part(PLAIN, left), _part(data, left))

    metric = f"1 - sequences until loss ln(2)/2, {PLAIN} / {data}: {more} - {less}"
    arms = tuple(_part(one, left) for left in (more, less) for one in (PLAIN, data))
    return Claim(
        name, statement, source, metric, TENTH, lambda evidence: delay(evidence, more) - delay(evidence, less), arms
    )


DIVERSITY = Experiment(
    name="data",
    question="Do more classes and more labels delay it, and through which part of the circuit?",
    section="Fig. 6: more of either delays the change; classes through the match, labels through the copy",
    claims=(
        sooner_claim(
            "classes",
            "50 classes: sooner than 200",
            "Fig. 6 (2.5e5, 3.8e5 sequences: by .34); half of it",
            PLAIN,
            CLASSES,
            0.17,
        ),
        sooner_claim(
            "labels",
            "5 labels: sooner than 15",
            "Fig. 6 (2.5e5, 1.3e6 sequences: by .81); half of it",
            PLAIN,
            LABELS,
            0.4,
        ),
        _delay_claim(
            "classes match",
            "more classes delay the match, and not the copy",
            "Fig. 6: through sub-circuit B; a tenth set beforehand",
            CLASSES,
            TO_MATCH,
            TO_COPY,
        ),
        _delay_claim(
            "labels copy",
            "more labels delay the copy, and not the match",
            "Fig. 6: through sub-circuit C alone; a tenth set beforehand",
            LABELS,
            TO_COPY,
            TO_MATCH,
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(round=1, arms=_data_arms(512_000, 128_000, (0, 0)), base={}),
            4,
            FASTER.replace("256,000", "512,000 (with parts given 128,000)"),
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms=_data_arms(2_048_000, 307_200, (2, 21)),
                base=ORIGINAL | {"schedule.evaluations": 129},
            ),
            None,
            PAPER_SCALE,
            needs=DATA,
        ),
    },
    shows=("train", "icl_holdout"),
)

HELD_OUT = "8 of 10 pairs of labels"
EVALUATORS: Point = {"evaluators": ["train", "icl", "icl_pairs", "icl_holdout"]}


def _final_loss(evidence: Evidence, evaluator: str) -> Float[np.ndarray, " member"]:
    """Loss on the prompts of an evaluator at the end, nats."""
    return evidence.curve(HELD_OUT, f"{evaluator}/loss").values[:, -1]


PAIRS = Experiment(
    name="pairs",
    question="Does copying carry over to labels that never occurred together?",
    section="Fig. 3a: 8 of the 10 pairs of labels in training; at the end the loss is .003, on the other pairs .03",
    claims=(
        above("learns", "the training data are learned", "Fig. 3a (.99999)", "train_final", HELD_OUT, 0.99),
        Claim(
            "copies",
            "pairs never seen are copied as well",
            "Fig. 3a (loss .03); three times that",
            f".09 - loss of icl_pairs at the end ({HELD_OUT})",
            0.0,
            lambda evidence: 0.09 - _final_loss(evidence, "icl_pairs"),
            (HELD_OUT,),
        ),
        Claim(
            "easier",
            "that is easier than classes never seen",
            "Fig. 3a (.03, .12: a quarter); at most half",
            f"1 - loss at the end: icl_pairs / icl_holdout ({HELD_OUT})",
            0.5,
            lambda evidence: 1 - _final_loss(evidence, "icl_pairs") / _final_loss(evidence, "icl_holdout"),
            (HELD_OUT,),
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(round=1, arms={HELD_OUT: {"task.labels.holdout_pairs": 2}}, base=EVALUATORS),
            1,
            FASTER.replace("; all pairs of labels are trained on", ""),
        ),
        "paper": Preset(
            Comparison(round=1, arms={HELD_OUT: {"task.labels.holdout_pairs": 2}}, base=ORIGINAL | EVALUATORS),
            2,
            PAPER_SCALE,
            needs=DATA,
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
