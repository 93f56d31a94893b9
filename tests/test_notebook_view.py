"""What a notebook shows of a run, the results of a sweep, and a verdict."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.pages import notebook
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.sweep import Sweep
from report_tools import EVIL, Page
from sweep_tools import BASE, LR, made
from tiny import SPEC, write_run

RISE_AND_FALL = [0.5, 0.9, 0.9, 0.8, 0.6]


def write(path: Path, members: int = 6, **changes) -> eb.Run:
    """A run whose members' ICL rises and falls, each a little higher than the one before."""
    icl = np.array(RISE_AND_FALL) + np.linspace(0, 0.05, members)[:, None]
    write_run(path, {"icl": icl, "iwl": 1 - icl}, np.tile(np.linspace(2, 1, 5), (members, 1)), **changes)
    return eb.Run(path)


def study() -> eb.Study:
    falls = eb.Claim("falls", "ICL falls", "Fig. 1", "transience", 0.1, lambda evidence: evidence["transience"])
    never = eb.Claim("never", "ICL is never lost", "Fig. 2", "icl at the end", 0.9, lambda e: e["icl_final"])
    preset = eb.Preset(eb.SingleRun("quick"), minutes=0.5, scaled="a toy")
    own = eb.Experiment("mine", "Does ICL fall?", "Fig. 1", claims=(falls, never), presets={"quick": preset})
    return eb.Study("mine", "a book", "Does ICL fall?", (own,), bases={"quick": eb.Base(SPEC, "tiny")})


def page_of(shown) -> Page:
    """The HTML taken apart, and on the way checked: it is one element with nothing that runs, loads or has a name that
    a second output would have too."""
    html = shown._repr_html_()
    page = Page(html.encode())
    names = {tag for tag, _ in page.elements}
    assert not names & {"script", "iframe", "link", "object", "form", "html", "body", "meta"}
    assert not [one for _, one in page.elements if "id" in one or any(key.startswith("on") for key in one)]
    assert all(one["src"].startswith("data:image/png;base64,") for tag, one in page.elements if tag == "img")
    return page


def test_a_run_shows_its_figure_its_numbers_and_how_to_make_it_again(tmp_path):
    run = write(tmp_path / "mine")
    page = page_of(run)
    assert [tag for tag, _ in page.elements].count("img") == 1
    assert "mine" in page.text[""] and "6, of 1,024 sequences each" in page.text[""] and "spec.json" in page.text[""]
    shown = page.numbers("")
    assert set(run.summary()["transience"].tolist()) <= set(shown)


def test_a_verdict_shows_its_claims_in_the_run_and_alone(tmp_path):
    run = write(tmp_path / "mine")
    verdict = eb.conclude_run(study(), run)
    for shown in (verdict, run):
        page = page_of(shown)
        assert "Does ICL fall?" in page.text[""] and "1 of 2 claims holds, 1 fails" in page.text[""]
        badges = [one["class"] for tag, one in page.elements if tag == "span" and "badge" in one.get("class", "")]
        assert badges == ["badge holds", "badge fails"]
        assert [tag for tag, _ in page.elements].count("circle") == 12  # the members of each claim
        assert verdict.claims[0].estimate in page.numbers("")
    assert [tag for tag, _ in page_of(verdict).elements].count("img") == 0  # a verdict alone has no figure


def test_a_sweep_shows_its_curves_and_its_members(tmp_path):
    sweep = Sweep(name="try", base={**BASE, "sequences": 1600}, axes=(LR, Axis(seeds=2)))
    results = eb.load(made(tmp_path / "s", sweep).path)
    page = page_of(results)
    assert [tag for tag, _ in page.elements].count("img") == 1
    assert "all finished" in page.text[""] and "Members one by one (4)" in page.text[""]
    assert {row["icl_peak"] for row in results.table()} <= set(page.numbers(""))


def test_names_and_notes_are_text(tmp_path):
    name = "<script>alert(1)</script><img src=x onerror=alert(1)>"  # run.json may hold no other characters
    run = write(tmp_path / "r", label={"study": name, "preset": name})
    verdict = replace(eb.conclude_run(study(), run), question=EVIL, study=EVIL, command=EVIL, seeds=EVIL, paper=EVIL)
    for shown in (run, verdict):
        page = page_of(shown)
        assert "<script>" in page.text[""] and "\u202e" not in page.text[""]


def test_what_cannot_be_read_any_more_is_one_line(tmp_path):
    run = write(tmp_path / "r")
    segment = next((run.path / "metrics").iterdir())
    segment.write_bytes(segment.read_bytes()[:-1])
    assert "Cannot be shown: metrics/" in page_of(run).text[""]
    (run.path / "run.json").unlink()
    assert "Cannot be shown: not a run folder" in page_of(run).text[""]


def test_a_thousand_members_are_not_megabytes(tmp_path):
    run = write(tmp_path / "r", members=1000)
    eb.conclude_run(study(), run)
    html = run._repr_html_()
    assert len(html) < 1_000_000
    page = page_of(run)
    assert f"{notebook.MOST_COLUMNS} of 1,001 columns" in page.text[""] and "Numbers of each member" in page.text[""]


def test_a_long_table_is_cut_and_says_so(tmp_path):
    sweep = Sweep(name="try", base={**BASE, "sequences": 1600}, axes=(LR, Axis(seeds=40)))
    text = page_of(eb.load(made(tmp_path / "s", sweep).path)).text[""]
    assert f"{notebook.MOST_ROWS} of 80 rows" in text and "ebbtide report" in text


def test_the_style_holds_for_this_output_alone_and_has_no_colours_of_the_page():
    """Every rule is about what is inside; the text and the ground are those of the notebook, light or dark."""
    css = Path(notebook.__file__).with_name("notebook.css").read_text()
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", css)
    assert len(rules) > 30
    for selectors, body in rules:
        assert all(one.strip().startswith(".ebbtide") for one in selectors.split(",")), selectors
        for colour in re.findall(r"(?<![\w-])color: ([^;]+);", body):  # of text: inherited, or on a ground of its own
            assert colour == "inherit" or "background: #" in body, selectors


def test_a_verdict_that_is_stored_is_shown_as_the_one_that_was_made(tmp_path):
    verdict = eb.conclude_run(study(), write(tmp_path / "r"))
    again = msgspec.json.decode(msgspec.json.encode(verdict), type=type(verdict))
    assert again._repr_html_() == verdict._repr_html_()


@pytest.mark.parametrize("shown", ["unfinished", "nothing"])
def test_a_run_that_is_not_finished_says_so(tmp_path, shown):
    from folders import play

    play(tmp_path / "r", upto=2 if shown == "unfinished" else 1)
    text = page_of(eb.Run(tmp_path / "r")).text[""]
    assert "Unfinished" in text and "Continue with: ebbtide resume r" in text
