"""Study `coopetition`: ICL and CIWL share half of a circuit; one makes the other possible, then takes over."""

import numpy as np
from msgspec import to_builtins

from ebbtide.mechanisms.interventions import Forbid
from ebbtide.models.transformer import Transformer
from ebbtide.papers.coopetition.claims import mechanism_claims, phase_claims, title_claim
from ebbtide.papers.coopetition.grafts import graft_curve
from ebbtide.papers.coopetition.settings import DATA, PAPER, PAPER_SCALE, PAPER_SIZE, QUICK, SCALED
from ebbtide.papers.coopetition.switch import COOPERATION, SWITCH, WINDOW
from ebbtide.papers.transience.claims import TENTH
from ebbtide.papers.transience.models import ACCELERATOR
from ebbtide.report.probe_figure import heads_figure, lines_figure
from ebbtide.studies.claim import Claim
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.single_run import SingleRun
from ebbtide.studies.study import Base, Experiment, Figures, Preset, Study
from ebbtide.sweeps.axes import Point
from ebbtide.training.probe import probe_run
from ebbtide.training.run import loadable_spec_of


def _draw_figures(evidence: Evidence, title: str) -> Figures:
    """heads.png: the induction strength of every head over training (Fig. 3a); grafts.png: Flip of the model's own
    checkpoints and with the final second half in each (Fig. 3b). Of the first run; none without a second layer."""
    run = next((run for arm in evidence.arms for _, run in evidence.runs(arm) if run is not None), None)
    model = loadable_spec_of(run).model if run else None
    if run is None or not isinstance(model, Transformer) or model.layers < 2:
        return {}
    strength = probe_run(run, ["induction_strength"], "flip")[0]
    words = f"{title}: {strength.measure.what}, Flip prompts"
    heads = heads_figure(words, "attention", strength.sequences, strength.values)["png"]
    curves = run.metrics()
    at = np.searchsorted(curves["sequences"], strength.sequences)
    grafted = graft_curve(run, "flip", "second").values.T
    lines = {"own": curves["flip"][:, at].T, "second half of the final model": grafted}
    grafts = lines_figure(f"{title}: Flip at every checkpoint", "accuracy", strength.sequences, lines)["png"]
    return {"heads.png": heads, "grafts.png": grafts}


QUESTION = "Why does in-context learning emerge if in-weights learning takes over in the end?"
BASES = {
    "quick": Base(QUICK, "embedded Gaussian classes, 2 layers of attention alone, 32 shared labels"),
    "paper": Base(PAPER_SIZE, PAPER_SCALE),
}
OWN = Experiment(
    name="coopetition",
    question=QUESTION,
    section="Fig. 1b",
    claims=phase_claims(),
    presets={"quick": Preset(SingleRun("quick"), 2, BASES["quick"].note)},
    figures=_draw_figures,
)

OWN_LABEL: Point = {"task.labels": {"type": "fixed"}}
SMALL, LARGE = "448 classes, a label each", "12,800 classes, a label each"
OWN_LABELS = Experiment(
    name="own-labels",
    question="With a label for each class: is it CIWL that takes over, and do both strategies share half of a circuit?",
    section="title; Fig. 1b and 3, section 4.1",
    claims=(
        title_claim("title", LARGE),
        title_claim("title, few classes", SMALL),
        *phase_claims(LARGE),
        *mechanism_claims(LARGE),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={SMALL: OWN_LABEL},
                base={"sequences": 2_560_000, "schedule.evaluations": 41, "evaluation_sequences": 5000},
            ),
            2,
            SCALED.replace("32 shared labels", "a label each"),
        ),
        "paper": Preset(
            Comparison(
                round=1, arms={LARGE: OWN_LABEL}, base={}, preset="paper", resources=ACCELERATOR, task_members=9
            ),
            None,
            PAPER_SCALE,
            needs=DATA,
        ),
    },
    shows=("icl", "flip", "ciwl", "iwl"),
    figures=_draw_figures,
)

MAIN, MATCH, ONE_LAYER, FORBIDDEN = "main", "exact match", "one layer", "no attention to the previous token"


def _match_keeps(evidence: Evidence) -> np.ndarray:
    """Smaller of: Flip at the end with exact matches - .8, and how much higher it is than in the main run - .1."""
    match, main = (evidence.scalar(arm, "flip_final") for arm in (MATCH, MAIN))
    return np.minimum(match - 0.8, match - main - TENTH)


def _only_ciwl(name: str, statement: str, source: str, arm: str, least: float, icl: str, most: float) -> Claim:
    """The claim that an arm ends with CIWL above `least`, and never has ICL, measured by `icl`, above `most`."""

    def estimate(evidence: Evidence) -> np.ndarray:
        return np.minimum(evidence.scalar(arm, "ciwl_final") - least, most - evidence.scalar(arm, f"{icl}_peak"))

    metric = f"smaller of: ciwl_final - {least:g}, {most:g} - {icl}_peak ({arm})"
    return Claim(name, statement, source, metric, 0.0, estimate, (arm,))


VARIANTS = Experiment(
    name="variants",
    question="What keeps ICL, and what does CIWL need?",
    section="Fig. 6a, 13, appendix D",
    claims=(
        Claim(
            "persists",
            "a query that equals its exemplar: true ICL stays, which the main run loses",
            "Fig. 6a (.90; main .03): a tenth less; a tenth above the main run",
            f"smaller of: flip_final ({MATCH}) - .8, flip_final: {MATCH} - {MAIN} - .1",
            0.0,
            _match_keeps,
            (MATCH, MAIN),
        ),
        _only_ciwl(
            "skip-trigrams",
            "one layer is enough for CIWL, and has no ICL",
            "Fig. 13 (CIWL .98, ICL .50); within a tenth",
            ONE_LAYER,
            0.88,
            "icl",
            0.6,
        ),
        _only_ciwl(
            "without ICL",
            "CIWL comes without true ICL before it, which labels that cannot see their exemplar do not have",
            "appendix D (.987, .5); within a tenth",
            FORBIDDEN,
            0.887,
            "flip",
            0.6,
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={
                    MAIN: {"model.layers": 2},
                    MATCH: {"task.exemplar_draw": "match"},
                    ONE_LAYER: {"model.layers": 1},
                    FORBIDDEN: {"interventions": [to_builtins(Forbid(keys="previous"))]},
                },
                base={"sequences": 2_560_000, "schedule.evaluations": 41, "schedule.checkpoints": 3},
            ),
            8,
            SCALED,
        ),
    },
    shows=("icl", "flip", "ciwl"),
    scalars=("flip_peak", "flip_final", "icl_peak", "ciwl_final", "train_loss_final"),
)

COOPETITION = Study(
    name="coopetition",
    paper=PAPER,
    question=QUESTION,
    experiments=(OWN, OWN_LABELS, VARIANTS, COOPERATION, SWITCH, WINDOW),
    bases=BASES,
)
