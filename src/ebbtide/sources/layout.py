"""The drawings that make up a class under the eight transforms: as the paper describes, or as a released script
arranges them."""

from typing import Literal

import numpy as np
from jaxtyping import Int

TRANSFORMS = 8

Layout = Literal["correct", "released_script"]

SCRIPT = (0, 4, 1, 7, 2, 6, 3, 5)
"""The script's own transforms as places in `eight_transforms`. The script's number 2 k + f means k quarter turns
counter-clockwise and then, if f = 1, a mirror image, which equals the mirror image first and then a turn by -k."""


def released_script_order(characters: int, drawings: int) -> Int[np.ndarray, "row drawing parts"]:
    """(character, drawing, transform) of every row and column in the output of the public feature script; transforms in
    the script's own numbers (`SCRIPT`).

    The script is meant to write, in row 8 c + t, the drawings of character c under transform t. But it indexes the
    array [character, drawing, transform], flattened with 8 * drawings entries per character, as if its rows were runs
    of `drawings` entries: row r, column i holds entry drawings * r + i. A "class" of 20 then contains two and a half
    drawings of one character under eight transforms each, and eight neighbouring rows share a character (Singh et al.
    2023, public code, omni_features_extract.py).
    """
    flat = np.arange(characters * TRANSFORMS * drawings).reshape(characters * TRANSFORMS, drawings)
    character, rest = np.divmod(flat, TRANSFORMS * drawings)
    drawing, transform = np.divmod(rest, TRANSFORMS)
    return np.stack([character, drawing, transform], axis=-1)


def to_released_order(x: np.ndarray) -> np.ndarray:
    """Rows in the correct order, [8 c + t, drawing, ...], rearranged as the released script does."""
    eight, drawings, *rest = x.shape
    apart = x.reshape(eight // TRANSFORMS, TRANSFORMS, drawings, *rest)[:, list(SCRIPT)]
    return np.swapaxes(apart, 1, 2).reshape(x.shape)


def shuffle_characters(rows: Int[np.ndarray, " row"], each: int, seed: int | None) -> Int[np.ndarray, " row"]:
    """Rows in groups of `each` (the last may be shorter), the groups permuted by `seed`; within a group the order
    stays."""
    if seed is None:
        return rows
    runs = np.split(rows, range(each, len(rows), each))
    return np.concatenate([runs[i] for i in np.random.default_rng(seed).permutation(len(runs))])
