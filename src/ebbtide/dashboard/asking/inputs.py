"""What a slot shows, as the page draws it: a drawing, a symbol, or coordinates."""

import base64
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.sources.drawings import FILE
from ebbtide.sources.glyphs import Glyphs
from ebbtide.sources.images import INK
from ebbtide.sources.omniglot import Omniglot, data_folder

MOST_COORDINATES = 64
"""Coordinates of an exemplar that are shown; of more, the first ones are."""
SIDE = 28
"""Pixels of a side, of drawings of exemplars that the model sees as features."""
LARGEST_FILE = 2**28
"""Bytes of drawings that are read to show what features were made of."""

Draw = Callable[[int, int], UInt8[np.ndarray, "side side"]]


def show(
    source: Any, values: Float[np.ndarray, "slots dim"], places: Int[np.ndarray, "slots 2"] | None
) -> list[dict[str, Any]]:
    """What each slot shows. `places` has class and exemplar of every slot where the source has such: their drawing is
    shown where there is one, else the coordinates, or for one-hot vectors the number of the symbol."""
    draw = _drawer(source) if places is not None else None
    if places is not None and getattr(source, "features", None) == "pixels":
        side = round(values.shape[1] ** 0.5)
        return [_drawing((one * INK).round().astype(np.uint8).reshape(side, side)) for one in values]
    if places is not None and draw is not None:
        return [_drawing(draw(int(c), int(e))) for c, e in places]
    if is_one_hot(values):
        return [{"symbol": int(one.argmax())} for one in values]
    dim = values.shape[1]
    return [{"coordinates": [short(v) for v in one[:MOST_COORDINATES]], "of": dim} for one in values]


def is_one_hot(values: Float[np.ndarray, "slots dim"]) -> bool:
    """Whether every row has a single 1 among zeros."""
    ones = (values == 1).sum(1) == 1
    return values.shape[1] > 1 and bool(ones.all()) and bool((np.count_nonzero(values, axis=1) == 1).all())


def short(value: Any) -> float | None:
    """A number with five significant digits; None for one that is not finite."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _drawing(image: UInt8[np.ndarray, "side side"]) -> dict[str, Any]:
    return {"drawing": base64.b64encode(image.tobytes()).decode(), "side": image.shape[0]}


def _drawer(source: Any) -> Draw | None:
    """The function from (class, exemplar) to the image that features were made of; None where there is none."""
    if isinstance(source, Glyphs):
        return source.draw
    file = Path(data_folder()) / FILE
    images = _omniglot(source, file) if isinstance(source, Omniglot) and file.is_file() else None
    return None if images is None else lambda c, e: images[c, e]


@lru_cache(maxsize=1)
def _omniglot(source: Omniglot, file: Path) -> UInt8[np.ndarray, "class exemplar side side"] | None:
    """The images of the characters behind features, in the order of the bank, from the drawings in `file`; None where
    they are not those that the features were made of."""
    try:
        pixels = replace(source, features="pixels", standardise="none", pca=0, side=SIDE)
        classes, exemplars, dim = pixels.shape()
        if (classes, exemplars) != source.shape()[:2] or classes * exemplars * dim > LARGEST_FILE:
            return None
        return pixels.select(pixels.read())
    except InputError:  # a file of drawings that cannot be read: coordinates are shown
        return None
