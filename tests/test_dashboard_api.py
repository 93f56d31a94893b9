"""What the dashboard answers about runs, sweeps, probes and reports: the numbers of the folder, all bounded."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from dashboard_tools import CURVE, HERE, app_over, ask, copy, get, simple_run
from ebbtide.dashboard import arrays as arrays_module
from ebbtide.dashboard import curves as curves_module
from ebbtide.dashboard import probes as probes_module
from ebbtide.dashboard import sweeps as sweeps_module
from ebbtide.dashboard.answer_cache import AnswerCache
from ebbtide.dashboard.arrays import Arrays
from ebbtide.dashboard.curves import numbers
from ebbtide.dashboard.guard import Guard
from ebbtide.dashboard.sampling import keep_extremes
from ebbtide.dashboard.spread import spread
from ebbtide.evaluation.metrics import TABLE
from ebbtide.evaluation.statistics import median_interval
from ebbtide.evaluation.units import UNITS, unit_of
from ebbtide.report.probe_figure import rank_heads
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.signed import DamagedError
from ebbtide.runs.writer import Writer
from ebbtide.sweeps.results import Results
from ebbtide.sweeps.sweep import Sweep
from folders import HEAD, commit
from sweep_tools import BASE, LR, WIDTH, made
from tiny import SPEC, write_run


def rise_and_fall(members: int) -> np.ndarray:
    """ICL of members that peaks at the third evaluation and ends below half of its height."""
    return np.array([[0.5, 0.7, 0.9, 0.9, 0.9, 0.55, 0.5, 0.5, 0.5]] * members) - 0.01 * np.arange(members)[:, None]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    icl = rise_and_fall(8)
    iwl = np.linspace(0, 0.8, 9) + 0 * icl
    loss = np.linspace(4, 1, 9) + 0 * icl
    loss[:, 0] = np.nan
    write_run(folder / "run", {"icl": icl, "iwl": iwl}, loss)
    lost = icl.copy()
    lost[3, 5:] = np.nan
    write_run(folder / "lost", {"icl": lost, "iwl": iwl}, loss)
    write_run(folder / "many", {"icl": np.random.default_rng(0).random((60, 4))}, np.ones((60, 4)))
    made(folder / "sweep", Sweep(name="try", base=BASE, axes=(WIDTH, LR)), members=1, leave=1)
    return folder


@pytest.fixture(scope="module")
def app(root) -> Guard:
    return app_over(root)


def test_curves_are_those_of_the_run(app, root):
    found, own = get(app, "/api/curves", name="run").json(), RunFolder(root / "run").metrics()
    assert found["sequences"] == own["sequences"].tolist() and found["steps"] == own["steps"].tolist()
    assert list(found["curves"]) == ["icl", "iwl", "train_loss"] and found["members"] == 8
    assert found["kept"] == "every evaluation" and found["diverged"] == [] and found["finished"]
    icl = found["curves"]["icl"]
    assert np.allclose(icl["members"], own["icl"], rtol=1e-6)
    low, high = median_interval(own["icl"])
    assert np.allclose(icl["low"], low) and np.allclose(icl["high"], high)
    assert np.allclose(icl["median"], np.median(own["icl"], 0)) and np.allclose(icl["mean"], own["icl"].mean(0))
    assert icl["n"] == [8] * 9 and icl["bands"] is None
    assert (icl["chance"], icl["unit"], icl["metric"]) == (0.5, "accuracy", "in_context_accuracy")
    loss = found["curves"]["train_loss"]
    assert loss["members"][0][0] is loss["mean"][0] is None and loss["n"] == [0] + [8] * 8
    assert loss["chance"] is None and loss["unit"] == "loss"


def test_any_metric_of_an_evaluator_can_be_asked_for_and_no_other(app, root):
    found = get(app, "/api/curves", name="run", curve=["iwl/loss", "icl/accuracy"]).json()
    own = RunFolder(root / "run").metrics()
    assert list(found["curves"]) == ["iwl/loss", "icl/accuracy"]
    assert np.allclose(found["curves"]["iwl/loss"]["members"], own["iwl/loss"], rtol=1e-6)
    assert found["curves"]["icl/accuracy"]["chance"] is None  # known of the headline metric alone
    for name in ("steps", "icl/error", "ic", "sequences", "icl/", "", "\x1b[2J"):
        told = get(app, "/api/curves", name="run", curve=name)
        assert told.status == 400 and told.json()["error"].isprintable()
    assert "did you mean 'icl'" in get(app, "/api/curves", name="run", curve="ic").json()["error"]


def test_few_members_have_no_interval_of_their_median(tmp_path):
    simple_run(tmp_path / "run", members=5)
    icl = get(app_over(tmp_path), "/api/curves", name="run").json()["curves"]["icl"]
    assert icl["low"] == icl["high"] == [None] * 5 and icl["median"][0] == 0.2


def test_peak_half_fall_and_crossover_are_marked_for_each_member(app):
    marks = get(app, "/api/curves", name="run").json()["marks"]
    assert marks["peak"] == [384.0] * 8 and marks["median"]["peak"] == 384.0
    assert len(marks["half_fall"]) == 8 and all(x and x > 384 for x in marks["half_fall"])
    assert marks["words"][0] == "ICL peaks at 384 sequences (median of 8 of 8 members)"
    assert all(x and x > 384 for x in marks["crossover"]) and len(marks["words"]) == 3


def test_members_that_diverged_are_named_and_left_out_of_means(app):
    found = get(app, "/api/curves", name="lost").json()
    assert found["diverged"] == [3] and "member 3 at 640 sequences" in found["diverged_words"]
    icl = found["curves"]["icl"]
    assert icl["n"] == [7] * 9 and icl["members"][3][5:] == [None] * 4
    rest = np.delete(rise_and_fall(8), 3, 0)
    assert np.allclose(icl["mean"], rest.mean(0)) and icl["members"][3][0] == pytest.approx(0.47)


def test_beyond_fifty_members_bands_are_sent_and_their_number(app, root):
    found = get(app, "/api/curves", name="many", curve="icl").json()
    icl, own = found["curves"]["icl"], RunFolder(root / "many").metrics()["icl"]
    assert icl["members"] is None and found["members"] == 60 and icl["n"] == [60] * 4
    for name, share in {"low90": 0.05, "low50": 0.25, "high50": 0.75, "high90": 0.95}.items():
        assert np.allclose(icl["bands"][name], np.quantile(own, share, axis=0), rtol=1e-6)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory) -> Path:
    """A run of 5,001 evaluations; one member has a peak and a dip of one evaluation each."""
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(1)
    icl = 0.5 + 0.1 * rng.random((4, 5001))
    icl[2, 3333], icl[2, 1234] = 0.95, 0.05
    iwl = 0.3 + 0.3 * rng.random((4, 5001))
    icl[1, 777], icl[0, 700:800] = 0.57, 0.9  # a peak that others hide
    spec = replace(SPEC, sequences=16 * 5000)
    write_run(folder / "long", {"icl": icl, "iwl": iwl}, np.ones((4, 5001)), spec)
    return folder


def test_a_long_run_keeps_the_extremes_of_every_member_and_says_what_is_left_out(long_run):
    own = RunFolder(long_run / "long").metrics()
    found = get(app_over(long_run), "/api/curves", name="long").json()
    shown = len(found["sequences"])
    assert 500 < shown < 2500 and found["kept"] == f"{shown:,} of 5,001 evaluations: minima and maxima are kept"
    for name in ("icl", "iwl"):
        members = np.array(found["curves"][name]["members"])
        assert np.allclose(members.max(1), own[name].max(1), rtol=1e-6)
        assert np.allclose(members.min(1), own[name].min(1), rtol=1e-6)
    at = np.searchsorted(own["sequences"], found["sequences"])
    for name in ("icl", "iwl"):  # of one evaluation, so that one curve over another is true
        assert np.allclose(found["curves"][name]["members"], own[name][:, at], rtol=1e-6)
    assert {3333, 1234, 0, 5000} <= set(at.tolist())


def test_a_part_of_a_long_run_is_sent_whole(long_run):
    found = get(app_over(long_run), "/api/curves", name="long", **{"from": 16 * 700, "to": 16 * 800}).json()
    assert found["sequences"] == [16 * i for i in range(700, 801)] and found["kept"] == "every evaluation"
    empty = get(app_over(long_run), "/api/curves", name="long", **{"from": 10**9}).json()
    assert empty["sequences"] == [] and empty["curves"]["icl"]["mean"] == []


def test_of_each_stretch_lowest_highest_and_farthest_from_the_mean_are_kept():
    curve = np.zeros((2, 10_000))
    curve[0] = np.linspace(1, 2, 10_000)
    curve[1, 5555] = 0.5  # between the other member and 0
    curve[1, 100:200] = np.nan
    kept = set(keep_extremes([curve], most=100).tolist())
    assert 5555 in kept and {0, 9999} <= kept and len(kept) < 200
    assert keep_extremes([np.full((2, 10_000), np.nan)], most=100).tolist() == [0, 9999]
    assert keep_extremes([curve[:, :50]], most=100).tolist() == list(range(50))


def test_spread_counts_the_finite_members_at_each_evaluation():
    curve = np.array([[1.0, np.nan, np.inf], [2.0, 4.0, np.nan], [6.0, 5.0, np.nan]])
    found = spread(curve)
    assert found["n"].tolist() == [3, 2, 0]
    assert found["mean"][:2].tolist() == [3.0, 4.5] and found["median"][:2].tolist() == [2.0, 4.5]
    assert np.isnan(found["mean"][2]) and np.isnan(found["low"]).all()


def test_numbers_have_seven_digits_and_null_where_there_is_none():
    values = np.array([0.1, 1 / 3, 0, -12345.678901, np.nan, np.inf, 1e-320, 1e300, 1e-9], np.float64)
    assert numbers(values) == [0.1, 0.3333333, 0.0, -12345.68, None, None, pytest.approx(1e-320), 1e300, 1e-9]
    assert numbers(np.array([0.1, 0.7], np.float32)) == [0.1, 0.7]


def test_curves_of_a_run_that_trains_are_sent_again_at_its_commits_alone(tmp_path, monkeypatch):
    loads: list[str] = []
    load = RunFolder.load_segment
    monkeypatch.setattr(RunFolder, "load_segment", lambda run, one: loads.append(one.file.path) or load(run, one))
    app, tag = app_over(tmp_path), "-"
    writer = Writer(tmp_path / "run", HEAD)
    assert "no committed evaluation" in get(app, "/api/curves", name="run").json()["error"]
    try:
        for i in range(4):
            commit(writer, i)
            found = ask(app, "/api/curves", "name=run", headers={**HERE, "if-none-match": tag})
            assert found.status == 200 and len(found.json()["sequences"]) == i + 1
            assert found.json()["finished"] == (i == 3)
            tag = found.headers["etag"]
            assert ask(app, "/api/curves", "name=run", headers={**HERE, "if-none-match": tag}).status == 304
    finally:
        writer.close()
    assert len(loads) == len(set(loads)) == 4  # each segment once


def test_another_run_in_the_same_folder_is_not_shown_with_the_old_numbers(tmp_path):
    arrays = Arrays()
    write_run(tmp_path / "run", {"icl": [CURVE]}, [[1, 1, 1, 1, 1]])
    first = arrays.of(tmp_path / "run").curves["icl"][0, -1]
    (tmp_path / "run").rename(tmp_path / "old")
    write_run(tmp_path / "run", {"icl": [CURVE / 2]}, [[1, 1, 1, 1, 1]])
    assert arrays.of(tmp_path / "run").curves["icl"][0, -1] == pytest.approx(first / 2)


def test_evaluations_in_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays_module, "KEPT_BYTES", 1)
    arrays = Arrays()
    for name in ("a", "b"):
        simple_run(tmp_path / name)
        arrays.of(tmp_path / name)
    assert [path.name for path in arrays._kept] == ["b"]
    monkeypatch.setattr(arrays_module, "LARGEST_RUN", 10)
    assert "use ebbtide export" in get(app_over(tmp_path), "/api/curves", name="a").json()["error"]


def test_too_many_curves_are_refused_and_many_have_fewer_evaluations(long_run, monkeypatch):
    app = app_over(long_run)
    names = [f"{one}/{metric}" for one in ("icl", "iwl") for metric in TABLE if metric != "query_loss"]
    monkeypatch.setattr(curves_module, "MOST_CURVES", 3)
    assert "at most 3" in get(app, "/api/curves", name="long", curve=names[:4]).json()["error"]
    monkeypatch.setattr(curves_module, "MOST_NUMBERS", 4 * 3 * 300)
    found = get(app, "/api/curves", name="long", curve=["icl", "iwl", "train_loss"]).json()
    assert len(found["sequences"]) < 600 and "minima and maxima" in found["kept"]


def test_answers_that_took_long_are_kept_up_to_a_bound_and_go_when_not_used_for_longest():
    cache, made = AnswerCache(10), []

    def ask(key: str) -> bytes:
        return cache.get_or_make(key, lambda: (made.append(key), b"12345")[1])

    assert [ask(key) for key in "abacab"] == [b"12345"] * 6
    assert "".join(made) == "abcb" and cache.size == 10
    cache.get_or_make("large", lambda: b"12345678901")
    assert cache.size <= 10


def test_an_answer_that_is_too_large_is_refused(app, monkeypatch):
    monkeypatch.setattr("ebbtide.dashboard.answers.LARGEST_ANSWER", 100)
    found = get(app, "/api/curves", name="run")
    assert found.status == 413 and "at most 100" in found.json()["error"]


def test_a_run_in_detail_says_what_its_report_says(app, root):
    found = get(app, "/api/run", name="run").json()
    assert (found["kind"], found["status"], found["members"], found["sequences"]) == ("run", "finished", 8, 1024)
    assert found["label"] == {"study": "transience", "preset": "quick"} and len(found["digest"]) == 64
    assert found["evaluators"][0] == {
        "name": "icl",
        "headline": "in_context_accuracy",
        "chance": 0.5,
        "unit": "accuracy",
    }
    assert ["Seeds", found["facts"][1][1]] in found["facts"] or any(one[0] == "Seeds" for one in found["facts"])
    assert found["settings_columns"][0] == "field" and ["batch", "16", "128"] in [one[:3] for one in found["settings"]]
    assert found["checkpoints"] == [1024] and found["question"] and found["paper"]
    assert found["commands"][0]["what"] == "reproduce" and found["command"].startswith("ebbtide run transience")
    assert f"ebbtide fsck {root / 'run'}" in [one["command"] for one in found["commands"]]
    assert found["verdict"] is None and "Not judged" in found["problem"]


def test_an_interrupted_run_shows_the_command_that_continues_it(tmp_path):
    writer = Writer(tmp_path / "a run", HEAD)
    commit(writer, 0)
    commit(writer, 1)
    app = app_over(tmp_path)
    running = get(app, "/api/run", name="a run").json()
    assert running["status"] == "running" and running["rate"] == 512.0 and running["eta"] == 3.0
    assert not any("resume" in one["command"] for one in running["commands"])
    writer.close()
    found = get(app, "/api/run", name="a run").json()
    assert found["status"] == "interrupted" and found["command"] == f"ebbtide resume '{tmp_path / 'a run'}'"


def test_a_damaged_folder_is_told_as_such_by_every_address(tmp_path):
    simple_run(tmp_path / "bad")
    (tmp_path / "bad/run.json").write_text("{")
    app = app_over(tmp_path)
    assert get(app, "/api/run", name="bad").json()["kind"] == "damaged"
    assert get(app, "/api/curves", name="bad").status == 400
    assert "run.json is damaged" in get(app, "/api/curves", name="bad").json()["error"]
    report = get(app, "/report", name="bad")
    assert report.status == 200 and b"Cannot be used" in report.body
    (tmp_path / "nothing").mkdir()
    assert get(app, "/api/sweep", name="nothing").status == 400


def test_a_sweep_has_the_rows_of_its_results(app, root):
    found, own = get(app, "/api/sweep", name="sweep").json(), Results(root / "sweep").table()
    assert found["axes"] == {"model.width": [8, 16], "optimizer.lr": [1e-3, 3e-3]} and found["members"] == 4
    assert found["states"] == {"finished": 3, "missing": 1} and found["shown"] == 4
    assert "icl_peak" in found["scalars"] and "diverged_sequences" not in found["scalars"]
    for row, one in zip(found["rows"], own, strict=True):
        assert row["state"] == one["state"] and row["scalars"]["icl_peak"] == one["icl_peak"]
        assert (row["run"] is not None) == (row["state"] == "finished")
        if row["run"]:
            assert get(app, "/api/curves", name=row["run"]).json()["name"] == row["run"]
            assert get(app, "/api/run", name=row["run"]).json()["kind"] == "run"
    detail = get(app, "/api/run", name="sweep").json()
    assert detail["kind"] == "sweep" and "Unfinished: 3 of 4" in detail["problem"]


def test_the_rows_of_a_sweep_are_bounded_and_it_says_so(app, root, monkeypatch, tmp_path):
    monkeypatch.setattr(sweeps_module, "MOST_ROWS", 2)
    copy(root / "sweep", tmp_path / "sweep")
    found = get(app_over(tmp_path), "/api/sweep", name="sweep").json()
    assert len(found["rows"]) == found["shown"] == 2 and found["members"] == 4


def test_the_report_is_the_page_of_ebbtide_report(app, monkeypatch):
    monkeypatch.setattr("ebbtide.dashboard.catalog.SETTLED", -1.0)  # the folder is a moment old
    found = get(app, "/report", name="run")
    assert found.headers["content-type"].startswith("text/html") and b"ebbtide report" in found.body
    assert b"<script" not in found.body
    assert ask(app, "/report", "name=run", headers={**HERE, "if-none-match": found.headers["etag"]}).status == 304


VALUES = np.random.default_rng(2).random((3, 2, 2, 4))


def packed(arrays: dict[str, Any], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of arrays; bytes are written as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, one in arrays.items():
            inner = io.BytesIO()
            if isinstance(one, bytes):
                inner.write(one)
            else:
                np.lib.format.write_array(inner, np.asarray(one), allow_pickle=True)
            file.writestr(f"{name}.npy", inner.getvalue())
    return buffer.getvalue()


def probed(root: Path, data: bytes, name: str = "induction_strength-icl") -> Guard:
    """The application over a run with a probe's file."""
    simple_run(root / "run")
    (root / "run/probes").mkdir()
    (root / f"run/probes/{name}.npz").write_bytes(data)
    return app_over(root)


SOUND: dict[str, Any] = {
    "sequences": np.array([0, 512, 1024]),
    "values": VALUES,
    "axes": np.array(["checkpoint", "member", "layer", "head"]),
}


def test_a_probe_is_sent_with_its_heads_ranked_or_as_they_are(tmp_path):
    app = probed(tmp_path, packed(SOUND))
    (listed,) = get(app, "/api/run", name="run").json()["probes"]
    assert listed["name"] == "induction_strength-icl" and listed["evaluator"] == "icl" and listed["what"]
    plain = get(app, "/api/probe", name="run", probe=listed["name"], ranked=0).json()
    assert np.allclose(plain["values"], VALUES, rtol=1e-6) and not plain["ranked"] and plain["order"] is None
    assert plain["axes"] == ["layer", "head"] and plain["sequences"] == [0, 512, 1024]
    ranked = get(app, "/api/probe", name="run", probe=listed["name"]).json()
    values, order = rank_heads(VALUES)
    assert np.allclose(ranked["values"], values, rtol=1e-6) and ranked["order"] == order.tolist() and ranked["ranked"]
    assert get(app, "/api/probe", name="run", probe="none").status == 404


def npy_header(text: str) -> bytes:
    """The beginning of an array's file that claims what `text` says."""
    line = text.encode() + b" " * (64 - (10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000), }"
OBJECT = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
HOSTILE = {
    "an archive that is none": b"PK\3\4 no",
    "nothing": b"",
    "objects": packed(SOUND | {"values": np.array([{"a": 1}], object)}),
    "a claim of objects": packed(SOUND | {"values": npy_header(OBJECT) + b"\x80\x04N."}),
    "a claim of petabytes": packed(SOUND | {"values": npy_header(HUGE)}),
    "a header that calls": packed(SOUND | {"values": npy_header("__import__('os').system('true')")}),
    "a missing array": packed({"sequences": SOUND["sequences"], "values": VALUES}),
    "shapes that do not fit": packed(SOUND | {"values": VALUES[:2]}),
    "too few names": packed(SOUND | {"axes": np.array(["checkpoint", "member", "head"])}),
    "names that are no names": packed(SOUND | {"axes": np.array(["checkpoint", "member", "<b>", "\x1b[2J"])}),
    "text in place of numbers": packed(SOUND | {"sequences": np.array(["a", "b", "c"])}),
    "much in little": packed(SOUND | {"values": b"\0" * (2**26 + 1)}, zipfile.ZIP_DEFLATED),
    "no values": packed(SOUND | {"values": np.zeros((3, 2, 0, 4))}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_probe_that_ebbtide_did_not_write_is_told_in_one_line(what, tmp_path):
    found = get(probed(tmp_path, HOSTILE[what]), "/api/probe", name="run", probe="induction_strength-icl")
    assert found.status == 409 and found.json()["error"].startswith("probes/induction_strength-icl.npz: ")


def test_any_numbers_in_a_probe_are_sent_as_numbers_or_null(tmp_path):
    values = np.array([[[np.nan, np.inf], [1e308, -1e-320]]] * 3).reshape(3, 2, 2)
    app = probed(tmp_path, packed(SOUND | {"values": values, "axes": ["checkpoint", "member", "point"]}), "other-x-y")
    found = get(app, "/api/probe", name="run", probe="other-x-y").json()
    assert found["values"][0] == [[None, None], [1e308, pytest.approx(-1e-320)]] and found["unit"] == ""
    assert found["measure"] == "other" and found["evaluator"] == "x-y"


def test_a_large_probe_is_refused_and_prompts_are_averaged(tmp_path, monkeypatch):
    values = np.random.default_rng(0).random((3, 2, 50))
    app = probed(tmp_path, packed(SOUND | {"values": values, "axes": ["checkpoint", "member", "prompt"]}))
    found = get(app, "/api/probe", name="run", probe="induction_strength-icl").json()
    assert np.allclose(found["values"], values.mean(-1, keepdims=True)) and found["averaged"] == "over prompts"
    monkeypatch.setattr(probes_module, "MOST_VALUES", 5)
    told = get(app, "/api/probe", name="run", probe="induction_strength-icl", ranked=0).json()["error"]
    assert "6 values; at most 5" in told


def test_every_metric_has_a_unit():
    assert set(UNITS) == set(TABLE) and unit_of("my_metric") == "my metric"


def test_a_segment_larger_than_its_rows_is_refused_before_memory_is_taken(root, tmp_path):
    run = RunFolder(copy(root / "run", tmp_path / "run"))
    (_, manifest), *_ = list(run.manifests())
    (segment,) = manifest.segments
    large = replace(segment, file=replace(segment.file, size=2**40))
    with pytest.raises(DamagedError, match="does not hold 9 rows"):
        run.load_segment(large)
