"""Reads the HDF5 log of the public code of Singh et al. 2024 and 2025, which `report.hdf5` writes as well.

A log has `eval_iter` [evaluation] and `train_iter`, `train_loss` [batch], in sequences, and for every evaluator a group
with a dataset [evaluation, column] for each metric, of which the mean over columns is taken: the public code has a
column for each evaluation sequence. Other datasets beside `eval_iter` are left out.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.errors import InputError, require
from ebbtide.report.hdf5 import NAMES
from ebbtide.report.headlines import headline_of
from ebbtide.runs.foreign import (
    MOST_EVALUATIONS,
    MOST_MEMBERS,
    MOST_NAMES,
    ForeignCurves,
    check_file_name,
    check_names,
    check_sizes,
    check_times,
)
from ebbtide.runs.records import Instrument

MOST_COLUMNS, MOST_CELLS, LARGEST_PIECE = 100_000, 2**27, 2**22
"""Largest numbers of columns and of elements of a dataset, and of elements that are stored, and read, together."""
FILTERS = (1, 2, 3, 32000)
"""HDF5's numbers of the ways in which a dataset may be packed: deflate, shuffle, checksum, LZF."""
OURS = {theirs: ours for ours, theirs in NAMES.items()}


class Log(NamedTuple):
    """One member's log: `curves` (mean, standard error) [evaluation, 2] by (evaluator, metric), in the order of the
    names; what our own files say beside: `headlines` and `chances` by evaluator, and the `batch`."""

    sequences: Int[np.ndarray, " evaluation"]
    train_loss: Float[np.ndarray, " evaluation"]
    curves: dict[tuple[str, str], Float[np.ndarray, "evaluation two"]]
    headlines: dict[str, str]
    chances: dict[str, float]
    batch: int


def read_hdf5(source: Path) -> ForeignCurves:
    """The curves in one log (a member), or in the logs `member_*/log.h5` of a folder. Raises `InputError` for anything
    else, and where members differ in their evaluations or evaluators."""
    paths = sorted(source.glob("member_*/log.h5")) if source.is_dir() else [source]
    require(len(paths) > 0, "from", str(source), "holds no member_*/log.h5")
    require(len(paths) <= MOST_MEMBERS, "from", str(source), f"has more than {MOST_MEMBERS} members")
    name, digest = check_file_name(source), hashlib.sha256()
    logs: list[Log] = []
    for path in paths:
        require(path.is_file(), "from", str(path), "no such file")
        log, content = _read_log(path, name), _sha256(path)
        if logs:
            same = np.array_equal(log.sequences, logs[0].sequences) and log.curves.keys() == logs[0].curves.keys()
            same = same and (log.batch, log.headlines, log.chances) == (
                logs[0].batch,
                logs[0].headlines,
                logs[0].chances,
            )
            require(same, "from", str(path), f"differs from {paths[0].parent.name} in its evaluations or evaluators")
        else:
            check_sizes(name, len(paths), len(log.sequences), *map(len, _names(log)))
        logs.append(log)
        digest.update(content)
    first = logs[0]
    evaluators, metrics = _names(first)
    values = np.full((len(logs), len(first.sequences), len(evaluators), len(metrics), 2), np.nan)
    for member, log in enumerate(logs):
        for (evaluator, metric), curve in log.curves.items():
            values[member, :, evaluators.index(evaluator), metrics.index(metric)] = curve
    instruments = []
    for one in evaluators:
        own = [metric for evaluator, metric in first.curves if evaluator == one]
        headline = first.headlines.get(one) or headline_of(one, own)
        require(headline in own, "from", str(paths[0]), f"{one}: its headline metric is none of its metrics")
        instruments.append(Instrument(one, headline, first.chances.get(one)))
    losses = np.stack([log.train_loss for log in logs])
    return ForeignCurves(
        name, digest.hexdigest(), first.sequences, losses, values, instruments, metrics, first.batch, {}
    )


def _names(log: Log) -> tuple[list[str], list[str]]:
    """Evaluators and metrics, each once."""
    return list(dict.fromkeys(one for one, _ in log.curves)), list(dict.fromkeys(one for _, one in log.curves))


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _read_log(path: Path, name: str) -> Log:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise InputError("from", str(path), "needs h5py: pip install 'ebbtide[hdf5]'") from error
    try:
        with h5py.File(path, "r") as file:
            return _Reader(h5py, path, name).log(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("from", str(path), f"is damaged, or no HDF5 file: {error}") from error


class _Reader:
    """Reads one log: of every object only what was checked before."""

    def __init__(self, h5py: Any, path: Path, name: str):
        self.h5py, self.path, self.name = h5py, path, name

    def refuse(self, what: str, allowed: str) -> InputError:
        return InputError("from", str(self.path), f"{what[:100]!r} {allowed}")

    def children(self, group: Any, most: int) -> Iterator[tuple[str, Any]]:
        """Names and objects inside a group; links to other places are refused."""
        require(len(group) <= most, "from", str(self.path), f"has more than {most} entries in one group")
        for name in group:
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise self.refuse(name, "is a link")
            yield name, group[name]

    def numbers(self, dataset: Any, what: str, axes: int, rows: int | None = None) -> Iterator[np.ndarray]:
        """The content of a dataset of numbers, in pieces of whole rows."""
        if not isinstance(dataset, self.h5py.Dataset):
            raise self.refuse(what, "is missing, or no dataset")
        shape, kind = dataset.shape, dataset.dtype
        if kind.kind not in "fiu" or shape is None or len(shape) != axes or kind.itemsize > 8:
            raise self.refuse(what, f"must be numbers with {axes} axes")
        if rows is not None and shape[0] != rows:
            raise self.refuse(what, f"has {shape[0]} rows in place of {rows}")
        if math.prod(shape) > MOST_CELLS or (axes == 2 and not 1 <= shape[1] <= MOST_COLUMNS):
            raise self.refuse(what, f"has shape {shape}, which is too large, or has no column")
        plan = dataset.id.get_create_plist()
        packed = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
        if dataset.is_virtual or dataset.external or not packed <= {*FILTERS}:
            raise self.refuse(what, "is stored elsewhere, or packed in an unusual way")
        if dataset.chunks and math.prod(dataset.chunks) > LARGEST_PIECE:
            raise self.refuse(what, "is stored in pieces that are too large")
        step = max(1, LARGEST_PIECE // math.prod(shape[1:]))
        for first in range(0, shape[0], step):
            yield np.asarray(dataset[first : first + step])

    def attribute(self, group: Any, name: str, usual: Any = None) -> Any:
        """A single value that our own files say of a group or file."""
        if name not in group.attrs or group.attrs.get_id(name).shape != ():
            return usual
        return group.attrs[name]

    def vector(self, file: Any, name: str) -> np.ndarray:
        pieces = list(self.numbers(file.get(name), name, axes=1))
        return np.concatenate(pieces) if pieces else np.zeros(0)

    def log(self, file: Any) -> Log:
        """The log in an open file."""
        top = dict(self.children(file, MOST_NAMES + 20))
        if "eval_iter" not in top:
            raise self.refuse("eval_iter", "is missing: no log of the public code")
        sequences = self.vector(top, "eval_iter")
        require(len(sequences) <= MOST_EVALUATIONS, "from", str(self.path), "has too many evaluations")
        check_times(self.name, sequences)
        groups = {name: one for name, one in top.items() if isinstance(one, self.h5py.Group)}
        check_names(self.name, "evaluator", list(groups))
        curves: dict[tuple[str, str], np.ndarray] = {}
        headlines, chances = {}, {}
        for evaluator, group in groups.items():
            curves |= self.evaluator(evaluator, group, len(sequences))
            headline, chance = self.attribute(group, "headline"), self.attribute(group, "chance")
            headlines |= {evaluator: headline} if isinstance(headline, str) else {}
            chances |= {evaluator: float(chance)} if isinstance(chance, float) else {}
        require(len(curves) > 0, "from", str(self.path), "has no evaluator")
        batch = self.attribute(file, "batch", 1)
        whole = isinstance(batch, int | np.integer)
        require(whole, "from", str(self.path), "its batch must be a whole number")
        return Log(sequences, self.loss(top, sequences), curves, headlines, chances, int(batch))

    def evaluator(self, evaluator: str, group: Any, rows: int) -> dict[tuple[str, str], np.ndarray]:
        """(mean, standard error) [evaluation, 2] of every metric of an evaluator."""
        datasets = dict(self.children(group, 2 * MOST_NAMES))
        metrics = [one for one in datasets if not (one.endswith("_error") and one.removesuffix("_error") in datasets)]
        check_names(self.name, "metric", [OURS.get(one, one) for one in metrics])
        found = {}
        for metric in metrics:
            what = f"{evaluator}/{metric}"
            curve = np.concatenate([_mean_and_error(one) for one in self.numbers(datasets[metric], what, 2, rows)])
            if f"{metric}_error" in datasets:
                own = [one[:, 0] for one in self.numbers(datasets[f"{metric}_error"], f"{what}_error", 2, rows)]
                curve[:, 1] = np.concatenate(own)
            found[evaluator, OURS.get(metric, metric)] = curve
        return found

    def loss(self, top: dict[str, Any], sequences: np.ndarray) -> Float[np.ndarray, " evaluation"]:
        """The mean training loss since the evaluation before; nan where there is no batch."""
        out = np.full(len(sequences), np.nan)
        if "train_iter" in top and "train_loss" in top:
            at, loss = self.vector(top, "train_iter"), self.vector(top, "train_loss")
            if len(at) != len(loss) or not (at[1:] > at[:-1]).all():
                raise self.refuse("train_iter", "must increase, with a loss for each")
            first = np.searchsorted(at, sequences[:-1], side="right")
            last = np.searchsorted(at, sequences, side="right")
            for i, (begin, end) in enumerate(zip([0, *first], last, strict=True)):
                if end > begin:
                    with np.errstate(all="ignore"):  # of a member that diverged
                        out[i] = loss[begin:end].mean(dtype=np.float64)
        return out


def _mean_and_error(piece: np.ndarray) -> Float[np.ndarray, "evaluation two"]:
    """Mean over the columns, and its standard error (nan where there is one column)."""
    values = piece.astype(np.float64)
    count = values.shape[1]
    with np.errstate(all="ignore"):  # what is not finite is refused later
        error = values.std(1, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(values), np.nan)
        return np.stack([values.mean(1), error], axis=1)
