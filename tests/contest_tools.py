"""Cells for tests of the contest, made up: members whose curves rise and fall, and differ."""

import numpy as np

from ebbtide.contest.cells import Cell
from ebbtide.contest.theory import Facts

TIMES = np.geomspace(1e3, 1e6, 25)


def curve(rise: float, fall: float, top: float = 0.95, sequences: np.ndarray = TIMES) -> np.ndarray:
    """Fractions of which the generalising one is half up at `rise` and half down at `fall`, in sequences, as the
    memorising one comes."""
    x = np.log(sequences)
    come = 1 / (1 + np.exp(-4 * (x - np.log(rise))))
    gone = 1 / (1 + np.exp(-4 * (x - np.log(fall))))
    return np.stack([top * come * (1 - gone), come * gone, 1 - top * come * (1 - gone) - come * gone], axis=-1)


def made_cell(
    value: float = 8.0,
    members: int = 5,
    rise: float = 1e4,
    fall: float = 2e5,
    jitter: float = 0.1,
    seed: int = 0,
    sequences: np.ndarray = TIMES,
    axis: str = "source.pool",
) -> Cell:
    """A cell whose members' times differ by a factor exp(jitter) or so."""
    random = np.random.default_rng(seed)
    factors = np.exp(jitter * random.standard_normal((members, 2)))
    fractions = np.stack([curve(rise * a, fall * b, sequences=sequences) for a, b in factors])
    return Cell(Facts(f"{axis} = {value:g}", {axis: value}), sequences, fractions)
