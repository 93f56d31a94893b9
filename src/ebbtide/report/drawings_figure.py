"""Figures of handwritten characters: by drawer, under the eight transforms, and as the released script mixes them."""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ebbtide.report.figure import render
from ebbtide.sources.drawings import Drawings
from ebbtide.sources.images import eight_transforms
from ebbtide.sources.layout import TRANSFORMS, to_released_order

Show = Literal["drawers", "transforms", "released_script"]
SHOWS = ("drawers", "transforms", "released_script")
TURNS = ("as drawn", "turned 90°", "turned 180°", "turned 270°")
NAMES = (*TURNS, "mirrored", *(f"mirrored,\n{turn}" for turn in TURNS[1:]))
CHARACTERS = {"drawers": 10, "transforms": 6, "released_script": 2}
"""Characters that each kind of figure shows, evenly spaced."""


class ImageGrid(NamedTuple):
    """Images [row, column], ink = 1, with the labels of rows and columns."""

    images: UInt8[np.ndarray, "row column side side"]
    rows: list[str]
    columns: list[str]
    title: str


def drawings_figure(drawings: Drawings, show: Show) -> dict[str, bytes]:
    """figure.png and figure.svg: one image per cell."""
    from matplotlib.figure import Figure

    grid = _grid(drawings, show)
    high, wide = grid.images.shape[:2]
    cell = 0.55 if wide > TRANSFORMS else 0.85
    figure = Figure(figsize=(3.5 + cell * wide, 1.2 + cell * high))
    panel: Any = figure.subplots()
    gap = 6
    side = grid.images.shape[-1] + gap
    sheet = np.full((high * side + gap, wide * side + gap), 0.82)
    for i, j in np.ndindex(high, wide):
        top, left = gap + i * side, gap + j * side
        sheet[top : top + side - gap, left : left + side - gap] = 1 - grid.images[i, j]
    panel.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    middle = gap + (side - gap) / 2
    panel.set_yticks([middle + side * i for i in range(high)], grid.rows, fontsize=8)
    panel.set_xticks([middle + side * j for j in range(wide)], grid.columns, fontsize=8)
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    panel.set_frame_on(False)
    figure.suptitle(grid.title, fontsize=10)
    figure.tight_layout()
    return {f"figure.{kind}": render(figure, kind) for kind in ("png", "svg")}


def _grid(drawings: Drawings, show: Show) -> ImageGrid:
    every = max(len(drawings.packed) // CHARACTERS[show], 1)
    classes = np.arange(0, len(drawings.packed), every)[: CHARACTERS[show]]
    names = [f"{_short(str(drawings.alphabet[c]))} {int(drawings.character[c])}" for c in classes]
    drawers = [str(int(d)) for d in drawings.drawer]
    if show == "drawers":
        return ImageGrid(drawings.images(classes), names, drawers, "Characters (rows) by drawer (columns)")
    if show == "transforms":
        eight = eight_transforms(drawings.images(classes)).reshape(len(classes), TRANSFORMS, *_tail(drawings))
        title = "Each character (rows) as eight classes (columns), drawer 1"
        return ImageGrid(eight[:, :, 0], names, [f"8c + {t}\n{name}" for t, name in enumerate(NAMES)], title)
    mixed = to_released_order(eight_transforms(drawings.images(classes)))
    rows = [f"8c + {r % TRANSFORMS}" for r in range(len(mixed))]
    rows[::TRANSFORMS] = [f"{name}   {row}" for name, row in zip(names, rows[::TRANSFORMS], strict=True)]
    title = 'Layout "released_script": each row is what the public feature script takes for one class'
    return ImageGrid(mixed, rows, [str(i) for i in range(mixed.shape[1])], title)


def _tail(drawings: Drawings) -> tuple[int, ...]:
    return drawings.images(slice(0, 1)).shape[1:]


def _short(alphabet: str) -> str:
    """The short name of an alphabet: `Mkhedruli_(Georgian)` -> Mkhedruli."""
    return alphabet.partition("_(")[0].replace("_", " ")
