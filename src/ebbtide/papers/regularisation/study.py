"""Study `regularisation`: two papers say opposite things of L2 and ICL; they put it on different weights."""

import numpy as np

from ebbtide.papers.kinetics.settings import ALL, ATTENTION, MLP, NONE, QUICK, SCALED
from ebbtide.papers.kinetics.settings import PLACES as PLACES_OF_ONE_HEAD
from ebbtide.papers.transience.claims import HALF, TENTH
from ebbtide.papers.transience.models import QUICK_SCALE, weight_decay
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.report.arms_figure import TITLES, Panel, arms_figure
from ebbtide.studies.claim import Claim, above, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Base, Experiment, Figures, Preset, Study
from ebbtide.sweeps.axes import Point

ONE_LAYER: Point = {
    "task.context": 8,
    "task.exemplar_draw": "independent",
    "task.distractor": False,
    "task.labels": {"type": "shared", "count": 2},
    "source.exemplars": 1,
    "source.noise": 0.0,
    "source.classes": 256,
    "batch": 32,
    "optimizer.lr": 2e-3,
    "optimizer.schedule.warmup": 100,
    "model": {
        "type": "transformer",
        "layers": 1,
        "width": 32,
        "heads": 1,
        "mlp_ratio": 8,
        "pairing": "joint",
        "positions": {"type": "none"},
    },
}
"""One layer over (exemplar + label) tokens, 8 in context, one exemplar a class, two labels: as in Nguyen & Reddy, with
an MLP of one hidden layer in place of three, Adam, and few enough classes for the weights to learn them all."""

COEFFICIENT = 1e-3
"""The coefficient of L2 on every choice of weights."""
PLACES = {
    "no L2": weight_decay(0.0),
    "L2 on attention": weight_decay(COEFFICIENT, on="attention"),
    "L2 on MLPs": weight_decay(COEFFICIENT, on="mlp"),
    "L2 on all": weight_decay(COEFFICIENT, on="all"),
}
SETTINGS: dict[str, Point] = {"2 layers": {}, "1 layer": ONE_LAYER}
ARMS = {f"{setting}, {name}": fields | decay for setting, fields in SETTINGS.items() for name, decay in PLACES.items()}
"""Both settings without L2, and with the same L2 on the attention, on the MLPs and on all weights."""


def stays(name: str, statement: str, source: str, arm: str) -> Claim:
    """The claim that ICL is learned, half the way from chance to 1, and falls by less than a tenth of all answers."""

    def estimate(evidence: Evidence) -> np.ndarray:
        rise, fall = (evidence.scalar(arm, scalar) for scalar in ("icl_peak", "transience"))
        return np.minimum(rise - HALF, TENTH - fall)

    return Claim(name, statement, source, f"smaller of: icl_peak - .75, .1 - transience ({arm})", 0.0, estimate, (arm,))


def kept(name: str, statement: str, source: str, arm: str) -> Claim:
    """The claim that ICL ends higher, by a tenth of all answers, in an arm with two layers than without L2."""
    return larger(name, statement, source, "icl_final", arm, "2 layers, no L2", TENTH)


def _draw_places(evidence: Evidence, title: str) -> Figures:
    """places.png and places.svg: ICL and IWL over training, a column for each setting, a line for each place."""

    def panel(name: str, setting: str) -> Panel:
        arms = {place: f"{setting}, {place}" for place in PLACES if f"{setting}, {place}" in evidence.recorded_arms()}
        curves = {place: evidence.curve(arm, name) for place, arm in arms.items()}
        lines = {place: (curve.sequences.astype(float), curve.values) for place, curve in curves.items()}
        chance = {evidence.chance(arm).get(name) for arm in arms.values()}
        return Panel(f"{TITLES[name]}, {setting}", lines, chance.pop() if len(chance) == 1 else None)

    panels = [panel(name, setting) for name in ("icl", "iwl") for setting in SETTINGS]
    drawn = arms_figure(panels, list(PLACES), f"{title}: the same L2 on other weights")
    return {name.replace("figure", "places"): data for name, data in drawn.items()}


_FIG16, _NGUYEN = "2311.08360, Fig. 16", "2412.00104: regularisation causes the decay"
_CODE = "2412.00104, whose public code decays queries, keys and values alone"
BY_PLACE = Experiment(
    name="l2",
    question="Does L2 keep in-context learning, or does it end it? Does that depend on the weights it is put on?",
    section="2311.08360, section 5, says it keeps ICL; 2412.00104 says it erodes ICL once the weights know the answer",
    claims=(
        above("fades", "2 layers, no L2: ICL falls", "2311.08360, section 5", "transience", "2 layers, no L2", TENTH),
        kept("keeps", "2 layers: L2 on all weights keeps ICL", "2311.08360, section 5", "2 layers, L2 on all"),
        kept("keeps by MLPs", "2 layers: L2 on the MLPs keeps ICL", _FIG16, "2 layers, L2 on MLPs"),
        above(
            "not by attention",
            "2 layers: with L2 on the attention ICL falls all the same",
            _FIG16,
            "transience",
            "2 layers, L2 on attention",
            TENTH,
        ),
        stays("stays", "1 layer, no L2: ICL is learned, and stays", _NGUYEN, "1 layer, no L2"),
        above(
            "erodes",
            "1 layer: with L2 on the attention ICL falls",
            _CODE,
            "transience",
            "1 layer, L2 on attention",
            TENTH,
        ),
        larger(
            "takes over",
            "1 layer: where L2 on the attention has ended ICL, the weights know the answer",
            "2412.00104: once the weights know the answer",
            "iwl_final",
            "1 layer, L2 on attention",
            "1 layer, no L2",
            TENTH,
        ),
        stays("not by MLPs", "1 layer: with L2 on the MLPs ICL is learned, and stays", _FIG16, "1 layer, L2 on MLPs"),
        stays(
            "not by all",
            "1 layer: with L2 on all weights ICL is learned, and stays",
            "2311.08360, section 5",
            "1 layer, L2 on all",
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(round=1, arms=ARMS, base={}),
            7,
            f"2 layers: {QUICK_SCALE}; 1 layer, of joint tokens: 8 pairs, 256 classes of one exemplar, 2 labels, an "
            "MLP of one hidden layer and Adam, in place of 100 pairs, 10,000 classes, an MLP of three layers and SGD",
        ),
    },
    shows=("icl", "iwl", "flip"),
    figures=_draw_places,
)

_SECTION5 = "2311.08360, section 5: L2 on all weights keeps ICL"
PAPERS_OWN = Experiment(
    name="one-head",
    question="Do the two papers agree in the model, and with the optimiser, of the one that says that L2 ends ICL?",
    section="2412.00104: its model, exact items and SGD; 2311.08360, section 5 and Fig. 16, for what to expect there",
    claims=(
        stays("stays", "no L2: ICL is learned, and stays", _NGUYEN, NONE),
        above("erodes", "L2 on the attention and the norm: ICL falls", _CODE, "transience", ATTENTION, TENTH),
        larger(
            "takes over",
            "where it has ended ICL, the weights know the answer",
            "2412.00104: once the weights know the answer",
            "iwl_final",
            ATTENTION,
            NONE,
            TENTH,
        ),
        stays("not by MLP", "L2 on the MLP: ICL is learned, and stays", _FIG16, MLP),
        stays("not by all", "L2 on all weights: ICL is learned, and stays", _SECTION5, ALL),
    ),
    presets={"quick": Preset(Comparison(round=1, arms=PLACES_OF_ONE_HEAD, base={}, preset="one-head"), 8, SCALED)},
    shows=("icl", "iwl", "flip"),
)

REGULARISATION = Study(
    name="regularisation",
    paper="Singh et al. 2023, arXiv 2311.08360; Nguyen & Reddy 2024, arXiv 2412.00104",
    question="Does regularisation keep in-context learning, or does it end it?",
    bases={"quick": TRANSIENCE.bases["quick"], "one-head": Base(QUICK, SCALED)},
    experiments=(BY_PLACE, PAPERS_OWN),
)
