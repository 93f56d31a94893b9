"""Experiments of the transience paper on the model and its training: size, L2, competition, early stopping."""

import numpy as np

from ebbtide.papers.transience.claims import HALF, TENTH, falls_later, persists
from ebbtide.studies.claim import Claim, above, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.sweeps.sweep import Resources

ACCELERATOR = Resources(gpus=1, cpus=4, memory_gb=16, minutes=1440)

QUICK_SCALE = (
    "2 layers of width 32 on 2 pairs, 256 Gaussian classes of 5 exemplars with 4 shared labels, learning rate 3e-3, "
    "batch 16, in place of 12 layers of width 64 on 8 pairs, 1,600 Omniglot classes of 20 exemplars with a label each"
)
PAPER_SCALE = (
    "the original's sizes, trained as by the public code for frozen features (github.com/aadityasingh/icl-dynamics): "
    "ResNet-18 averages as stored, exemplars drawn independently, no reserved labels, constant learning rate"
)
RESNET18 = "ResNet-18 features of Omniglot (ebbtide data features --encoder resnet18)"
"""What the presets `paper` on frozen features need on the machine."""


def weight_decay(coefficient: float, form: str = "l2", on: str = "all") -> Point:
    """Fields of an arm with a weight decay."""
    names = ("coefficient", "form", "on")
    return {f"optimizer.decay.{name}": value for name, value in zip(names, (coefficient, form, on), strict=True)}


SIZE = Experiment(
    name="size",
    question="Does ICL fade at every size, and later in wider models?",
    section="section 4.1: depth does not fix it; wider models lose ICL later",
    claims=(
        above("deep", "ICL falls in a deeper model", "section 4.1", "transience", "4 layers, width 32", TENTH),
        above("narrow", "ICL falls in a narrower model", "section 4.1", "transience", "2 layers, width 16", TENTH),
        above("wide", "ICL falls in a wider model", "section 4.1", "transience", "2 layers, width 64", TENTH),
        falls_later(
            "wider later",
            "the wider model loses its ICL later",
            "section 4.1: wider embeddings soften it",
            "12 layers, width 128",
            "12 layers, width 64",
        ),
        falls_later(
            "widest later",
            "and a still wider one later again",
            "section 4.1",
            "12 layers, width 256",
            "12 layers, width 128",
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={
                    "2 layers, width 16": {"model.layers": 2, "model.width": 16},
                    "2 layers, width 32": {"model.layers": 2, "model.width": 32},
                    "4 layers, width 32": {"model.layers": 4, "model.width": 32},
                },
                base={},
            ),
            8,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                round=1,
                arms={
                    "2 layers, width 16": {"model.layers": 2, "model.width": 16},
                    "2 layers, width 32": {"model.layers": 2, "model.width": 32},
                    "2 layers, width 64": {"model.layers": 2, "model.width": 64},
                    "4 layers, width 32": {"model.layers": 4, "model.width": 32},
                    "6 layers, width 32": {"model.layers": 6, "model.width": 32},
                },
                base={},
            ),
            None,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={
                    **{f"{n} layers, width 64": {"model.layers": n, "model.width": 64} for n in (2, 4, 12, 24)},
                    **{f"12 layers, width {n}": {"model.layers": 12, "model.width": n} for n in (32, 128, 256)},
                },
                base={},
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            PAPER_SCALE,
            needs=RESNET18,
        ),
    },
)

NORMS = {f"norms {c:.0e}".replace("e-0", "e-"): weight_decay(c, "norms_qkv") for c in (1e-3, 1e-2)}
"""Arms with the penalty of the public code."""
_KEEPS = "section 5: about 1e-4 removes the fall"
L2 = Experiment(
    name="l2",
    question="Does L2 keep in-context learning?",
    section="section 5: L2 removes the transience; too much of it breaks ICL and IWL",
    claims=(
        larger("keeps", "moderate L2 keeps ICL", _KEEPS, "icl_final", "L2 1e-3", "no L2", TENTH),
        larger("keeps at 1e-4", "so does the paper's own coefficient", _KEEPS, "icl_final", "L2 1e-4", "no L2", TENTH),
        persists("persists", "with moderate L2 ICL is learned and does not fall", _KEEPS, "L2 1e-3"),
        above("returns", "too much L2: ICL falls again", "section 5", "transience", "L2 1e-2", TENTH),
        larger("less IWL", "too much L2: less IWL than without", "section 5", "iwl_final", "no L2", "L2 1e-2", TENTH),
        larger(
            "decoupled",
            "decoupled decay keeps it too",
            "section 5, other form",
            "icl_final",
            "AdamW 0.1",
            "no L2",
            TENTH,
        ),
        larger(
            "norms",
            "so does the sum of the norms of all arrays, the public code's penalty",
            "section 5, other form",
            "icl_final",
            "norms 1e-2",
            "no L2",
            TENTH,
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={
                    "no L2": weight_decay(0.0),
                    "L2 1e-4": weight_decay(1e-4),
                    "L2 1e-3": weight_decay(1e-3),
                    "L2 1e-2": weight_decay(1e-2),
                },
                base={},
            ),
            9,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                round=1,
                arms={
                    "no L2": weight_decay(0.0),
                    **{f"L2 {c:.0e}".replace("e-0", "e-"): weight_decay(c) for c in (1e-5, 1e-4, 1e-3, 1e-2)},
                    **{f"AdamW {c:g}": weight_decay(c, "decoupled") for c in (0.1, 1.0)},
                    **NORMS,
                },
                base={},
            ),
            None,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={
                    "no L2": weight_decay(0.0),
                    **{f"L2 {c:.0e}".replace("e-0", "e-"): weight_decay(c) for c in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)},
                    **NORMS,
                },
                base={},
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            PAPER_SCALE,
            needs=RESNET18,
        ),
    },
)


_FIG = "section 6, Fig. 16 (App. D)"
COMPETITION = Experiment(
    name="competition",
    question="Which weights must L2 keep small for ICL to stay, and does ICL fade without a competitor?",
    section="section 6, appendix D: L2 on the MLPs or the encoder alone keeps ICL, on the attention alone not",
    claims=(
        larger("mlp", "L2 on the MLPs alone keeps ICL", _FIG, "icl_final", "L2 on MLPs", "no L2", TENTH),
        larger("encoder", "L2 on the encoder alone keeps ICL", _FIG, "icl_final", "L2 on encoder", "no L2", TENTH),
        larger(
            "attention",
            "L2 on the attention alone keeps less than L2 on the MLPs",
            _FIG,
            "icl_final",
            "L2 on MLPs",
            "L2 on attention",
            TENTH,
        ),
        persists("stays", "on data that only ICL solves it is learned and does not fall", "section 6", "ICL-only data"),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={
                    "no L2": weight_decay(0.0),
                    "L2 on MLPs": weight_decay(1e-3, on="mlp"),
                    "L2 on attention": weight_decay(1e-3, on="attention"),
                    "L2 on encoder": weight_decay(1e-3, on="encoder"),
                    "ICL-only data": {"task.labels": {"type": "per_sequence", "count": 4}},
                },
                base={},
            ),
            13,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                round=1,
                arms={
                    "no L2": weight_decay(0.0),
                    "L2 on MLPs": weight_decay(1e-3, on="mlp"),
                    "L2 on attention": weight_decay(1e-3, on="attention"),
                    "L2 on encoder": weight_decay(1e-3, on="encoder"),
                    "L2 on embeddings": weight_decay(1e-3, on="embeddings"),
                    "ICL-only data": {"task.labels": {"type": "per_sequence", "count": 4}},
                },
                base={},
            ),
            None,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={
                    "no L2": weight_decay(0.0),
                    "L2 on MLPs": weight_decay(1e-4, on="mlp"),
                    "L2 on attention": weight_decay(1e-4, on="attention"),
                    "L2 on encoder": weight_decay(1e-4, on="encoder"),
                    "ICL-only data": {"task.labels": {"type": "per_sequence", "count": 1600}},
                },
                base={},
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            PAPER_SCALE,
            needs=RESNET18,
        ),
    },
)


def _early_stopping_margin(evidence: Evidence) -> np.ndarray:
    """Smaller of: peak of ICL without early stopping - half the way to it, .03 - (that peak - ICL of the best model
    kept by early stopping, on fresh prompts)."""
    peak = evidence.scalar("to the end", "icl_peak")
    return np.minimum(peak - HALF, 0.03 - (peak - evidence.score_best("early stopping")))


def _lost_by_validation(evidence: Evidence) -> np.ndarray:
    """Peak of ICL - ICL of the model with the best accuracy on training's prompts, on fresh prompts."""
    return evidence.scalar("to the end", "icl_peak") - evidence.score_best("by validation accuracy")


EARLY = Experiment(
    name="early-stopping",
    question="Does stopping by an ICL validation recover the peak?",
    section="abstract: neither loss nor validation accuracy tell; an ICL validation task must be held",
    claims=(
        Claim(
            "recovers",
            "ICL is learned, and the model kept by an ICL validation has the peak's ICL, on fresh prompts",
            "abstract; tolerance .03: four standard errors of 5,000 prompts",
            "smaller of: icl_peak (to the end) - 0.75, 0.03 - (icl_peak (to the end) - icl of the best kept model)",
            0.0,
            _early_stopping_margin,
            ("to the end", "early stopping"),
        ),
        Claim(
            "validation",
            "the model that is best by validation accuracy has lost a tenth of all answers",
            "abstract: validation accuracy does not reveal the fall",
            "icl_peak (to the end) - icl of the model with the best accuracy on training's prompts",
            TENTH,
            _lost_by_validation,
            ("to the end", "by validation accuracy"),
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={
                    "to the end": {"stopping": None},
                    "early stopping": {"stopping": {"patience": 256_000, "window": 3}},
                    "by validation accuracy": {"keep_best": "train"},
                },
                base={
                    "schedule.evaluations": 61,
                    "evaluators": ["train", "icl", "iwl"],
                    "evaluation_sequences": 5000,
                },
            ),
            6,
            QUICK_SCALE + "; the ICL validation is 5,000 prompts 61 times",
        ),
    },
    shows=("icl", "iwl", "train"),
)

SLOWER: Point = {"optimizer.lr": 1e-3}
"""The learning rate of recurrent networks: the transformer's, 3e-3, is not one that was chosen for them."""
_CHAN = "Chan et al. 2022: not at equal size"
ARCHITECTURE = Experiment(
    name="architecture",
    question="Do recurrent networks learn in context at equal size?",
    section="Chan et al. 2022: transformers do, LSTMs and RNNs of the same size do not",
    claims=(
        above("transformer", "the transformer learns in context", "Chan et al. 2022", "icl_peak", "transformer", HALF),
        larger("lstm", "an LSTM learns it less", _CHAN, "icl_peak", "transformer", "LSTM", TENTH),
        larger("rnn", "a tanh RNN learns it less", _CHAN, "icl_peak", "transformer", "RNN", TENTH),
    ),
    presets={
        "quick": Preset(
            Comparison(
                round=1,
                arms={
                    "transformer": {"model": {"type": "transformer", "layers": 2, "width": 32, "heads": 4}},
                    "LSTM": {"model": {"type": "recurrent", "kind": "lstm", "layers": 3, "width": 32}} | SLOWER,
                    "RNN": {"model": {"type": "recurrent", "kind": "rnn", "layers": 12, "width": 32}} | SLOWER,
                },
                base={"sequences": 1_280_000, "schedule.evaluations": 21},
            ),
            7,
            "about 25,000 weights in the layers of each: 2, 3 and 12 layers; recurrent networks at a learning rate of "
            f"1e-3; {QUICK_SCALE}",
        ),
        "paper": Preset(
            Comparison(
                round=1,
                arms={
                    "transformer": {"model.layers": 12},
                    "LSTM": {"model": {"type": "recurrent", "kind": "lstm", "layers": 12, "width": 64}},
                    "RNN": {"model": {"type": "recurrent", "kind": "relu_rnn", "layers": 12, "width": 64}},
                },
                base={"sequences": 16_000_000},
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            f"500,000 steps, as in Chan et al. 2022; {PAPER_SCALE}",
            needs=RESNET18,
        ),
    },
)

MODEL_EXPERIMENTS = (SIZE, L2, COMPETITION, EARLY, ARCHITECTURE)
