"""Experiment `transition` of `abrupt-learning`: ICL comes all at once, and measures of its parts rise before it."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ebbtide.evaluation.summary import smooth
from ebbtide.papers.abrupt_learning.settings import PAPER_SCALE, PAPER_SIZE, QUICK_SCALE
from ebbtide.papers.transience.claims import HALF, TENTH
from ebbtide.papers.transience.models import ACCELERATOR
from ebbtide.report.probe_figure import lines_figure
from ebbtide.studies.claim import Claim, above
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence, Series
from ebbtide.studies.study import Experiment, Figures, Preset
from ebbtide.sweeps.axes import Point

Values = Float[np.ndarray, " member"]
MANY = "8,192 classes, burst 1"
ICL = "icl_holdout"
CHANCE = 0.5
"""Chance level of `icl_holdout`: two labels are in context."""


def sequences_to_stay_above(curve: Series, level: float | Values) -> Values:
    """The sequences from which on each member's curve stays above a level; nan where it ends below, or was never
    below. The first crossing could be one high value by chance."""
    backwards = Series(curve.values[:, ::-1], curve.sequences[::-1])
    return np.where(curve.values[:, -1] > level, backwards.first_crossing(level, falling=True), np.nan)


def sequences_to_a_tenth(curve: Series) -> Values:
    """The sequences from which on each member's curve has covered more than a tenth of the way from its lowest to its
    final value; nan where that way is shorter than .1. The lowest value stands for the start, as attention to the token
    before first falls from that of an untrained model, which is spread evenly."""
    lowest, final = curve.values.min(1), smooth(curve.values)[:, -1]
    times = sequences_to_stay_above(curve, lowest + TENTH * (final - lowest))
    return np.where(final - lowest > TENTH, times, np.nan)


def icl_sequences(evidence: Evidence) -> Values:
    """The sequences from which on each member's ICL has covered more than a tenth of the way from chance to 1; nan
    where it does not end above half the way."""
    times = sequences_to_stay_above(evidence.curve(MANY, ICL), CHANCE + TENTH * (1 - CHANCE))
    return np.where(evidence.scalar(MANY, f"{ICL}_final") > HALF, times, np.nan)


def abruptness(evidence: Evidence) -> Values:
    """A third - the sequences in which ICL goes from a tenth to nine tenths of the way from chance to 1 / those before.

    Of a learner whose ICL grows evenly the ratio is 8, of one that approaches 1 exponentially 21."""
    begins = icl_sequences(evidence)
    ends = evidence.curve(MANY, ICL).first_crossing(CHANCE + 0.9 * (1 - CHANCE))
    return 1 / 3 - (ends - begins) / begins


def _strongest_head(measure: str, layer: int) -> Callable[[Evidence], Series]:
    """A measure of the head of a layer in which it is largest, over training, on prompts of classes never trained."""

    def curve(evidence: Evidence) -> Series:
        probed = evidence.probe(MANY, measure, ICL)
        return probed._replace(values=probed.values[:, :, layer].max(-1))

    return curve


PROGRESS: dict[str, Callable[[Evidence], Series]] = {
    "labels to their exemplar, layer 0": _strongest_head("previous_token", 0),
    "query to all labels in context, layer 1": _strongest_head("label_attention", 1),
    "query to the target's labels - to others, layer 1": _strongest_head("induction_strength", 1),
    "probability of the labels in context": lambda evidence: evidence.curve(MANY, f"{ICL}/context_mass"),
}
"""The paper's progress measures by these instruments: three of attention, one of the answer. Names and definitions in
the paper are from memory: item-label association, total in-context label attention, target-label association,
context-label accuracy. Prompts are of classes never trained, so that nothing in the weights raises them."""


def _precedes(name: str, statement: str, measure: str, metric: str) -> Claim:
    """The claim that a progress measure begins to rise before ICL does. Both times are those of a tenth of the way: any
    curve that only rises along with ICL has covered a tenth before ICL has covered a half."""

    def lead(evidence: Evidence) -> Values:
        return icl_sequences(evidence) - sequences_to_a_tenth(PROGRESS[measure](evidence))

    source = "abstract: progress measures precede it; definition from memory of the paper"
    what = f"sequences to a tenth of the way: {ICL} (from .5 to 1) - {metric} (from its lowest to its last) ({MANY})"
    return Claim(name, statement, source, what, 0.0, lead, (MANY,))


def _draw_progress(evidence: Evidence, title: str) -> Figures:
    """progress.png: the progress measures and ICL over training."""
    curves = {name: curve(evidence) for name, curve in PROGRESS.items()}
    curves["ICL on classes never trained"] = evidence.curve(MANY, ICL)
    at = next(iter(curves.values())).sequences
    lines = {
        name: np.stack([np.interp(at, one.sequences, row) for row in one.values], 1) for name, one in curves.items()
    }
    return {"progress.png": lines_figure(title, "attention, probability or accuracy", at, lines)["png"]}


ARMS: dict[str, Point] = {MANY: {"source.classes": 8192, "task.burst": 1}}
WATCH: Point = {
    "schedule.evaluations": 97,
    "schedule.checkpoints": 97,
    "evaluators": ["train", ICL, "iwl"],
}
TRANSITION = Experiment(
    name="transition",
    question="Does ICL come abruptly, and what comes before it?",
    section="abstract: abrupt emergence, and progress measures that precede it",
    claims=(
        above("icl", "many classes: ICL, on classes never trained", "abstract", f"{ICL}_final", MANY, 0.9),
        Claim(
            "abrupt",
            "it comes in less than a third of the time that it was away",
            "abstract: abruptly; a gradual learner takes eight times that time or more",
            f"1/3 - sequences from {ICL} .55 to .95 / to .55 ({MANY})",
            0.0,
            abruptness,
            (MANY,),
        ),
        _precedes(
            "exemplar first",
            "labels attend to their exemplar before ICL rises",
            "labels to their exemplar, layer 0",
            "previous_token, layer 0",
        ),
        _precedes(
            "labels first",
            "the query attends to the labels before ICL rises",
            "query to all labels in context, layer 1",
            "label_attention, layer 1",
        ),
        _precedes(
            "match first",
            "the query attends to labels of its class, more than to others, before ICL rises",
            "query to the target's labels - to others, layer 1",
            "induction_strength, layer 1",
        ),
        _precedes(
            "context first",
            "the model answers with labels of the context before ICL rises",
            "probability of the labels in context",
            f"{ICL}/context_mass",
        ),
    ),
    presets={
        "quick": Preset(Comparison(round=1, arms=ARMS, base=WATCH | {"sequences": 384_000}), 3, QUICK_SCALE),
        "paper": Preset(
            Comparison(
                round=1,
                arms=ARMS,
                base=PAPER_SIZE | WATCH | {"schedule.evaluations": 193, "schedule.checkpoints": 193},
                resources=ACCELERATOR,
                task_members=9,
            ),
            None,
            PAPER_SCALE,
        ),
    },
    shows=(ICL, "train", "iwl"),
    scalars=(f"{ICL}_final", "iwl_final", "train_loss_final"),
    figures=_draw_progress,
)
