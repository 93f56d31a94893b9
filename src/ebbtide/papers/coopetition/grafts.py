"""Models made of two checkpoints: one half of each is that of the last checkpoint (Singh et al. 2025, Fig. 3)."""

from typing import Literal

import numpy as np
from msgspec.structs import replace

from ebbtide.papers.coopetition.settings import SECOND_HALF
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.evidence import Series
from ebbtide.training.engine import Engine
from ebbtide.training.probe import checkpoints
from ebbtide.training.run import loadable_spec_of, params_of
from ebbtide.training.start import select

Half = Literal["first", "second"]


def graft_curve(run: RunFolder, evaluator: str, half: Half) -> Series:
    """Headline metric of an evaluator at every kept checkpoint, with one half of every model replaced by that of its
    last checkpoint. Raises `InputError` for a checkpoint that does not fit the spec."""
    spec = loadable_spec_of(run)
    engine = Engine(replace(spec, evaluators=(evaluator,), keep_best=None))
    kept = checkpoints(run)
    second = set(select(SECOND_HALF, list(kept[0][1]), "parts"))
    taken = second if half == "second" else set(kept[0][1]) - second
    last = kept[-1][1]
    rows: list[list[float]] = []
    for m in range(spec.members):
        suite = engine.suite(m)
        metric = run.header.metrics.index(suite.evaluators[0].headline)
        row = []
        for sequences, arrays in kept:
            grafted = {name: last.get(name, x) if name in taken else x for name, x in arrays.items()}
            params = params_of(spec, grafted, m, f"{run.path}: checkpoint {sequences}")
            row.append(float(np.asarray(engine.measure(params, suite))[0, metric, 0]))
        rows.append(row)
    return Series(np.asarray(rows), np.asarray([sequences for sequences, _ in kept]))
