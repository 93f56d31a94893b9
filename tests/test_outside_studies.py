"""Studies in a file of the user, and in installed packages: run by the same commands, told of in one line."""

import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.papers.registry import find_study, list_studies, resolve_study
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.studies import outside
from ebbtide.studies.outside import study_in_file
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.user_code import names_a_file
from tiny import SPEC, contents, write_run

pytestmark = pytest.mark.usefixtures("quick_compile_everywhere")

EXAMPLE = Path(__file__).parents[1] / "examples/own_study.py"
OWN_RUN = """
import ebbtide as eb

SPEC = eb.Spec(
    task=eb.FewShot(), source=eb.Gaussian(classes=64, exemplars=2, dim=8, holdout_classes=8, holdout_exemplars=2),
    model=eb.Transformer(layers=1, width=16, heads=2), batch=16, sequences=64,
    schedule=eb.Schedule(evaluations=3, checkpoints=2), evaluators=("icl", "iwl"), evaluation_sequences=20,
)
CLAIM = eb.Claim("icl", "icl is a number", "an example", "icl_peak", 0.0, lambda evidence: evidence["icl_peak"])
OWN = eb.Experiment("mine", "Is it?", "", (CLAIM,), {"quick": eb.Preset(eb.SingleRun("quick"), 0.1, "tiny")})
STUDY = eb.Study("mine", "none", "Is it?", (OWN,), {"quick": eb.Base(SPEC, "tiny")})
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_runs_to_its_verdict_and_goes_on_where_it_was(here, capsys):
    """From another folder, whose name has a space; what was trained is found again."""
    (here / "my studies").mkdir()
    file = shutil.copy(EXAMPLE, here / "my studies")
    assert main(["run", str(file), "--check", "--jobs", "1"]) in (0, 1)
    text = capsys.readouterr().out
    assert "own-study/rates" in text and "the larger rate has the lower loss" in text
    (folder,) = (here / "runs").iterdir()
    verdict = msgspec.json.decode((folder / "verdict.json").read_bytes())
    assert verdict["study"] == "own-study/rates" and len(verdict["claims"]) == 2
    assert verdict["command"].startswith("ebbtide run own_study.py --experiment rates"), "the file, not the name in it"
    sweep = SweepFolder(folder).sweep
    assert sweep.study is None and sweep.spec().sequences == 3200, "its file says all, without the study"
    before = contents(folder, "tasks")
    assert main(["run", str(file), "--jobs", "1"]) == 0
    assert [one for one in (here / "runs").iterdir()] == [folder] and contents(folder, "tasks").keys() == before.keys()
    assert main(["report", str(folder), "--out", "page.html"]) == 0
    assert "the larger rate has the lower loss" in Path("page.html").read_text()


def test_a_run_says_which_file_it_was_trained_for_and_no_folder_has_a_file_imported(here, capsys):
    Path("mine.py").write_text(OWN_RUN)
    assert main(["run", "./mine.py", "--processes", "0"]) == 0
    (folder,) = (here / "runs").iterdir()
    label = msgspec.json.decode((folder / "run.json").read_bytes())["body"]["label"]
    assert label["study"] == "mine" and label["file"].startswith("mine.py ") and len(label["file"].split()[1]) == 16
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 2
    assert capsys.readouterr().err.startswith("ebbtide: study = 'mine': must be one of transience")
    assert main(["resume", str(folder), "--study", "mine.py"]) == 0
    Path("mine.py").write_text(OWN_RUN + "\n# changed\n")
    capsys.readouterr()
    assert main(["resume", str(folder), "--study", "mine.py"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"the run was trained for the study in {label['file']}" in told


def test_a_file_that_a_folder_names_is_never_imported(here, capsys):
    """Neither the label of a run nor the description of a sweep can have code run."""
    Path("evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n" + OWN_RUN)
    curve = [[0.5, 0.6, 0.7]]
    label = {"study": "./evil.py", "preset": "quick"}
    write_run(here / "run", {"icl": curve, "iwl": curve}, [[4, 3, 2]], replace(SPEC, members=1), label=label)
    Path("sweep.json").write_text('{"name": "evil", "study": "./evil.py", "axes": [{"seeds": 2}]}')
    for words in (["resume", "run"], ["sweep", "sweep.json", "--dry-run"]):
        assert main(words) == 2
        assert "study = './evil.py': must be one of transience" in capsys.readouterr().err
    for words in (["show", "run"], ["report", "run", "--out", "page.html"], ["ls", "."]):
        assert main(words) == 0
    assert not Path("ran").exists()
    assert main(["studies", "./evil.py"]) == 0 and Path("ran").exists(), "the file would have left a trace"


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        (None, "./mine.py", "no such file"),
        ("x = 1", "./mine.py", "must hold one study, or be FILE.py:NAME; it has none"),
        ("def f(:", "./mine.py", "line 1: SyntaxError"),
        ("x = 1\ny = z", "./mine.py", "line 2: NameError: name 'z' is not defined"),
        ("raise ValueError('a\\nb')", "./mine.py", r"line 1: ValueError: a\nb"),
        (OWN_RUN + "\nOTHER = STUDY\n", "./mine.py", "it has STUDY, OTHER"),
        (OWN_RUN, "./mine.py:STUDI", "has the studies STUDY (did you mean 'STUDY'?)"),
        (OWN_RUN.replace("(OWN,)", "()"), "./mine.py", "mine has no experiments"),
    ],
)
def test_a_file_that_holds_no_study_is_told_in_one_line(here, capsys, text, words, says):
    if text is not None:
        Path("mine.py").write_text(text)
    assert main(["run", words]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith(f"ebbtide: study = {words!r}: ") and says in told


def test_names_of_studies_and_of_files_are_told_apart():
    assert [names_a_file(name) for name in ("a.py", "./b c/a.py:X", "transience", "a.pyc", "py")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert study_in_file(str(EXAMPLE)).name == "own-study" and resolve_study(f"{EXAMPLE}:STUDY").file


def test_installed_packages_add_studies_and_replace_none(monkeypatch, capsys):
    other = TRANSIENCE._replace(name="theirs")
    monkeypatch.setattr(outside, "other", other, raising=False)
    monkeypatch.setattr(outside, "same", TRANSIENCE._replace(paper="another"), raising=False)
    points = [EntryPoint(name, f"ebbtide.studies.outside:{name}", outside.GROUP) for name in ("other", "same")]
    monkeypatch.setattr(outside, "entry_points", lambda group: points)
    assert find_study("theirs") is other and find_study("transience") is TRANSIENCE
    listed = {study.name: study.paper for study in list_studies()}
    assert next(iter(listed)) == "transience" and listed["transience"] == TRANSIENCE.paper and "theirs" in listed
    assert main(["studies"]) == 0 and "\ntheirs" in capsys.readouterr().out
    monkeypatch.setattr(outside, "other", 3)
    with pytest.raises(InputError, match=r"the entry point ebbtide\.studies\.outside:other is no study"):
        find_study("theirs")
