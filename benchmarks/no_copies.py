"""Map of ICL without copies, for docs/papers/transience.md: `python benchmarks/no_copies.py [SWEEP ...]`.

Given the folders of the sweeps `sweeps/no-copies.toml`, `no-copies-long.toml` and `no-copies-confirm.toml`, in this
order, writes two tables: benchmarks/results/no-copies.csv, one row a member, and no-copies-curves.csv, one row an
evaluation of the last sweep's members. Then draws docs/papers/transience-no-copies.png from the tables.

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
    "optimizer.schedule.warmup",
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
    "Query and context never hold the same exemplar. Cells: peak of ICL, and ICL at the end of one run of 1.28M "
    "sequences.\nFramed, ringed: ICL rises to .75 or more, then falls by .2 or more while IWL or CIWL rises. "
    "Bottom left: runs of 2.56M sequences (': 1.28M)."
)
COLOURS: dict[str, Any] = {"cmap": "viridis", "vmin": 0.5, "vmax": 1.0}
FRAME = "#D55E00"
NAMES = {"icl": "ICL", "flip": "Flip", "iwl": "IWL", "ciwl": "CIWL"}
"""Evaluators of the curves: the table of curves has a row for every evaluation of every member."""


class Panel(NamedTuple):
    """A panel of the map: its title, and the values of the table's columns that its rows have."""

    title: str
    where: dict[str, str]


MAP = {"optimizer.lr": "0.002", "source.dim": "24", "model.layers": "2", "source.seed": "2000", "task.context": "2"}
FOUR = MAP | {"task.labels.count": "4", "source.infinite": "False"}
PANELS = (
    *(Panel(f"4 labels, {n} exemplars", FOUR | {"source.exemplars": str(n)}) for n in (3, 5, 10, 20)),
    Panel("4 labels, always new exemplars", FOUR | {"source.infinite": "True"}),
    Panel("4 labels, 5 exemplars, 4 pairs", FOUR | {"task.context": "4"}),
    Panel("32 labels, 5 exemplars", FOUR | {"task.labels.count": "32"}),
    Panel("a label a class, 5 exemplars", MAP | {"task.labels.type": "fixed"}),
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


def select(rows: list[dict[str, Any]], where: dict[str, str]) -> list[dict[str, Any]]:
    """The rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def draw_map(panel: Any, shown: Panel, rows: list[dict[str, Any]]) -> None:
    """Draws a cell for every setting: colour and upper number are the peak of ICL, the lower number is its end; framed
    where ICL rises and falls, hatched where nothing was trained."""
    rows = select(rows, shown.where | {"sweep": "no-copies"})
    x, y = (sorted({float(row[name]) for row in rows}) for name in ("source.noise", "source.classes"))
    peak = np.full((len(y), len(x)), np.nan)
    for row in rows:
        i, j = y.index(float(row["source.classes"])), x.index(float(row["source.noise"]))
        peak[i, j] = float(row["icl_peak"])
        words = f"{peak[i, j]:.2f}\n→ {float(row['icl_final']):.2f}"
        ink = "black" if peak[i, j] > 0.8 else "white"
        panel.text(j, i, words, ha="center", va="center", fontsize=6.5, color=ink, linespacing=1.1)
        if falls(row):
            panel.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec=FRAME, lw=2.2, zorder=3))
    for i, j in np.argwhere(np.isnan(peak)):
        box = {"facecolor": "0.95", "hatch": "///", "edgecolor": "0.75", "lw": 0}
        panel.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **box))
    panel.imshow(peak, origin="lower", aspect="auto", interpolation="none", **COLOURS)
    panel.set_xticks(range(len(x)), [f"{value:g}" for value in x], fontsize=7)
    panel.set_yticks(range(len(y)), [f"{value:g}" for value in y], fontsize=7)
    panel.set_title(shown.title, fontsize=8)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def draw_edge(panel: Any, rows: list[dict[str, Any]]) -> Any:
    """Draws the longest run of every setting with 4 labels and 5 exemplars over noise and classes: the colour is the
    peak of ICL, the number how far it has fallen at the end, the ring where it rises and falls."""
    longest: dict[tuple[float, float], dict[str, Any]] = {}
    for row in select(rows, FOUR | {"source.exemplars": "5"}):
        at = (float(row["source.noise"]), float(row["source.classes"]))
        if at not in longest or int(row["sequences"]) > int(longest[at]["sequences"]):
            longest[at] = row
    at, chosen = np.array(list(longest)), list(longest.values())
    edges = [FRAME if falls(row) else "0.4" for row in chosen]
    widths = [2.2 if falls(row) else 0.5 for row in chosen]
    peaks = [float(row["icl_peak"]) for row in chosen]
    points = panel.scatter(*at.T, c=peaks, s=130, edgecolors=edges, linewidths=widths, clip_on=False, **COLOURS)
    for (x, y), row in longest.items():
        if rises(row):
            fall = max(float(row["icl_peak"]) - float(row["icl_final"]), 0.0)
            words = f"{fall:.2f}" + ("" if int(row["sequences"]) > SHORT else "'")
            number = sum(other < x for other, same in longest if same == y)
            above = -13 if number % 2 else 9  # so that the numbers of neighbours do not overlap
            panel.annotate(words, (x, y), (0, above), textcoords="offset points", ha="center", fontsize=6)
    panel.set_yscale("log", base=2)
    panel.set_yticks(sorted(set(at[:, 1])), [f"{value:g}" for value in sorted(set(at[:, 1]))], fontsize=7)
    panel.minorticks_off()
    panel.margins(y=0.12)
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title("4 labels, 5 exemplars: fall of ICL", fontsize=8)
    panel.set_xlabel("noise within a class", fontsize=8)
    panel.set_ylabel("classes", fontsize=8)
    return points


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
    """The figure as PNG: the map above; the edge at greater length and the curves of the chosen setting below."""
    figure = Figure(figsize=(9.5, 7.2), layout="constrained")
    figure.suptitle(WORDS, fontsize=8)
    grid: Any = figure.add_gridspec(3, 12, height_ratios=(1, 1, 1.45))
    panels = [figure.add_subplot(grid[i // 4, 3 * (i % 4) : 3 * (i % 4) + 3]) for i in range(len(PANELS))]
    for panel, shown in zip(panels, PANELS, strict=True):
        draw_map(panel, shown, rows)
    for panel in panels[::4]:
        panel.set_ylabel("classes", fontsize=8)
    for panel in panels[4:]:
        panel.set_xlabel("noise within a class", fontsize=8)
    points = draw_edge(figure.add_subplot(grid[2, :4]), rows)
    for columns, names, title in (
        (slice(4, 8), ("icl", "flip"), "256 classes, 5 exemplars, noise .65"),
        (slice(8, 12), ("iwl", "ciwl"), "the same six members"),
    ):
        panel = figure.add_subplot(grid[2, columns])
        draw_curves(panel, names, curves)
        panel.set_title(title, fontsize=8)
    bar = figure.colorbar(points, ax=panels, shrink=0.9, aspect=30)
    bar.set_label("peak of ICL, accuracy (chance .5)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
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
