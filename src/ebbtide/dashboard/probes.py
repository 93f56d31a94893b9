"""What `ebbtide probe` wrote into a run's folder: measures of heads over training, read without anything that could
execute."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from ebbtide.dashboard.curves import numbers
from ebbtide.dashboard.places import PROBES, NotThereError, names_in
from ebbtide.errors import InputError, require
from ebbtide.mechanisms.measures import find_measure
from ebbtide.report.probe_figure import rank_heads
from ebbtide.runs.reading import read_bounded
from ebbtide.runs.signed import DamagedError

LARGEST = 2**26
"""Largest number of bytes of a file, and of an array in it once unpacked."""
MOST_FILES = 500
MOST_VALUES = 400_000
"""Largest number of values in one answer."""
HEADS = ("layer", "head")


class Probe(NamedTuple):
    """A measure over training: values [checkpoint, member, ...] with the names of the further axes."""

    sequences: np.ndarray
    values: np.ndarray
    axes: tuple[str, ...]


def probes_of(path: Path) -> list[dict[str, str]]:
    """The measures that a run's folder holds, by name of their file, at most 500."""
    try:
        names = sorted(one for one in names_in(path / PROBES) if one.endswith(".npz") and one.isprintable())
    except OSError:
        return []
    return [describe(name.removesuffix(".npz")) for name in names[:MOST_FILES] if not name.startswith(".")]


def describe(name: str) -> dict[str, str]:
    """A measure and its evaluator by the name MEASURE-EVALUATOR of a file; unit and words where ebbtide knows it."""
    measure, _, evaluator = name.partition("-")
    try:
        known = find_measure(measure)
        unit, what = known.unit, known.what
    except InputError:
        unit, what = "", ""
    return {"name": name, "measure": measure, "evaluator": evaluator, "unit": unit, "what": what}


def probe_of(path: Path, name: str, ranked: bool) -> dict[str, Any]:
    """The answer to `/api/probe`: a measure of a run. With `ranked` the heads of each member and layer are in the order
    of their last values, largest first, and `order` has their numbers: equal numbers in different members have nothing
    in common.

    Raises `NotThereError` where there is no such file, `DamagedError` for one that `ebbtide probe` did not write.
    """
    sound = 0 < len(name) <= 200 and name.isprintable() and "/" not in name and not name.startswith(".")
    require(sound and "\\" not in name, "probe", name, "must be the name of a measure in probes/, without .npz")
    file = f"{PROBES}/{name}.npz"
    if not (path / file).is_file():
        raise NotThereError("probe", name, "was not measured (see ebbtide probe)")
    found = read_probe(read_bounded(path, file, LARGEST), file)
    values, order = found.values, None
    if found.axes == ("prompt",):
        values = values.mean(-1, keepdims=True)
    allowed = f"has {values.size:,} values; at most {MOST_VALUES:,} are shown"
    require(values.size <= MOST_VALUES, "probe", name, allowed)
    if ranked and found.axes == HEADS:
        values, order = rank_heads(values)
    elif ranked and found.axes == ("head",):
        values, order = (one[..., 0, :] for one in rank_heads(values[:, :, None]))
    return {
        **describe(name),
        "axes": list(found.axes),
        "sequences": found.sequences.tolist(),
        "values": nested(values),
        "ranked": order is not None,
        "order": None if order is None else order.tolist(),
        "averaged": "over prompts" if found.axes == ("prompt",) else "",
    }


def nested(values: np.ndarray) -> Any:
    """Values as nested lists with null for what is not finite."""
    flat = numbers(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        flat = [flat[i : i + size] for i in range(0, len(flat), size)] if size else []
    return flat


def read_probe(data: bytes, name: str) -> Probe:
    """The arrays of a probe's file. Raises `DamagedError` unless they are numbers whose shapes fit each other."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            parts = {key: _array(file, f"{key}.npy") for key in ("sequences", "values", "axes")}
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DamagedError(f"{name}: {error}") from error
    sequences, values, axes = parts["sequences"], parts["values"], parts["axes"]
    kinds = sequences.dtype.kind in "iu" and values.dtype.kind in "iuf" and axes.dtype.kind == "U"
    shapes = sequences.ndim == axes.ndim == 1 and values.ndim == len(axes) and values.shape[:1] == sequences.shape
    names = [str(one) for one in axes] if kinds and shapes else []
    if names[:2] != ["checkpoint", "member"] or not all(one.isidentifier() for one in names) or values.size == 0:
        raise DamagedError(f"{name}: is no measure that ebbtide probe wrote")
    return Probe(sequences, values.astype(np.float64), tuple(names[2:]))


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an archive: its length is known before it is unpacked, its type before memory is taken for it."""
    if file.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} has more than {LARGEST:,} bytes")
    with file.open(name) as packed:
        raw = io.BytesIO(packed.read(LARGEST + 1))
    version = npy.read_magic(raw)
    if version == (1, 0):
        shape, by_column, dtype = npy.read_array_header_1_0(raw)
    elif version == (2, 0):
        shape, by_column, dtype = npy.read_array_header_2_0(raw)
    else:
        raise ValueError(f"{name} has an unknown version")
    rest = raw.read()
    if dtype.hasobject or dtype.kind not in "iufU" or dtype.itemsize == 0:
        raise ValueError(f"{name} holds no numbers")
    if math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{name} does not fill its shape")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if by_column else "C")
