"""The schema every task draws and every model reads."""

from enum import IntEnum
from typing import NamedTuple

from jaxtyping import Array, Float, Int, UInt


class Tag(IntEnum):
    """The part a slot plays in a few-shot sequence."""

    OTHER = 0
    BURSTY = 1
    DISTRACTOR = 2
    QUERY = 3


class Prompt(NamedTuple):
    """One batch of (exemplar, label) sequences that end with a query exemplar.

    Slots come first (token-major) and the query is the last slot. The first three fields are what
    a model and its loss see; the rest is the latent truth behind them, for oracles, metrics and tests.
    `own_label` is the label that training ties to the query's class, or -1 where there is none
    (a class never trained, or labels drawn anew for every sequence).
    """

    exemplars: Float[Array, "slots batch dim"]
    labels: Int[Array, "context batch"]
    target: Int[Array, " batch"]
    classes: Int[Array, "slots batch"]
    indices: UInt[Array, "slots batch"]
    tags: Int[Array, "slots batch"]
    own_label: Int[Array, " batch"]
