"""Pages on papers show the verdicts that were written by the runs, and these are the ones that were registered."""

import importlib.util
from pathlib import Path

import pytest

from ebbtide.papers.registry import find_study
from ebbtide.studies.registration import read_registration

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "verdict_tables.py"
spec = importlib.util.spec_from_file_location("verdict_tables", SCRIPT)
assert spec is not None and spec.loader is not None
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)

PAGES = sorted(tables.PAPERS.glob("*.md"))
NAMES = sorted(path.stem for path in tables.VERDICTS.glob("*.json"))
ONCE = [name for name in NAMES if not name.endswith(".again")]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_shows_its_verdicts_as_they_were_written(page):
    text = page.read_text()
    assert tables.written(text) == text, f"python {SCRIPT.relative_to(ROOT)}"


def test_every_published_verdict_stands_on_one_page():
    shown = [name for page in PAGES for name in tables.TABLE.findall(page.read_text())]
    assert sorted(shown) == ONCE


def test_a_word_that_another_rounding_changes_is_undecided():
    claim = tables.verdict_named("toy-laws-quick").claims[0]
    assert claim.verdict == "holds"
    assert tables.row(claim, "holds") == tables.row(claim) and "| **holds** |" in tables.row(claim)
    assert "| **undecided** (holds here, fails by another rounding) |" in tables.row(claim, "fails")


@pytest.mark.parametrize("name", NAMES)
def test_a_published_verdict_is_one_that_was_registered(name):
    verdict = tables.verdict_named(name)
    assert tables.name_of(verdict) == name.removesuffix(".again") and verdict.registered.startswith("as registered on ")
    study = find_study(verdict.study.split("/")[0])
    found = read_registration(study.registrations_folder(), verdict.study, verdict.preset)
    assert found is not None
    registration, sha256 = found
    assert f"SHA-256 {sha256[:16]}" in verdict.registered and registration.work == verdict.digest
    assert [(one.name, one.threshold, one.share) for one in registration.claims] == [
        (one.claim, one.threshold, one.share) for one in verdict.claims
    ]
