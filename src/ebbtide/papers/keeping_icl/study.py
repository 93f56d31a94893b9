"""Study `keeping-icl`: what keeps in-context learning from fading, and what each method costs."""

import numpy as np

from ebbtide.papers.keeping_icl.figure import Price, draw_prices
from ebbtide.papers.transience.claims import TENTH
from ebbtide.papers.transience.models import QUICK_SCALE, weight_decay
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.studies.claim import Claim, above, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Figures, Preset, Study
from ebbtide.sweeps.axes import Point

NOTHING, ALL, MLPS, NOISE, LESS_BURSTY = "no method", "L2 on all", "L2 on MLPs", "label noise", "half bursty"
ACTIVE, TEMPORARY = "active forgetting", "temporary forgetting"
STOPPED = "early stopping"
"""Not an arm: the best models by ICL that the arm without a method keeps."""

COEFFICIENT = 1e-3
"""The coefficient of L2 at which both studies before this one have kept ICL (`transience`, `regularisation`)."""
EVERY, UNTIL = 3_200, 256_000
"""In sequences: the time between two draws of the encoder, and the end of temporary forgetting."""
EXEMPLARS = ["exemplar.*"]
"""The embedding of exemplars, which are the symbols here. Labels keep theirs: the read-out is not tied to their table,
so that a label drawn anew would be one that no read-out knows. In the paper the two are one array."""
FORGETTING = {"every": EVERY, "parts": EXEMPLARS}
SHARE = 0.1
"""The share of label noise."""

ARMS: dict[str, Point] = {
    NOTHING: weight_decay(0.0),
    ALL: weight_decay(COEFFICIENT),
    MLPS: weight_decay(COEFFICIENT, on="mlp"),
    NOISE: {"task.relabel": {"type": "label_noise", "share": SHARE, "of": "classes"}},
    LESS_BURSTY: {"task.p_bursty": 0.5},
    ACTIVE: {"forgetting": FORGETTING},
    TEMPORARY: {"forgetting": FORGETTING | {"until": UNTIL}},
}


def kept(name: str, statement: str, source: str, arm: str, evaluator: str = "icl") -> Claim:
    """The claim that ICL ends higher in an arm than without a method, by a tenth of all answers."""
    return larger(name, statement, source, f"{evaluator}_final", arm, NOTHING, TENTH)


def paid(name: str, statement: str, source: str, arm: str) -> Claim:
    """The claim that IWL ends lower in an arm than without a method, by a tenth of all answers."""
    return larger(name, statement, source, "iwl_final", NOTHING, arm, TENTH)


def _stopped_early(evidence: Evidence) -> np.ndarray:
    """ICL of the best models kept, on fresh prompts - ICL at the end."""
    return evidence.score_best(NOTHING) - evidence.scalar(NOTHING, "icl_final")


def _iwl_not_learned(evidence: Evidence) -> np.ndarray:
    """IWL at the end - IWL at the peak of ICL."""
    return evidence.scalar(NOTHING, "iwl_final") - evidence.scalar(NOTHING, "iwl_at_peak")


def _iwl_ends(evidence: Evidence) -> np.ndarray:
    """Smaller of: how far IWL stays below a tenth over chance, and how much lower than without a method - .1."""
    iwl, usual = (evidence.scalar(arm, "iwl_final") for arm in (ACTIVE, NOTHING))
    return np.minimum(CHANCE + TENTH - iwl, usual - iwl - TENTH)


def _both(evidence: Evidence) -> np.ndarray:
    """Smaller of: ICL on held-out classes above that without a method - .1, and .1 - the IWL that this costs."""
    icl, iwl = (
        evidence.scalar(TEMPORARY, name) - evidence.scalar(NOTHING, name) for name in ("icl_holdout_final", "iwl_final")
    )
    return np.minimum(icl - TENTH, iwl + TENTH)


CHANCE = 1 / 6
"""Of IWL: four shared labels and two reserved ones."""
_SINGH, _MLP, _DUAL = "2311.08360, section 5", "2311.08360, Fig. 16", "2406.00053"
CLAIMS = (
    above("fades", "without a method ICL fades", "2311.08360, Fig. 1", "transience", NOTHING, TENTH),
    kept("L2", "L2 on all weights keeps ICL", _SINGH, ALL),
    kept("L2 on MLPs", "L2 on the MLPs alone keeps it too", _MLP, MLPS),
    paid("price of L2", "L2 on all weights costs IWL", "2311.08360, section 5: it holds IWL back", ALL),
    Claim(
        "stopping",
        "the model that an ICL validation keeps has more ICL than the last one",
        "2311.08360, abstract",
        f"icl of the best kept model, on fresh prompts - icl_final ({NOTHING})",
        TENTH,
        _stopped_early,
        (NOTHING,),
    ),
    Claim(
        "price of stopping",
        "and has not learned the IWL that comes later",
        "2311.08360, Fig. 1",
        f"iwl_final - iwl_at_peak ({NOTHING})",
        TENTH,
        _iwl_not_learned,
        (NOTHING,),
    ),
    kept(
        "noise",
        "label noise that the weights cannot predict keeps ICL",
        "after 2410.23042: ICL stays where the predictor in the weights errs more than the one in the context",
        NOISE,
    ),
    paid("price of noise", "and costs IWL", "after 2410.23042", NOISE),
    larger(
        "bursts",
        "more bursty sequences keep more ICL: all against half of them",
        "Chan et al. 2022: ICL grows with the share of bursty sequences",
        "icl_final",
        NOTHING,
        LESS_BURSTY,
        TENTH,
    ),
    kept("active", "active forgetting keeps ICL on new symbols", f"{_DUAL}, Fig. 3", ACTIVE, "icl_holdout"),
    Claim(
        "active ends IWL",
        "and ends IWL: it stays within a tenth of chance",
        f"{_DUAL}, Fig. 3: removes all preference for IWL",
        f"smaller of: 1/6 + .1 - iwl_final ({ACTIVE}), iwl_final: {NOTHING} - {ACTIVE} - .1",
        0.0,
        _iwl_ends,
        (ACTIVE, NOTHING),
    ),
    Claim(
        "both",
        "temporary forgetting gives both: more ICL on new symbols, at a price of less than a tenth in IWL",
        f"{_DUAL}: dual process strategy",
        f"smaller of: icl_holdout_final: {TEMPORARY} - {NOTHING} - .1, iwl_final: {TEMPORARY} - {NOTHING} + .1",
        0.0,
        _both,
        (TEMPORARY, NOTHING),
    ),
)


def _prices(evidence: Evidence) -> dict[str, Price]:
    """What every method changes at the end of training; of early stopping, at the peak of ICL."""

    def against(icl: np.ndarray, iwl: np.ndarray, loss: np.ndarray) -> Price:
        usual = (evidence.scalar(NOTHING, name) for name in ("icl_final", "iwl_final", "train_loss_final"))
        before, known, lost = usual
        return Price(icl - before, iwl - known, np.log10(loss / lost))

    found = {
        arm: against(*(evidence.scalar(arm, name) for name in ("icl_final", "iwl_final", "train_loss_final")))
        for arm in evidence.recorded_arms()
        if arm != NOTHING
    }
    found |= {arm: found[arm]._replace(loss=None) for arm in (NOISE, LESS_BURSTY) if arm in found}
    at_peak = (evidence.scalar(NOTHING, name) for name in ("iwl_at_peak", "train_loss_at_peak"))
    return {STOPPED: against(evidence.score_best(NOTHING), *at_peak)} | found


def _draw(evidence: Evidence, title: str) -> Figures:
    """prices.png: ICL kept against IWL paid and training loss, a colour for each method."""
    return {"prices.png": draw_prices(title, _prices(evidence))} if NOTHING in evidence.recorded_arms() else {}


KEEPING = Experiment(
    name="keeping-icl",
    question="What keeps in-context learning from fading, and what does it cost?",
    section="2311.08360, sections 5 and 6; 2406.00053, Fig. 3 and the section on temporary forgetting",
    claims=CLAIMS,
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms=ARMS,
                base={"sequences": 1_024_000, "schedule.evaluations": 17},
            ),
            8,
            f"{QUICK_SCALE}; .4 of the sequences of transience",
        ),
    },
    scalars=("icl_final", "icl_holdout_final", "iwl_final", "train_loss_final", "iwl_at_peak", "train_loss_at_peak"),
    shows=("icl", "icl_holdout", "iwl", "flip"),
    figures=_draw,
)

KEEPING_ICL = Study(
    name="keeping-icl",
    paper="Singh et al. 2023, arXiv 2311.08360; Anand et al. 2025, arXiv 2406.00053",
    question="What keeps in-context learning from fading, and what does it cost?",
    bases={"quick": TRANSIENCE.bases["quick"]},
    experiments=(KEEPING,),
)
