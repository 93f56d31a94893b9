"""Writes the table of members that study `forecast` learns from: `python benchmarks/forecast_training.py RUN TABLE`.

RUN is a run of the study's setting on seeds that no verdict uses; members with a decay of their weights are left out.
The table in src/ebbtide/papers/forecast/training.csv is of

    ebbtide run transience --members 32 --sequences 1280000 --schedule.evaluations 81 --schedule.spacing log \\
      --schedule.first 16000 --schedule.checkpoints 11 --evaluators '["train", "icl", "iwl", "ciwl", "flip"]' \\
      --seeds.init 3300 --seeds.data 3300 --seeds.evaluation 3300 --seeds.world 3300 --optimizer.decay.form l2 \\
      --optimizer.decay.on mlp --vary '{"optimizer.decay.coefficient": [0, ... 24 times, 0.001, ... 8 times]}'

stopped by Ctrl-C at 891,000 sequences, and so at its evaluation at 868,128.
"""

import sys
from pathlib import Path

import numpy as np

import ebbtide as eb
from ebbtide.papers.forecast.events import FEATURES, MOMENTS, course_of

COLUMNS = ("moment", "fall", "end", *FEATURES)


def table_of(run: eb.Run) -> str:
    """The table as CSV: a row for each moment and each member that trains without decay and is known at that moment."""
    lines = [",".join(COLUMNS)]
    for moment in MOMENTS:
        course = course_of(run.metrics(), moment)
        decay = run.header.spec.get("vary", {}).get("optimizer.decay.coefficient", [0.0] * len(course.onset))
        for m in np.flatnonzero((np.asarray(decay) == 0) & np.isfinite(course.features).all(1)):
            numbers = [course.fall[m], course.end, *course.features[m]]
            lines.append(",".join([moment, *("" if np.isnan(one) else f"{one:.6g}" for one in numbers)]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(table_of(eb.Run(sys.argv[1])))
