"""The dashboard in a real browser, against a real server: what a reader sees and can do."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import browser_tools as tools
from browser_tools import EVIL, Browse
from ebbtide.runs.folder import RunFolder

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install playwright)")
expect = playwright.expect
pytestmark = pytest.mark.skipif(tools.browser_path() is None, reason="no Chromium and no Chrome is installed")

DASH = (0x5B, 0x64, 0x72)
"""The colour of dashed lines on light ground."""
WIDE, PHONE = (1360, 900), (360, 740)
SCREENSHOTS = os.environ.get("EBBTIDE_SCREENSHOTS")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.make_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    with tools.serving(root) as base:
        yield base


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=tools.browser_path(), args=list(tools.FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any, server: str) -> Iterator[Browse]:
    """Opens a view in a context of its own; when the test ends, no page may have written an error or asked another
    host."""
    opened: list[tuple[Any, tools.Watch]] = []

    def browse(
        view: str = "",
        size: tuple[int, int] = WIDE,
        scheme: str = "light",
        errors: tuple[str, ...] = (),
        base: str = server,
    ) -> Any:
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
        )
        context.set_default_timeout(15_000)
        page = context.new_page()
        opened.append((context, tools.Watch(page, base, errors)))
        page.goto(f"{base}#/{view}")
        return page

    yield browse
    for context, _ in opened:
        context.close()
    assert [words for _, watch in opened for words in watch.found] == []


def names(page: Any) -> list[str]:
    """The names of the rows of the list that are in the page."""
    return page.locator("tbody tr[data-index] .c-name a").all_inner_texts()


def plot(page: Any, title: str) -> Any:
    """The axes of the panel with this title."""
    return page.locator("figure.panel", has=page.get_by_role("heading", name=title, exact=True)).locator(".plot")


def limits(axes: Any) -> list[float]:
    """What the axes show: lowest and highest x, lowest and highest y."""
    return [float(axes.get_attribute(f"data-{name}")) for name in ("x-min", "x-max", "y-min", "y-max")]


def place_of(axes: Any, x: float, y: float) -> tuple[float, float]:
    """The place of a value on linear axes, in pixels of the page."""
    box = axes.locator(".u-over").bounding_box()
    x0, x1, y0, y1 = limits(axes)
    return box["x"] + (x - x0) / (x1 - x0) * box["width"], box["y"] + (y1 - y) / (y1 - y0) * box["height"]


def colours_at(page: Any, axes: Any, x: float, y: float, around: int = 2) -> set[Any]:
    """The colours on the screen near a value."""
    left, top = place_of(axes, x, y)
    clip = {"x": left - around, "y": top - around, "width": 2 * around + 1, "height": 2 * around + 1}
    with Image.open(io.BytesIO(page.screenshot(clip=clip))) as image:
        return {colour for _, colour in image.convert("RGB").getcolors() or []}


def drag(page: Any, axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drags over axes, between two places given as shares of their width and height."""
    box = axes.locator(".u-over").bounding_box()
    spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*spots[0])
    page.mouse.down()
    page.mouse.move(*spots[1], steps=5)
    page.mouse.up()


def shoot(page: Any, name: str) -> None:
    """Keeps a picture of the page where a folder for pictures is given."""
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(300)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


def test_the_list_has_a_row_for_every_folder_with_its_numbers(browse, root):
    page = browse()
    row = page.locator("tr[data-key='twelve']")
    run = RunFolder(root / "twelve")
    expect(row.locator(".c-study")).to_have_text("transience cpu")
    expect(row.locator(".c-status")).to_have_text("finished")
    expect(row.locator(".c-members")).to_have_text("12")
    expect(row.locator(".c-icl")).to_have_text(f"{run.metrics()['icl'][:, -1].mean():.3f}")
    expect(row.locator(".c-iwl")).to_have_text(f"{run.metrics()['iwl'][:, -1].mean():.3f}")
    assert {"ten", "sixty", "sweep-grid", "broken", EVIL} <= set(names(page))
    assert page.title() == "Runs \u00b7 ebbtide"


def test_a_heading_sorts_the_list_and_says_so(browse):
    page = browse("?filter=study:transience kind:run")
    heading = page.get_by_role("columnheader", name="N", exact=True)
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert [one for one in names(page)] == ["sixty", "twelve", "ten"]
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert names(page) == ["ten", "twelve", "sixty"]
    page.reload()  # the address keeps the order and the filter
    expect(heading).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("tbody tr[data-index]")).to_have_count(3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tw", {"twelve"}),
        ("study:positions", {"probed"}),
        ("members:>=12 kind:run", {"twelve", "sixty"}),
        ("transience -sixty", {"ten", "twelve"}),
        ("status:damaged", {"broken"}),
        ("no such run", set()),
    ],
)
def test_the_filter_takes_words_fields_and_comparisons(words, expected, browse):
    page = browse()
    expect(page.locator("tr[data-key='twelve']")).to_be_visible()
    page.get_by_role("searchbox").fill(words)
    expect(page.locator("tbody tr[data-index]")).to_have_count(len(expected))
    assert set(names(page)) == expected
    assert page.locator(".empty").is_visible() == (not expected)


def test_a_chip_shows_one_status_alone(browse):
    page = browse()
    page.get_by_role("button", name=re.compile("^damaged")).click()
    expect(page.locator("tbody tr[data-index]")).to_have_count(1)
    assert names(page) == ["broken"]
    assert "status=damaged" in page.url


def test_chosen_runs_are_compared_and_the_legend_hides_one(browse, root):
    page = browse("?filter=study:transience kind:run")
    for name in ("ten", "sixty"):
        page.get_by_role("checkbox", name=f"Choose {name}").click()
    expect(page.locator(".bar")).to_contain_text("2 runs chosen")
    page.get_by_role("link", name="Compare", exact=True).last.click()
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    expect(icl).to_have_attribute("data-lines", "10")
    expect(icl).to_have_attribute("data-bands", "1")
    own = page.get_by_role("button", name="sixty N = 60")
    own.click()
    expect(own).to_have_attribute("aria-pressed", "false")
    expect(icl).to_have_attribute("data-bands", "0")
    row = page.locator("table.sortable tbody tr").filter(has_text="sixty")
    expect(row).to_contain_text(f"{np.median(RunFolder(root / 'sixty').metrics()['icl'][:, -1]):.3f}")


def test_runs_are_compared_in_panels_of_their_own(browse):
    page = browse("compare?name=ten&name=twelve&layout=panels&show=icl&show=iwl")
    expect(page.locator("figure.panel")).to_have_count(4)
    expect(page.locator("figure.panel h3")).to_have_text(["ten", "twelve", "ten", "twelve"])
    page.get_by_role("radio", name="Phase portrait").check()
    expect(page.locator("figure.panel")).to_have_count(1)
    expect(page.locator(".plot")).to_have_attribute("data-lines", "22")


def test_panels_of_several_runs_have_the_same_axes(browse):
    page = browse("compare?name=dense&name=twelve&layout=panels&show=icl")
    axes = page.locator(".plot")
    expect(axes).to_have_count(2)
    assert limits(axes.first) == limits(axes.last)
    assert limits(axes.first)[1] == tools.SEQUENCES
    expect(page.get_by_text("Shown of dense: ")).to_be_visible()  # not all of its evaluations were sent


def test_a_run_opens_with_its_curves_its_members_and_its_commands(browse, root):
    page = browse()
    page.get_by_role("link", name="twelve").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("twelve")
    expect(page.locator(".state")).to_contain_text("2,560,000 of 2,560,000 sequences \u00d7 12 members")
    expect(page.locator("figure.panel")).to_have_count(3)
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    expect(icl).to_have_attribute("data-lines", "12")
    end = np.median(RunFolder(root / "twelve").metrics()["icl"][:, -1])
    expect(icl).to_have_attribute("aria-label", re.compile(rf"12 members, median {end:.3f}.*chance 0\.500"))
    expect(page.locator("figcaption").first).to_contain_text("N = 12")
    expect(page.locator("figcaption").first).to_contain_text("median with its 95 % interval")
    expect(page.locator(".commands")).to_contain_text("ebbtide fsck")


def test_what_is_drawn_lies_where_the_numbers_are(browse, root):
    page = browse("run?name=twelve&layout=panels")
    iwl = plot(page, "IWL")
    expect(iwl).to_have_attribute("data-lines", "12")
    curve = np.median(RunFolder(root / "twelve").metrics()["iwl"], axis=0)
    at = np.linspace(0, tools.SEQUENCES, tools.EVALUATIONS)
    for i in (20, 30):
        assert (0xD5, 0x5E, 0x00) in colours_at(page, iwl, float(at[i]), float(curve[i]))
    assert (0xD5, 0x5E, 0x00) not in colours_at(page, iwl, float(at[20]), 0.98)


def test_chance_peak_half_fall_and_phases_are_marked(browse, root):
    page = browse("run?name=ten")
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    expect(icl).to_have_attribute("data-marks", "peak half_fall crossover")
    expect(icl).to_have_attribute("data-chance", "0.5")
    expect(icl).to_have_attribute("aria-label", re.compile(r"ICL peak [\d.]+k \(9 of 10\)\..*half-fall [\d.]+M"))
    assert DASH in colours_at(page, icl, 1_200_000, 0.5, 4)  # where no curve is
    assert DASH not in colours_at(page, icl, 1_200_000, 0.4, 4)
    page.get_by_label("Peak, half-fall and phases").uncheck()
    expect(icl).to_have_attribute("data-marks", "")


def test_a_page_follows_a_run_that_grows_and_keeps_its_zoom_and_focus(browse, root):
    run = tools.Growing(root / "growing")
    try:
        run.grow(6)
        page = browse("run?name=growing")
        icl = plot(page, "ICL (trained classes, labels 0/1)")
        expect(icl).to_have_attribute("data-points", "6")
        expect(page.locator(".badge").first).to_have_text("running")
        page.evaluate("window.same = true")
        drag(page, icl, (0.2, 0.5), (0.7, 0.5))
        expect(icl).to_have_attribute("data-zoomed", "yes")
        before = limits(icl)
        page.mouse.move(5, 5)
        icl.focus()
        run.grow(30)
        expect(icl).to_have_attribute("data-points", "30")
        assert limits(icl) == before
        assert icl.evaluate("node => node === document.activeElement")
        page.keyboard.press("Escape")
        expect(icl).to_have_attribute("data-zoomed", "no")
        assert limits(icl)[1] == tools.SEQUENCES * 29 / 40
        run.grow(tools.EVALUATIONS)
        expect(page.locator(".badge").first).to_have_text("finished")
        assert page.evaluate("window.same") is True  # it was never loaded again
    finally:
        run.close()


def test_a_training_run_is_watched_from_its_start_to_its_end(browse, root, tmp_path):
    words = [sys.executable, "-c", tools.TRAIN, str(root / "trained"), str(tmp_path / "go on")]
    training = subprocess.Popen(words, cwd=Path(__file__).parent, stdout=subprocess.DEVNULL)
    try:
        page = browse("?filter=name:trained")
        row = page.locator("tr[data-key='trained']")
        expect(row.locator(".c-status")).to_have_text("running", timeout=60_000)
        row.get_by_role("link").click()
        icl = plot(page, "ICL (trained classes, labels 0/1)")
        expect(icl).to_have_attribute("data-lines", "2", timeout=60_000)
        expect(page.locator(".badge").first).to_have_text("running")
        (tmp_path / "go on").touch()
        expect(page.locator(".badge").first).to_have_text("finished", timeout=120_000)
        expect(icl).to_have_attribute("data-points", "11")
        assert limits(icl)[1] == 25_600
    finally:
        training.kill()
        training.wait()


def test_the_x_axis_can_be_logarithmic_and_in_steps(browse):
    page = browse("run?name=twelve")
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    page.get_by_role("radio", name="Log").check()
    expect(icl).to_have_attribute("data-x-kind", "symlog")
    page.get_by_role("radio", name="Steps").check()
    assert limits(icl)[:2] == [0, tools.SEQUENCES / 16]
    page.reload()
    expect(icl).to_have_attribute("data-x-kind", "symlog")
    assert limits(icl)[1] == tools.SEQUENCES / 16
    expect(icl).to_have_attribute("aria-label", re.compile("at 160k steps"))


def test_curves_lie_over_one_another_and_any_measure_can_be_shown(browse, root):
    page = browse("run?name=twelve&layout=overlay")
    expect(page.locator("figure.panel h3")).to_have_text(["From the context", "From the weights", "Training"])
    page.get_by_label("Measure", exact=True).select_option("loss")
    loss = np.median(RunFolder(root / "twelve").metrics()["icl/loss"][:, -1])
    expect(page.locator("figcaption").first).to_contain_text(f"{loss:.3f}")
    page.get_by_text(re.compile("Evaluators: 3 of 3")).click()
    page.get_by_label("IWL", exact=True).uncheck()
    expect(page.locator("figure.panel h3")).to_have_text(["From the context", "Training"])
    assert "show=icl" in page.url


def test_the_thick_line_can_be_the_mean(browse, root):
    page = browse("run?name=twelve")
    page.get_by_role("radio", name="Mean").check()
    end = RunFolder(root / "twelve").metrics()["icl"][:, -1].mean()
    expect(page.locator("figcaption").first).to_contain_text(f"mean{end:.3f}")
    expect(page.locator("figcaption").first).not_to_contain_text("interval")


def test_a_phase_portrait_shows_icl_against_iwl_and_the_direction_of_time(browse, root):
    page = browse("run?name=ten")
    page.get_by_role("radio", name="Phase portrait").check()
    axes = page.locator(".portrait")
    expect(axes).to_have_attribute("data-lines", "10")
    expect(axes).to_have_attribute("aria-label", re.compile("ICL .* against IWL"))
    expect(page.locator(".timescale").first).to_contain_text("2.56M sequences")
    metrics = RunFolder(root / "ten").metrics()
    kept = np.delete(np.arange(10), 3)
    ends = [np.median(metrics[name][kept, -1]) for name in ("iwl", "icl")]
    page.mouse.move(*place_of(axes, *map(float, ends)))
    expect(page.locator(".readout")).to_contain_text("2,560,000 sequences")
    page.get_by_label("Horizontal").select_option("train_loss")
    expect(axes).to_have_attribute("data-x-kind", "log")


def test_the_pointer_reads_off_the_values_of_every_member(browse, root):
    page = browse("run?name=twelve")
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    expect(icl).to_have_attribute("data-lines", "12")
    page.mouse.move(*place_of(icl, tools.SEQUENCES / 2, 0.6))
    readout = icl.locator(".readout")
    expect(readout).to_contain_text("1,280,000 sequences")
    values = RunFolder(root / "twelve").metrics()["icl"][:, 20]
    expect(readout.locator("li")).to_have_text([f"{m}{value:.3f}" for m, value in enumerate(values)])
    expect(readout).to_contain_text("N = 12")


def test_the_keyboard_reads_off_values_too(browse):
    page = browse("run?name=twelve")
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    icl.focus()
    page.keyboard.press("ArrowRight")
    expect(icl.locator(".readout")).to_contain_text("0 sequences")
    page.keyboard.press("Shift+ArrowRight")
    expect(icl.locator(".readout")).to_contain_text("640,000 sequences")
    expect(icl.locator("[aria-live]")).to_contain_text("640,000 sequences")
    page.keyboard.press("+")
    expect(icl).to_have_attribute("data-zoomed", "yes")
    page.keyboard.press("Escape")
    expect(icl.locator(".readout")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(icl).to_have_attribute("data-zoomed", "no")


def test_a_drag_zooms_all_panels_in_x_and_a_double_click_shows_all_again(browse):
    page = browse("run?name=twelve")
    icl, iwl = plot(page, "ICL (trained classes, labels 0/1)"), plot(page, "IWL")
    expect(icl).to_have_attribute("data-lines", "12")
    whole = limits(icl)
    drag(page, icl, (0.25, 0.5), (0.75, 0.5))
    expect(iwl).to_have_attribute("data-zoomed", "yes")
    assert limits(icl)[:2] == limits(iwl)[:2] == pytest.approx([0.25 * whole[1], 0.75 * whole[1]], rel=0.03)
    drag(page, icl, (0.2, 0.1), (0.6, 0.5))  # both axes
    assert limits(icl)[2] > whole[2] and limits(iwl)[2:] == whole[2:]
    icl.locator(".u-over").dblclick()
    expect(icl).to_have_attribute("data-zoomed", "no")
    assert limits(icl) == whole
    drag(page, iwl, (0.25, 0.5), (0.75, 0.5))
    page.get_by_role("button", name="Reset zoom").click()
    expect(iwl).to_have_attribute("data-zoomed", "no")


def test_what_was_left_out_is_said_and_read_where_the_reader_zooms_in(browse):
    page = browse("run?name=dense&show=icl")
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    said = page.get_by_text("of 5,001 evaluations: minima and maxima are kept")
    expect(said).to_be_visible()
    assert int(icl.get_attribute("data-points")) < 2500
    drag(page, icl, (0.5, 0.5), (0.6, 0.5))
    expect(said).to_be_hidden()
    shown = limits(icl)
    steps = (shown[1] - shown[0]) / 16
    assert steps - 2 <= int(icl.get_attribute("data-points")) <= steps + 3
    page.get_by_role("button", name="Reset zoom").click()
    expect(said).to_be_visible()
    expect(icl).to_have_attribute("data-x-max", str(16 * (tools.DENSE - 1)))


def test_of_sixty_members_bands_are_drawn_and_said(browse):
    page = browse("run?name=sixty")
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    expect(icl).to_have_attribute("data-bands", "1")
    expect(icl).to_have_attribute("data-lines", "0")
    expect(page.locator("figcaption").first).to_contain_text("bands: half and nine tenths of the members")
    expect(page.locator("figcaption").first).to_contain_text("N = 60")
    page.mouse.move(*place_of(icl, tools.SEQUENCES / 2, 0.6))
    expect(icl.locator(".readout")).to_contain_text(re.compile(r"nine tenths 0\.\d+ to 0\.\d+, half 0\.\d+ to 0\.\d+"))


def test_a_chart_has_its_data_as_a_table(browse, root):
    page = browse("run?name=ten")
    panel = page.locator("figure.panel").first
    panel.get_by_text("Show as table").click()
    rows = panel.get_by_role("row")
    expect(rows).to_have_count(tools.EVALUATIONS + 1)
    values = RunFolder(root / "ten").metrics()["icl"]
    last = rows.last.get_by_role("cell").all_inner_texts()
    assert last[0] == "2,560,000" and last[4] == "9"
    assert last[5:] == [f"{v:.3f}" if np.isfinite(v) else "\u2013" for v in values[:, -1]]


def test_a_sweep_opens_in_the_list_and_leads_to_the_runs_of_its_tasks(browse):
    page = browse("?filter=kind:sweep")
    page.get_by_role("button", name="Open sweep-grid").click()
    tasks = page.locator("tr.task")
    expect(tasks).to_have_count(6)
    expect(tasks.first).to_contain_text("width 8; lr 0.001")
    tasks.first.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("sweep-grid/runs/")
    expect(page.locator("figure.panel").first).to_contain_text("N = 2")
    page.get_by_role("link", name="sweep-grid", exact=True).click()
    expect(page.get_by_role("heading", name="Phase diagram")).to_be_visible()


def test_a_sweep_shows_members_a_phase_diagram_and_curves_by_an_axis(browse, root):
    from ebbtide.sweeps.results import load

    rows = load(root / "sweep-grid").table()
    page = browse("sweep?name=sweep-grid&scalar=icl_final")
    expect(page.locator(".plot").first).to_have_attribute("data-points", "12")
    cell = np.mean([r["icl_final"] for r in rows if r["model.width"] == 8 and r["optimizer.lr"] == 0.01])
    cells = page.locator("table.phase tbody tr").first.get_by_role("cell")  # the largest rate is on top
    expect(cells).to_have_count(2)
    expect(cells.first).to_have_text(f"{cell:.3f}N = 2")
    curves = plot(page, "ICL (trained classes, labels 0/1) by model.width")
    expect(curves).to_have_attribute("data-lines", "12")
    page.get_by_label("By", exact=True).select_option("optimizer.lr")
    by_rate = page.get_by_role("heading", name="ICL (trained classes, labels 0/1) by optimizer.lr")
    expect(by_rate).to_be_visible()
    expect(page.get_by_role("region", name="Members of the sweep").get_by_role("row")).to_have_count(13)
    page.get_by_label("Rows").select_option("model.width")
    expect(page.get_by_text("Choose two different axes.")).to_be_visible()


def test_heads_over_training_are_sorted_within_each_member(browse, root):
    page = browse("run?name=probed")
    maps = page.locator("figure.map")
    expect(maps).to_have_count(3)
    values = np.load(root / "probed/probes/induction_strength-icl.npz", allow_pickle=False)["values"]
    expected = [f"{layer}:{head}" for layer in (0, 1) for head in np.argsort(-values[-1, 1, layer])]
    expect(maps.nth(1).locator(".rows li")).to_have_text(expected)
    maps.nth(1).get_by_text("Show as table").click()
    top = maps.nth(1).locator("tbody tr").first.get_by_role("cell")
    expect(top.last).to_have_text(f"{values[-1, 1, 0].max():.3f}")


def test_a_report_is_shown_in_a_frame_that_may_run_nothing(browse):
    page = browse("run?name=twelve")
    page.get_by_role("link", name="Report").last.click()
    frame = page.locator("iframe.report")
    expect(frame).to_have_attribute("sandbox", "allow-popups")
    expect(page.frame_locator("iframe.report").get_by_role("heading", level=1)).to_contain_text("twelve")


def test_names_and_notes_of_folders_are_text(browse):
    page = browse(f"?filter=study:{EVIL.split()[0]}")
    row = page.locator("tbody tr[data-index]")
    expect(row).to_have_count(1)
    expect(row.locator(".c-name")).to_have_text(EVIL)
    expect(row.locator(".c-study")).to_have_text(f"{EVIL} <b>bold</b>")
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(EVIL)
    expect(page.locator("figure.panel")).to_have_count(3)
    assert page.locator("img, b:text('bold')").count() == 0


def test_a_damaged_folder_is_listed_and_says_why(browse):
    page = browse("?filter=broken")
    row = page.locator("tr[data-key='broken']")
    expect(row.locator(".c-status")).to_have_text("damaged")
    expect(row).to_contain_text("run.json is damaged")
    row.get_by_role("link").click()
    expect(page.locator(".problem").first).to_contain_text("run.json is damaged")


def test_a_run_that_is_not_there_is_told_in_a_line(browse):
    page = browse("run?name=nowhere", errors=("404",))
    expect(page.get_by_role("alert")).to_contain_text("nowhere")
    page.goto(f"{page.url.split('#')[0]}#/elsewhere")
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no such view")


def test_the_page_is_dark_where_the_system_is_and_a_choice_is_kept(browse):
    page = browse("run?name=twelve", scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(20, 24, 31)"
    icl = plot(page, "ICL (trained classes, labels 0/1)")
    expect(icl).to_have_attribute("data-lines", "12")
    page.get_by_role("button", name="Use light colours").click()
    assert page.evaluate(paper) == "rgb(251, 250, 247)"
    page.reload()
    assert page.evaluate(paper) == "rgb(251, 250, 247)"
    expect(page.get_by_role("button", name="Use dark colours")).to_be_visible()


def test_the_list_can_be_used_with_the_keyboard_alone(browse):
    page = browse("?sort=name")
    expect(page.locator("tr[data-key='twelve']")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("transience")
    page.keyboard.press("ArrowDown")
    grid = page.get_by_role("treegrid")
    expect(grid).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.keyboard.press("End")
    expect(page.locator("tr.active .c-name")).to_have_text("twelve")
    active = grid.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active} .c-name").inner_text() == "twelve"
    page.keyboard.press("Space")
    expect(page.locator(".bar")).to_contain_text("2 runs chosen")
    page.keyboard.press("Escape")
    expect(page.locator(".bar")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("twelve")
    expect(page.get_by_role("main")).to_be_focused()


def test_a_sweep_is_opened_and_closed_with_the_arrows(browse):
    page = browse("?filter=kind:sweep")
    expect(page.locator("tr[data-key='sweep-grid']")).to_be_visible()
    page.get_by_role("treegrid").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("tr.task")).to_have_count(6)
    expect(page.locator("tr[data-key='sweep-grid']")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")  # to the sweep
    page.keyboard.press("ArrowLeft")
    expect(page.locator("tr.task")).to_have_count(0)


def test_a_command_is_copied(browse):
    page = browse("run?name=twelve")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    entry = page.locator(".commands > div").filter(has_text="ebbtide fsck")
    entry.get_by_role("button", name="Copy").click()
    expect(entry).to_contain_text("copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("ebbtide fsck")


def test_what_has_not_changed_is_not_sent_again(browse):
    page = browse("run?name=twelve")
    with page.expect_response(lambda answer: "/api/curves" in answer.url and answer.status == 304):
        pass


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("runs", "?sort=name"),
        ("run", "run?name=ten"),
        ("overlay", "run?name=sixty&layout=overlay"),
        ("portrait", "run?name=twelve&layout=portrait"),
        ("compare", "compare?name=ten&name=twelve&name=sixty"),
        ("sweep", "sweep?name=sweep-grid"),
        ("heads", "run?name=probed"),
    ],
)
def test_no_view_is_wider_than_the_screen(name, view, browse):
    kinds = [("wide", WIDE, "light"), ("phone", PHONE, "light")]
    if SCREENSHOTS:
        kinds += [("wide", WIDE, "dark"), ("phone", PHONE, "dark")]
    for kind, size, scheme in kinds:
        page = browse(view, size=size, scheme=scheme)
        expect(page.locator("tr[data-key='ten'], .plot canvas").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, kind)
        shoot(page, f"{name}-{kind}-{scheme}")


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.thorough)])
def test_many_runs_scroll_and_filter_and_a_lost_server_is_noticed(browse, tmp_path, count):
    root, middle = tools.copy_runs(tmp_path / "many", count), int(0.4 * count)
    with tools.serving(root) as base:
        page = browse("?sort=name", base=base, errors=("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE"))
        expect(page.locator(".toolbar .note")).to_have_text(f"{count:,} folders", timeout=60_000)
        assert page.locator("tbody tr[data-index]").count() < 60
        page.mouse.move(600, 500)
        page.mouse.wheel(0, middle * 38)
        expect(page.locator(f"tr[data-key='copy-{middle:05}']")).to_be_attached()
        page.get_by_role("treegrid").focus()
        page.keyboard.press("End")
        expect(page.locator(f"tr[data-key='copy-{count - 1:05}']")).to_be_in_viewport()
        page.get_by_role("searchbox").fill("copy-0012")
        expect(page.locator(".toolbar .note")).to_have_text(f"10 of {count:,} folders")
        assert names(page)[0] == "copy-00120"
    expect(page.locator("#connection")).to_have_text("no answer, trying again")
    expect(page.get_by_role("alert")).to_contain_text("ebbtide dashboard")
