"""Whether a contest can be trusted: are curves that a theory made named after it?

Every theory draws parameters from its stated range (`theory.Drawn`). Its curves in the cells of a sweep become those of
five members: each is early or late by a factor of its own, and its fractions are those of some hundred prompts. Then
the contest is held on them, and the theory with the lowest divergence in the held-out part is the one that it names.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ebbtide.contest import judge
from ebbtide.contest.cells import Cell
from ebbtide.contest.identity import code_digest, facts_digest
from ebbtide.contest.record import Text
from ebbtide.contest.splits import Split, make_split
from ebbtide.contest.theory import Drawn, Theory
from ebbtide.errors import InputError, require
from ebbtide.runs import atomic
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import SCHEMA, DamagedError, sign, unsign

TRUST = "trust.json"
LARGEST = 1_000_000
DRAWS = 100
"""Draws from every theory."""
ASKED = 0.95
"""The share of its draws after which a theory should be named."""
MEMBERS = 5
JITTER = 0.1
"""Standard deviation of the logarithm of the factor by which a member is early or late, in every cell."""
PROMPTS = 600
"""Prompts from which the fractions of a member are known."""
TRIES = 10
"""How often parameters are drawn again where their curves cannot be split: where nothing peaks, say."""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The draws from one theory: after whom they were named, by name. `refused` says in one line why it has none."""

    theory: Text
    named: dict[Text, int] = {}
    refused: Text = ""

    def right(self) -> int:
        """The number of draws that were named after the theory."""
        return self.named.get(self.theory, 0)


class TrustRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A confusion matrix: a row for every theory that drew, a column for each of the `contestants`."""

    schema: int = SCHEMA
    sweep: Text
    split: Text
    identity: Text
    draws: int
    contestants: list[Text]
    rows: list[Row] = []

    def trusted(self) -> bool:
        """Whether every theory that drew was named in `ASKED` of its draws."""
        drew = [row for row in self.rows if not row.refused]
        return bool(drew) and all(row.right() >= ASKED * self.draws for row in drew)

    def confused(self) -> list[tuple[str, str, int]]:
        """The pairs (theory, named in its place, number of draws) of more than 1 - `ASKED` of the draws, the most
        frequent first."""
        found = [
            (row.theory, name, count)
            for row in self.rows
            for name, count in row.named.items()
            if name != row.theory and count > (1 - ASKED) * self.draws
        ]
        return sorted(found, key=lambda one: -one[2])


def measure_trust(
    sweep: str,
    cells: Sequence[Cell],
    theories: Sequence[Theory],
    split: str,
    axis: str | None = None,
    *,
    draws: int = DRAWS,
    folder: Path | None = None,
    report: Callable[[str, float], Any] = lambda what, share: None,
) -> TrustRecord:
    """The confusion matrix of theories on the cells of a sweep; what the cells did is not looked at.

    Args:
        sweep: the sweep's name.
        cells: of these the facts and times are used.
        theories: the contestants, baselines among them. Those that are `theory.Drawn` draw curves as well.
        split: one of `splits.SPLITS`, and its axis.
        draws: from every theory.
        folder: where trust.json is written after every theory, and an earlier one is continued.
        report: is told what is done now, and which share of it is done.

    Raises:
        InputError: fewer than two theories say anything of these cells.
    """
    check_draws(draws)
    inputs = {one.name: _inputs(one, cells) for one in theories}
    able = [one for one in theories if not isinstance(inputs[one.name], InputError)]
    require(len(able) >= 2, "theories", len(able), "of these say anything of such cells; two are needed")
    names = [one.name for one in able]
    record = TrustRecord(
        sweep=sweep,
        split=split,
        identity=_identity(cells, theories, split, axis, draws),
        draws=draws,
        contestants=names,
    )
    record = _before(folder, record) or record
    known = {row.theory: row for row in record.rows}
    for theory in theories:
        if theory.name in known or not isinstance(theory, Drawn):
            continue
        row = Row(theory.name, refused=str(inputs[theory.name])) if theory not in able else None
        record.rows.append(row or _row(theory, able, inputs, cells, split, axis, draws, report))
        if folder is not None:
            atomic.write_file(folder / TRUST, sign(record, indent=1))
    return record


def check_draws(draws: int) -> None:
    """Raises `InputError` for less than one draw."""
    require(draws >= 1, "trust", draws, "must be 1 draw at least")


def drawn_cells(
    theory: Theory, inputs: Sequence[Any], cells: Sequence[Cell], random: np.random.Generator
) -> list[Cell]:
    """The cells with the curves of `MEMBERS` members that follow a fitted theory, up to `JITTER` and `PROMPTS`."""
    made = []
    for own, cell in zip(inputs, cells, strict=True):
        times = np.asarray(cell.sequences, np.float64)
        members = [theory.predict(own, times * np.exp(JITTER * random.standard_normal())) for _ in range(MEMBERS)]
        shares = np.clip(np.stack(members), 0.0, None)
        counts = random.multinomial(PROMPTS, shares / shares.sum(axis=-1, keepdims=True))
        made.append(cell._replace(fractions=counts / PROMPTS))
    return made


def read_trust(folder: Path) -> TrustRecord:
    """The record trust.json of a folder. Raises `DamagedError` where it is not intact, `InputError` where another
    version wrote it."""
    return unsign(read_bounded(folder, TRUST, LARGEST), TrustRecord, str(folder), TRUST)


def _row(
    theory: Drawn,
    able: Sequence[Theory],
    inputs: Mapping[str, Any],
    cells: Sequence[Cell],
    split: str,
    axis: str | None,
    draws: int,
    report: Callable[[str, float], Any],
) -> Row:
    named: dict[str, int] = {}
    for i in range(draws):
        report(f"drawn from {theory.name}", i / draws)
        random = np.random.default_rng([i, *theory.name.encode()])
        parts = _drawn_split(theory, inputs[theory.name], cells, split, axis, random)
        if isinstance(parts, InputError):
            return Row(theory.name, refused=f"draws what cannot be split: {parts}")
        scores = {one.name: judge.held_out_divergence(one, inputs[one.name], parts) for one in able}
        winner = min(scores, key=lambda name: scores[name])
        named[winner] = named.get(winner, 0) + 1
    return Row(theory.name, named)


def _drawn_split(
    theory: Drawn, inputs: Sequence[Any], cells: Sequence[Cell], split: str, axis: str | None, random: Any
) -> Split | InputError:
    last = max(float(cell.sequences[-1]) for cell in cells)
    refusal = InputError("split", split, "is not possible")
    for _ in range(TRIES):
        fitted = theory.draw(random, inputs, last)
        try:
            return make_split(drawn_cells(fitted, inputs, cells, random), split, axis)
        except InputError as error:
            refusal = error
    return refusal


def _inputs(theory: Theory, cells: Sequence[Cell]) -> list[Any] | InputError:
    try:
        return judge.read_inputs(theory, [cell.facts for cell in cells])
    except InputError as error:
        return error


def _before(folder: Path | None, record: TrustRecord) -> TrustRecord | None:
    """What an earlier call of the same kind wrote."""
    if folder is None or not record.identity or not (folder / TRUST).exists():
        return None
    try:
        before = read_trust(folder)
    except (DamagedError, InputError):
        return None
    return before if before.identity == record.identity else None


def _identity(cells: Sequence[Cell], theories: Sequence[Theory], split: str, axis: str | None, draws: int) -> str:
    """SHA-256 of what the confusion matrix follows from; empty where a theory's class is in no file."""
    codes = [code_digest(one) for one in theories]
    words = [split, axis, draws, *codes]
    words += [(facts_digest(cell.facts), cell.sequences.tolist()) for cell in cells]
    return hashlib.sha256(repr(words).encode()).hexdigest() if all(codes) else ""
