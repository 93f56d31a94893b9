"""The page about runs and experiments: complete, true to its folders, closed to the network, safe, and repeatable."""

import json
import os
import re
import shlex
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

import folders
from ebbtide.cli import main
from ebbtide.cli.parser import overrides, parser
from ebbtide.errors import InputError
from ebbtide.pages.gather import gather
from ebbtide.pages.origin import known_sweep
from ebbtide.pages.page import NOT_RUN, Entry, entries_page
from ebbtide.papers.registry import find_study
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.runs import lock
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.comparison import conclude_sweep, find_verdict
from ebbtide.studies.describe import run_command, seeds
from ebbtide.studies.single_run import conclude_run, judge_run
from ebbtide.studies.verdict import Verdict, read_verdict
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.results import load
from ebbtide.training.fields import parse
from report_tools import EVIL, Page
from sweep_tools import BASE, LR, WIDTH, made, make_sweep
from sweep_tools import SHORT_SWEEP as SWEEP
from tiny import SPEC, contents, header, write_run

pytestmark = pytest.mark.usefixtures("quick_compile")

CURVE = [0.5, 0.6, 0.8, 0.9, 0.9, 0.9, 0.7, 0.5, 0.4, 0.4]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_run(path: Path, icl: list[float] = CURVE, judged: bool = True, **changes: Any) -> RunFolder:
    """A finished run of six members that differ by a hundredth each."""
    path.parent.mkdir(exist_ok=True, parents=True)
    jitter = np.arange(6)[:, None] / 100
    n = len(icl)
    made = {
        "train": np.linspace(0.5, 1, n) - jitter,
        "icl": np.asarray(icl) - jitter,
        "iwl": np.linspace(0, 0.9, n) - jitter,
        "ciwl": np.linspace(0.3, 1, n) - jitter,
    }
    changes = {"label": {"study": "transience", "preset": "quick*"}} | changes
    run = write_run(path, made, np.asarray([np.nan, *np.linspace(4, 1, n - 1)]) + jitter, **changes)
    if judged:
        conclude_run(TRANSIENCE, run)
    return run


L2 = make_sweep(TRANSIENCE, TRANSIENCE.experiment("l2"), "quick", {**BASE, "sequences": 1600})


@pytest.fixture(scope="session")
def judged(tmp_path_factory) -> Path:
    """An experiment whose arms have run, with its verdict and figure."""
    folder = made(tmp_path_factory.mktemp("judged") / "l2", L2)
    conclude_sweep(TRANSIENCE, TRANSIENCE.experiment("l2"), "quick*", folder)
    return folder.path


def verdict_of(path: Path) -> Verdict:
    verdict = find_verdict(path)
    assert verdict is not None
    return verdict


def told(*words: str) -> Page:
    """The page that the command writes."""
    assert main(["report", *words, "--out", "page.html"]) == 0
    return Page(Path("page.html").read_bytes())


# --- what is on the page


def test_a_run_is_told_with_question_verdict_figure_settings_and_how_to_repeat_it():
    run = a_run(Path("runs/one"))
    found = told("one")
    assert found.sections() == ["e1"]
    text = found.text["e1"]
    for words in (
        TRANSIENCE.question,
        "Singh et al. 2023",
        "All 5 claims hold",
        "members 0 to 5",
        "model.width 16 (paper: 64)",
        "none: source gaussian",
        "exact 95 % intervals",
        "If all 5 claims were false, at most 0.08 would hold by chance",
        "Settings that differ",
        "Versions",
        "repeatable bit for bit",
        run.header.digest,
        "Every field of the spec",
        "quick",
    ):
        assert words in text, words
    for claim in TRANSIENCE.experiments[0].claims:
        assert claim.statement in text and claim.metric in text and claim.source in text
    pictures = [found["src"] for tag, found in found.below["e1"] if tag == "img"]
    assert len(pictures) == 1 and pictures[0].startswith("data:image/svg+xml;base64,")


def test_the_numbers_are_those_of_the_verdict():
    run = a_run(Path("runs/one"))
    verdict = read_verdict(run)
    assert verdict is not None
    found = told("one").numbers("e1")
    shown = [[c.threshold, c.estimate, c.low, c.high] for c in verdict.claims]
    assert found[: 4 * len(shown)] == [value for row in shown for value in row]
    members = [value for c in verdict.claims for value in c.members]
    rest = [value for values in verdict.summary.values() for value in values if value is not None]
    assert found[4 * len(shown) :] == members + rest


def test_the_verdicts_stand_as_words_and_signs_beside_their_claims():
    """Curves that do not fall: ICL rises (holds), does not fall (fails); what follows its peak is left open."""
    run = a_run(Path("runs/one"), [*CURVE[:6], 0.9, 0.9, 0.9, 0.9])
    verdict = read_verdict(run)
    assert verdict is not None
    found, words = told("one"), [c.verdict for c in verdict.claims]
    assert set(words) == {"holds", "fails", "undecided"}
    rows = re.findall(r'<span class="badge (\w+)"><span aria-hidden="true">(.)</span> (\w+)</span>', text_of("e1"))
    assert rows == [(word, {"holds": "✓", "fails": "✗", "undecided": "?"}[word], word) for word in words]
    held, failed, unsure = (words.count(word) for word in ("holds", "fails", "undecided"))
    said = f"{held} of 5 claims {'holds' if held == 1 else 'hold'}, {failed} {'fails' if failed == 1 else 'fail'}"
    assert f"{said}, {unsure} {'is' if unsure == 1 else 'are'} undecided." in found.text["e1"]


def text_of(section: str) -> str:
    """The HTML of a section of the page that was written."""
    return Path("page.html").read_text().partition(f'<section id="{section}">')[2].partition("</section>")[0]


def test_an_experiment_is_told_with_its_arms_and_every_member(judged):
    shutil.copytree(judged, "runs/exp")
    verdict, found = verdict_of(Path("runs/exp")), told("exp")
    text = found.text["e1"]
    for words in ("transience/l2", "Does L2 keep in-context learning?", "preset quick*", verdict.scaled, verdict.seeds):
        assert words in text, words
    assert "L2 1e-3optimizer.decay.coefficient 0.001" in text  # arm, fields
    for c in verdict.claims:
        assert f"{c.above} of {c.n}" in text and c.statement in text
    shown = [x for c in verdict.claims for x in (c.threshold, c.estimate, c.low, c.high) if x is not None]
    assert found.numbers("e1")[: len(shown)] == shown
    for row in load("runs/exp").table():
        assert row["icl_peak"] in found.numbers("e1") and row["transience"] in found.numbers("e1")
    assert any(tag == "img" and one["src"].startswith("data:image/") for tag, one in found.below["e1"])


def test_an_experiments_command_makes_the_same_sweep(judged):
    known = known_sweep(SweepFolder(judged).sweep)
    assert known is not None and known.preset == "quick*"
    options, rest = parser().parse_known_args(shlex.split(known.command)[1:])
    fields = {name: parse(text) for name, text in overrides(rest)}
    again = make_sweep(find_study(options.study), TRANSIENCE.experiment(options.experiment), options.preset, fields)
    assert again.to_json() == L2.to_json()
    plain = known_sweep(make_sweep(TRANSIENCE, TRANSIENCE.experiment("l2"), "cpu"))
    assert plain and plain.command == "ebbtide run transience --experiment l2 --preset cpu --check"
    assert (
        known_sweep(replace(L2, name="mine")) is None
        and known_sweep(replace(L2, axes=L2.axes[:1], origin=None)) is None
    )


@pytest.mark.parametrize("name", ["transience main", "transience competition", "regularisation l2"])
def test_arms_of_other_sources_labels_and_models_are_told(name):
    """Values of whole structs, in the table of the arms and in the command."""
    study, one = name.split()
    sweep = make_sweep(find_study(study), find_study(study).experiment(one), "quick", {"sequences": 1600})
    made(Path("runs/exp"), sweep)
    known = known_sweep(sweep)
    assert known is not None and known.study.name == study and known.preset == "quick*"
    text = told("exp").text["e1"]
    assert all(arm in text for arm in known.arms) and "Not judged yet" in text and "Data needed" in text
    Path("seen.txt").write_text(text)


def test_an_experiment_that_is_not_judged_says_how_to_go_on(judged):
    shutil.copytree(judged, "runs/exp")
    (Path("runs/exp") / "verdict.json").unlink()
    text = told("exp").text["e1"]
    assert "Not judged yet" in text and "--experiment l2" in text and "--out exp" in text
    assert "Does L2 keep in-context learning?" in text
    made(Path("runs/part"), L2, members=5, leave=1)
    assert "Unfinished: 32 of 36 members are trained (4 missing)" in told("part").text["e1"]


def test_a_study_lists_the_questions_that_were_not_asked(judged):
    shutil.copytree(judged, "runs/exp")
    found = gather(["transience"], Path("runs"))
    others = [TRANSIENCE.full_name(one) for one in TRANSIENCE.experiments if one.name != "l2"]
    assert [one.experiment for one in found] == ["transience/l2", *others] and others[0] == "transience"
    assert [one.kind for one in found[1:]] == [NOT_RUN] * len(found[1:])
    text = told("transience")
    assert text.sections() == ["e1"] and text.text[""].count(NOT_RUN) == len(found) - 1
    for one in found[1:]:
        assert " ".join(text.text[""].split()).count(one.command) >= 1
        assert parser().parse_known_args(shlex.split(one.command)[1:])[1] == []
    assert told("transience", "--runs", "runs").text == text.text


CASES = {
    "curves by one axis": ((LR, Axis(seeds=2)), 1),
    "a phase diagram of two": ((WIDTH, LR, Axis(seeds=2)), 1),
    "three axes": ((WIDTH, LR, Axis(field="seeds.init", values=[0, 1])), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_without_claims_is_drawn_where_it_can_be(name):
    axes, pictures = CASES[name]
    made(Path("runs/s"), replace(SWEEP, axes=axes))
    found = told("s")
    assert "no claims" in found.text[""] and "all finished" in found.text["e1"]
    assert [tag for tag, _ in found.elements].count("img") == pictures


def test_the_summary_leads_to_every_section(judged):
    a_run(Path("runs/a"))
    shutil.copytree(judged, "runs/b")
    found = told("a", "b")
    links = [one["href"] for tag, one in found.elements if tag == "a" and one["href"].startswith("#")]
    assert links == ["#e1", "#e2"] and found.sections() == ["e1", "e2"]
    rows = [tag for tag, _ in found.elements[: found.elements.index(("section", {"id": "e1"}))] if tag == "tr"]
    assert len(rows) == 3


# --- which folders


def test_a_study_stands_for_its_folders_the_newest_of_each_first(judged):
    a_run(Path("runs/older"), created="2026-01-01T00:00:00+00:00")
    a_run(Path("runs/newer"), created="2026-01-02T00:00:00+00:00")
    a_run(Path("runs/big"), label={"study": "transience", "preset": "paper"})
    a_run(Path("runs/other"), label={"study": "of another", "preset": "quick"}, judged=False)
    a_run(Path("runs/custom"), label={}, judged=False)
    shutil.copytree(judged, "runs/exp")
    found = [one for one in gather(["transience"], Path("runs")) if one.kind != NOT_RUN]
    assert [(one.name, one.earlier) for one in found] == [
        ("newer", False),
        ("big", False),
        ("exp", False),
        ("older", True),
    ]
    assert [one.name for one in gather(["transience/l2"], Path("runs"))] == ["exp"]
    claims = 2 * len(TRANSIENCE.experiments[0].claims) + len(verdict_of(judged).claims)
    assert f" of {claims} claims hold" in told("transience").text[""], "earlier runs do not count"


def test_folders_come_in_the_order_they_are_given_and_once():
    for name in ("a", "b", "c"):
        a_run(Path("runs") / name)
    given = gather(["c", "runs/a", "c", "./runs/b"], Path("runs"))
    assert [one.name for one in given] == ["c", "a", "b"] and not any(one.earlier for one in given)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["transience"], "has no run in runs yet (make one with: ebbtide run transience)"),
        (["transienze"], "did you mean 'transience'"),
        (["nothing"], "no run or sweep folder"),
        (["."], "no run, sweep or contest is there"),
    ],
)
def test_no_input_is_told_in_one_line(words, said, capsys):
    assert main(["report", *words, "--out", "page.html"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not Path("page.html").exists()


@pytest.mark.parametrize("out", ["page.json", "runs/one/verdict.json", "nowhere/page.html", "folder.html"])
def test_a_place_where_no_page_can_be_is_refused(out, capsys):
    run = a_run(Path("runs/one"))
    Path("folder.html").mkdir()
    before = contents(run.path)
    assert main(["report", "one", "--out", out]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and contents(run.path) == before


def test_nothing_given_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["report", "--out", "page.html"])
    assert caught.value.code == 2


# --- damaged and unfinished folders


def truncate(name: str):
    def damage(path: Path) -> None:
        file = path / name
        file.write_bytes(file.read_bytes()[:-20])

    return damage


def spoil_segment(path: Path) -> None:
    (segment,) = (path / "metrics").iterdir()
    segment.write_bytes(segment.read_bytes()[:-1] + b"x")


def no_header(path: Path) -> None:
    (path / "run.json").unlink()


def another_schema(path: Path) -> None:
    text = (path / "run.json").read_text()
    (path / "run.json").write_text(text.replace('"schema": 2', '"schema": 99'))


DAMAGES = {
    "run.json cut": (truncate("run.json"), "Cannot be used: run.json is damaged"),
    "run.json gone": (no_header, "Cannot be used: not a run folder"),
    "another version": (another_schema, "Cannot be used: run.json"),
    "segment changed": (spoil_segment, "Cannot be used: metrics/"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_one_row_and_the_rest_is_told(name):
    damage, words = DAMAGES[name]
    a_run(Path("runs/transience-good"))
    damage(a_run(Path("runs/transience-bad")).path)
    found = told("transience-bad", "transience-good")
    assert words in found.text["e1"] and "claims hold" not in found.text["e1"] and found.numbers("e1") == []
    assert "damaged" in found.text[""] and "All 5 claims hold" in found.text["e2"]
    if name != "run.json gone":  # by its study a folder is found by its name where nothing else can be read
        assert len(told("transience").sections()) == 2


def test_a_damaged_verdict_is_told_and_the_run_stays():
    run = a_run(Path("runs/one"))
    (run.path / "verdict.json").write_text('{"study": 1}')
    text = told("one").text["e1"]
    assert "Verdict.json is damaged" in text and "claims hold" not in text and "model.width" in text


def test_a_damaged_sweep_is_one_row():
    made(Path("runs/s"), SWEEP)
    (Path("runs/s") / "sweep.json").write_bytes(b"{}")
    assert "Cannot be used: is damaged: sweep.json" in told("s").text["e1"]


def test_a_figure_that_is_no_picture_is_left_out():
    run = a_run(Path("runs/one"))
    (run.path / "figure.svg").write_bytes(b"<html><script>alert(1)</script></html>")
    found = told("one")
    assert not [tag for tag, _ in found.elements if tag in ("img", "script")]


def test_an_unfinished_run_says_how_far_it_is():
    Path("runs").mkdir()
    folders.play(Path("runs/part"), upto=3)
    found = told("part")
    assert "Unfinished: 512 of 1,024 sequences" in found.text["e1"] and "ebbtide resume part" in found.text["e1"]
    assert "no verdict" in found.text[""] and any(tag == "img" for tag, _ in found.elements), "curves so far are drawn"
    folders.play(Path("runs/begun"), upto=0)
    assert "Unfinished: 0 of 1,024 sequences" in told("begun").text["e1"]
    held = lock.acquire(Path("runs/part"))
    text = told("part").text["e1"]
    os.close(held)
    assert "Being trained: 512 of 1,024 sequences are saved" in text and "resume" not in text


def test_an_unfinished_sweep_says_what_is_missing_and_what_failed():
    folder = made(Path("runs/s"), SWEEP, members=2, leave=2)
    last = list(folder.specs)[-1]
    for _ in range(SWEEP.tries):
        folder.note(last, "failed", f"Traceback\nValueError: {EVIL}")
    text = told("s").text["e1"]
    assert "Unfinished: 4 of 8 members are trained (2 missing, 2 quarantined)" in text
    assert last in text and "ValueError: <script>" in text


def test_a_verdict_of_another_spec_does_not_count():
    run = a_run(Path("runs/one"))
    verdict = read_verdict(run)
    assert verdict is not None
    (run.path / "verdict.json").write_bytes(msgspec.json.encode(replace(verdict, digest="0" * 64)))
    assert "Not judged yet" in told("one").text["e1"]


def test_a_page_says_which_version_judged_and_whether_its_claims_are_todays(judged):
    run = a_run(Path("runs/one"))
    shutil.copytree(judged, "runs/exp")
    page = told("one", "exp")
    for name in ("e1", "e2"):
        assert f"version {version('ebbtide')}" in page.text[name] and "have changed" not in page.text[name]
    for path in (run.path, Path("runs/exp")):
        verdict = msgspec.json.decode((path / "verdict.json").read_bytes(), type=Verdict)
        old = replace(verdict, version="0.0.9", claims_digest="0" * 64)
        (path / "verdict.json").write_bytes(msgspec.json.encode(old))
    page = told("one", "exp")
    for name in ("e1", "e2"):
        assert "version 0.0.9; its claims have changed since" in page.text[name]


def test_a_verdict_of_before_there_were_digests_of_claims_says_nothing_of_them():
    run = a_run(Path("runs/one"))
    data = json.loads((run.path / "verdict.json").read_bytes())
    del data["version"], data["claims_digest"]
    for claim in data["claims"]:
        del claim["note"]
    (run.path / "verdict.json").write_text(json.dumps(data))
    text = told("one").text["e1"]
    assert "claims hold" in text and "Judged by" not in text


def test_a_verdict_of_an_earlier_description_does_not_count(judged):
    shutil.copytree(judged, "runs/exp")
    old = replace(verdict_of(judged), digest="0" * 64)
    (Path("runs/exp") / "verdict.json").write_bytes(msgspec.json.encode(old))
    text = told("exp").text["e1"]
    assert "Not judged since its description changed" in text and "claims hold" not in text


# --- safety


def check_closed(data: bytes) -> Page:
    """Nothing on the page can run or be fetched."""
    found = Page(data)
    for tag, attributes in found.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form", "image", "use", "audio"), tag
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "background")]
        if "src" in attributes:
            assert tag == "img" and attributes["src"].startswith("data:image/")
        if "href" in attributes:
            assert tag == "a" and re.match(r"#e\d+$|https://arxiv\.org/abs/[\d.]+$", attributes["href"])
    assert "url(" not in found.style and "@import" not in found.style and "<" not in found.style
    policies = [one["content"] for tag, one in found.elements if one.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "\x1b" not in data.decode() and "\u202e" not in data.decode()
    return found


def test_a_page_asks_nothing_of_the_network(judged):
    a_run(Path("runs/a"))
    shutil.copytree(judged, "runs/b")
    told("transience")
    check_closed(Path("page.html").read_bytes())


def test_texts_from_folders_are_only_text(judged):
    name = "evil-<script>alert(1)<"  # no / in a folder's name
    shown = "".join(c for c in EVIL if c.isprintable())  # a run whose label commands the terminal is refused
    label = {"study": shown, "preset": shown, "other": shown}
    run = a_run(Path("runs") / name, judged=False, label=label, identity={shown: EVIL, "jax": [EVIL]})
    verdict, _ = judge_run(TRANSIENCE, run)
    claims = [replace(c, claim=EVIL, statement=EVIL, source=EVIL, metric=EVIL) for c in verdict.claims]
    changes = dict.fromkeys(("study", "paper", "preset", "interval", "question", "scaled", "seeds", "command"), EVIL)
    evil = replace(verdict, **changes, claims=claims, summary={EVIL: [1.0]})
    (run.path / "verdict.json").write_bytes(msgspec.json.encode(evil))
    shutil.copytree(judged, "runs/b")
    evil = replace(verdict_of(judged), **changes, claims=claims)
    (Path("runs/b") / "verdict.json").write_bytes(msgspec.json.encode(evil))
    told(name, "b")
    found = check_closed(Path("page.html").read_bytes())
    assert found.text["e1"].count("<script>") > 10 and name in found.text["e1"] and "\\u202e" in found.text["e1"]


def test_a_picture_from_a_folder_stays_an_image():
    run = a_run(Path("runs/one"))
    (run.path / "figure.svg").write_bytes(b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    told("one")
    check_closed(Path("page.html").read_bytes())


# --- the same bytes


def test_a_page_is_a_function_of_its_folders(judged, tmp_path, monkeypatch):
    a_run(Path("runs/a"))
    folders.play(Path("runs/part"), upto=3)
    shutil.copytree(judged, "runs/b")
    words = ["a", "b", "part"]
    told(*words)
    first = Path("page.html").read_bytes()
    told(*words)
    assert Path("page.html").read_bytes() == first
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree("runs", "elsewhere/runs")
    monkeypatch.chdir("elsewhere")
    told(*[f"{Path.cwd()}/runs/{word}" for word in words])
    assert Path("page.html").read_bytes() == first, "neither the place nor how it is written matters"


def test_a_page_holds_no_date():
    pages = []
    for day in ("2026-01-01", "2031-12-31"):
        a_run(Path(day) / "runs/a", created=f"{day}T00:00:00+00:00")
        told(f"{day}/runs/a")
        pages.append(Path("page.html").read_bytes())
    assert pages[0] == pages[1]


def test_reading_changes_nothing(judged):
    run = a_run(Path("runs/a"))
    shutil.copytree(judged, "runs/b")
    before = contents(run.path), contents(Path("runs/b"))
    told("a", "b")
    assert (contents(run.path), contents(Path("runs/b"))) == before


# --- settings in words (more in test_settings.py)


def test_a_spec_of_another_version_has_no_command_but_its_fields():
    data = msgspec.to_builtins(SPEC)
    data["optimizer"]["later"] = 3
    assert run_command("transience", "quick", TRANSIENCE.bases["quick"].spec, data) == ""
    head = header()
    a_run(Path("runs/one"), judged=False, label={}, digest=head.digest)
    found = told("one").text["e1"]
    assert "from_json" in found and '"batch": 16' in found, "what belongs to no study is trained from its spec"


def test_a_judged_run_says_how_it_was_asked():
    run = a_run(Path("runs/one"))
    verdict = read_verdict(run)
    assert verdict is not None
    assert verdict.question == find_study("transience").question
    assert verdict.seeds == seeds(run.header.spec) and "paper: 12" in verdict.scaled
    old = {k: v for k, v in json.loads((run.path / "verdict.json").read_text()).items()}
    for name in ("question", "scaled", "seeds", "command"):
        del old[name]
    (run.path / "verdict.json").write_text(json.dumps(old))
    assert read_verdict(run) == replace(verdict, question="", scaled="", seeds="", command="")
    text = told("one").text["e1"]
    assert verdict.question in text and "paper: 12" in text and seeds(run.header.spec) in text, (
        "known without the verdict"
    )
    a_run(Path("runs/two"), label={"study": "transience", "preset": "quick"})
    quick = TRANSIENCE.bases["quick"].spec
    assert run_command("transience", "quick", quick, run.header.spec) in told("two").text["e1"]


def test_a_page_of_entries_without_anything_is_whole():
    assert Page(entries_page("t", [Entry("n", "run")])).sections() == ["e1"]


def test_an_unknown_word_is_an_input_error(one_line):
    with pytest.raises(InputError) as caught:
        gather(["nothing"], Path("runs"))
    one_line(caught, "report", "nothing")
