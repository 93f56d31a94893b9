"""The setting of study `bounded-cfg`."""

from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.models.cells import CellReadout
from ebbtide.models.positions import NoPositions
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.sources.words import Words
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.parsing import Parsing
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Cosine, Schedule
from ebbtide.training.spec import Spec

PAPER = (
    "Shi, Gao, Tian, Chen & Zhao 2022, Learning Bounded Context-Free-Grammar via LSTM and the Transformer: Difference "
    "and Explanations, AAAI 2022, arXiv 2112.09174"
)
DEPTH = 4
WIDTH = 8 * (1 + DEPTH)
"""Width of all models: eight numbers for the state and for each cell of the stack."""
LSTM, CAUSAL, WHOLE = "LSTM", "transformer", "whole-word transformer"
MODELS: dict[str, Recurrent | Transformer] = {
    LSTM: Recurrent(layers=1, width=WIDTH, positions=NoPositions(), pairing="states"),
    CAUSAL: Transformer(layers=2, width=WIDTH, heads=4, mlp_ratio=2, pairing="states"),
    WHOLE: Transformer(layers=2, width=WIDTH, heads=4, mlp_ratio=2, pairing="whole", mask="none"),
}


def arm_of(model: str, decomposition: str) -> str:
    """The name of the arm of a model with a decomposition."""
    return f"{model}, {decomposition}"


def _point(model: Recurrent | Transformer, decomposition: str) -> Point:
    return {"model": to_builtins(model) | {"readout": {"decomposition": decomposition, "cells": 1 + DEPTH}}}


DECOMPOSITIONS = ("forced", "latent")
ARMS: dict[str, Point] = {
    arm_of(name, decomposition): _point(model, decomposition)
    for name, model in MODELS.items()
    for decomposition in DECOMPOSITIONS
}
PAIRS = {model: (arm_of(model, "forced"), arm_of(model, "latent")) for model in MODELS}
"""Both arms of a model."""

QUICK = Spec(
    task=Parsing(context=24),
    source=Words(language="dyck", types=2, depth=DEPTH),
    model=replace(MODELS[CAUSAL], readout=CellReadout(cells=1 + DEPTH)),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=100)),
    batch=64,
    sequences=96_000,
    schedule=Schedule(evaluations=9, spacing="log", first=1600, checkpoints=2),
    evaluators=("train", "held_out"),
    evaluation_sequences=500,
    keep_best=None,
)
SCALED = (
    "2 types, depth 4, words of at most 24 letters, width 40, new words throughout in place of a fixed set, one phase "
    "of training in place of five"
)
