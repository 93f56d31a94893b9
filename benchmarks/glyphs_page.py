"""Makes the figure and the table of docs/glyphs.md: `python benchmarks/glyphs_page.py`.

Omniglot's column needs `omniglot.npz` in the folder that EBBTIDE_DATA names; without it the figure shows
Glyphs alone, and their columns are printed but not written.

Every number is a nearest class mean (squared Euclidean distance), measured by the same code for both:
- `1,623 classes`: means of 15 exemplars, the other 5 of each class are classified;
- `20-way`: 2,000 episodes of 20 of the last 659 classes (Omniglot's evaluation classes), means of 1 or
  5 exemplars, one other exemplar of each is classified.
"""

import io
import sys
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from scipy.ndimage import gaussian_filter

from ebbtide.sources.components import principal_components
from ebbtide.sources.glyphs import COMPONENTS, Glyphs
from ebbtide.sources.omniglot import data_folder

DOCS = Path(__file__).parents[1] / "docs"
CLASSES, TRAIN, MEANS, SIDE, FULL, EPISODES = 1623, 964, 15, 28, 105, 2000
MOTORS = (0.5, 1.0, 1.5)
BLUR = 1.5
"""Standard deviation of the blur in pixels (of 28)."""
SEED = 0
BEGIN, END = "<!-- table: benchmarks/glyphs_page.py -->", "<!-- end of table -->"


def glyphs(motor: float) -> np.ndarray:
    """Glyphs with Omniglot's counts: `[1623, 20, 28, 28]`, ink = 255."""
    return Glyphs(
        classes=CLASSES, exemplars=20, motor=motor, holdout_classes=0, holdout_exemplars=0, seed=SEED
    ).images()


def packed_omniglot() -> np.ndarray | None:
    """All of Omniglot, a bit a pixel: `[1623, 20, 1379]` bytes; None without the file."""
    path = data_folder() / "omniglot.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        return file["images_packed"]


def omniglot() -> np.ndarray | None:
    """Omniglot at 28 pixels by averages over areas."""
    packed = packed_omniglot()
    if packed is None:
        return None
    edges = np.arange(SIDE + 1) * FULL / SIDE
    pixel = np.arange(FULL)
    area = np.clip(np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel), 0, None) * SIDE / FULL
    area = area.astype(np.float32)
    small = [
        area @ np.unpackbits(one, axis=-1, count=FULL**2).reshape(-1, FULL, FULL).astype(np.float32) @ area.T
        for one in packed
    ]
    return np.round(255 * np.stack(small)).astype(np.uint8)


def accuracies(x: np.ndarray) -> dict[str, float]:
    """The three accuracies for features `[class, exemplar, feature]`."""
    found = {"1,623 classes": nearest(x[:, :MEANS].mean(1), x[:, MEANS:])}
    rng = np.random.default_rng(SEED)
    for shots in (1, 5):
        hits = []
        for _ in range(EPISODES):
            classes = TRAIN + rng.choice(CLASSES - TRAIN, 20, replace=False)
            order = rng.permuted(np.tile(np.arange(x.shape[1]), (20, 1)), axis=1)
            drawn = x[classes[:, None], order[:, : shots + 1]]
            hits.append(nearest(drawn[:, :shots].mean(1), drawn[:, shots:]))
        found[f"20-way {shots}-shot"] = float(np.mean(hits))
    return found


def nearest(means: np.ndarray, queries: np.ndarray) -> float:
    """Fraction of `queries[class, query, feature]` nearest to the mean of their own class."""
    scores = queries @ means.T - 0.5 * (means**2).sum(-1)
    return float((scores.argmax(-1) == np.arange(len(means))[:, None]).mean())


def features(images: np.ndarray) -> dict[str, np.ndarray]:
    """The three features compared, by name."""
    flat = images.reshape(*images.shape[:2], -1)
    unit = images.astype(np.float32) / 255
    return {
        "pixels": unit.reshape(flat.shape),
        "blurred pixels": gaussian_filter(unit, BLUR, axes=(2, 3)).reshape(flat.shape),
        "pca64": principal_components(flat, TRAIN, MEANS, COMPONENTS),
    }


def table(columns: dict[str, np.ndarray]) -> str:
    """Markdown: a row for every feature and task, a column for every data set."""
    measured = {name: {f: accuracies(x) for f, x in features(images).items()} for name, images in columns.items()}
    ink = {name: f"{images.mean() / 255:.3f}" for name, images in columns.items()}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines.append("| mean ink | " + " | ".join(ink.values()) + " |")
    first = next(iter(measured.values()))
    for feature, tasks in first.items():
        for task in tasks:
            cells = (f"{100 * one[feature][task]:.1f} %" for one in measured.values())
            lines.append(f"| {feature}, {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure() -> bytes:
    """12 characters drawn 6 times at three values of `motor`, beside 12 of Omniglot where there is the file."""
    from matplotlib.figure import Figure

    drawn = Glyphs(classes=12, exemplars=6, side=FULL, holdout_classes=0, holdout_exemplars=0, seed=SEED)
    panels: list[tuple[str, np.ndarray]] = [
        (f"Glyphs, motor = {m:g}", replace(drawn, motor=m).images() / 255) for m in MOTORS
    ]
    packed = packed_omniglot()
    if packed is not None:
        chosen = np.random.default_rng(SEED).choice(CLASSES, 12, replace=False)
        real = np.unpackbits(packed[chosen, :6], axis=-1, count=FULL**2).reshape(12, 6, FULL, FULL)
        panels.append(("Omniglot (Lake et al. 2015)", real))
    page = Figure(figsize=(3.3 * len(panels), 6.9), layout="constrained")
    for panel, (title, x) in zip(np.atleast_1d(page.subplots(1, len(panels))), panels, strict=True):
        framed = np.pad(1 - x.astype(float), ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=0.8)
        panel.imshow(framed.transpose(0, 2, 1, 3).reshape(12 * (FULL + 4), -1), cmap="gray", vmin=0, vmax=1)
        panel.set_title(title, fontsize=10)
        panel.axis("off")
    image = io.BytesIO()
    page.savefig(image, format="png", dpi=110)
    return image.getvalue()


def main() -> None:
    """Writes the figure; prints the table, and writes it into the page where Omniglot's column is measured."""
    (DOCS / "glyphs.png").write_bytes(figure())
    real = omniglot()
    columns = {} if real is None else {"Omniglot": real}
    text = table(columns | {f"Glyphs, motor {m:g}": glyphs(m) for m in MOTORS})
    sys.stdout.write(text + "\n")
    if real is not None:
        page = DOCS / "glyphs.md"
        before, rest = page.read_text().split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
