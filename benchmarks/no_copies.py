"""Map of ICL without copies, for docs/papers/transience.md: `python benchmarks/no_copies.py [SWEEP ...]`.

Given the folders of sweeps (`sweeps/no-copies.toml`, `sweeps/no-copies-long.toml`), writes the table
benchmarks/results/no-copies.csv, one row a member; then draws docs/papers/transience-no-copies.png from the table.

Fixed before the search, and counted here:
- ICL *rises* where its peak is at least `PEAK` (accuracy between the two labels in context; chance is .5);
- it *falls* where it ends at least `FALL` below its peak, and IWL or CIWL has risen since by at least `REPLACED`.
All values are read off curves that are smoothed over three evaluations (`evaluation/summary.py`).
"""

import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ebbtide.report.figure import CONTEXT, WEIGHTS, render
from ebbtide.sweeps.results import Results
from ebbtide.training.fields import assign_all, value_in
from ebbtide.training.spec import Spec

PEAK, FALL, REPLACED = 0.75, 0.2, 0.3
ROOT = Path(__file__).parents[1]
TABLE = ROOT / "benchmarks" / "results" / "no-copies.csv"
FIGURE = ROOT / "docs" / "papers" / "transience-no-copies.png"
FIELDS = (
    "source.classes",
    "source.noise",
    "source.exemplars",
    "source.infinite",
    "source.dim",
    "task.labels.type",
    "task.labels.count",
    "task.context",
    "task.burst",
    "model.layers",
    "model.width",
    "optimizer.lr",
    "sequences",
    "source.seed",
    "seeds.init",
    "seeds.member",
)
"""Columns of the table that say what was trained."""
SCALARS = ("icl_peak", "icl_final", "peak_sequences", "half_decay_sequences", "flip_at_peak", "flip_final")
SCALARS += ("iwl_at_peak", "iwl_final", "ciwl_at_peak", "ciwl_final")
"""Columns of the table that were measured."""
CURVES = ROOT / "benchmarks" / "results" / "no-copies-curves.csv"
SHORT = 1_280_000
"""Sequences of a run of the map."""
WORDS = (
    "Query and context never hold the same exemplar. Each cell: peak of ICL, then ICL at the end of one run of 1.28M "
    "sequences (*: 2.56M).\nFramed: ICL rises to .75 or more, falls by .2 or more, and IWL or CIWL rises meanwhile."
    " Hatched: not trained. Below: the chosen setting, six members."
)
NAMES = {"icl": "ICL", "flip": "Flip", "iwl": "IWL", "ciwl": "CIWL"}
"""Evaluators of the curves: the table of curves has a row for every evaluation of every member."""


class Panel(NamedTuple):
    """A panel of the map: its title, the values of the table's columns that its rows have, and its axes."""

    title: str
    where: dict[str, str]
    noise: tuple[float, ...] = (0.4, 0.7, 1.0, 1.3)
    classes: tuple[float, ...] = (128, 256, 512, 1024)


MAP = {"optimizer.lr": "0.002", "source.dim": "24", "model.layers": "2", "source.seed": "2000", "task.context": "2"}
FOUR = MAP | {"task.labels.count": "4", "source.infinite": "False"}
PANELS = (
    *(Panel(f"4 labels, {n} exemplars", FOUR | {"source.exemplars": str(n)}) for n in (3, 5, 10, 20)),
    Panel("4 labels, always new exemplars", FOUR | {"source.infinite": "True"}),
    Panel("4 labels, 5 exemplars, 4 pairs", FOUR | {"task.context": "4"}),
    Panel("32 labels, 5 exemplars", FOUR | {"task.labels.count": "32"}),
    Panel("a label a class, 5 exemplars", MAP | {"task.labels.type": "fixed"}, (0.1, 0.4, 0.7), (512, 2048)),
)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """One row for every finished member of a sweep: what was trained, and what was measured."""
    results = Results(folder)
    sweep, found = results.folder.sweep, []
    for point, row in zip(sweep.points(), results.rows, strict=True):
        if row.state == "finished":
            data = sweep.builtins()
            assign_all(Spec, data, point)
            trained = {name: value_in(data, name) for name in FIELDS}
            measured = {name: round(row.scalars[name], 4) for name in SCALARS}
            found.append({"sweep": sweep.name} | trained | measured)
    return found


def rises(row: dict[str, Any]) -> bool:
    """Whether the peak of ICL is high enough."""
    return float(row["icl_peak"]) >= PEAK


def falls(row: dict[str, Any]) -> bool:
    """Whether ICL has risen, then fallen far enough, and IWL or CIWL has risen meanwhile."""
    rise = max(float(row[f"{name}_final"]) - float(row[f"{name}_at_peak"]) for name in ("iwl", "ciwl"))
    return rises(row) and float(row["icl_peak"]) - float(row["icl_final"]) >= FALL and rise >= REPLACED


def curves_of(folder: Path) -> list[dict[str, Any]]:
    """One row for every evaluation of every finished member of a sweep."""
    results = Results(folder)
    found = []
    for number, row in enumerate(results.rows):
        if (curves := results.metrics(row)) is not None:
            for i, sequences in enumerate(curves["sequences"]):
                values = {name: round(float(curves[name][row.place, i]), 4) for name in (*NAMES, "train_loss")}
                found.append({"member": number, "sequences": int(sequences)} | values)
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes the rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw_map(panel: Any, shown: Panel, rows: list[dict[str, Any]]) -> Any:
    """Draws a cell for every setting, of its longest run: colour and upper number are the peak of ICL, the lower number
    is its end; framed where ICL rises and falls, hatched where nothing was trained."""
    rows = [row for row in rows if all(row[name] == value for name, value in shown.where.items())]
    peak = np.full((len(shown.classes), len(shown.noise)), np.nan)
    for i, j in np.ndindex(peak.shape):
        at = (shown.classes[i], shown.noise[j])
        same = [row for row in rows if (float(row["source.classes"]), float(row["source.noise"])) == at]
        if not same:
            box = {"facecolor": "0.95", "hatch": "///", "edgecolor": "0.75", "lw": 0}
            panel.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **box))
            continue
        row = max(same, key=lambda row: int(row["sequences"]))
        peak[i, j] = float(row["icl_peak"])
        longer = "*" if int(row["sequences"]) > SHORT else ""
        words = f"{peak[i, j]:.2f}\n→ {float(row['icl_final']):.2f}{longer}"
        ink = "black" if peak[i, j] > 0.8 else "white"
        panel.text(j, i, words, ha="center", va="center", fontsize=6.5, color=ink, linespacing=1.1)
        if falls(row):
            panel.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec="#D55E00", lw=2.2, zorder=3))
    image = panel.imshow(peak, origin="lower", aspect="auto", cmap="viridis", vmin=0.5, vmax=1.0, interpolation="none")
    panel.set_xticks(range(len(shown.noise)), [f"{value:g}" for value in shown.noise], fontsize=7)
    panel.set_yticks(range(len(shown.classes)), [f"{value:g}" for value in shown.classes], fontsize=7)
    panel.set_title(shown.title, fontsize=8)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    return image


def draw_curves(panel: Any, names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Draws evaluators against sequences: thin lines are members, a thick one their mean."""
    styles = {line.name: line for line in (*CONTEXT, *WEIGHTS)}
    members = sorted({row["member"] for row in rows})
    x = np.array([float(row["sequences"]) for row in rows if row["member"] == members[0]]) / 1e6
    for name in names:
        y = np.array([[float(row[name]) for row in rows if row["member"] == one] for one in members])
        panel.plot(x, y.T, color=styles[name].colour, lw=0.5, alpha=0.45)
        panel.plot(
            x,
            y.mean(axis=0),
            color=styles[name].colour,
            ls=styles[name].dash,
            lw=1.9,
            label=styles[name].text.split(" (")[0],
        )
    panel.axhline(0.5, color="0.5", lw=0.8, ls=":", zorder=0)
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlabel("sequences (millions)", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=7, loc="center right")


def draw(rows: list[dict[str, Any]], curves: list[dict[str, Any]]) -> bytes:
    """The figure as PNG: the map of one run a setting above, the curves of the chosen setting below."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    grid: Any = figure.add_gridspec(3, 4, height_ratios=(1, 1, 1.1))
    figure.suptitle(WORDS, fontsize=8)
    panels = [figure.add_subplot(grid[i // 4, i % 4]) for i in range(len(PANELS))]
    images = [draw_map(panel, shown, rows) for panel, shown in zip(panels, PANELS, strict=True)]
    bar = figure.colorbar(images[0], ax=panels, shrink=0.6, aspect=30)
    bar.set_label("peak of ICL, accuracy (chance .5)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    for panel in panels[::4]:
        panel.set_ylabel("classes", fontsize=8)
    for panel in panels[4:]:
        panel.set_xlabel("noise within a class", fontsize=8)
    for columns, names in ((slice(0, 2), ("icl", "flip")), (slice(2, 4), ("iwl", "ciwl"))):
        draw_curves(figure.add_subplot(grid[2, columns]), names, curves)
    return render(figure, "png")


def main(folders: list[str]) -> None:
    if folders:
        write(TABLE, [row for folder in folders for row in rows_of(Path(folder))])
        write(CURVES, curves_of(Path(folders[-1])))
    rows = read(TABLE)
    FIGURE.write_bytes(draw(rows, read(CURVES)))
    words = f"{len(rows)} members: ICL rises in {sum(map(rises, rows))}, rises and falls in {sum(map(falls, rows))}"
    sys.stdout.write(words + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
