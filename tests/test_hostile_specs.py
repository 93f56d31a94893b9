"""Specs, arguments and data files made to harm: each is refused in one line, at once, in little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ebbtide.errors import LONGEST, InputError
from ebbtide.sources.features import Features
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.glyphs import Glyphs
from ebbtide.sources.omniglot import Omniglot
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Polysemy, Shared
from ebbtide.training import limits
from ebbtide.training.optimizer import SGD, Adam
from ebbtide.training.schedule import Cosine
from ebbtide.training.spec import Spec, from_builtins, from_json
from effort import examples
from tiny import SPEC, check_both

# ---- through the command line, in a child process that may not take much memory

ROOM = 300 * 2**20
"""Bytes the child may take beyond what its imports took."""

CHILD = """
import contextlib, io, json, os, resource, sys
from pathlib import Path
import ebbtide.cli, ebbtide.cli.study, ebbtide.training.driver, ebbtide.papers.registry
limit, size = int(sys.argv[1]), int(Path("/proc/self/statm").read_text().split()[0])
limit += size * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main = ebbtide.cli.main
if sys.argv[2:]:
    sys.path.insert(0, sys.argv[2])
    from test_hostile_specs import careless as main
for line in sys.stdin:
    out, err, crash = io.StringIO(), io.StringIO(), ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(json.loads(line))
        except SystemExit as stopped:
            code = stopped.code
        except BaseException as error:
            code, crash = 1, type(error).__name__
    left = sorted(str(p) for p in Path().rglob("*"))
    answer = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "crash": crash, "left": left}
    sys.__stdout__.write(json.dumps(answer) + "\\n")
"""


class Answer(NamedTuple):
    """What the command line did with one list of arguments; `left` names the files in its folder."""

    code: int
    out: str
    err: str
    crash: str
    left: list[str]


def answers(cases: list[list[str]], folder: Path, *planted: str) -> list[Answer]:
    """The answers to many lists of arguments, from one child process with bounded memory."""
    command = [sys.executable, "-c", CHILD, str(ROOM), *planted]
    text = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=folder, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return [Answer(**json.loads(line)) for line in done.stdout.splitlines()]


def faults(answer: Answer, *says: str) -> list[str]:
    """What is wrong with a refusal; empty where it is one line, short, exit code 2 and nothing written."""
    found = []
    if answer.crash:
        found.append(f"raised {answer.crash}")
    if answer.code != 2:
        found.append(f"exit code {answer.code}")
    if not answer.err.endswith("\n") or len(answer.err.splitlines()) != 1:
        found.append("not one line")
    if not answer.err.rstrip("\n").isprintable():
        found.append("not printable")
    if len(answer.err) > 4 * LONGEST:
        found.append("too long")
    if "Traceback" in answer.out + answer.err or answer.out:
        found.append("printed more than the refusal")
    if answer.left:
        found.append(f"left {answer.left}")
    return found + [f"does not say {words!r}" for words in says if words not in answer.err]


FIELDS = {"source.classes": 64, "source.dim": 8, "model.layers": 1, "model.width": 16, "model.heads": 2, "batch": 16}
FIELDS |= {"task.labels": "fixed", "sequences": 1024, "members": 2, "evaluation_sequences": 50, "processes": 0}


def tiny_run(*changes: str) -> list[str]:
    """The words of a small run, without the fields of a source where another source is named."""
    fields = {n: v for n, v in FIELDS.items() if "--source" not in changes or not n.startswith("source.")}
    return ["run", "transience", *(word for n, v in fields.items() for word in (f"--{n}", str(v))), *changes]


NEED = "need at least"
DEEP = "[" * 100_000
LONG = "x" * 10_000
HUGE = "9" * 5000
SIZES = [
    ("members", "1e12", "below 2^32"),
    ("members", "4e9", NEED),
    ("source.classes", "1" + "0" * 15, "below 2^32"),
    ("source.classes", "4000000000", NEED),
    ("source.holdout_classes", "4000000000", NEED),
    ("source.exemplars", "4000000000", NEED),
    ("source.holdout_exemplars", "4000000000", NEED),
    ("source.dim", "4000000000", NEED),
    ("source.seed", "1" + "0" * 20, "below 2^32"),
    ("batch", "1e12", "below 2^32"),
    ("evaluation_sequences", "1e12", "below 2^32"),
    ("evaluation_sequences", "4e9", NEED),
    ("model.layers", "1000000", "at most 1024"),
    ("model.width", "1000000000", NEED),
    ("model.mlp_ratio", "4000000000", NEED),
    ("task.context", "1000000", "at most 1024"),
    ("task.burst", "1e12", "below 2^32"),
    ("task.reserved_labels", "4000000000", NEED),
    ("schedule.evaluations", "1e12", "at most 1000000"),
    ("schedule.checkpoints", "1e300", "at most 1000000"),
    ("schedule.first", "1e24", "below 2^32"),
    ("optimizer.schedule.warmup", "1e15", "below 2^32"),
    ("sequences", "1e30", "below 2^32"),
]
WORDS: list[tuple[list[str], list[str]]] = [
    (["--batch", HUGE], ["batch = ", "expected int"]),
    (["--batch", LONG], ["batch = 'xxx", "expected int"]),
    (["--batch", "1e999"], ["batch = '1e999'", "expected int"]),
    (["--optimizer.lr", "1e999"], ["optimizer.lr = '1e999'", "expected float"]),
    (["--optimizer.lr", "-Infinity"], ["optimizer.lr = '-Infinity'", "expected float"]),
    (["--batch=4000000000", "--sequences=4000000000"], ["batch = 4000000000", NEED]),
    ([f"--{LONG}", "3"], ["xxx", "no such field", "a spec has the fields"]),
    (["--task.relabel.__class__", "3"], ["task.relabel.__class__ = 3", "no such field"]),
    (["--task..context", "3"], ["task.", "no such field"]),
    (["--", "3"], ["argument = '--'", "expected --FIELD VALUE"]),
    (["--a\nb", "3"], ["a\\nb = 3", "no such field"]),
    (["--batch", "\x1b[31m3"], ["batch = '\\x1b[31m3'", "expected int"]),
    (["--batch", "\udcff"], ["batch = '\\udcff'", "Unicode"]),
    (["--vary", DEEP], ["vary = '[[[", "expected object"]),
    (["--vary", '{"a":' * 500 + "1" + "}" * 500], ["vary", "nested"]),
    (["--vary", '{"optimizer.lr": [1, 1e999]}'], ["vary = ", "expected object"]),
    (["--vary", json.dumps({"optimizer.lr": [1e-3] * 5000})], ["vary.optimizer.lr = [0.001", "each of the 2 members"]),
    (["--vary", '{"../../x": [1, 2]}'], ["vary = '../../x'", "must be one of task.p_bursty"]),
    (["--vary", '{"batch": [1, 2]}'], ["vary = 'batch'", "must be one of task.p_bursty"]),
    (["--evaluators", json.dumps(["icl"] * 10_000)], ["evaluators = ['icl'", "at most once"]),
    (["--evaluators", '["../../x"]'], ["evaluators = '../../x'", "must be one of train, icl"]),
    (["--source", "../../x"], ["source = '../../x'", "must be one of gaussian, glyphs, omniglot, tokens, features"]),
    (["--source", "../../x.npz"], ["source.path = '../../x.npz'", "no such file"]),
    (["--source", "CON.npz"], ["source.path = 'CON.npz'", "no such file"]),
    (["--source", "a\0b.npz"], ["source.path = 'a\\x00b.npz'", "no such file"]),
    (["--source", f"{LONG}.npz"], ["source.path = 'xxx", "no such file"]),
    (["--source", "/dev/zero.npz"], ["source.path = '/dev/zero.npz'", "no such file"]),
    (["--source", '{"type": "features", "path": "/dev/zero"}'], ["source.path = '/dev/zero'", "no such file"]),
    (["--source", '{"type": "gaussian", "clases": 9}'], ["source.clases = 9", "did you mean 'classes'?"]),
    (["--source", '{"type": ["gaussian"]}'], ["source = ['gaussian']", "must be one of gaussian"]),
    (["--task.labels", '{"type": "shared", "count": 1e12}'], ["task.labels.count = ", "int"]),
    (["--task.labels", '{"type": "shared", "count": 4000000000}'], ["task.labels.count = 4000000000", "2 to 64"]),
    (["--task.labels", '{"type": "polysemy", "per_class": 100000000}'], ["task.labels.per_class = 100000000", NEED]),
    (["--task.labels", '{"type": "per_sequence", "count": 4000000000}'], ["task.labels.count = 4000000000", NEED]),
    (["--preset", "../../x"], ["preset = '../../x'", "transience has quick, cpu, paper"]),
    (["--preset", "a\0b"], ["preset = 'a\\x00b'", "transience has"]),
    (["--preset", LONG], ["preset = 'xxx", "transience has"]),
]
CASES: dict[str, tuple[list[str], list[str]]] = {
    **{f"{name}={value[:20]}": (tiny_run(f"--{name}", value), [f"{name} = ", says]) for name, value, says in SIZES},
    **{" ".join(words)[:40]: (tiny_run(*words), says) for words, says in WORDS},
    "study ../../x": (["run", "../../x"], ["study = '../../x'", "must be one of transience"]),
    "study 10 kB": (["run", LONG], ["study = 'xxx", "must be one of transience"]),
    "show NUL": (["show", "a\0b"], ["run = 'a\\x00b'", "no run folder of this name"]),
    "ls NUL": (["ls", "a\0b"], ["folder = 'a\\x00b'", "no such folder"]),
    "study NUL": (["run", "a\0b"], ["study = 'a\\x00b'", "must be one of transience"]),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory) -> dict[str, Answer]:
    """The answer to every case."""
    folder = tmp_path_factory.mktemp("hostile")
    return dict(zip(CASES, answers([words for words, _ in CASES.values()], folder), strict=True))


@pytest.mark.parametrize("name", CASES, ids=ascii)
def test_hostile_arguments_are_refused_in_one_line_and_little_memory(refusals, name):
    assert faults(refusals[name], *CASES[name][1]) == [], refusals[name]


def careless(arguments: list[str]) -> int:
    """A command line with one defect, named by its argument."""
    refusal = "ebbtide: batch = 3: must be larger\n"
    match arguments[0]:
        case "raises":
            raise ValueError(refusal)
        case "allocates":
            return len(bytearray(2 * ROOM))
        case "two lines":
            refusal += "and another\n"
        case "long":
            refusal = "x" * 10_000 + "\n"
        case "control":
            refusal = "\x1b[31m" + refusal
        case "prints":
            sys.stdout.write("x")
        case "code":
            sys.stderr.write(refusal)
            return 1
        case "writes":
            Path("file").touch()
    sys.stderr.write(refusal)
    return 2


def test_a_careless_command_line_would_have_been_noticed(tmp_path):
    """A test of the test above: every defect it looks for is found in a program that has it."""
    expected = {
        "sound": [],
        "raises": ["raised ValueError", "exit code 1", "not one line"],
        "allocates": ["raised MemoryError", "exit code 1", "not one line"],
        "two lines": ["not one line", "not printable"],
        "long": ["too long"],
        "control": ["not printable"],
        "prints": ["printed more than the refusal"],
        "code": ["exit code 1"],
        "writes": ["left ['file']"],
    }
    found = answers([[name] for name in expected], tmp_path, str(Path(__file__).parent))
    assert {name: faults(answer) for name, answer in zip(expected, found, strict=True)} == expected
    assert faults(found[0], "batch = 3", "larger", "smaller") == ["does not say 'smaller'"]


def test_bytes_that_are_no_text_are_refused_by_the_program_itself(tmp_path):
    command: list[str | bytes] = [sys.executable, "-m", "ebbtide.cli", *tiny_run("--source"), b"\xff.npz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    answer = Answer(done.returncode, done.stdout, done.stderr, "", os.listdir(tmp_path))  # noqa: PTH208
    assert faults(answer, "source.path = '\\udcff.npz'", "Unicode") == []


# ---- through Python and JSON


@pytest.mark.parametrize("value", [np.int64(64), np.float64(1e-3), np.float32(1e-3), np.True_, np.str_("a"), object()])
@pytest.mark.parametrize("field", ["batch", "optimizer.lr", "task.rest", "vary.optimizer.lr.1", "evaluators.0"])
def test_what_json_cannot_hold_is_named(field, value, one_line):
    spec = {
        "batch": replace(SPEC, batch=value),
        "optimizer.lr": replace(SPEC, optimizer=Adam(lr=value)),
        "task.rest": replace(SPEC, task=FewShot(rest=value)),
        "vary.optimizer.lr.1": replace(SPEC, vary={"optimizer.lr": [1.0, value]}),
        "evaluators.0": replace(SPEC, evaluators=(value,)),
    }[field]
    for use in (spec.check, spec.digest, spec.to_json):
        with pytest.raises(InputError, match="must be a plain Python number") as caught:
            use()
        one_line(caught, field, value)


def cyclic() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["vary"] = data
    return data


def nested(depth: int) -> list[Any]:
    data: list[Any] = []
    for _ in range(depth):
        data = [data]
    return data


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        ({1: 2}, "spec", "names must be text"),
        ({"vary": {3: [1.0]}}, "vary", "names must be text"),
        ({"vary": {"\ud800": [1.0]}}, "vary", "Unicode"),
        ({"vary": np.ones(3)}, "vary", "not numpy.ndarray"),
        ({"evaluators": {"icl"}}, "evaluators", "not builtins.set"),
        ({"evaluators": [b"icl"]}, "evaluators.0", "not builtins.bytes"),
        ({"vary": nested(100_000)}, None, "nested more than"),
        (cyclic(), None, "nested more than"),
        ({"a\nb": 3}, "a\nb", "no such field"),
        ({"\x1b[2J": 3}, "\x1b[2J", "no such field"),
        ({"task": {"type": "few_shot", "../..": 3}}, "task.../..", "no such field"),
        ({"batch": 10**5000}, "batch", "int"),
        ({"optimizer": {"type": "adam", "lr": 10**400}}, "optimizer.lr", "out of range"),
        ({"source": {"type": "features", "path": "\ud800"}}, "source.path", "Unicode"),
        ({"source": {"type": "pickle", "path": "x.pkl"}}, "source", "must be one of gaussian"),
        ([], "spec", "expected object"),
        (None, "spec", "expected object"),
    ],
    ids=lambda value: ascii(value)[:30] if isinstance(value, str) else "",
)
def test_hostile_data_is_refused_in_one_line(data, field, says):
    with pytest.raises(InputError) as caught:
        from_builtins(data).check()
    text = str(caught.value)
    assert text.isprintable() and len(text) < 4 * LONGEST and says in text
    assert field is None or caught.value.field == field


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"vary":' * 100_000, b'{"batch":' + b"9" * 5000 + b"}", b"\0" * 99])
def test_hostile_json_is_refused_in_one_line(text):
    with pytest.raises(InputError) as caught:
        from_json(text)
    assert str(caught.value).isprintable() and caught.value.field == "spec"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([*Spec.__struct_fields__, "typo"])


def spoilt(data: dict[str, Any], value: Any, at: list[int]) -> dict[str, Any]:
    """The data with one of its values replaced, which one being led to by `at`."""
    here: Any = data
    for step, i in enumerate(at):
        key = list(here)[i % len(here)]
        if step == len(at) - 1 or not isinstance(here[key], dict) or not here[key]:
            here[key] = value
            break
        here = here[key]
    return data


@settings(max_examples=examples(quick=80, thorough=1000))
@given(value=anything, at=st.lists(st.integers(0, 20), min_size=1, max_size=4), named=names)
def test_any_value_anywhere_is_a_spec_or_one_line(value, at, named):
    """Whatever is put in the place of a field: a sound spec that round-trips, or an `InputError`."""
    for data in (spoilt(msgspec.to_builtins(SPEC), value, at), {named: value}):
        try:
            spec = from_builtins(data)
            check_both(spec)
        except InputError as error:
            assert str(error).isprintable() and len(str(error)) < 4 * LONGEST and error.field
        else:
            assert from_json(spec.to_json()) == spec


def test_a_message_shows_the_beginning_of_what_is_long():
    text = str(InputError("f" * 1000, "v" * 1000, "a" * 1000))
    assert text == f"{'f' * LONGEST}... = '{'v' * (LONGEST - 1)}...: {'a' * LONGEST}..."
    assert str(InputError("batch", 10**5000, "too\nlarge")) == "batch = <int>: too\\nlarge"
    assert str(InputError("batch", nested(100_000), "x")) == "batch = <list>: x"


# ---- memory is counted before it is taken


def arrays(tree: Any) -> int:
    import jax

    return sum(x.nbytes for x in jax.tree.leaves(tree) if x.ndim)


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, optimizer=SGD(), task=FewShot(labels=Shared(8)), source=Gaussian(infinite=True, dim=12)),
        pytest.param(
            replace(SPEC, task=FewShot(labels=Polysemy(3)), vary={"source.noise": [0.0, 1.0]}),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            replace(SPEC, source=Glyphs(classes=400, exemplars=2), vary={"source.motor": [0.5, 1.0]}),
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_the_count_is_a_close_lower_bound_of_what_training_holds(spec):
    """Weights, moments, exemplars and evaluation prompts of the real thing; biases are left out of the count."""
    from ebbtide.training.members import Members

    made = Members(spec, [0, 1], None)
    worlds = {id(d.bank): d.bank for d in (group.data for group in made.groups)}.values()
    held = arrays([group.state for group in made.groups]) + sum(arrays(bank.features) for bank in worlds)
    few = limits.needed_bytes(replace(spec, batch=1, evaluation_sequences=2, evaluators=("train",)))
    assert 0.8 * held < few < 1.1 * held
    prompts = limits.needed_bytes(replace(spec, batch=1)) - few
    assert prompts > 0.97 * arrays(made.engine.suite(0).prompts.exemplars)  # pyright: ignore


@pytest.mark.parametrize("less", [0, 1])
def test_what_just_fits_is_accepted_and_a_byte_less_is_not(monkeypatch, less):
    monkeypatch.setattr(limits, "physical_memory", lambda: limits.needed_bytes(SPEC) - less)
    if not less:
        return check_both(SPEC)
    with pytest.raises(InputError, match="need at least") as caught:
        check_both(SPEC)
    assert caught.value.field in ("source.classes", "model.width", "evaluation_sequences")


def test_every_study_fits_a_small_machine(monkeypatch):
    from ebbtide.papers.registry import STUDIES

    monkeypatch.setattr(limits, "physical_memory", lambda: 4 * 2**30)
    for study in STUDIES:
        for base in study.bases.values():
            if not isinstance(base.spec.source, Omniglot):
                check_both(base.spec)


def test_numbers_that_are_large_but_sound_pass():
    spec = replace(SPEC, optimizer=Adam(lr=10**30, schedule=Cosine(warmup=2**31)), members=2)
    replace(spec, source=replace(SPEC.source, seed=2**32 - 1)).check()


# ---- data files

SHAPE: Any = {"classes": 6, "exemplars": 3, "holdout_classes": 2, "holdout_exemplars": 2}


def header_of(shape: str, dtype: str = "<f4") -> bytes:
    """An .npy file's header that claims a shape, without the data."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npz(path: Path, data: bytes) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", data)


def safetensors(path: Path, header: bytes, length: int | None = None, data: bytes = b"") -> None:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)


def tensor(shape: list[int], end: int, dtype: str = "F32", start: int = 0) -> bytes:
    return json.dumps({"features": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}).encode()


TWO = json.dumps({n: {"dtype": "F32", "shape": [10, 6, 4], "data_offsets": [0, 960]} for n in ("features", "x")})
V3 = b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b" " * 100_000
CALL = header_of("(10, 6, __import__('pathlib').Path('executed').touch())")
FILES: dict[str, Any] = {
    "shape.npz": lambda p: npz(p, header_of("(1000000000000, 6, 4)")),
    "shape2.npz": lambda p: npz(p, header_of("(20, 6, 4)") + bytes(8)),
    "negative.npz": lambda p: npz(p, header_of("(-10, 6, 4)")),
    "overflow.npz": lambda p: npz(p, header_of("(4611686018427387904, 6, 4)")),
    "header.npz": lambda p: npz(p, V3),
    "call.npz": lambda p: npz(p, CALL),
    "object.npz": lambda p: npz(p, header_of("(10, 6, 4)", "|O") + b"cpathlib\nPath.touch\n."),
    "void.npz": lambda p: npz(p, header_of("(10, 6, 4)", "|V1000000000") + bytes(99)),
    "header.safetensors": lambda p: safetensors(p, b"{}", 2**63),
    "header2.safetensors": lambda p: safetensors(p, b"{}", 10**8),
    "json.safetensors": lambda p: safetensors(p, b"[" * 100_000),
    "overlap.safetensors": lambda p: safetensors(p, TWO.encode(), data=bytes(960)),
    "beyond.safetensors": lambda p: safetensors(p, tensor([10, 6, 4], 960), data=bytes(100)),
    "size.safetensors": lambda p: safetensors(p, tensor([10, 6, 4], 100), data=bytes(100)),
    "huge.safetensors": lambda p: safetensors(p, tensor([10**12, 6, 4], 96 * 10**12), data=bytes(960)),
    "overflow.safetensors": lambda p: safetensors(p, tensor([2**62, 6, 4], 960), data=bytes(960)),
    "negative.safetensors": lambda p: safetensors(p, tensor([-10, 6, 4], 960), data=bytes(960)),
    "backwards.safetensors": lambda p: safetensors(p, tensor([10, 6, 4], 0, start=960), data=bytes(960)),
    "type.safetensors": lambda p: safetensors(p, tensor([10, 6, 4], 960, "OBJ"), data=bytes(960)),
    "int.safetensors": lambda p: safetensors(p, tensor([10, 6, 4], 960, "I32"), data=bytes(960)),
    "none.safetensors": lambda p: safetensors(p, b"{}"),
}
SAFETENSORS_SOUND = tensor([10, 6, 4], 960)


def load(path: Path) -> Any:
    source = Features(path=str(path), **SHAPE)
    source.check_data()
    limits.check_memory(replace(SPEC, source=source))
    return source.build()


def test_the_files_spoilt_below_are_sound_without_the_defect(tmp_path):
    numbers = np.arange(240, dtype="<f4").tobytes()  # features that are all the same are refused
    npz(tmp_path / "x.npz", header_of("(10, 6, 4)") + numbers)
    safetensors(tmp_path / "x.safetensors", SAFETENSORS_SOUND, data=numbers)
    for path in tmp_path.iterdir():
        assert np.asarray(load(path).features).shape == (8, 5, 4)


@pytest.mark.parametrize("name", FILES)
def test_files_with_hostile_headers_are_refused_in_little_memory(tmp_path, monkeypatch, name):
    import tracemalloc

    monkeypatch.chdir(tmp_path)
    FILES[name](tmp_path / name)
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            load(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable() and caught.value.field in ("source.path", "source.array", "source.classes")
    assert peak < 20e6
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_file_that_unpacks_to_more_than_the_machine_has_is_refused(tmp_path, monkeypatch):
    """Forty kilobytes of zeros that would become forty megabytes."""
    npz(tmp_path / "x.npz", header_of("(10, 1000000, 1)") + bytes(40_000_000))
    assert (tmp_path / "x.npz").stat().st_size < 100_000
    monkeypatch.setattr(limits, "physical_memory", lambda: 39_999_999)
    with pytest.raises(InputError, match="40,000,000 bytes as float32; this machine has 39,999,999") as caught:
        load(tmp_path / "x.npz")
    assert caught.value.field == "source.path"
