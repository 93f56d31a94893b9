"""Experiments of the transience paper on the model and its training: size, L2, competition, early stopping."""

import numpy as np

from ebbtide.studies.claim import Claim, above, below, larger
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment, Preset
from ebbtide.sweeps.axes import Point
from ebbtide.sweeps.sweep import Resources

TENTH = 0.1
"""A tenth of all answers: the size that a difference must have where the paper gives only its direction."""

SHORT: Point = {"source.seed": 5, "sequences": 1_280_000, "schedule.evaluations": 21}
"""The study's quick setting at half its length, with classes that no tuning run has seen. ICL has fallen by about a
quarter of all answers there."""

LARGE: Point = {"optimizer.schedule": "warmup_inverse_sqrt"}
ACCELERATOR = Resources(gpus=1, cpus=4, memory_gb=16, minutes=1440)

QUICK_SCALE = (
    "2 layers of width 32 on 2 pairs, Gaussian classes (512) with 4 shared labels, learning rate 2e-3, batch 16, in "
    "place of 12 layers of width 64 on 8 pairs, 1,600 Omniglot classes with a label each; with E exemplars a class one "
    "query in E is an exact copy of its context exemplar (with 2: half of them), in place of none"
)
PAPER_SCALE = "frozen features in place of the jointly trained ResNet; else the original's sizes"


def weight_decay(coefficient: float, form: str = "l2", on: str = "all") -> Point:
    """Fields of an arm with a weight decay."""
    names = ("coefficient", "form", "on")
    return {f"optimizer.decay.{name}": value for name, value in zip(names, (coefficient, form, on), strict=True)}


SIZE = Experiment(
    name="size",
    question="Does ICL fade at every size, and later in wider models?",
    section="section 4.1: depth does not fix it; wider models lose ICL later",
    claims=(
        above("fades", "ICL falls in the reference model", "section 4.1", "transience", "2 layers, width 32", TENTH),
        above("deep", "ICL falls in a deeper model", "section 4.1", "transience", "4 layers, width 32", TENTH),
        above("narrow", "ICL falls in a narrower model", "section 4.1", "transience", "2 layers, width 16", TENTH),
        above("wide", "ICL falls in a wider model", "section 4.1", "transience", "2 layers, width 64", TENTH),
        larger(
            "wider later",
            "the wider model has kept more of its ICL",
            "section 4.1: wider embeddings soften it",
            "icl_final",
            "2 layers, width 32",
            "2 layers, width 16",
        ),
        larger(
            "widest later",
            "and a still wider one more again",
            "section 4.1",
            "icl_final",
            "2 layers, width 64",
            "2 layers, width 32",
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    "2 layers, width 16": {"model.layers": 2, "model.width": 16},
                    "2 layers, width 32": {"model.layers": 2, "model.width": 32},
                    "4 layers, width 32": {"model.layers": 4, "model.width": 32},
                },
                base=SHORT | {"sequences": 1_600_000, "schedule.evaluations": 26},
            ),
            5,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                arms={
                    "2 layers, width 16": {"model.layers": 2, "model.width": 16},
                    "2 layers, width 32": {"model.layers": 2, "model.width": 32},
                    "2 layers, width 64": {"model.layers": 2, "model.width": 64},
                    "4 layers, width 32": {"model.layers": 4, "model.width": 32},
                    "6 layers, width 32": {"model.layers": 6, "model.width": 32},
                },
                base=SHORT | {"sequences": 2_560_000, "schedule.evaluations": 41},
            ),
            16,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                arms={
                    **{f"{n} layers, width 64": {"model.layers": n, "model.width": 64} for n in (2, 4, 12, 24)},
                    **{f"12 layers, width {n}": {"model.layers": 12, "model.width": n} for n in (32, 128, 256)},
                },
                base=LARGE,
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            PAPER_SCALE,
            needs="Omniglot features",
        ),
    },
)

_KEEPS = "section 5: about 1e-4 removes the fall"
L2 = Experiment(
    name="l2",
    question="Does L2 keep in-context learning?",
    section="section 5: L2 removes the transience; too much of it breaks ICL and IWL",
    claims=(
        above("fades", "without L2, ICL falls", "Fig. 1", "transience", "no L2", TENTH),
        larger("keeps", "moderate L2 keeps ICL", _KEEPS, "icl_final", "L2 1e-3", "no L2", TENTH),
        below("persists", "with it ICL does not fall", _KEEPS, "transience", "L2 1e-3", TENTH),
        below("breaks ICL", "too much L2: ICL does not stay", "section 5", "icl_final", "L2 1e-2", 0.75),
        below("breaks IWL", "too much L2: IWL never rises", "section 5", "iwl_final", "L2 1e-2", 0.25),
        larger(
            "decoupled",
            "decoupled decay keeps it too",
            "section 5, other form",
            "icl_final",
            "AdamW 0.1",
            "no L2",
            TENTH,
        ),
        larger("norms", "so does the sum of norms", "public code's form", "icl_final", "norms 1e-2", "no L2", TENTH),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={"no L2": weight_decay(0.0), "L2 1e-3": weight_decay(1e-3), "L2 1e-2": weight_decay(1e-2)},
                base=SHORT,
            ),
            5,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                arms={
                    "no L2": weight_decay(0.0),
                    **{f"L2 {c:.0e}".replace("e-0", "e-"): weight_decay(c) for c in (1e-5, 1e-4, 1e-3, 1e-2)},
                    **{f"AdamW {c:g}": weight_decay(c, "decoupled") for c in (0.1, 1.0)},
                    **{f"norms {c:.0e}".replace("e-0", "e-"): weight_decay(c, "norms") for c in (1e-3, 1e-2)},
                },
                base=SHORT,
            ),
            16,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                arms={
                    "no L2": weight_decay(0.0),
                    **{f"L2 {c:.0e}".replace("e-0", "e-"): weight_decay(c) for c in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)},
                },
                base=LARGE,
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            PAPER_SCALE,
            needs="Omniglot features",
        ),
    },
)


def _not_above_claim(name: str, statement: str, source: str, arm: str, than: str) -> Claim:
    """The claim that final ICL of `arm` is less than a tenth above that of `than`."""

    def estimate(evidence: Evidence) -> np.ndarray:
        return TENTH - (evidence.scalar(arm, "icl_final") - evidence.scalar(than, "icl_final"))

    return Claim(name, statement, source, f"{TENTH:g} - (icl_final: {arm} - {than})", 0.0, estimate, (arm, than))


_FIG = "section 6, Fig. 16 (App. D)"
COMPETITION = Experiment(
    name="competition",
    question="Which weights must L2 keep small for ICL to stay, and does ICL fade without a competitor?",
    section="section 6, appendix D: L2 on the MLPs or the encoder alone keeps ICL, on the attention alone not",
    claims=(
        above("fades", "without L2, ICL falls", "Fig. 1", "transience", "no L2", TENTH),
        larger("mlp", "L2 on the MLPs alone keeps ICL", _FIG, "icl_final", "L2 on MLPs", "no L2", TENTH),
        larger("encoder", "L2 on the encoder alone keeps ICL", _FIG, "icl_final", "L2 on encoder", "no L2", TENTH),
        _not_above_claim("attention", "L2 on the attention alone does not", _FIG, "L2 on attention", "no L2"),
        above("learns", "data that only ICL solves: ICL is learned", "section 6", "icl_peak", "ICL-only data", 0.75),
        below("stays", "and does not fall", "section 6", "transience", "ICL-only data", TENTH),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    "no L2": weight_decay(0.0),
                    "L2 on MLPs": weight_decay(1e-3, on="mlp"),
                    "L2 on attention": weight_decay(1e-3, on="attention"),
                    "L2 on encoder": weight_decay(1e-2, on="encoder"),
                    "ICL-only data": {"task.labels": {"type": "per_sequence", "count": 4}},
                },
                base=SHORT | {"sequences": 1_024_000, "schedule.evaluations": 17},
            ),
            5,
            QUICK_SCALE,
        ),
        "cpu": Preset(
            Comparison(
                arms={
                    "no L2": weight_decay(0.0),
                    "L2 on MLPs": weight_decay(1e-3, on="mlp"),
                    "L2 on attention": weight_decay(1e-3, on="attention"),
                    "L2 on encoder": weight_decay(1e-2, on="encoder"),
                    "L2 on embeddings": weight_decay(1e-3, on="embeddings"),
                    "ICL-only data": {"task.labels": {"type": "per_sequence", "count": 4}},
                },
                base=SHORT | {"sequences": 2_560_000, "schedule.evaluations": 41},
            ),
            18,
            QUICK_SCALE,
        ),
        "paper": Preset(
            Comparison(
                arms={
                    "no L2": weight_decay(0.0),
                    "L2 on MLPs": weight_decay(1e-4, on="mlp"),
                    "L2 on attention": weight_decay(1e-4, on="attention"),
                    "L2 on encoder": weight_decay(1e-4, on="encoder"),
                    "ICL-only data": {"task.labels": {"type": "per_sequence", "count": 1600}},
                },
                base=LARGE,
                preset="paper",
                resources=ACCELERATOR,
                task_members=10,
            ),
            None,
            PAPER_SCALE,
            needs="Omniglot features",
        ),
    },
)


def _early_stopping_margin(evidence: Evidence) -> np.ndarray:
    """.03 - (peak of ICL without early stopping - ICL of the best model kept by early stopping, on fresh prompts)."""
    return 0.03 - (evidence.scalar("to the end", "icl_peak") - evidence.score_best("early stopping"))


def _sequences_saved_share(evidence: Evidence) -> np.ndarray:
    """Share of the full run's sequences on which early stopping did not train, from 0 to 1."""
    loss = evidence.curve("early stopping", "train_loss")
    trained = np.max(np.where(np.isfinite(loss.values), loss.sequences, 0), axis=1)
    return 1 - trained / evidence.curve("to the end", "train_loss").sequences[-1]


EARLY = Experiment(
    name="early-stopping",
    question="Does stopping by an ICL validation recover the peak?",
    section="abstract: neither loss nor validation accuracy tell; an ICL validation task must be held",
    claims=(
        above("fades", "trained to the end, ICL falls", "Fig. 1", "transience", "to the end", TENTH),
        Claim(
            "recovers",
            "the kept model has the peak's ICL, on fresh prompts",
            "abstract; tolerance .03: twice the standard error of 600 prompts",
            "0.03 - (icl_peak (to the end) - icl of the best kept model (early stopping))",
            0.0,
            _early_stopping_margin,
            ("to the end", "early stopping"),
        ),
        Claim(
            "saves",
            "and most of the training is saved",
            "a reason to stop at all; a half",
            "1 - sequences trained (early stopping) / sequences (to the end)",
            0.5,
            _sequences_saved_share,
            ("to the end", "early stopping"),
        ),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    "to the end": {"stopping": None},
                    "early stopping": {"stopping": {"patience": 256_000, "window": 3}},
                },
                base=SHORT | {"sequences": 1_920_000, "schedule.evaluations": 61},
            ),
            5,
            QUICK_SCALE + "; the ICL validation is 600 prompts 61 times: 2 % of the training's forward passes",
        ),
    },
    shows=("icl", "iwl", "train"),
)

_CHAN = "Chan et al. 2022: not at equal size"
ARCHITECTURE = Experiment(
    name="architecture",
    question="Do recurrent networks learn in context at equal size?",
    section="Chan et al. 2022: transformers do, LSTMs and RNNs of the same size do not",
    claims=(
        above("transformer", "the transformer learns in context", "Chan et al. 2022", "icl_peak", "transformer", 0.75),
        larger("lstm", "an LSTM less", _CHAN, "icl_peak", "transformer", "LSTM", TENTH),
        larger("rnn", "a tanh RNN less", _CHAN, "icl_peak", "transformer", "RNN", TENTH),
        below("lstm none", "an LSTM not half the way", _CHAN, "icl_peak", "LSTM", 0.75),
        below("rnn none", "a tanh RNN not half the way", _CHAN, "icl_peak", "RNN", 0.75),
    ),
    presets={
        "quick": Preset(
            Comparison(
                arms={
                    "transformer": {"model": {"type": "transformer", "layers": 2, "width": 32, "heads": 4}},
                    "LSTM": {"model": {"type": "recurrent", "kind": "lstm", "layers": 3, "width": 32}},
                    "RNN": {"model": {"type": "recurrent", "kind": "rnn", "layers": 12, "width": 32}},
                },
                base=SHORT | {"sequences": 640_000, "schedule.evaluations": 11},
            ),
            5,
            f"about 25,000 weights in the layers of each: 2, 3 and 12 layers; {QUICK_SCALE}",
        ),
        "paper": Preset(
            Comparison(
                arms={
                    "transformer": {"model.layers": 12},
                    "LSTM": {"model": {"type": "recurrent", "kind": "lstm", "layers": 12, "width": 64}},
                    "RNN": {"model": {"type": "recurrent", "kind": "relu_rnn", "layers": 12, "width": 64}},
                },
                base=LARGE | {"sequences": 16_000_000},
                preset="paper",
                resources=ACCELERATOR,
                task_members=5,
            ),
            None,
            f"500,000 steps, as in Chan et al. 2022; {PAPER_SCALE}",
            needs="Omniglot features",
        ),
    },
)

MODEL_EXPERIMENTS = (SIZE, L2, COMPETITION, EARLY, ARCHITECTURE)
