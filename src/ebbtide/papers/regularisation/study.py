"""Study `regularisation`: two papers say opposite things of L2 and ICL; both settings side by side."""

from ebbtide.papers.transience.claims import TENTH
from ebbtide.papers.transience.models import QUICK_SCALE, weight_decay
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.studies.claim import above, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.study import Experiment, Preset, Study
from ebbtide.sweeps.axes import Point

THEIRS: Point = {
    "task.context": 8,
    "task.exemplar_draw": "independent",
    "task.distractor": False,
    "task.labels": {"type": "shared", "count": 2},
    "source.exemplars": 1,
    "source.noise": 0.0,
    "source.classes": 128,
    "optimizer.lr": 2e-3,
    "optimizer.schedule.warmup": 100,
    "model": {
        "type": "transformer",
        "layers": 1,
        "width": 32,
        "heads": 1,
        "pairing": "joint",
        "positions": {"type": "none"},
    },
}
"""One layer over (exemplar + label) tokens, 8 in context, one exemplar a class, two labels: as in Nguyen & Reddy, with
our MLP of one hidden layer in place of three, Adam, and 128 classes, near where one strategy gives way to the other."""

_SINGH, _NGUYEN = "2311.08360, section 5", "2412.00104: regularisation causes the decay"
SIDE_BY_SIDE = Experiment(
    name="l2",
    question="Does L2 keep in-context learning, or does it end it?",
    section="2311.08360, section 5, says it keeps ICL; 2412.00104 says it erodes ICL once the weights know the answer",
    claims=(
        above("fades", "noisy exemplars, 2 layers, no L2: ICL falls", _SINGH, "transience", "noisy, no L2", TENTH),
        larger("keeps", "there L2 keeps ICL", _SINGH, "icl_final", "noisy, L2 1e-3", "noisy, no L2", TENTH),
        above("learns", "exact exemplars, 1 layer, no L2: ICL", _NGUYEN, "icl_final", "exact, no L2", 0.75),
        larger("ends", "there L2 ends ICL", _NGUYEN, "icl_final", "exact, no L2", "exact, L2 1e-4", TENTH),
        above("erodes", "ICL rises before L2 ends it", _NGUYEN, "transience", "exact, L2 1e-4", TENTH),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={
                    "noisy, no L2": weight_decay(0.0),
                    "noisy, L2 1e-3": weight_decay(1e-3),
                    "exact, no L2": THEIRS | weight_decay(0.0),
                    "exact, L2 1e-4": THEIRS | weight_decay(1e-4),
                },
                base={},
            ),
            None,
            f"noisy: {QUICK_SCALE}; exact: 1 layer, 8 pairs, 128 classes of one exemplar, 2 labels",
        ),
        "cpu": Preset(
            Comparison(
                round=1,
                arms={
                    "noisy, no L2": weight_decay(0.0),
                    "noisy, L2 1e-3": weight_decay(1e-3),
                    **{f"exact, L2 1e-{n}": THEIRS | weight_decay(10.0**-n) for n in (6, 5, 4, 3)},
                    "exact, no L2": THEIRS | weight_decay(0.0),
                    "exact, 256 classes, no L2": THEIRS | {"source.classes": 256} | weight_decay(0.0),
                    "exact, 256 classes, L2 1e-4": THEIRS | {"source.classes": 256} | weight_decay(1e-4),
                },
                base={},
            ),
            None,
            f"noisy: {QUICK_SCALE}; exact: 1 layer, 8 pairs, 128 or 256 classes of one exemplar, 2 labels",
        ),
    },
    shows=("icl", "iwl", "flip"),
)


REGULARISATION = Study(
    name="regularisation",
    paper="Singh et al. 2023, arXiv 2311.08360; Nguyen & Reddy 2024, arXiv 2412.00104",
    question="Does regularisation keep in-context learning, or does it end it?",
    bases={"quick": TRANSIENCE.bases["quick"]},
    experiments=(SIDE_BY_SIDE,),
)
