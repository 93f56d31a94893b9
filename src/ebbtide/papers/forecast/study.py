"""Study `forecast`: can the fall of in-context learning be told from early training?"""

import hashlib

import numpy as np
from jaxtyping import Float

from ebbtide.papers.forecast.events import LATER, LEVEL, MOMENTS, Course, course_of
from ebbtide.papers.forecast.figure import draw_forecasts
from ebbtide.papers.forecast.forecaster import TRAINING, published
from ebbtide.papers.forecast.scores import RANK_OF_HALF, distance, forecasts, rank_distance, side
from ebbtide.papers.transience.models import weight_decay
from ebbtide.papers.transience.study import QUICK
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Figures, Preset, Study
from ebbtide.sweeps.axes import Point

Values = Float[np.ndarray, " member"]
FALLS, KEEPS = "no L2", "L2 on MLPs"
SEQUENCES, KEPT_FOR, MEMBERS = 1_280_000, 192_000, 20
"""Sequences of either arm, and members of each. With L2 members are trained only until after the later moment: that
they keep ICL is known from `transience`, experiment `competition`."""
ARMS: dict[str, Point] = {
    FALLS: weight_decay(0.0, on="mlp") | {"sequences": SEQUENCES, "schedule.evaluations": 81},
    KEEPS: weight_decay(1e-3, on="mlp") | {"sequences": KEPT_FOR, "schedule.evaluations": 47},
}
"""ICL falls in the one and stays in the other. Evaluations lie at the same ratio to the one before, 1.057, in both."""
TABLE = hashlib.sha256(TRAINING.read_bytes()).hexdigest()[:12]
"""Names the members that the forecasters have learned from, in what is registered."""


def course(evidence: Evidence, arm: str, moment: str) -> Course:
    """What became of an arm's members, and what was known of them at a moment."""
    return course_of(evidence.curves(arm), moment)


def forecast(evidence: Evidence, arm: str, moment: str) -> Values:
    """Forecasts of an arm's members, log sequences."""
    return forecasts(published(moment), course(evidence, arm, moment))


def margin_of_end(evidence: Evidence) -> Values:
    """Sequences from the fall to the end of training, in thousands; 0 for a member that has not fallen."""
    own = course(evidence, FALLS, MOMENTS[0])
    return np.where(np.isnan(own.onset), np.nan, np.nan_to_num(own.end - own.fall)) / 1000


def nearness(evidence: Evidence, moment: str) -> Values:
    """`RANK_OF_HALF` - distance of the ranks of forecast and time of the fall."""
    return RANK_OF_HALF - rank_distance(published(moment), course(evidence, FALLS, moment))


def room(evidence: Evidence, moment: str, half: float) -> Values:
    """Half-width of an interval around the forecast - distance of the time of the fall from it, log sequences."""
    return half - distance(forecast(evidence, FALLS, moment), course(evidence, FALLS, moment))


def no_alarm(evidence: Evidence, moment: str) -> Values:
    """Of members with L2: smaller of ICL at their end - .75 and the forecast - the mean of the configuration without,
    log sequences."""
    late = forecast(evidence, KEEPS, moment) - published(moment).mean
    return np.minimum(evidence.scalar(KEEPS, "icl_final") - LEVEL, late)


def told_apart(evidence: Evidence, moment: str) -> Values:
    """Forecast of a member with L2 - forecast of the one on the same seeds without, log sequences."""
    return forecast(evidence, KEEPS, moment) - forecast(evidence, FALLS, moment)


_OWN = "own: written before the run"
_MEMBERS = f"forecasters of training.csv, SHA-256 {TABLE}"
AT = {"onset": "at the onset", "later": f"after {LATER:,} sequences"}


def claims_at(moment: str) -> tuple[Claim, ...]:
    """The claims on forecasts that are made at one moment."""
    at = AT[moment]
    return (
        Claim(
            f"order {moment}",
            f"{at} it can be told which members lose ICL earlier, as well as by a rank correlation of .5",
            f"{_OWN}: Spearman .5, which gives a median distance of ranks of .16",
            f"{RANK_OF_HALF:g} - |rank of the forecast - rank of the time|, from 0 to 1 among the forecaster's own "
            f"members ({FALLS}; {_MEMBERS})",
            0.0,
            lambda evidence: nearness(evidence, moment),
            (FALLS,),
        ),
        Claim(
            f"cover {moment}",
            f"the 90 % interval {at} contains the time of the fall in more than two thirds of seeds",
            f"{_OWN}: 85 to 95 %; two thirds is what this number of members can show of 90 %",
            f"half-width of the interval - |forecast - log time| ({FALLS})",
            0.0,
            lambda evidence: room(evidence, moment, published(moment).half),
            (FALLS,),
            2 / 3,
        ),
        Claim(
            f"narrow {moment}",
            f"an interval around the forecast {at} that is half as wide as the configuration's does so too",
            f"{_OWN}: at most half as wide as the configuration's",
            f"a quarter of the width of the configuration's interval - |forecast - log time| ({FALLS})",
            0.0,
            lambda evidence: room(evidence, moment, published(moment).mean_half / 2),
            (FALLS,),
            2 / 3,
        ),
        Claim(
            f"apart {moment}",
            f"members that keep ICL, by L2 on the MLPs, are forecast {at} to fall later than those on the same seeds "
            "that lose it",
            _OWN,
            f"forecast, log sequences: {KEEPS} - {FALLS}",
            0.0,
            lambda evidence: told_apart(evidence, moment),
            (FALLS, KEEPS),
        ),
        Claim(
            f"alarm {moment}",
            f"and are not forecast {at} to lose it before the mean time of those that do",
            f"{_OWN}: at most 5 % false alarms; 80 % without one is what this number of members can show",
            f"smaller of: icl_final - {LEVEL:g}, forecast - mean, log sequences ({KEEPS})",
            0.0,
            lambda evidence: no_alarm(evidence, moment),
            (KEEPS,),
            0.8,
        ),
    )


CLAIMS = (
    Claim(
        "falls",
        "ICL passes .75 and is below it for good before the end of training: there is something to forecast",
        "study transience",
        f"sequences from the fall to the end, thousands ({FALLS})",
        0.0,
        margin_of_end,
        (FALLS,),
    ),
    Claim(
        "chance",
        "at the onset it can be told better than by chance which members lose ICL earlier than most",
        f"{_OWN}; 2606.12058 and 2606.25010 call the times of such changes random",
        f"rank of the forecast - 1/2, on the side of 1/2 where the rank of the time is ({FALLS}; {_MEMBERS})",
        0.0,
        lambda evidence: side(published(MOMENTS[0]), course(evidence, FALLS, MOMENTS[0])),
        (FALLS,),
    ),
    *claims_at("onset"),
    *claims_at("later"),
)


def _draw(evidence: Evidence, title: str) -> Figures:
    """forecast.png: the time of the fall against its forecast, at either moment."""
    if FALLS not in evidence.recorded_arms():
        return {}
    done = [arm for arm in ARMS if arm in evidence.recorded_arms()]
    panels = {AT[one]: (published(one), {arm: course(evidence, arm, one) for arm in done}) for one in MOMENTS}
    return {"forecast.png": draw_forecasts(title, panels, FALLS)}


FIELDS: Point = {
    "schedule.spacing": "log",
    "schedule.first": 16_000,
    "schedule.checkpoints": 2,
    "evaluators": ["train", "icl", "iwl", "ciwl", "flip"],
}
"""Evaluations in equal ratios of training, since the onset comes at some 35,000 sequences and the fall at thirty times
as many."""
SCALED = "the setting of `transience` at its preset quick, for 1,280,000 of its 2,560,000 sequences"
QUESTION = (
    "Can the time at which in-context learning falls be told from training up to the moment at which it is learned?"
)
FORECAST = Study(
    name="forecast",
    paper="Singh et al. 2023, The Transient Nature of Emergent In-Context Learning in Transformers, arXiv 2311.08360",
    question=QUESTION,
    bases={"quick": Base(QUICK, "that of `transience`")},
    experiments=(
        Experiment(
            name="fall",
            question=QUESTION,
            section="of the fall nobody has asked it; of when ICL is learned 2511.16893 and 2606.12058 disagree",
            claims=CLAIMS,
            presets={
                "quick": Preset(
                    Comparison(arms=ARMS, base=FIELDS, members=MEMBERS, round=2, task_members=10), 6, SCALED
                )
            },
            shows=("icl", "iwl", "ciwl", "flip"),
            scalars=("icl_peak", "icl_final", "iwl_final", "train_loss_final"),
            figures=_draw,
        ),
    ),
)
