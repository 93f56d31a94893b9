"""The figure: whole files, the same bytes every time, whatever the run has."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from msgspec.structs import replace

from ebbtide.report.curves import MOST_LINES, draw_members, members_words
from ebbtide.report.figure import CONTEXT, WEIGHTS, curves_figure
from ebbtide.runs.folder import RunFolder
from ebbtide.tasks.fewshot import EVERY as ALL
from tiny import SPEC, write_run


def made(path: Path, names: tuple[str, ...], members: int = 3, diverged: bool = False) -> RunFolder:
    generator = np.random.default_rng(0)
    curves = {name: generator.uniform(0, 1, (members, 9)) for name in names}
    loss = np.tile([np.nan, *np.linspace(4, 1, 8)], (members, 1))
    if diverged:
        for curve in (*curves.values(), loss):
            curve[-1, 5:] = np.nan
    return write_run(path, curves, loss)


def check(files: dict[str, bytes], tmp_path: Path) -> str:
    """Both files are whole, the picture is not empty; gives the words in the SVG."""
    assert list(files) == ["figure.png", "figure.svg"]
    (tmp_path / "x.png").write_bytes(files["figure.png"])
    pixels = imread(tmp_path / "x.png")
    assert pixels.ndim == 3 and min(pixels.shape[:2]) > 800 and pixels[..., :3].std() > 0.01
    tree = ElementTree.fromstring(files["figure.svg"])
    assert tree.tag.endswith("svg")
    return files["figure.svg"].decode()


@pytest.mark.parametrize(
    ("names", "members", "diverged"),
    [
        (ALL, 3, False),
        (ALL, 1, False),
        (ALL, 3, True),
        (("icl",), 2, False),
        (("iwl",), 2, False),
        (("flip",), 1, False),
    ],
)
def test_any_run_can_be_drawn(tmp_path, names, members, diverged):
    files = curves_figure(made(tmp_path / "run", names, members, diverged), "A title")
    words = check(files, tmp_path)
    assert ("ICL peak" in words) == ("icl" in names)
    for line in (*CONTEXT, *WEIGHTS):
        assert (f"<!-- {line.text} -->" in words) == (line.name in names)
    assert f"{members} members" in words and "A title" in words and "training loss" in words


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = made(tmp_path / "run", ("icl", "iwl"))
    first = curves_figure(run, "t")
    assert first == curves_figure(run, "t")
    other = curves_figure(run, "t", log=True)
    assert other != first and check(other, tmp_path)


def test_every_evaluator_has_a_line_of_its_own():
    lines = (*CONTEXT, *WEIGHTS)
    assert {line.name for line in lines} == set(ALL)
    for panel in (CONTEXT, WEIGHTS):
        for part in ("colour", "dash", "marker"):
            assert len({getattr(line, part) for line in panel}) == len(panel)


def test_the_step_is_named_beside_the_sequence(tmp_path):
    run = write_run(tmp_path / "run", {"icl": [[0.5, 0.6, 0.7]]}, [[1, 1, 1]], spec=replace(SPEC, batch=32))
    assert "a step is 32 sequences" in curves_figure(run, "t")["figure.svg"].decode()


def test_powers_of_ten_on_a_logarithmic_axis_stay_formulas():
    """Also those of ticks that are made only when the figure is drawn; a title with a dollar is plain text."""
    from matplotlib.figure import Figure

    from ebbtide.report.figure_text import write_plainly

    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], [1e-6, 1e2])
    axes.set_yscale("log")
    axes.set_title("a $ and a $")
    write_plainly(figure)
    figure.draw_without_rendering()
    labels = [label for label in axes.get_yticklabels() if "$" in label.get_text()]
    assert len(labels) > 4 and all(label.get_parse_math() for label in labels)
    assert not axes.title.get_parse_math()


@pytest.mark.parametrize(("members", "lines"), [(9, 9), (MOST_LINES, MOST_LINES), (MOST_LINES + 1, 0), (1024, 0)])
def test_many_members_are_bands_that_hold_half_and_nine_tenths_of_them(members, lines):
    from matplotlib.figure import Figure

    x, shape = np.arange(5), (members, 5)
    curves = np.random.default_rng(1).normal(size=shape)
    curves[0, 3:] = np.nan
    panel = Figure().subplots()
    draw_members(panel, x, curves, "C0")
    assert len(panel.lines) == lines + 1  # and their median
    bands = [np.asarray(band.get_paths()[0].vertices) for band in panel.collections]
    assert len(bands) == (1 if lines else 3)  # the last: the interval of the median
    for band, share in zip(bands, (0.5, 0.9), strict=False):
        low, high = band[:, 1].min(), band[:, 1].max()
        assert members < 1024 or (0.9 * share < ((curves > low) & (curves < high)).mean() < share + 0.1)
    assert members_words(members).startswith("thin lines: " if lines else "bands: half and nine tenths of ")
    assert f"{members:,} members" in members_words(members)
