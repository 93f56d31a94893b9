"""Study `coopetition`: ICL and CIWL share half of a circuit; one makes the other possible, then takes over."""

import numpy as np
from jaxtyping import Float
from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.evaluation.summary import smooth
from ebbtide.mechanisms.interventions import Forbid
from ebbtide.papers.coopetition.settings import CPU, PAPER, PAPER_SIZE, QUICK, SCALED, SECOND_HALF
from ebbtide.papers.coopetition.switch import SWITCH, WINDOW
from ebbtide.papers.transience.claims import TENTH
from ebbtide.report.probe_figure import heads_figure, lines_figure
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.claim import Claim, above, below
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.donor import Donor
from ebbtide.studies.evidence import ONLY, Evidence, Scalars
from ebbtide.studies.single_run import SingleRun
from ebbtide.studies.study import Base, Experiment, Figures, Preset, Study
from ebbtide.sweeps.axes import Point
from ebbtide.training.engine import Engine
from ebbtide.training.probe import checkpoints, probe_run
from ebbtide.training.run import loadable_spec_of, params_of
from ebbtide.training.start import select


def _head_scalars(run: RunFolder) -> Scalars:
    """Scalars of every member's heads: induction strength at the peak of true ICL and at the end, the share of heads
    whose strength turns from positive to negative, composition of the layers, and the error of grafted checkpoints.
    Raises `InputError` unless the model is a transformer of two layers or more."""
    model = run.header.spec["model"]
    require(model["type"] == "transformer", "model", model["type"], "must be a transformer: its heads are asked")
    require(model["layers"] >= 2, "model.layers", model["layers"], "must be at least 2: heads of layer 1 are asked")
    curves = run.metrics()
    flip = smooth(curves["flip"])
    scalars = {"flip_peak_sequences": curves["sequences"][flip.argmax(1)].astype(float)}
    strength, composition = (
        probe_run(run, [name], on)[0] for name, on in (("induction_strength", "flip"), ("composition", "ciwl"))
    )
    heads = strength.values[:, :, 1]
    near = [int(np.abs(strength.sequences - at).argmin()) for at in scalars["flip_peak_sequences"]]
    early = np.stack([heads[i, m] for m, i in enumerate(near)])
    late = heads[-1]
    scalars["strength_early"], scalars["strength_late"] = early.mean(-1), late.mean(-1)
    scalars["turned"] = ((early > 0) & (late < 0)).mean(-1)
    for i, name in enumerate(("whole", "indirect", "queries", "keys", "values", "felt")):
        scalars[f"composition_{name}"] = composition.values[-1, :, i]
    grafted = graft_curve(run, "flip")
    at = np.searchsorted(curves["sequences"], strength.sequences)
    scalars["graft_error"] = np.abs(grafted - curves["flip"][:, at]).mean(-1)
    return scalars


def graft_curve(run: RunFolder, evaluator: str) -> Float[np.ndarray, "member checkpoint"]:
    """Headline metric of an evaluator at every kept checkpoint, with the second half of every model replaced by that of
    its last checkpoint. Raises `InputError` for a checkpoint that does not fit the spec."""
    spec = loadable_spec_of(run)
    engine = Engine(replace(spec, evaluators=(evaluator,), keep_best=None))
    kept = checkpoints(run)
    second = set(select(SECOND_HALF, list(kept[0][1]), "parts"))
    last = kept[-1][1]
    rows: list[list[float]] = []
    for m in range(spec.members):
        suite = engine.suite(m)
        metric = run.header.metrics.index(suite.evaluators[0].headline)
        row = []
        for sequences, arrays in kept:
            grafted = {name: last.get(name, x) if name in second else x for name, x in arrays.items()}
            params = params_of(spec, grafted, m, f"{run.path}: checkpoint {sequences}")
            row.append(float(np.asarray(engine.measure(params, suite))[0, metric, 0]))
        rows.append(row)
    return np.asarray(rows)


CLAIMS = (
    Claim("icl", "ICL rises", "Fig. 1b (.89)", "icl_peak", 0.75, lambda s: s["icl_peak"]),
    Claim(
        "flip",
        "true ICL, against the weights, rises",
        "Fig. 1b (.71): half of its rise above chance",
        "flip_peak - .5",
        0.1,
        lambda s: s["flip_peak"] - 0.5,
    ),
    Claim(
        "turns", "and falls below chance", "Fig. 1b (.03)", ".5 - flip_final", TENTH, lambda s: 0.5 - s["flip_final"]
    ),
    Claim("fades", "ICL falls", "Fig. 1b (.89 to .52)", "transience", TENTH, lambda s: s["transience"]),
    Claim("ciwl", "CIWL takes over", "Fig. 1b (.99)", "ciwl_final", 0.85, lambda s: s["ciwl_final"]),
    Claim(
        "order",
        "true ICL is at its best before ICL is gone and CIWL there",
        "Fig. 1b: the order of marks 2 to 4",
        "ciwl_final - ciwl at the ICL peak",
        TENTH,
        lambda s: s["ciwl_final"] - s["ciwl_at_peak"],
    ),
    Claim(
        "same heads",
        "the same heads of layer 1 turn from the context's label to the other one",
        "Fig. 3a: all eight",
        "share of heads with induction strength > 0 at the flip peak, < 0 at the end",
        0.5,
        lambda s: s["turned"],
    ),
    Claim(
        "shared half",
        "the final model's second half in every checkpoint leaves Flip nearly unchanged",
        "Fig. 3b (.025)",
        ".1 - mean |grafted - own| over checkpoints",
        0.0,
        lambda s: 0.1 - s["graft_error"],
    ),
    Claim(
        "indirect",
        "layer 0's heads act through layer 1's attention alone",
        "section 4.1 (.987 to .985)",
        ".05 - (CIWL whole - without their direct effect)",
        0.0,
        lambda s: 0.05 - (s["composition_whole"] - s["composition_indirect"]),
    ),
    Claim(
        "keys",
        "through its keys and values, not its queries",
        "section 4.1 (.95 against .57, .59)",
        "CIWL when only queries feel their absence - the larger of keys, values",
        TENTH,
        lambda s: s["composition_queries"] - np.fmax(s["composition_keys"], s["composition_values"]),
    ),
)


def _draw_figures(evidence: Evidence, title: str) -> Figures:
    """heads.png: the induction strength of every head over training (Fig. 3a); grafts.png: Flip of the model's own
    checkpoints and with the final second half in each (Fig. 3b)."""
    _, run = evidence.runs(ONLY)[0]
    assert run is not None
    strength = probe_run(run, ["induction_strength"], "flip")[0]
    words = f"{title}: {strength.measure.what}, Flip prompts"
    heads = heads_figure(words, "attention", strength.sequences, strength.values)["png"]
    curves = run.metrics()
    at = np.searchsorted(curves["sequences"], strength.sequences)
    lines = {"own": curves["flip"][:, at].T, "second half of the final model": graft_curve(run, "flip").T}
    grafts = lines_figure(f"{title}: Flip at every checkpoint", "accuracy", strength.sequences, lines)["png"]
    return {"heads.png": heads, "grafts.png": grafts}


MAIN, MATCH, ONE_LAYER, FORBIDDEN = "main", "exact match", "one layer", "no attention to the previous token"
VARIANTS = Experiment(
    name="variants",
    question="What keeps ICL, and what does CIWL need?",
    section="Fig. 6a, 13, appendix D",
    claims=(
        above(
            "persists", "a query that equals its exemplar: true ICL stays", "Fig. 6a (.90)", "flip_final", MATCH, 0.75
        ),
        above("skip-trigrams", "one layer is enough for CIWL", "Fig. 13 (.98)", "ciwl_final", ONE_LAYER, 0.85),
        below("no induction", "and has no ICL", "Fig. 13 (.50)", "icl_peak", ONE_LAYER, 0.65),
        above("without ICL", "CIWL comes without ICL before it", "appendix D", "ciwl_final", FORBIDDEN, 0.85),
        below(
            "no ICL", "labels that cannot see their exemplar: no true ICL", "appendix D", "flip_peak", FORBIDDEN, 0.6
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    MATCH: {"task.exemplar_draw": "match"},
                    ONE_LAYER: {"model.layers": 1},
                    FORBIDDEN: {"interventions": [to_builtins(Forbid(keys="previous"))]},
                },
                base={"source.seed": 5, "sequences": 2_560_000, "schedule.evaluations": 41, "schedule.checkpoints": 3},
            ),
            7,
            SCALED,
        ),
    },
    shows=("icl", "flip", "ciwl"),
)

OWN_RUN = Donor("coopetition-quick", QUICK, {"study": "coopetition", "preset": "quick"})
"""The study's own run, where `ebbtide run coopetition` puts it."""
SCRATCH, WARM = "from scratch", "with the second half of the final model"
ICL_ONLY: Point = {"task.labels": {"type": "per_sequence", "count": 32}, "evaluators": ["train", "icl", "icl_holdout"]}


def _loss_gap(evidence: Evidence) -> np.ndarray:
    return evidence.scalar(SCRATCH, "train_loss_final") - evidence.scalar(WARM, "train_loss_final")


COOPERATION = Experiment(
    name="cooperation",
    question="Can ICL be learned from ICL-only data, and does CIWL's half of the circuit help?",
    section="Fig. 4a: from scratch it stays above ln 2; with CIWL's second half it falls below .3",
    claims=(
        above(
            "stuck", "from scratch the loss stays above .9 ln 2", "Fig. 4a", "train_loss_final", SCRATCH, 0.9 * 0.693
        ),
        Claim(
            "helps",
            "with CIWL's second half it falls further",
            "Fig. 4a",
            "train_loss_final: scratch - warm",
            0.2,
            _loss_gap,
            (SCRATCH, WARM),
        ),
        below("learns", "it falls below .3", "Fig. 4a", "train_loss_final", WARM, 0.3),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    SCRATCH: ICL_ONLY,
                    WARM: ICL_ONLY | OWN_RUN.graft(QUICK.sequences, SECOND_HALF),
                },
                base={"source.seed": 5, "sequences": 2_560_000, "schedule.evaluations": 41, "schedule.checkpoints": 3},
                task_members=5,
                donor=OWN_RUN,
            ),
            5,
            SCALED,
        ),
    },
    shows=("train", "icl", "icl_holdout"),
)

QUESTION = "Why does in-context learning emerge if in-weights learning takes over in the end?"
BASES = {
    "quick": Base(QUICK, "embedded Gaussian classes, 2 layers of attention alone, 32 shared labels"),
    "cpu": Base(CPU, "12,800 transformed characters (hog features, 64-d) with a label each; rate 1e-4"),
    "paper": Base(PAPER_SIZE, "the original's sizes on hog features"),
}
OWN = Experiment(
    name="coopetition",
    question=QUESTION,
    section="Fig. 1b, 3; section 4.1",
    claims=CLAIMS,
    presets={
        name: Preset(SingleRun(name, _head_scalars), minutes, BASES[name].note)
        for name, minutes in {"quick": 3, "cpu": None, "paper": None}.items()
    },
    figures=_draw_figures,
)

COOPETITION = Study(
    name="coopetition",
    paper=PAPER,
    question=QUESTION,
    experiments=(OWN, VARIANTS, COOPERATION, SWITCH, WINDOW),
    bases=BASES,
)
