"""The setting of study `affine-recurrence`."""

from ebbtide.models.transformer import Transformer
from ebbtide.sources.recurrences import Recurrences
from ebbtide.sweeps.axes import Point
from ebbtide.tasks.recurrence import Recurrence
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Cosine, Schedule
from ebbtide.training.spec import Spec

PAPER = "Bhargav & Gu 2024, Interpreting Affine Recurrence Learning in GPT-style Transformers, arXiv 2410.17438"

QUICK = Spec(
    task=Recurrence(context=14),
    source=Recurrences(),
    model=Transformer(layers=3, width=32, heads=4, pairing="states"),
    optimizer=Adam(lr=3e-3, schedule=Cosine(warmup=200)),
    batch=32,
    sequences=256_000,
    schedule=Schedule(evaluations=31, spacing="log", first=1600, checkpoints=31),
    evaluators=("train", "prior"),
    evaluation_sequences=1000,
    keep_best=None,
)
WIDER: Point = {"model.width": 64, "batch": 128, "optimizer.lr": 1e-3, "sequences": 2_560_000}
"""Twice the width and ten times the sequences."""
SCALED = "width 32, 4 heads, 16 terms: the paper's width, heads, length and ranges were not found"
