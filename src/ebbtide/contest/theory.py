"""What a theory of the strategies of a model over training is: what it may know, its fit and its predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Num

from ebbtide.evaluation.summary import Curves
from ebbtide.training.spec import Spec

STRATEGIES = ("generalising", "memorising", "neither")
"""What a model's answers may come from: the context by a rule that holds for any task (ICL, or the exact predictor of
the prior), the weights (IWL and CIWL, or the exact predictor of the memorised pool), or neither (a guess)."""
GENERALISING, MEMORISING, NEITHER = range(3)

Fractions = Float[np.ndarray, "time strategy"]
"""The share of each of `STRATEGIES` in a model's behaviour, at given times; every row sums to 1."""


class Facts(NamedTuple):
    """What may be known of a cell (one configuration of a sweep) without looking at its training.

    Args:
        name: the cell in words, such as "source.pool = 64".
        config: the values of the sweep's axes, as numbers; an axis whose values are no numbers is left out.
        spec: the spec of the cell; None: of a foreign run, whose spec is not known.
        pure: curves over training (those of `Run.metrics`, [member, evaluation]) of runs on data that one strategy
            alone can solve: `in_context` and `in_weights`. Empty where there are none.
    """

    name: str
    config: Mapping[str, float]
    spec: Spec | None = None
    pure: Mapping[str, Curves] = {}


class Seen(NamedTuple):
    """What a theory is fitted to: the mean fractions of some members of a cell, at the times of the training part.

    Args:
        inputs: what `Theory.inputs` gave for the cell.
        sequences: times, in sequences, increasing, all above 0.
        fractions: mean over the members.
    """

    inputs: Any
    sequences: Num[np.ndarray, " time"]
    fractions: Fractions


@runtime_checkable
class Theory(Protocol):
    """A theory: a frozen struct whose fields are its settings and, once it is fitted, its parameters.

    A theory sees a cell only through the values that its own `inputs` returned, and the part of its training that the
    split allows. It is fitted to the mean over members; a fit is repeated on resampled members for the intervals, so it
    should take some ten milliseconds.
    """

    @property
    def name(self) -> str:
        """The name in tables, one or two words."""
        ...

    @property
    def free(self) -> int:
        """The number of parameters that `fit` chooses."""
        ...

    @property
    def needs_pure(self) -> bool:
        """Whether `inputs` reads `Facts.pure`: such runs are trained only if a theory needs them."""
        ...

    def inputs(self, facts: Facts) -> Any:
        """The numbers that the theory uses of a cell. Raises `InputError`, in one line, where the theory says nothing
        of such a cell: it then takes no part in the contest on that sweep."""
        ...

    def fit(self, seen: Sequence[Seen]) -> "Theory":
        """The theory with the parameters that suit some cells best, by the mean Kullback-Leibler divergence of
        `scores.divergence`."""
        ...

    def predict(self, inputs: Any, sequences: Num[np.ndarray, " time"]) -> Fractions:
        """The fractions of a cell after so many sequences (all above 0), by a theory that is fitted."""
        ...

    def parameters(self) -> Mapping[str, float]:
        """The fitted parameters by name."""
        ...


@runtime_checkable
class Drawn(Theory, Protocol):
    """A theory whose parameters can be drawn, so that the contest can ask whether it is told from the others."""

    def draw(self, random: np.random.Generator, inputs: Sequence[Any], last: float) -> "Theory":
        """The theory with parameters drawn from its range, as if it were fitted. The range is stated in times, so that
        something happens in cells with these `inputs` that train for `last` sequences."""
        ...
