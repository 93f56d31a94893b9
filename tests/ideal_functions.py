"""Made-up evidence of toy laws and of functions in context: what a paper's ideal would give, and an untrained net."""

from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from ebbtide.papers.toy_laws import study as toy_laws
from ebbtide.studies.evidence import ONLY, Arm, Evidence

SEEDS = 24
Points = list[tuple[float, float]]
"""Steps of a descent, as shares of all, with the loss there; straight lines between them."""

STUCK: Points = [(0.0, 2.0)]
LAWS: dict[str, Points] = {
    "product/none": [(0.0, 2.0), (0.01, 1.0), (0.4, 1.0), (0.5, 0.0)],
    "product/c": [(0.0, 2.0), (0.01, 1.0), (0.04, 1.0), (0.1, 0.0)],
    "product/b and c": [(0.0, 2.0), (0.02, 0.0)],
    "competition/unequal/L1": [(0.0, 2.0), (0.01, 1.0), (0.3, 1.0), (0.35, 0.0), (0.4, 0.0), (0.6, 1.0)],
    "competition/unequal/L2": [(0.0, 2.0), (0.01, 1.0), (0.3, 1.0), (0.35, 1.03), (0.6, 0.0)],
    "competition/equal/L1": [(0.0, 2.0), (0.01, 1.0), (0.3, 1.0), (0.35, 0.0)],
    "competition/equal/L2": [(0.0, 2.0), (0.01, 1.0), (0.3, 1.0), (0.5, 4.0)],
    "nested/none": [(0.0, 1.6), (0.4, 1.0), (0.41, 0.0)],
    "nested/first": [(0.0, 1.6), (0.2, 1.0), (0.22, 0.0)],
    "nested/read": [(0.0, 1.0), (0.1, 1.0), (0.15, 0.0)],
    "nested/first and read": [(0.0, 1.0), (0.01, 0.0)],
}
"""Losses of every law and arm in units of its plateau, as the papers show them."""


def laws(points: Callable[[str], Points], stay: int) -> Evidence:
    """The scalars of curves that run through these points; the last `stay` seeds of the competition do not move."""
    setting = replace(toy_laws.QUICK, seeds=SEEDS)
    curves: dict[str, np.ndarray] = {}
    for name in LAWS:
        law = name.partition("/")[0]
        how = getattr(setting, f"{law}_descent")
        steps = np.arange(0, how.steps + 1, how.every)
        times, losses = zip(*points(name), strict=True)
        curve = np.interp(steps / how.steps, times, losses)
        curves[f"{law}/steps"], curves[name] = steps, np.tile(curve, (SEEDS, 1))
        if law == "competition":
            curves[name][SEEDS - stay :] = 1.0
    for arm in toy_laws.COMPETITION:
        curves[f"competition/{arm}/stopped"] = np.full(SEEDS, -1)
    return Evidence({ONLY: Arm(scalars=toy_laws.summarise(setting, curves))})


def laws_of_the_papers(preset: str) -> tuple[Evidence, Evidence]:
    """What the laws do in the papers, where 2 of 12 seeds stay on the plateau; and laws that never take a step."""
    return laws(LAWS.__getitem__, SEEDS // 6), laws(lambda name: STUCK, 0)


FUNCTIONS: dict[str, Callable[[str], tuple[Evidence, Evidence]]] = {"toy-laws": laws_of_the_papers}
"""By experiment: from a preset the evidence of the ideal and of the untrained."""
