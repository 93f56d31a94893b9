"""The rows of a sweep's results: one a member."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from ebbtide.evaluation.summary import Curves

SCALARS = (
    "icl_peak",
    "icl_final",
    "transience",
    "peak_sequences",
    "half_decay_sequences",
    "crossover_sequences",
    *(f"{name}_{at}" for name in ("iwl", "ciwl", "flip", "train_loss") for at in ("at_peak", "final")),
    "diverged_sequences",
)
"""The scalars of a finished member in a row (see `evaluation.summary.summarise`), in this order; the last is where it
diverged (`evaluation.divergence`; nan: it did not)."""


class Row(NamedTuple):
    """A member: its axes, its state, its scalars (nan where there are none), and the task and place of its curves."""

    axes: dict[str, Any]
    state: str
    scalars: dict[str, float]
    task: str | None
    place: int


@runtime_checkable
class Rows(Protocol):
    """What a figure of a sweep asks of its `Results`."""

    axes: list[str]

    def select(self, where: dict[str, Any]) -> list[Row]: ...
    def check_axis(self, name: str, field: str) -> None: ...
    def metrics(self, row: Row) -> Curves | None: ...
