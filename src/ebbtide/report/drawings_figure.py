"""The figure of the characters: drawings, the eight transforms, and what a class is in either layout."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ebbtide.errors import require
from ebbtide.sources.drawings import DRAWERS, SIDE, Drawings
from ebbtide.sources.images import eight_transforms
from ebbtide.sources.layout import as_released

ROWS, COLUMNS = 6, 10
GAP = 8
"""Pixels between drawings."""
TURNS = ("", "turned 90°", "180°", "270°")
NAMES = ("as drawn", *TURNS[1:], *(f"mirrored,\n{turn}".rstrip(",\n") for turn in TURNS))
GREY = 0.85


def drawings_figure(drawings: Drawings, *, seed: int = 0, kind: str = "png") -> bytes:
    """Some characters by ten drawers, the classes that one of them becomes under the eight transforms, and the
    twenty exemplars of a class in the correct layout and in that of the released script."""
    from matplotlib.figure import Figure

    rng = np.random.default_rng(seed)
    count = min(ROWS, len(drawings.packed))
    chosen = np.sort(rng.choice(len(drawings.packed), count, replace=False))
    images = drawings.images(chosen)
    one = images[:1]
    eight = eight_transforms(one)
    released = as_released(eight)
    figure = Figure(figsize=(9, 11.5), layout="constrained")
    panels: Sequence[Any] = figure.subplots(4, 1, height_ratios=[count, 3.2, 2.2, 2.2])
    labels = [f"{drawings.alphabet[c]}, {drawings.character[c]}".replace("_", " ") for c in chosen]
    _grid(panels[0], images[:, :COLUMNS], labels)
    panels[0].set_title(f"{count} of {len(drawings.packed):,} characters (rows) by {COLUMNS} of {DRAWERS} people")
    _grid(panels[1], eight[:, :3].swapaxes(0, 1), [f"drawer {d}" for d in (1, 2, 3)])
    for t, name in enumerate(NAMES):
        panels[1].text((t + 0.5) * (SIDE + GAP), -GAP, f"{t}: {name}", ha="center", va="bottom", fontsize=7)
    panels[1].set_title(f"eight transforms: {labels[0]} becomes eight classes (columns)", pad=26)
    half = DRAWERS // 2
    _grid(panels[2], eight[0].reshape(2, half, SIDE, SIDE), ["", ""])
    panels[2].set_title('the 20 exemplars of its class 0, layout = "correct": 20 drawings, one transform')
    _grid(panels[3], released[0].reshape(2, half, SIDE, SIDE), ["", ""])
    panels[3].set_title('layout = "released_script": 3 drawings, all eight transforms')
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=110, metadata={"Software": None} if kind == "png" else {"Date": None})
    return file.getvalue()


def _grid(panel: Any, images: UInt8[np.ndarray, "row column side side"], labels: Sequence[str]) -> None:
    """Dark strokes on white, a grey line between drawings."""
    rows, columns = images.shape[:2]
    step = SIDE + GAP
    sheet = np.full((rows * step - GAP, columns * step - GAP), GREY)
    for i in range(rows):
        for j in range(columns):
            sheet[i * step : i * step + SIDE, j * step : j * step + SIDE] = 1 - images[i, j]
    panel.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    panel.set_xticks([])
    panel.set_yticks([i * step + SIDE / 2 for i in range(rows)], labels, fontsize=8)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def write_drawings_figure(drawings: Drawings, out: Path) -> None:
    """Writes the figure to a `.png` or `.svg` file in one step."""
    from ebbtide.runs.atomic import write_file

    require(out.suffix in (".png", ".svg"), "figure", str(out), "must end in .png or .svg")
    require(out.parent.is_dir(), "figure", str(out), f"the folder {out.parent} does not exist")
    write_file(out, drawings_figure(drawings, kind=out.suffix[1:]))
