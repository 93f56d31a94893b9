"""Run folders made to do harm: refused in one line, in little memory, executing nothing and reading nothing outside.

Whoever writes a folder can also sign it: every file here has the right size and SHA-256 in its manifest.
"""

import io
import json
import os
import pickle
import shutil
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.runs import records
from ebbtide.runs.atomic import sha256
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.fsck import examine
from ebbtide.runs.records import decode_manifest, read_manifest
from ebbtide.runs.signed import SCHEMA, DamagedError, sign
from ebbtide.runs.writer import Writer, restore
from ebbtide.sweeps.folder import SweepFolder
from effort import examples
from folders import HEAD, play

NEWEST, OLDER = "checkpoints/000000000768", "checkpoints/000000000512"
STATE, SEGMENT = f"{NEWEST}/state.safetensors", "metrics/000003-000003.safetensors"
MEMORY = 100_000_000


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: str):
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "run"
    play(path, kept=True)
    return path


@pytest.fixture
def path(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "run")


def plant(path: Path, name: str, data: bytes) -> None:
    """Puts `data` in the place of a state or segment and signs the newest manifest accordingly."""
    (path / name).write_bytes(data)
    body = json.loads((path / NEWEST / "manifest.json").read_text())["body"]
    for record in [body["state"], *(segment["file"] for segment in body["segments"])]:
        if record["path"] == name:
            record |= {"size": len(data), "sha256": sha256(data)}
    (path / NEWEST / "manifest.json").write_bytes(sign(body))


@contextmanager
def bounded() -> Iterator[None]:
    """Little memory is taken."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def refused(path: Path, name: str) -> str:
    """The newest checkpoint is passed over because of file `name`; returns the reason given."""
    run = RunFolder(path)
    with bounded():
        found = restore(run)
        latest, report = run.latest(), examine(path)
    assert found is not None and found[0][0].name == "000000000512" and (found[1]["w"] == 2).all()
    assert latest == found[0]
    said = [f.text for f in report.findings if f.kind == "damaged"]
    assert said and all(name in text and len(text) < 500 for text in said)
    if name == SEGMENT and run.sequences() == 768:  # the manifest itself is not the reason
        with pytest.raises(DamagedError, match=name) as caught:
            run.metrics()
        assert len(str(caught.value).splitlines()) == 1
    return said[0]


@pytest.mark.parametrize("name", [STATE, SEGMENT])
@pytest.mark.parametrize("kind", ["pickle", "npz", "npy"])
def test_pickles_are_refused_and_not_executed(path, tmp_path, name, kind):
    trace, buffer = str(tmp_path / "trace"), io.BytesIO()
    objects = np.array([Bomb(trace)], dtype=object)
    if kind == "pickle":
        pickle.dump(Bomb(trace), buffer)
    else:
        {"npz": np.savez, "npy": np.save}[kind](buffer, objects, allow_pickle=True)
    plant(path, name, buffer.getvalue())
    assert "list of arrays" in refused(path, name) and not Path(trace).exists()
    if kind == "pickle":
        pickle.loads(buffer.getvalue())
        assert Path(trace).exists()  # it would have gone off


def tensors(head: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes}


TWO = one() | {"v": {"dtype": "F32", "shape": [2, 1], "data_offsets": [8, 16]}}
ABUSE = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header longer than the file": tensors(one(), bytes(16), 10_000),
    "header of 2**63 bytes": tensors(one(), bytes(16), 2**63),
    "header of 99 MB": tensors(b" " * 99_000_000),
    "header that is a list": tensors([1, 2]),
    "header nested 100,000 deep": tensors(b'{"w":' + b"[" * 100_000),
    "not JSON": tensors(b"{", bytes(16)),
    "not UTF-8": tensors(b'{"\xff":1}', bytes(16)),
    "overlap": tensors(TWO, bytes(16)),
    "hole": tensors(one(data_offsets=[4, 20]), bytes(20)),
    "end before start": tensors(one(data_offsets=[16, 0]), bytes(16)),
    "negative start": tensors(one(data_offsets=[-16, 0]), b""),
    "beyond the end": tensors(one(data_offsets=[0, 10**15], shape=[10**7, 10**8 // 4]), bytes(16)),
    "more bytes than arrays": tensors(one(), bytes(17)),
    "shape too large for its place": tensors(one(shape=[2, 3]), bytes(16)),
    "negative shape": tensors(one(shape=[-2, -2]), bytes(16)),
    "shape that overflows 64 bits": tensors(one(shape=[2**32, 2**32]), bytes(16)),
    "hundred thousand axes": tensors(one(shape=[2**62] * 40_000), bytes(16)),
    "unknown type": tensors(one(dtype="O"), bytes(16)),
    "type NumPy has not": tensors(one(dtype="BF16", shape=[2, 4]), bytes(16)),
    "shape of text": tensors(one(shape="22"), bytes(16)),
    "unknown field": tensors(one(reduce="os.system"), bytes(16)),
    "members missing": save({"w": np.zeros((3, 40), np.float32)}),
    "no axis": tensors(one(shape=[], data_offsets=[0, 4]), bytes(4)),
}


@pytest.mark.parametrize("abuse", ABUSE)
@pytest.mark.parametrize("name", [STATE, SEGMENT])
def test_abuse_of_the_file_format_is_refused(path, name, abuse):
    plant(path, name, ABUSE[abuse])
    assert refused(path, name)


@pytest.mark.parametrize("kind", ["other dtype", "other shape", "missing", "additional"])
def test_a_segment_that_does_not_hold_its_rows_is_refused(path, kind):
    arrays = {
        "sequences": np.array([768]),
        "train_loss": np.zeros((2, 1), np.float32),
        "values": np.zeros((2, 1, 2, len(HEAD.metrics), 2), np.float32),
    }
    match kind:
        case "other dtype":
            arrays["train_loss"] = arrays["train_loss"].astype(np.float64)
        case "other shape":
            arrays["values"] = np.zeros((2, 2, 2, len(HEAD.metrics), 2), np.float32)
        case "missing":
            del arrays["values"]
        case "additional":
            arrays["more"] = np.zeros(1)
    plant(path, SEGMENT, save(arrays))
    assert "does not hold 1 rows" in refused(path, SEGMENT)


def test_a_file_of_zeros_that_claims_nothing_costs_no_memory(path):
    """A quarter of a gigabyte that takes no room on the disk, in its manifest with its size and a wrong hash."""
    body = json.loads((path / NEWEST / "manifest.json").read_text())["body"]
    body["state"] |= {"size": 2**28}
    (path / NEWEST / "manifest.json").write_bytes(sign(body))
    os.truncate(path / STATE, 2**28)
    with bounded():
        found = RunFolder(path).latest()
    assert found is not None and found[0].name == "000000000512"


def test_a_manifest_of_many_small_things_costs_little_memory(path):
    """`identity` may hold anything, so only the length of the file bounds it."""
    body = json.loads((path / NEWEST / "manifest.json").read_text())["body"]
    (path / NEWEST / "manifest.json").write_bytes(sign(body | {"identity": {"x": [[]] * 1_300_000}}))
    with bounded():
        RunFolder(path).sequences()


def changed(**changes: Any) -> Any:
    return lambda body: body | changes


def with_state(**changes: Any) -> Any:
    return lambda body: body | {"state": body["state"] | changes}


def with_segment(**changes: Any) -> Any:
    def change(body: dict[str, Any]) -> dict[str, Any]:
        first, *others = body["segments"]
        return body | {"segments": [first | changes, *others]}

    return change


def with_segment_file(**changes: Any) -> Any:
    return lambda body: with_segment(file=body["segments"][0]["file"] | changes)(body)


OUTSIDE = "../../outside/state.safetensors"
MANIFESTS = {
    "path above": with_state(path=OUTSIDE),
    "path above, by way of inside": with_state(path=f"checkpoints/../{OUTSIDE[3:]}"),
    "segment above": with_segment_file(path="../outside/state.safetensors"),
    "absolute path": with_state(path="/etc/passwd"),
    "path of 10 kB": with_state(path="x" * 10_000),
    "path with NUL": with_state(path="checkpoints/\0"),
    "path with lines": with_state(path="a\nb\rc\x1b[2J"),
    "device": with_segment_file(path="/dev/zero"),
    "empty path": with_state(path=""),
    "folder": with_state(path="checkpoints"),
    "another checkpoint's state": with_state(path=f"{OLDER}/state.safetensors"),
    "negative size": with_state(size=-1),
    "huge size": with_state(size=2**62),
    "size beyond 64 bits": with_state(size=2**80),
    "size of text": with_state(size="320"),
    "hash of text": with_state(sha256="x" * 64),
    "hash of 10 kB": with_state(sha256="0" * 10_000),
    "negative sequences": changed(sequences=-768),
    "huge sequences": changed(sequences=10**18),
    "other sequences": changed(sequences=512),
    "infinite seconds": lambda body: sign(body).replace(b'"seconds":3.0', b'"seconds":1e999'),
    "negative seconds": changed(seconds=-1.0),
    "negative row": with_segment(first=-1),
    "rows upside down": with_segment(first=5, last=2),
    "huge rows": with_segment(last=10**15),
    "rows twice": lambda body: body | {"segments": body["segments"][:1] * 2},
    "a row missing": lambda body: body | {"segments": body["segments"][1:]},
    "unknown field": changed(execute="os.system"),
    "no state": lambda body: {k: v for k, v in body.items() if k != "state"},
    "list": lambda body: [body],
    "deep": lambda body: b'{"body":' + b"[" * 200_000,
    "deep where it is ignored": lambda body: b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b',"schema":9}',
    "32 MB": lambda body: sign(body) + b" " * 2**25,
    "too many segments": lambda body: sign(body | {"segments": body["segments"][:1] * 15_000}),
}


@contextmanager
def only_inside(path: Path) -> Iterator[None]:
    """Every file that is opened lies in the run folder."""
    opened = os.open

    def watched(name: Any, flags: int, *arguments: Any, **options: Any) -> int:
        descriptor = opened(name, flags, *arguments, **options)
        place = Path(f"/proc/self/fd/{descriptor}").resolve()
        assert place == path or path in place.parents, f"opened {place}"
        return descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", watched)
        yield


def outside(path: Path) -> None:
    (path.parent / "outside").mkdir()
    shutil.copyfile(path / STATE, path.parent / "outside/state.safetensors")


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifests_are_refused(path, name):
    outside(path)
    target = path / NEWEST / "manifest.json"
    made = MANIFESTS[name](json.loads(target.read_text())["body"])
    target.write_bytes(made if isinstance(made, bytes) else sign(made))
    with only_inside(path):
        with pytest.raises(DamagedError) as caught:
            read_manifest(path / NEWEST)
        assert refused(path, f"{NEWEST}/manifest.json")
    text = str(caught.value)
    assert text.startswith(f"{NEWEST}/manifest.json: ") and len(text.splitlines()) == 1 and len(text) < 400
    assert text.isprintable() or name == "path with lines"


def test_a_reader_that_follows_any_path_is_caught(path, monkeypatch):
    """The watch over opened files can fail: without the check of names it does."""
    outside(path)
    target = path / NEWEST / "manifest.json"
    target.write_bytes(sign(MANIFESTS["path above"](json.loads(target.read_text())["body"])))
    monkeypatch.setattr(records, "_check_file", lambda *arguments: None)
    (path.parent.parent / "outside").mkdir()
    shutil.copyfile(path / STATE, path.parent.parent / "outside/state.safetensors")
    with pytest.raises(AssertionError, match="opened"), only_inside(path):
        RunFolder(path).latest()
    shutil.rmtree(path.parent.parent / "outside")


@pytest.mark.parametrize("name", [STATE, SEGMENT, f"{NEWEST}/manifest.json", NEWEST, "metrics", "checkpoints"])
def test_links_out_of_the_folder_are_not_followed(path, tmp_path, name):
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    run = RunFolder(path)
    with only_inside(path):
        found = run.latest()
    if name in ("metrics", "checkpoints"):
        assert found is None
        with pytest.raises(OSError, match=name):
            Writer(path, HEAD)
    else:
        assert found is not None and found[0].name == "000000000512"


@pytest.mark.parametrize("name", ["run.json", STATE, SEGMENT, f"{NEWEST}/manifest.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: p.symlink_to(p.name)], ids=["pipe", "folder", "loop"])
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(path, name, make):
    (path / name).unlink()
    make(path / name)
    if name == "run.json":
        with pytest.raises(InputError, match=r"run\.json is damaged"):
            RunFolder(path)
        assert not examine(path).sound()
    else:
        assert refused(path, name)


HEADERS = {
    "no spec": {"spec": {}},
    "negative members": {"spec": HEAD.spec | {"members": -1}},
    "members of text": {"spec": HEAD.spec | {"members": "2"}},
    "members true": {"spec": HEAD.spec | {"members": True}},
    "members of 65 bits": {"spec": HEAD.spec | {"members": 2**64}},
    "sequences of 400 digits": {"spec": HEAD.spec | {"sequences": 10**400}},
    "no source": {"spec": {name: value for name, value in HEAD.spec.items() if name != "source"}},
    "source a list": {"spec": HEAD.spec | {"source": [1]}},
    "vary a list": {"spec": HEAD.spec | {"vary": [1]}},
    "vary by a number": {"spec": HEAD.spec | {"vary": {"seeds.member": 3}}},
    "seeds of text": {"spec": HEAD.spec | {"seeds": "x"}},
    "member of text": {"spec": HEAD.spec | {"seeds": {"member": "x"}}},
    "freeze a number": {"spec": HEAD.spec | {"freeze": 3}},
    "label with codes": {"label": {"preset": "\x1b[2J all claims hold"}},
    "created with codes": {"created": "\u202e2026"},
    "label of 2 kB": {"label": {"preset": "x" * 2000}},
    "headline that is no metric": {"instruments": [{"name": "icl", "headline": "x", "chance": 0.5}]},
    "instruments of text": {"instruments": "icl"},
}


@pytest.mark.parametrize("name", [*HEADERS, "2 MB", "deep", "deep body"])
def test_a_hostile_run_json_is_refused(path, one_line, name):
    body = msgspec.to_builtins(HEAD)
    data = {
        "2 MB": lambda: sign(body | {"label": {"x": "y" * 2_000_000}}),
        "deep": lambda: b"[" * 100_000,
        "deep body": lambda: b'{"body":{"schema":2,"digest":' + b"[" * 100_000 + b',"sha256":""}',
    }.get(name, lambda: sign(body | HEADERS[name]))()
    (path / "run.json").write_bytes(data)
    with bounded(), pytest.raises(InputError) as caught:
        RunFolder(path)
    one_line(caught, "run", str(path))
    assert caught.value.allowed.startswith("run.json is damaged: ") and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["../../../victim", "x" * 16, "", "0" * 17, "\x1b[2J", "a/b"])
def test_a_plan_names_no_folder_outside_its_sweep(tmp_path, one_line, name):
    for part in ("plans", "runs", "failures"):
        (tmp_path / "sweep" / part).mkdir(parents=True)
    (tmp_path / "sweep/sweep.json").write_bytes(sign({"schema": SCHEMA, "sweep": {"name": "try"}}))
    tasks = [{"name": name, "values": {}, "addresses": ["0" * 32]}]
    plan = sign({"schema": SCHEMA, "groups": [{"spec": HEAD.spec, "tasks": tasks}]})
    (tmp_path / "sweep/plans/000001.json").write_bytes(plan)
    with pytest.raises(InputError, match="is no name of a task") as caught:
        SweepFolder(tmp_path / "sweep")
    one_line(caught, "sweep", str(tmp_path / "sweep"))


AXES = {
    "nothing": {},
    "zip of unequal lengths": {"zip": [{"seeds": 2}, {"field": "optimizer.lr", "values": [1e-3]}]},
    "log from 0": {"field": "optimizer.lr", "log": [0.0, 1.0, 3]},
    "log below 0": {"field": "optimizer.lr", "log": [-1.0, 1.0, 3]},
    "more points than can be": {"product": [{"seeds": 10**6}, {"field": "optimizer.lr", "linear": [0, 1, 10**6]}]},
}


@pytest.mark.parametrize("name", [*AXES, "name"])
def test_a_sweep_that_describes_no_grid_is_refused_when_its_folder_is_opened(tmp_path, name):
    described = {"name": "[/x]\x1b"} if name == "name" else {"name": "try", "axes": [AXES[name]]}
    (tmp_path / "sweep.json").write_bytes(sign({"schema": SCHEMA, "sweep": described}))
    with pytest.raises(InputError) as caught:
        SweepFolder(tmp_path)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).isprintable()


def test_a_folder_closed_to_this_user_is_one_row_of_the_list(path, monkeypatch, capsys):
    shutil.copytree(path, path.parent / "closed")
    read = records.read_bounded

    def closed(at: Path, *more: Any) -> bytes:
        if at.name == "closed":
            raise PermissionError(13, "Permission denied", str(at))
        return read(at, *more)

    monkeypatch.setattr(records, "read_bounded", closed)
    assert main(["ls", str(path.parent)]) == 0
    said = capsys.readouterr().out
    assert "Permission denied" in said and "complete" in said


def decode(data: bytes) -> records.Manifest | None:
    """The manifest, or None when it is refused as it should be."""
    try:
        return decode_manifest(data, "000000000768", "run", "manifest.json")
    except (DamagedError, InputError) as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 500
        return None


FUZZ = settings(
    max_examples=examples(quick=150, thorough=2000), database=None, suppress_health_check=[HealthCheck.too_slow]
)
POSITION = st.integers(0, 10_000)
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete", "repeat"]), POSITION, st.binary(max_size=9)), min_size=1
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@FUZZ
@given(edits=EDITS)
def test_many_manifests_with_changed_bytes(good, edits):
    original = data = (good / NEWEST / "manifest.json").read_bytes()
    for kind, place, piece in edits:
        i = place % (len(data) + 1)
        data = {
            "set": data[:i] + piece + data[i + len(piece) :],
            "insert": data[:i] + piece + data[i:],
            "delete": data[:i] + data[i + 1 + len(piece) :],
            "repeat": data[:i] + data[max(0, i - 40) :],
        }[kind]
    found = decode(data)
    assert found is None or found == decode(original)


@FUZZ
@given(
    fields=st.dictionaries(st.sampled_from(records.Manifest.__struct_fields__), JSON, min_size=1, max_size=3),
    at=POSITION,
)
def test_many_signed_manifests_with_changed_fields(good, fields, at):
    body = json.loads((good / NEWEST / "manifest.json").read_text())["body"]
    segment = body["segments"][at % 4]
    for name, value in fields.items():  # at the top, and the same values inside
        if at % 3 == 0:
            body[name] = value
        else:
            inner = [body["state"], segment["file"], segment][at % 3 + (at % 2) - 1]
            inner[sorted(inner)[len(name) % len(inner)]] = value
    try:
        data = sign(body)
    except UnicodeEncodeError:  # a lone surrogate cannot be written
        return
    found = decode(data)
    if found is not None:
        names = [found.state.path, *(segment.file.path for segment in found.segments)]
        assert found.sequences == 768 and found.state.path == STATE
        assert all(records.segment_path(s.first, s.last) == s.file.path for s in found.segments) and "" not in names


def test_a_decoder_that_lets_other_errors_out_is_caught(good, monkeypatch):
    monkeypatch.setattr(records, "unsign", lambda data, kind, where, name: msgspec.json.decode(data)["body"])
    with pytest.raises((AttributeError, KeyError, msgspec.DecodeError)):
        decode((good / NEWEST / "manifest.json").read_bytes()[:-1])


def test_the_folder_used_here_is_good_before_it_is_spoilt(good):
    found = RunFolder(good).latest()
    assert found is not None and found[0].name == "000000000768" and examine(good).sound()
    assert RunFolder(good).header.digest == HEAD.digest
