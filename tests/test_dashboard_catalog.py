"""The list of the dashboard: good and bad folders, runs that grow, what is read again and what is not."""

import json
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from dashboard_tools import CURVE, HERE, app_over, ask, copy, get, simple_run, whole_list
from ebbtide.dashboard import catalog as catalog_module
from ebbtide.dashboard import rows
from ebbtide.dashboard.catalog import Catalog
from ebbtide.dashboard.places import root_at
from ebbtide.dashboard.rows import Row, run_row
from ebbtide.runs.signed import SCHEMA, sign
from ebbtide.runs.writer import Writer
from ebbtide.studies.claim import Judgement
from ebbtide.studies.computation import Record
from ebbtide.studies.verdict import Verdict
from ebbtide.sweeps.folder import Failure
from ebbtide.sweeps.sweep import Sweep
from effort import examples
from folders import HEAD, commit, play
from sweep_tools import BASE, LR, WIDTH, made
from tiny import contents, write_run

CLAIM = Judgement("peak", "ICL emerges", "Fig. 2", "peak of icl", 0.5, 0.7, 0.6, 0.8, 2, 2, [0.7, 0.7], "holds")
COUNT = examples(quick=6, thorough=400)


def verdict(study: str, digest: str) -> bytes:
    """A verdict.json of three claims."""
    claims = [msgspec.structs.replace(CLAIM, verdict=word) for word in ("holds", "holds", "fails")]
    return msgspec.json.encode(Verdict(study, "A paper", "quick", digest, 1024, "95 %", claims, {}))


def make_root(root: Path) -> None:
    """A root with every kind of folder, good and bad."""
    run = write_run(root / "good", {"icl": [CURVE] * 2, "iwl": [CURVE / 2] * 2}, [[4, 3, 2, 1, 1]] * 2)
    (root / "good/verdict.json").write_bytes(verdict("transience", run.header.digest))
    bad = np.stack([CURVE, CURVE])
    bad[1, -1] = np.nan
    write_run(root / "lost-one", {"icl": bad, "iwl": bad}, [[4, 3, 2, 1, 1]] * 2)
    write_run(root / "lost-all", {"icl": bad * np.nan}, [[4, 3, 2, 1, 1]] * 2)
    play(root / "half", upto=2)
    made(root / "sweep", Sweep(name="try", base=BASE, axes=(WIDTH, LR)), members=1, leave=1)
    record = Record("toy_laws/law", "quick*", "ab", [], {"seeds": 24}, "2026-01-01")
    (root / "computed").mkdir()
    (root / "computed/computed.json").write_bytes(msgspec.json.encode(record))
    (root / "computed/verdict.json").write_bytes(verdict("toy_laws", "ab"))
    (root / "foreign").mkdir()
    (root / "foreign/notes.txt").write_text("x")
    (root / "empty").mkdir()
    (root / "begun").mkdir()
    (root / "begun/.tmp-run.json").write_text("{")
    copy(root / "good", root / "cut")
    text = (root / "cut/run.json").read_bytes()
    (root / "cut/run.json").write_bytes(text[: len(text) // 2])
    copy(root / "good", root / "changed")
    (segment,) = (root / "changed/metrics").iterdir()
    segment.write_bytes(segment.read_bytes()[:-1] + b"\1")
    (root / "file").write_text("not a folder")
    (root / ".hidden").mkdir()
    (root / "line\nbreak").mkdir()
    (root / "\u202eturned").mkdir()
    os.mkdir(os.fsencode(root) + b"/not-utf8-\xff")  # noqa: PTH102 - a Path cannot hold it


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    make_root(folder)
    return folder


def listed(folder: Path) -> dict[str, Row]:
    """The rows of a root by name."""
    return {row.name: row for row in Catalog(root_at(str(folder))).read_all()}


def test_a_mixed_root_is_listed_whole_with_a_reason_for_what_is_damaged(root):
    found = listed(root)
    kinds = {name: (row.kind, row.status) for name, row in found.items()}
    assert kinds == {
        "good": ("run", "finished"),
        "lost-one": ("run", "finished"),
        "lost-all": ("run", "diverged"),
        "half": ("run", "interrupted"),
        "sweep": ("sweep", "interrupted"),
        "computed": ("computation", "finished"),
        "foreign": ("damaged", "foreign"),
        "empty": ("damaged", "not begun"),
        "begun": ("damaged", "not begun"),
        "cut": ("damaged", "damaged"),
        "changed": ("damaged", "damaged"),
        "line\\nbreak": ("damaged", "damaged"),
        "\\u202eturned": ("damaged", "damaged"),
        "not-utf8-\\udcff": ("damaged", "damaged"),
    }
    assert "run.json is damaged" in found["cut"].problem and "SHA-256" in found["changed"].problem
    assert all(row.problem for row in found.values() if row.kind == "damaged")
    assert "cannot be printed" in found["line\\nbreak"].problem


def test_a_run_is_listed_with_the_numbers_of_ebbtide_ls(root):
    found = listed(root)
    good = found["good"]
    assert (good.study, good.preset, good.members, good.sequences, good.total) == ("transience", "quick", 2, 1024, 1024)
    assert (good.icl, good.iwl, good.loss) == (0.9, 0.45, 1.0) and good.status_words == "complete"
    assert good.verdict == rows.Tally(holds=2, fails=1, undecided=0)
    assert good.created == "2026-01-01T00:00:00+00:00" and abs(good.changed - time.time()) < 3600
    assert found["lost-one"].status_words == "1 of 2 diverged" and found["lost-one"].icl == 0.9
    assert found["lost-all"].status_words == "diverged" and found["lost-all"].icl is None
    half = found["half"]
    assert (half.sequences, half.total, half.eta, half.rate) == (256, 1024, None, 512.0)


def test_a_sweep_is_one_row_that_adds_up_its_tasks(root):
    found = listed(root)["sweep"]
    assert found.tasks == rows.Tasks(done=3, running=0, waiting=1, quarantined=0)
    assert found.members == 4 and found.total == 48_000 and found.sequences == 36_000
    assert found.status_words == "3 done, 1 waiting" and found.icl is not None


def test_a_task_that_failed_too_often_fails_the_sweep(root, tmp_path):
    folder = copy(root / "sweep", tmp_path / "sweep")
    names = {task["name"] for plan in (folder / "plans").iterdir() for task in plan_tasks(plan)}
    (waiting,) = names - {one.name for one in (folder / "runs").iterdir()}
    (folder / "failures" / waiting).mkdir(parents=True)
    for i in range(3):
        assert listed(tmp_path)["sweep"].status == "interrupted"
        record = Failure(SCHEMA, waiting, "error", "no", 0)
        (folder / "failures" / waiting / f"000{i}.json").write_bytes(sign(record))
    assert listed(tmp_path)["sweep"].status == "failed"


def plan_tasks(plan: Path) -> list[dict[str, Any]]:
    """The tasks in a plan."""
    return [task for group in json.loads(plan.read_bytes())["body"]["groups"] for task in group["tasks"]]


def test_a_verdict_older_than_the_description_of_its_sweep_is_not_counted(root, tmp_path):
    folder = copy(root / "sweep", tmp_path / "sweep")
    (folder / "verdict.json").write_bytes(verdict("transience/try", "ab"))
    assert listed(tmp_path)["sweep"].verdict == rows.Tally(2, 1, 0)
    at = (folder / "verdict.json").stat().st_mtime + 10
    os.utime(folder / "sweep.json", (at, at))
    row = listed(tmp_path)["sweep"]
    assert row.verdict is None and "older" in row.problem


def test_a_run_that_grows_is_read_again_at_its_commits_alone(tmp_path, monkeypatch):
    reads: list[str] = []
    monkeypatch.setattr(catalog_module, "run_row", lambda name, path: reads.append(name) or run_row(name, path))
    monkeypatch.setattr(catalog_module, "SETTLED", -1.0)  # nothing here changes twice within a tick
    simple_run(tmp_path / "still")
    catalog = Catalog(root_at(str(tmp_path)))
    writer = Writer(tmp_path / "grows", HEAD)
    try:
        seen = []
        for i in range(4):
            commit(writer, i)
            for _ in range(2):
                (row,) = [one for one in catalog.read_all() if one.name == "grows"]
                seen.append((row.status, row.sequences, row.icl))
    finally:
        writer.close()
    states = [("running", 0, 0.0), ("running", 256, 0.256), ("running", 512, 0.512), ("finished", 768, 0.768)]
    assert seen == [one for one in states for _ in range(2)]
    assert reads.count("still") == 1 and reads.count("grows") == 4


def test_the_end_of_a_writer_without_a_commit_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog_module, "SETTLED", -1.0)
    catalog = Catalog(root_at(str(tmp_path)))
    writer = Writer(tmp_path / "run", HEAD)
    commit(writer, 0)
    commit(writer, 1)
    (row,) = catalog.read_all()
    assert (row.status, row.rate, row.eta) == ("running", 512.0, 3.0)
    writer.close()
    assert [one.status for one in catalog.read_all()] == ["interrupted"]
    writer = Writer(tmp_path / "run", HEAD)
    assert [one.status for one in catalog.read_all()] == ["running"]
    writer.close()


def test_a_change_within_the_same_tick_of_the_clock_is_not_missed(tmp_path, monkeypatch):
    """Two changes may have the same time: what changed a moment ago is read again."""
    catalog = Catalog(root_at(str(tmp_path)))
    simple_run(tmp_path / "run")
    monkeypatch.setattr(catalog_module, "stamp_of", lambda path, *parts: ((1, time.time_ns()),))
    catalog.read_all()
    run = rows.RunFolder(tmp_path / "run")
    (tmp_path / "run/verdict.json").write_bytes(verdict("transience", run.header.digest))
    assert [row.verdict for row in catalog.read_all()] == [rows.Tally(2, 1, 0)]


def test_folders_that_appear_and_vanish_are_followed(tmp_path):
    catalog = Catalog(root_at(str(tmp_path / "later"), missing=True))
    assert catalog.read_all() == []
    simple_run(tmp_path / "later/one")
    assert [row.name for row in catalog.read_all()] == ["one"]
    (tmp_path / "later/one").rename(tmp_path / "later/two")
    assert [row.name for row in catalog.read_all()] == ["two"]
    shutil.rmtree(tmp_path / "later/two")
    assert catalog.read_all() == []


def test_a_folder_that_vanishes_while_it_is_read_is_no_fault(tmp_path, monkeypatch):
    simple_run(tmp_path / "run")

    def gone(name: str, path: Path) -> Row:
        shutil.rmtree(path)
        return run_row(name, path)

    monkeypatch.setattr(catalog_module, "run_row", gone)
    catalog = Catalog(root_at(str(tmp_path)))
    assert [row.kind for row in catalog.read_all()] == ["damaged"]
    assert catalog.read_all() == []


def test_a_fault_of_ours_in_one_folder_leaves_the_others_their_rows(tmp_path, monkeypatch):
    simple_run(tmp_path / "a")
    simple_run(tmp_path / "b")

    def fault(name: str, path: Path) -> Row:
        if name == "a":
            raise TypeError("a fault\nof two lines")
        return run_row(name, path)

    monkeypatch.setattr(catalog_module, "run_row", fault)
    found = listed(tmp_path)
    assert found["a"].problem == "cannot be read: TypeError: a fault\\nof two lines" and found["b"].kind == "run"


def test_a_read_only_root_is_shown_and_nothing_is_ever_written(root, tmp_path):
    folder = copy(root, tmp_path / "root")
    before = contents(folder)
    names = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in [folder, *folder.rglob("*")]:
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    try:
        app = app_over(folder)
        assert len(whole_list(app).json()["rows"]) == len(listed(root))
        for address in ("/api/run", "/api/curves", "/report"):
            assert get(app, address, name="good").status == 200
        assert get(app, "/api/sweep", name="sweep").status == 200
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == names
        assert contents(folder) == before
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(stat.S_IRWXU)


def test_a_large_root_is_answered_before_all_of_it_is_read(tmp_path, monkeypatch):
    for i in range(4):
        simple_run(tmp_path / f"run{i}")
    slow, seen = threading.Event(), []

    def wait(name: str, path: Path) -> Row:
        seen.append(name)
        assert len(seen) < 3 or slow.wait(60)
        return run_row(name, path)

    monkeypatch.setattr(catalog_module, "run_row", wait)
    catalog = Catalog(root_at(str(tmp_path)))
    tag, body = catalog.listing(wait=0.5)
    first = msgspec.json.decode(body)
    assert first["reading"]["of"] == 4 and first["reading"]["done"] == len(first["rows"]) <= 2
    assert not catalog.is_read()
    slow.set()
    until = time.monotonic() + 60
    while not catalog.is_read() and time.monotonic() < until:
        later, body = catalog.listing(wait=1.0)
    later, body = catalog.listing()
    assert later != tag and msgspec.json.decode(body)["reading"] == {"done": 4, "of": 4}


def test_the_list_is_sent_again_only_when_it_changed(root):
    app = app_over(root)
    found = whole_list(app)
    again = ask(app, "/api/runs", headers={**HERE, "if-none-match": f'W/"x", {found.headers["etag"]}'})
    assert again.status == 304 and again.body == b""
    assert ask(app, "/api/runs", headers={**HERE, "if-none-match": '"x"'}).status == 200


TEXTS = ("", "\x1b[2J\x1b[31mx", "a\nb\r\tc", "\u202eabc\u200b", "../../outside", "x\0y", "[" * 500, "x" * 3000)
TEXTS += ("<script>alert(1)</script>", "9" * 400)
NUMBERS = (0, -1, 2**31, 2**32, 2**64, 10**400, 0.5, 1e308, 1e-320, True, None, [], {}, "1")
SPOILT = ("run.json", "verdict.json", "sweep.json", "computed.json", "plans/*.json", "checkpoints/*/manifest.json")


def spoil(rng: random.Random, data: Any) -> Any:
    """Decoded JSON with one place changed, somewhere in it."""
    if isinstance(data, dict) and data and rng.random() < 0.9:
        key = rng.choice(list(data))
        return {**data, key: spoil(rng, data[key])}
    if isinstance(data, list) and data and rng.random() < 0.9:
        i = rng.randrange(len(data))
        return [*data[:i], spoil(rng, data[i]), *data[i + 1 :]]
    return rng.choice([*TEXTS, *NUMBERS, data, [data] * 3, {"type": data}])


@pytest.mark.parametrize("name", ["good", "sweep", "computed", "half"])
def test_any_signed_content_is_listed_and_told_in_printable_lines(name, root, tmp_path):
    """Every address answers about it: with data, or with one line on what is wrong."""
    for seed in range(COUNT):
        rng = random.Random(f"{name} {seed}")
        folder = copy(root / name, tmp_path / f"{seed}" / "folder")
        files = [file for pattern in SPOILT for file in folder.glob(pattern)]
        files += [file for pattern in SPOILT for file in folder.glob(f"runs/*/{pattern}")]
        file = rng.choice(sorted(files))
        data = json.loads(file.read_bytes())
        signed = isinstance(data, dict) and set(data) == {"body", "sha256"}
        text = json.dumps(spoil(rng, data["body"] if signed else data)).encode()
        text = msgspec.json.format(text, indent=-1)
        file.write_bytes(sign(msgspec.Raw(text)) if signed else text)
        before = contents(tmp_path / f"{seed}")
        app = app_over(tmp_path / f"{seed}")
        (row,) = whole_list(app).json()["rows"]
        assert all(value.isprintable() for value in row.values() if isinstance(value, str)), (seed, row)
        for address in ("/api/run", "/api/curves", "/api/sweep", "/report"):
            found = get(app, address, name="folder")
            where = f"{seed} {file.relative_to(folder)} {address}"
            assert found.status in (200, 400, 404, 409), (where, found.body[:300])
            if found.status != 200:
                assert found.json()["error"].isprintable() and set(found.json()) == {"error"}, where
        assert contents(tmp_path / f"{seed}") == before


def test_listing_and_curves_do_not_import_jax(root):
    """The first page is there before JAX is."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ebbtide.dashboard.catalog import Catalog\n"
        "from ebbtide.dashboard.places import root_at\n"
        "from ebbtide.dashboard.arrays import Arrays\n"
        "from ebbtide.dashboard.curves import curves_of\n"
        "import ebbtide.dashboard.app\n"
        f"root = root_at({str(root)!r})\n"
        "print(len(Catalog(root).read_all()), curves_of(Arrays(), root.find('good'), [])['members'])\n"
        "print(sorted({'jax', 'matplotlib', 'optax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{len(listed(root))} 2", "[]"]


def test_a_newest_segment_too_large_for_the_list_leaves_the_run_its_row(root, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "LARGEST_NEWEST", 10)
    row = run_row("good", root / "good")
    assert row.icl is None and "not read for the list" in row.problem and row.status == "finished"
