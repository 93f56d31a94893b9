"""The result of evaluating a model, as data and as a table."""

from typing import NamedTuple

import msgspec
from rich.console import Group
from rich.table import Table

from ebbtide.evaluation.strategies import NEEDED, Fraction
from ebbtide.terminal import Terminal


class Row(NamedTuple):
    """One metric of one evaluator: its mean over prompts, the standard error of the mean, and the value of a uniform
    guess. `headline` marks the metric by which the evaluator is reported. Loss is in nats; all other metrics lie
    between 0 and 1."""

    evaluator: str
    metric: str
    mean: float
    error: float
    chance: float
    headline: bool


class Findings(msgspec.Struct, frozen=True):
    """The result of `evaluate`; `print` shows it as a table.

    - `table`: every metric of every evaluator;
    - `fractions`: the share of the model's behaviour that each oracle explains, by its name (sum 1; `random` is the
      share that no strategy explains); empty where the suite does not determine them (see `strategies`);
    - `sequences`: prompts per evaluator.
    """

    table: tuple[Row, ...]
    fractions: dict[str, Fraction]
    sequences: int

    def headlines(self) -> dict[str, Row]:
        """The headline metric of every evaluator, by the evaluator's name."""
        return {row.evaluator: row for row in self.table if row.headline}

    def row(self, evaluator: str, metric: str | None = None) -> Row:
        """One metric of one evaluator, its headline by default. Raises `KeyError` for an unknown evaluator or
        metric."""
        for row in self.table:
            if row.evaluator == evaluator and (row.headline if metric is None else row.metric == metric):
                return row
        raise KeyError((evaluator, metric))

    def __getitem__(self, evaluator: str) -> float:
        return self.row(evaluator).mean

    def __rich__(self) -> Group:
        return Group(self._evaluators(), "", self._strategies())

    def __str__(self) -> str:
        console = Terminal(width=100, color_system=None, force_terminal=False)
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip()

    def _evaluators(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("evaluator", "read by"):
            table.add_column(name, no_wrap=True)
        for name in ("mean", "± s.e.", "chance", "loss", "context mass"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, row in self.headlines().items():
            numbers = [f"{x:.3f}" for x in (row.mean, row.error, row.chance)]
            others = [f"{self.row(name, metric).mean:.3f}" for metric in ("loss", "context_mass")]
            table.add_row(name, row.metric.replace("_", " "), *numbers, *others)
        return table

    def _strategies(self) -> Table | str:
        if not self.fractions:
            needs = ", ".join(NEEDED)
            return f"strategy fractions: need the evaluators {needs}, enough prompts and one label per class"
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("strategy", no_wrap=True)
        table.add_column("explains", justify="right")
        table.add_column("± s.e.", justify="right")
        for name, (share, error) in self.fractions.items():
            table.add_row(name, f"{100 * share:.1f} %", f"{100 * error:.1f} %")
        return table
