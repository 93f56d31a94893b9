"""The view of single prompts in a real browser, against a real server and the process that holds the models."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest

import browser_tools as tools
import ebbtide as eb
from browser_tools import EVIL, Browse
from ebbtide.runs.folder import RunFolder
from prompts_tools import FEWSHOT, REGRESSION, ask, outputs, untrained

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install playwright)")
expect = playwright.expect
pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.skipif(tools.browser_path() is None, reason="no Chromium and no Chrome is installed"),
]

WIDE, PHONE = (1280, 900), (360, 740)
PATIENCE = 120_000
"""Longest wait in milliseconds for the first answer, for which JAX must start and compile."""
INDEX = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, the same under a hostile name, functions, and a run with a damaged checkpoint."""
    folder = tmp_path_factory.mktemp("root")
    eb.train(FEWSHOT, folder / "few", processes=0)
    untrained(folder / "functions", REGRESSION, at=(0, 512, 1024))
    shutil.copytree(folder / "few", folder / EVIL)
    untrained(folder / "damaged", FEWSHOT, at=(0, 256, 512))
    state = sorted((folder / "damaged/checkpoints").iterdir())[1] / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    return folder


@pytest.fixture(scope="module")
def few(root: Path) -> RunFolder:
    return RunFolder(root / "few")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    with tools.serving(root) as base:
        yield base


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    expect.set_options(timeout=30_000)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=tools.browser_path(), args=list(tools.FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any, server: str) -> Iterator[Browse]:
    """Opens a view in a context of its own; when the test ends, no page may have written an error or asked another
    host."""
    opened: list[tuple[Any, tools.Watch]] = []

    def browse(view: str, size: tuple[int, int] = WIDE, scheme: str = "light", errors: tuple[str, ...] = ()) -> Any:
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        opened.append((context, tools.Watch(page, server, errors)))
        page.goto(f"{server}#/{view}")
        return page

    yield browse
    for context, _ in opened:
        context.close()
    assert [words for _, watch in opened for words in watch.found] == []


@pytest.fixture
def prompts(browse: Browse) -> Browse:
    """Opens the view of a run, and waits until it has been answered."""

    def prompts(query: str, **options: Any) -> Any:
        page = browse(f"prompts?{query}", **options)
        expect(page.locator("table.answers tbody tr").first).to_be_visible(timeout=PATIENCE)
        return page

    return prompts


def answered(page: Any) -> list[str]:
    """What is listed of the members: their probabilities in words."""
    return (
        page.locator("table.answers tbody")
        .first.locator(".bar-of")
        .evaluate_all("(bars) => bars.map((one) => one.getAttribute('aria-label'))")
    )


def words_of(answer: dict[str, Any]) -> str:
    """The probabilities of an answer as the page writes them."""
    return ", ".join(f"{label}: {100 * p:.1f} %" for label, p in answer["top"])


def setting(page: Any, name: str) -> str | None:
    """A setting in the address of the page."""
    found = re.search(rf"[?&]{name}=([^&]*)", page.url)
    return found and unquote(found[1])


def close(shown: str, true: str) -> bool:
    """Whether two lists of probabilities agree in their labels, and up to the last digit."""
    a, b = (np.asarray(re.findall(r"[\d.]+", text), float) for text in (shown, true))
    return bool((a[::2] == b[::2]).all() and np.allclose(a[1::2], b[1::2], atol=0.11))


def test_from_a_run_a_link_leads_to_its_prompts_with_every_members_answer(browse, few):
    page = browse("run?name=few")
    page.get_by_role("main").get_by_role("link", name="Prompts").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Prompts of few")
    expect(page.locator("table.answers tbody").first.locator("tr")).to_have_count(2, timeout=PATIENCE)
    expect(page.locator("table.answers tbody.oracles tr")).to_have_count(7)  # with their heading
    truth = ask(few, evaluator="icl", index=0)["checkpoints"][-1]["answers"]
    assert all(close(shown, words_of(one)) for shown, one in zip(answered(page), truth, strict=True))
    expect(page.locator("table.prompt tr").first.locator("td")).to_have_count(5)
    expect(page.locator("output.where")).to_contain_text("512 sequences")


def test_dragging_the_slider_changes_the_answers_without_another_question(prompts, few):
    page = prompts(f"name=few&evaluator=icl&index={INDEX}")
    expect(page.locator(".strips .now").last).to_contain_text("agree with ICL")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    slider = page.get_by_role("slider", name="Checkpoint")
    before, box = answered(page), slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 9)
    expect(page.locator("output.where")).to_contain_text("256 sequences")
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    page.mouse.up()
    expect(page.locator("output.where")).to_contain_text("0 sequences, step 0")
    truth = ask(few, evaluator="icl", index=INDEX)["checkpoints"][0]["answers"]
    assert answered(page) != before and setting(page, "at") == "0"
    assert all(close(shown, words_of(one)) for shown, one in zip(answered(page), truth, strict=True))
    assert not [url for url in asked if f"index={INDEX}" in url]  # others are asked for in advance
    grid = page.locator(".strips canvas").first
    grid.click(position={"x": grid.bounding_box()["width"] / 2, "y": 5})
    assert setting(page, "at") == "256"


def test_the_arrow_keys_move_the_checkpoint_and_the_prompt(prompts):
    page = prompts("name=few&evaluator=icl")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("output.where")).to_contain_text("256 sequences")
    slider = page.get_by_role("slider", name="Checkpoint")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("output.where")).to_contain_text("checkpoint 1 of 3")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("heading", name="Prompt 1 of icl")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("heading", name="Prompt 0 of icl")).to_be_visible()
    page.keyboard.press("End")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^512 sequences"))
    assert setting(page, "index") == "0" and setting(page, "at") == "512"


def test_a_member_and_a_head_are_chosen_and_the_weights_are_read(prompts, few):
    page = prompts(f"name=few&evaluator=icl&index={INDEX}")
    page.get_by_role("button", name="member 1").click()
    head = page.get_by_role("button", name="0:1", exact=True)
    head.click()
    expect(head).to_have_attribute("aria-pressed", "true")
    weights = np.asarray(ask(few, evaluator="icl", index=INDEX, member=1)["checkpoints"][-1]["attention"])[0, 1]
    detail = page.locator(".sheet + p")
    expect(detail).to_contain_text(re.compile(rf"^Head 0:1: {100 * weights.max():.0f} % on "))
    assert (setting(page, "member"), setting(page, "head")) == ("1", "0:1")
    again = page.locator("tbody.attention canvas").nth(1)
    expect(again).to_have_attribute("aria-label", re.compile(r"^Layer 0, head 1: .* on the (label|exemplar)"))
    page.reload()
    expect(page.get_by_role("button", name="0:1", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("tr.chosen th").last).to_contain_text("member 1")


def test_predictions_of_functions_stand_beside_the_truth_and_classical_predictors(prompts, root):
    page = prompts("name=functions&evaluator=prior&index=2")
    rows = page.locator("table.answers")
    expect(rows.locator("tbody.oracles")).to_contain_text("least squares")
    expect(rows.locator("tbody.oracles")).to_contain_text("ridge")
    value = float(outputs(RunFolder(root / "functions"), "prior", 0, 1024, 20)[2, 0])
    expect(rows.locator("tbody").first.locator("td").first).to_contain_text(f"{value:.3f}")
    expect(page.locator("canvas.scale")).to_have_attribute("aria-label", re.compile("truth .* members .* ridge"))
    expect(page.locator("table.prompt tbody").first.locator("td")).to_have_count(3 * 7)
    page.get_by_role("button", name="next prompt").click()
    expect(page.get_by_role("heading", name="Prompt 3 of prior")).to_be_visible()


def test_drawings_attention_and_strips_have_words_for_those_who_do_not_see_them(prompts):
    page = prompts(f"name=few&evaluator=icl&index={INDEX}")
    expect(page.locator(".strips .now").last).to_contain_text("agree with ICL")
    for canvas in page.locator("canvas").all():
        if canvas.is_visible():
            assert len(canvas.get_attribute("aria-label") or "") > 10
    slider = page.get_by_role("slider", name="Checkpoint")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("checkpoint 3 of 3"))
    assert page.locator("table").evaluate_all("(all) => all.every((one) => one.caption || one.querySelector('th'))")


def test_a_name_that_leads_out_of_the_root_is_one_line(browse):
    errors = ("Failed to load resource",)
    for name in ("..%2F..%2Fetc", "%2Fetc%2Fpasswd", "nothing", "few%2Fcheckpoints"):
        page = browse(f"prompts?name={name}", errors=errors)
        expect(page.get_by_role("alert")).to_be_visible()
        assert len(page.get_by_role("alert").inner_text().splitlines()) == 1
        expect(page.locator("table.answers")).to_have_count(0)


def test_names_and_settings_from_the_address_are_text(prompts):
    page = prompts(f"name={quote(EVIL)}&evaluator=%3Cb%3E&index=9e9&member=-1&at=7&head=a:b")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Prompts of {EVIL}")
    assert page.locator("main img").count() == 0
    expect(page.locator("output.where")).to_contain_text("0 sequences")
    assert (setting(page, "evaluator"), setting(page, "index")) == ("icl", "0")


def test_a_damaged_checkpoint_is_told_and_the_others_are_shown(prompts):
    page = prompts("name=damaged&evaluator=icl")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".strips .now").first).to_contain_text("This checkpoint is damaged")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("table.answers tbody").first.locator("tr")).to_have_count(2)


def test_without_a_run_the_runs_are_listed(browse):
    page = browse("prompts")
    page.get_by_role("link", name="functions").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Prompts of functions")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_view_fits_a_phone(prompts, scheme):
    page = prompts("name=few&evaluator=icl", size=PHONE, scheme=scheme)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    for part in ("h1", ".strips canvas", "table.answers .bar-of"):
        box = page.locator(part).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE[0]
