"""Which drawings make a class when every character gives eight: as the paper says, and as a released script does."""

from typing import Literal

import numpy as np
from jaxtyping import Int

TRANSFORMS = 8

RELEASED = (0, 4, 1, 7, 2, 6, 3, 5)
"""`eight_transforms` in the script's order: 2 k + f is the turn by k * 90 degrees and then, if f = 1, the mirror;
mirrored after the turn by k is mirrored before the turn by -k."""

Layout = Literal["correct", "released_script"]


def released_script_order(characters: int, drawings: int) -> Int[np.ndarray, "row drawing parts"]:
    """(character, drawing, transform) of every row and column of the public feature script's output; transforms
    are numbered as by `eight_transforms`.

    The script means to write, for row 8 c + t, the drawings of character c under transform t. It indexes the
    array [character, drawing, transform], flattened with 8 * drawings entries a character, as if its rows
    were runs of `drawings` entries: row r, column i holds entry drawings * r + i. A "class" of 20 is then two
    and a half drawings of one character under eight transforms each, and eight neighbouring rows share a
    character (Singh et al. 2023, public code, omni_features_extract.py).
    """
    flat = np.arange(characters * TRANSFORMS * drawings).reshape(characters * TRANSFORMS, drawings)
    character, rest = np.divmod(flat, TRANSFORMS * drawings)
    drawing, transform = np.divmod(rest, TRANSFORMS)
    return np.stack([character, drawing, np.array(RELEASED)[transform]], axis=-1)


def as_released(x: np.ndarray) -> np.ndarray:
    """Rows in the correct order, [8 c + t, drawing, ...], put into the order of the released script."""
    eight, drawings, *rest = x.shape
    apart = x.reshape(eight // TRANSFORMS, TRANSFORMS, drawings, *rest)[:, np.array(RELEASED)]
    return np.swapaxes(apart, 1, 2).reshape(x.shape)


def shuffle_characters(rows: Int[np.ndarray, " row"], each: int, seed: int | None) -> Int[np.ndarray, " row"]:
    """Rows in runs of `each` (the last may be shorter): the runs in the order of a permutation drawn from
    `seed`, the rows of a run in theirs."""
    if seed is None:
        return rows
    runs = np.split(rows, range(each, len(rows), each))
    return np.concatenate([runs[i] for i in np.random.default_rng(seed).permutation(len(runs))])
