"""The theories of the contest, by name."""

from ebbtide.contest.baselines import ConstantFractions, Logistic, Persistence
from ebbtide.contest.bayes import Bayes
from ebbtide.contest.coopetition import Coopetition
from ebbtide.contest.gate import RegretGate, RelativeCost
from ebbtide.contest.kinetics import Kinetics
from ebbtide.contest.theory import Theory
from ebbtide.errors import InputError, nearest

THEORIES: tuple[Theory, ...] = (Bayes("mdl"), Bayes("code"), Kinetics(), Coopetition(), RegretGate(), RelativeCost())
"""The theories of the field, not yet fitted. Each has `draw` (protocol `theory.Drawn`)."""
BASELINES: tuple[Theory, ...] = (ConstantFractions(), Persistence(), Logistic())
"""What a theory has to beat."""


def find(name: str) -> Theory:
    """The theory or baseline of this name. Raises `InputError` for an unknown one.

    >>> from ebbtide.contest.registry import find
    >>> find("logistic").name
    'logistic'
    """
    every = {one.name: one for one in (*THEORIES, *BASELINES)}
    if name not in every:
        raise InputError("theories", name, f"must be one of {', '.join(every)}{nearest(name, every)}")
    return every[name]
