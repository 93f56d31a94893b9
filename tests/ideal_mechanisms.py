"""Made-up evidence of the studies of mechanisms: curves and measures of heads with the papers' numbers."""

import numpy as np

from ebbtide.papers.abrupt_learning import transition
from ebbtide.papers.abrupt_learning.study import EVEN, FEW, MANY, NOISY, SINGLE, SKEWED
from ebbtide.papers.coopetition.study import LARGE
from ebbtide.papers.induction_heads.settings import ALL
from ideal_tools import BOTH, PERSISTENT, WEIGHTS, Course, Probes

LN2, LN5 = float(np.log(2)), float(np.log(5))


def learns_at(share: float) -> Course:
    """A model whose loss is half of ln 2 at a share of its training."""
    end = {"train_loss": 0.003, "train": 1.0}
    return [(0.0, {"train_loss": LN5, "train": 0.5}), (share, {"train_loss": LN2 / 2, "train": 0.8}), (1.0, end)]


def plateau_until(share: float) -> Course:
    """A model whose loss stays near ln 2, then drops."""
    start, high = {"train_loss": LN5, "train": 0.5}, {"train_loss": 0.75, "train": 0.5}
    end = {"train_loss": 0.003, "train": 1.0}
    low = {"train_loss": 0.15, "train": 0.95}
    return [(0.0, start), (0.08, high), (share - 0.05, high | {"train_loss": 0.65}), (share + 0.05, low), (1.0, end)]


INDUCTION_HEADS: dict[str, dict[str, Course]] = {
    "induction-heads/clamps": {
        ALL: plateau_until(0.4),
        "one head": plateau_until(0.48),
        "a previous-token head": learns_at(0.31),
        "perfect layer 0": learns_at(0.115),
        "perfect match": learns_at(0.05),
        "perfect copy": learns_at(0.058),
        "perfect layer 0 and copy": learns_at(0.04),
    },
    "induction-heads/heads": {ALL: plateau_until(0.24)},
    "induction-heads/data": {
        "50 classes, 5 labels": plateau_until(0.13),
        "200 classes, 5 labels": plateau_until(0.19),
        "50 classes, 15 labels": plateau_until(0.65),
        "50 classes, 5 labels, match to learn": learns_at(0.1),
        "200 classes, 5 labels, match to learn": learns_at(0.15),
        "50 classes, 15 labels, match to learn": learns_at(0.1),
        "50 classes, 5 labels, copy to learn": learns_at(0.1),
        "200 classes, 5 labels, copy to learn": learns_at(0.1),
        "50 classes, 15 labels, copy to learn": learns_at(0.5),
    },
    "induction-heads/pairs": {
        "8 of 10 pairs of labels": [
            (0.0, {"train": 0.5, "icl_pairs/loss": LN5, "icl_holdout/loss": LN5}),
            (0.3, {"train": 1.0, "icl_pairs/loss": 0.03, "icl_holdout/loss": 0.12}),
        ]
    },
}
"""The paper's times to half the loss of the plateau, as shares of the training, and its losses at the end."""

STRENGTH = np.asarray([0.418, 0.736, 0.708, 0.845, 0.289, 0.553, 0.104, 0.570])
TRAINED_HEADS = {
    "induction_strength": np.stack([np.zeros(8), STRENGTH]),
    "only_head": np.asarray([0.40, 0.77, 0.75, 0.98, 0.43, 0.65, 0.29, 0.59]),
    "without_head": np.where(np.arange(16).reshape(2, 8) == 11, 0.99, 1.0),
    "strongest_heads": np.asarray([1.6, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003]),
    "composition": np.asarray([0.9999, 0.9999, 0.9, 0.6, 0.7, 0.5]),
    "wiring": np.asarray([0.9985, 0.699, 0.343, 0.993]),
}
UNTRAINED_HEADS = {
    "induction_strength": np.zeros((2, 8)),
    "only_head": np.full(8, 0.2),
    "without_head": np.full((2, 8), 0.2),
    "strongest_heads": np.full(9, LN5),
    "composition": np.full(6, 0.5),
    "wiring": np.full(4, 0.2),
}

FLIP_PEAK, ICL_PEAK = {"flip": 0.71, "icl": 0.77, "ciwl": 0.56, "iwl": 0.0}, {"flip": 0.3, "icl": 0.89, "ciwl": 0.8}
CIWL_ONLY = {"flip": 0.015, "icl": 0.52, "ciwl": 0.987, "iwl": 0.0005, "train_loss": 0.1}


def phases(end: float) -> Course:
    """The paper's Fig. 1b, with the peak of ICL at a share of the training."""
    start = {"flip": 0.49, "icl": 0.5, "ciwl": 0.51, "iwl": 0.0}
    return [(0.0, start), (0.55 * end, FLIP_PEAK), (end, ICL_PEAK), (2 * end, CIWL_ONLY), (1.0, CIWL_ONLY)]


def settles_at(loss: float) -> Course:
    """A model whose loss falls to this value."""
    return [(0.0, {"train_loss": 9.0}), (0.3, {"train_loss": loss}), (1.0, {"train_loss": loss})]


STRAIGHT_TO_CIWL: Course = [(0.0, {"flip": 0.49, "icl": 0.5, "ciwl": 0.5}), (0.3, CIWL_ONLY), (1.0, CIWL_ONLY)]
SWITCHED: Course = [(0.0, {"flip": 0.3}), (0.2, {"flip": 0.89}), (1.0, {"flip": 0.1})]
COOPETITION: dict[str, dict[str, Course]] = {
    "coopetition": {"": phases(0.3)},
    "coopetition/own-labels": {LARGE: phases(0.12), "448 classes, a label each": STRAIGHT_TO_CIWL},
    "coopetition/variants": {
        "main": phases(0.3),
        "exact match": PERSISTENT,
        "one layer": STRAIGHT_TO_CIWL,
        "no attention to the previous token": STRAIGHT_TO_CIWL,
    },
    "coopetition/cooperation": {
        "from scratch": settles_at(0.77),
        "with the second half of a trained model": settles_at(0.1),
    },
    "coopetition/switch": {
        "bursty data from the start": phases(0.2),
        "switched early": SWITCHED,
        "switched later": SWITCHED,
        "switched late": [(0.0, {"flip": 0.1}), (1.0, {"flip": 0.0})],
    },
    "coopetition/window": {
        "from scratch": settles_at(0.77),
        "a young second half": settles_at(1.9),
        "a second half in time": settles_at(0.1),
        "an old second half": settles_at(0.8),
    },
}
"""The paper's accuracies and losses."""

_MASS = "icl_holdout/context_mass"
ABRUPT_LEARNING: dict[str, dict[str, Course]] = {
    "abrupt-learning/data": {
        MANY: [(0.0, {}), (0.1, {"CIWL": 0.3}), (0.2, {"ICL": 0.98}), (1.0, {"ICL": 0.98})],
        SINGLE: WEIGHTS,
        FEW: WEIGHTS,
        NOISY: PERSISTENT,
        EVEN: PERSISTENT,
        SKEWED: BOTH,
    },
    "abrupt-learning/transition": {
        transition.MANY: [
            (0.0, {_MASS: 0.1}),
            (0.1, {_MASS: 0.7}),
            (0.4, {"ICL": 0.05}),
            (0.45, {"ICL": 0.99, _MASS: 1.0}),
        ]
    },
}
"""Classes, bursts and noise give ICL in place of IWL; it comes at once, when its parts have begun to rise."""

MECHANISMS = INDUCTION_HEADS | COOPETITION | ABRUPT_LEARNING


def _strength(layer_1: float) -> np.ndarray:
    return np.stack([np.zeros(8), np.full(8, layer_1)])


FLIP_STRENGTH, CIWL_PARTS = (LARGE, "induction_strength", "flip"), (LARGE, "composition", "ciwl")
TURNING: Probes = {
    FLIP_STRENGTH: [(0.0, _strength(0.0)), (0.06, _strength(0.3)), (0.2, _strength(-0.4)), (1.0, _strength(-0.5))],
    CIWL_PARTS: [(1.0, np.asarray([0.987, 0.985, 0.95, 0.57, 0.59, 0.55]))],
}
NOT_TURNING: Probes = {
    FLIP_STRENGTH: [(0.0, _strength(0.0)), (1.0, _strength(0.0))],
    CIWL_PARTS: [(1.0, np.full(6, 0.5))],
}


def _on_train(values: dict[str, np.ndarray]) -> Probes:
    return {(ALL, name, "train"): [(1.0, value)] for name, value in values.items()}


def _one_head(layer_1: float, layer_2: float) -> np.ndarray:
    return np.asarray([[layer_1], [layer_2]])


_EXEMPLAR, _LABELS, _OWN_LABELS = (
    (transition.MANY, name, "icl_holdout") for name in ("previous_token", "label_attention", "induction_strength")
)
PARTS_FIRST: Probes = {
    _EXEMPLAR: [
        (0.0, _one_head(0.2, np.nan)),
        (0.1, _one_head(0.1, np.nan)),
        (0.4, _one_head(0.3, np.nan)),
        (0.5, _one_head(0.9, np.nan)),
    ],
    _LABELS: [(0.0, _one_head(0.5, 0.5)), (0.3, _one_head(0.6, 0.7)), (0.5, _one_head(0.6, 1.0))],
    _OWN_LABELS: [(0.0, _one_head(0.0, 0.0)), (0.3, _one_head(0.0, 0.15)), (0.5, _one_head(0.0, 0.95))],
}
AS_DRAWN: Probes = {
    _EXEMPLAR: [(0.0, _one_head(0.2, np.nan)), (1.0, _one_head(0.2, np.nan))],
    _LABELS: [(0.0, _one_head(0.5, 0.5)), (1.0, _one_head(0.5, 0.5))],
    _OWN_LABELS: [(0.0, _one_head(0.0, 0.0)), (1.0, _one_head(0.0, 0.0))],
}

PROBES: dict[str, tuple[Probes, Probes]] = {
    "induction-heads/heads": (_on_train(TRAINED_HEADS), _on_train(UNTRAINED_HEADS)),
    "coopetition/own-labels": (TURNING, NOT_TURNING),
    "abrupt-learning/transition": (PARTS_FIRST, AS_DRAWN),
}
"""Measures of heads by experiment: of the models that the paper describes, and of untrained ones."""
