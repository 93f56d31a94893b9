"""Tasks, sources and models in a user's own file: run by the same commands, named by the file's hash, imported only
where the user names the file."""

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide import user_code
from ebbtide.cli import main
from ebbtide.cli.code import file_words
from ebbtide.cli.parser import parser
from ebbtide.errors import InputError, Interrupted
from ebbtide.kernel import native
from ebbtide.runs.signed import sign
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.plan import group
from ebbtide.training.custom import Custom, CustomTask, files_needed
from ebbtide.training.spec import from_builtins, from_json
from ebbtide.training.wire import receive, send
from ebbtide.training.worker import serve
from sweep_tools import InThisProcess
from tiny import SPEC, contents, final_state, header, same_bits, write_run

pytestmark = pytest.mark.usefixtures("quick_compile")
EXAMPLES = Path(__file__).parents[1] / "examples"
MINE = """
from pathlib import Path
import ebbtide as eb
from ebbtide.errors import require

class Mine(eb.FewShot, frozen=True):
    rate: float = 1.0
    mark: int = 0

    def check(self, source):
        super().check(source)
        require(self.mark < 9, "task.mark", self.mark, "must be below 9")

class Cloud(eb.Gaussian, frozen=True):
    pass

class Net(eb.Transformer, frozen=True):
    pass

Path("ran").touch()
"""
SHORT = replace(SPEC, members=1, sequences=256, schedule=eb.Schedule(evaluations=3, checkpoints=2))


@pytest.fixture
def forget(monkeypatch):
    """Makes this process like a new one, which has loaded no file of a user."""

    def again() -> None:
        monkeypatch.setattr(user_code, "_loaded", {})

    again()
    return again


@pytest.fixture
def here(tmp_path, monkeypatch, forget) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    return tmp_path


def mine(name: str = "Mine", **fields: Any) -> Any:
    """An object of a class in the file, as a spec takes it."""
    return getattr(eb.use("mine.py"), name)(**fields)


def own(**fields: Any) -> eb.Spec:
    """A spec with the file's task."""
    return replace(SHORT, task=mine(**fields))


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command wrote to standard error: one line."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and text.startswith("ebbtide: "), text
    return text


# ---- a spec with parts of one's own is data


def test_a_spec_names_the_file_by_its_hash_and_is_the_same_data_whether_the_file_is_loaded_or_not(here, forget):
    spec = replace(own(mark=3), source=mine("Cloud", dim=8), model=mine("Net", layers=1, width=16, heads=2))
    text, digest, addresses = spec.to_json(), spec.digest(), spec.addresses()
    task = msgspec.json.decode(text)["task"]
    sha256 = hashlib.sha256(MINE.encode()).hexdigest()
    assert (task["type"], task["file"], task["sha256"], task["name"]) == ("custom", "mine.py", sha256, "Mine")
    assert task["fields"]["mark"] == 3 and task["fields"].keys() == fields_of(spec.task).keys()
    assert from_json(text) == spec and type(from_json(text).task) is type(spec.task)
    forget()
    Path("ran").unlink()
    unknown = from_json(text)
    assert (unknown.to_json(), unknown.digest(), unknown.addresses()) == (text, digest, addresses)
    assert unknown.variable() == spec.variable() and "task.p_bursty" not in unknown.variable()
    assert isinstance(unknown.task, CustomTask) and not Path("ran").exists()


def test_the_digest_changes_with_a_field_and_with_the_file_and_not_with_how_a_number_is_written(here):
    one = own()
    assert one.digest() == own(rate=1).digest() and one.digest() == own(mark=0).digest()
    Path("mine.py").write_text(MINE + "# another comment\n")
    other = own()
    assert len({one.digest(), own(mark=1).digest(), other.digest(), SHORT.digest()}) == 4


def test_what_needs_the_file_says_so_and_what_the_file_is_by_now(here, forget):
    data = own().builtins()
    forget()
    with pytest.raises(InputError, match=r"task = 'mine.py:Mine': its class is in a file of yours: .*--code mine.py"):
        from_builtins(data).check()
    Path("mine.py").write_text(MINE + "\n")
    eb.use("mine.py")
    with pytest.raises(InputError, match=r"the file is another one by now: SHA-256"):
        from_builtins(data).check()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"file": "../mine.py"}, "task.file"),
        ({"file": "/x/mine.py"}, "task.file"),
        ({"file": "mine.txt"}, "task.file"),
        ({"file": "m\n.py"}, "task.file"),
        ({"sha256": "A" * 64}, "task.sha256"),
        ({"sha256": "a" * 64 + "\n"}, "task.sha256"),
        ({"sha256": "a" * 63}, "task.sha256"),
        ({"name": "os.system"}, "task.name"),
        ({"name": "a" * 65}, "task.name"),
        ({"fields": []}, "task.fields"),
        ({"fields": {"__class__ x": 1}}, "task"),
        ({"fields": {"a": "x" * 2**16}}, "task"),
        ({"fields": {f"a{i}": i for i in range(9000)}}, "task"),
        ({"fields": {"a": float("nan")}}, "task.fields.a"),
        ({"fields": {"a": [[[[[[[[[[[[1]]]]]]]]]]]]}}, "task.fields.a"),
        ({"path": "mine.py"}, "task.path"),
    ],
)
def test_malformed_data_is_refused_in_one_line(change, field):
    task = {"type": "custom", "file": "mine.py", "sha256": "a" * 64, "name": "Mine", "fields": {}} | change
    with pytest.raises(InputError) as caught:
        from_builtins({"task": task})
    text = str(caught.value)
    assert text.startswith(field) and len(text.splitlines()) == 1 and len(text) < 1500


def test_numbers_of_ones_own_do_not_vary_inside_a_run(here):
    with pytest.raises(InputError, match=r"vary = 'task.rate': must be one of source.noise, optimizer.lr"):
        replace(own(), vary={"task.rate": [1.0]}).check()


# ---- training and reading


def test_a_class_that_adds_nothing_trains_the_same_bits(here):
    parts = {"source": mine("Cloud", **fields_of(SHORT.source)), "model": mine("Net", **fields_of(SHORT.model))}
    spec = replace(own(), **parts)
    plain, same = (eb.train(one, name, processes=0) for one, name in ((SHORT, "plain"), (spec, "mine")))
    assert same_bits(final_state(plain), final_state(same))
    assert np.array_equal(plain.arrays()["values"], same.arrays()["values"])


def fields_of(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_a_run_is_resumed_by_workers_that_are_told_the_file_and_read_without_it(here, forget, capsys):
    """Interrupted in this process, continued by two others."""
    spec = replace(own(), members=2, sequences=25_600)
    with pytest.raises(Interrupted):
        eb.train(spec, "run", processes=0, report=lambda progress: signal.raise_signal(signal.SIGINT))
    assert 0 < eb.Run("run").sequences() < 25_600
    forget()
    Path("ran").unlink()
    for words in (["resume", "run"], ["probe", "run", "--measure", "induction_strength"]):
        assert main(words) == 2 and "--code mine.py" in told(capsys)
    reading = (["show", "run"], ["ls", "."], ["fsck", "run"], ["report", "run", "--out", "page.html"])
    for words in (*reading, ["export", "run", "--out", "table.csv"]):
        assert main(words) == 0
    assert not Path("ran").exists() and "mine.py:Mine" in Path("page.html").read_text()
    assert "file mine.py" in capsys.readouterr().out
    assert main(["resume", "run", "--code", "mine.py", "--processes", "2"]) == 0
    assert eb.Run("run").status() == "complete"
    assert main(["probe", "run", "--measure", "induction_strength", "--sequences", "20", "--code", "./mine.py"]) == 0
    Path("mine.py").write_text(MINE + "\n")
    forget()
    assert main(["probe", "run", "--measure", "induction_strength", "--code", "mine.py"]) == 2
    assert "the file is another one by now" in told(capsys)


STUDY = """
import ebbtide as eb

SPEC = eb.Spec(
    source=eb.Gaussian(classes=64, exemplars=2, dim=8, holdout_classes=8, holdout_exemplars=2),
    model=eb.Transformer(layers=1, width=16, heads=2), batch=16, sequences=64,
    schedule=eb.Schedule(evaluations=3, checkpoints=2), evaluators=("icl", "iwl"), evaluation_sequences=20,
)
CLAIM = eb.Claim("icl", "icl is a number", "an example", "icl_peak", 0.0, lambda evidence: evidence["icl_peak"])
OWN = eb.Experiment("mine", "Is it?", "", (CLAIM,), {"quick": eb.Preset(eb.SingleRun("quick"), 0.1, "tiny")})
STUDY = eb.Study("mine", "none", "Is it?", (OWN,), {"quick": eb.Base(SPEC, "tiny")})
"""


def test_the_command_line_names_a_class_and_sets_its_fields(here, capsys):
    Path("study.py").write_text(STUDY)
    words = ["run", "./study.py", "--task", "./mine.py:Mine", "--task.mark", "2", "--model", "mine.py"]
    assert main([*words, "--dry-run"]) == 0
    spec = from_json(capsys.readouterr().out.encode())
    assert type(spec.task).__name__ == "Mine" and spec.task == mine(mark=2) and spec.model == mine("Net")
    assert file_words(parser_options(words)) == ["--code", "mine.py", "--study", "./study.py"]
    for fields, says in (
        (["--task.marc", "2"], "task.marc = 2: no such field (did you mean 'mark'?); task has the fields context"),
        (["--task.mark", "two"], "task.mark = 'two': expected int, got str"),
        (["--task.mark", "9"], "task.mark = 9: must be below 9"),
        (["--task.sha256", "0"], "task.sha256 = 0: no such field"),
    ):
        assert main([*words, *fields]) == 2
        assert f"ebbtide: {says}" in told(capsys)


def parser_options(words: list[str]) -> Any:
    from ebbtide.cli.parser import overrides

    options, rest = parser().parse_known_args(words)
    options.fields = overrides(rest)
    return options


@pytest.mark.parametrize("name", ["own_task", "own_source"])
def test_the_examples_train(name, here):
    spec = eb.use(str(EXAMPLES / f"{name}.py")).SPEC
    short = replace(spec, sequences=256, evaluation_sequences=20, schedule=eb.Schedule(evaluations=2, checkpoints=2))
    assert eb.train(short, "run", processes=0).status() == "complete"


@pytest.mark.thorough
def test_the_example_of_a_theory_holds_and_its_model_is_read_again(here, forget, capsys):
    """The study's file imports the model's file, its neighbour."""
    assert main(["run", str(EXAMPLES / "own_theory.py"), "--check", "--processes", "0"]) == 0
    assert capsys.readouterr().out.count("holds") == 2
    (folder,) = Path("runs").iterdir()
    forget()
    eb.use(str(EXAMPLES / "own_model.py"))
    model, params = eb.Run(folder).model(member=1)
    assert type(model).__name__ == "OneStep" and params["step"].shape == (4, 4)


# ---- sweeps


def write_sweep(**axes: list[Any]) -> None:
    fields = [{"field": name.replace("_", "."), "values": values} for name, values in axes.items()]
    base = {name: value for name, value in msgspec.to_builtins(SHORT).items() if name not in ("members", "vary")}
    del base["task"]
    Path("sweep.json").write_bytes(msgspec.json.encode({"name": "own", "base": base, "axes": fields}))


def test_a_sweep_over_ones_own_fields_is_trained_by_processes_that_are_told_the_file(here, forget, capsys):
    write_sweep(task=["./mine.py:Mine"], task_rate=[1, 2])
    assert main(["sweep", "sweep.json", "--out", "own"]) == 2
    assert "task = './mine.py:Mine': is no file that was named" in told(capsys)
    assert main(["sweep", "sweep.json", "--out", "own", "--code", "mine.py", "--jobs", "2"]) == 0
    forget()
    Path("ran").unlink()
    capsys.readouterr()
    assert main(["sweep", "status", "own"]) == 0 and "2" in capsys.readouterr().out
    assert main(["sweep", "collect", "own", "--out", "table.csv"]) == 0
    rows = Path("table.csv").read_text().splitlines()
    assert rows[0].startswith("task,task.rate,state") and [row.split(",")[:3] for row in rows[1:]] == [
        ["Mine", "1", "finished"],
        ["Mine", "2", "finished"],
    ]
    assert main(["report", "own", "--out", "page.html"]) == 0 and not Path("ran").exists()
    assert main(["sweep", "own"]) == 2, "training more of it needs the file"
    assert "--code mine.py" in told(capsys)
    before = contents(Path("own"), "submitit")
    assert main(["sweep", "own", "--code", "mine.py"]) == 0 and contents(Path("own"), "submitit") == before


def test_a_task_process_refuses_another_file_before_it_runs_it(here, forget):
    (words,) = files_needed([own().builtins()])
    assert words == f"{hashlib.sha256(MINE.encode()).hexdigest()}:{(here / 'mine.py').resolve()}"
    forget()
    Path("ran").unlink()
    Path("mine.py").write_text(MINE + "\n")
    with pytest.raises(InputError, match="is another file by now"):
        user_code.load_words([words])
    assert not Path("ran").exists()


def test_classes_are_one_axis_with_those_of_this_package(here, forget):
    write_sweep(task=["./mine.py:Mine", "few_shot"])
    eb.use("mine.py")
    sweep = eb.read_sweep("sweep.json")
    folder = eb.run_sweep(sweep, "own", on=InThisProcess(Path("own")))
    assert len(group(sweep, sweep.points())) == 2
    stored = SweepFolder(folder.path).sweep.axes[0].values
    assert stored is not None and stored[0]["name"] == "Mine" and stored[1] == "few_shot"
    forget()
    rows = eb.load("own").rows
    assert [row.axes["task"] for row in rows] == ["Mine", "few_shot"]
    assert [row.state for row in rows] == ["finished", "finished"]


# ---- hostile folders


@pytest.mark.parametrize("name", ["evil.py", "../evil.py", "ABSOLUTE", "run/evil.py"])
def test_no_folder_has_a_file_imported(here, capsys, name):
    """Whatever a run, a sweep or its tasks name, with the right hash or not."""
    evil = MINE.replace('"ran"', '"evil ran"')
    (here / "run").mkdir()
    for place in (here / "evil.py", here / "run/evil.py", here.parent / "evil.py"):
        place.write_text(evil)
    name = str(here / "evil.py") if name == "ABSOLUTE" else name
    task = {"type": "custom", "file": name, "sha256": hashlib.sha256(evil.encode()).hexdigest(), "name": "Mine"}
    builtins = msgspec.to_builtins(SPEC) | {"task": task | {"fields": {}}, "members": 1}
    curve = [[0.5, 0.6, 0.7]]
    run = write_run(here / "a", {"icl": curve, "iwl": curve}, [[4, 3, 2]])
    run.path.joinpath("run.json").write_bytes(sign(replace(run.header, spec=builtins)))
    probing = ["probe", "a", "--measure", "induction_strength"]
    for words in (["show", "a"], ["ls", "."], ["report", "a", "--out", "a.html"], ["resume", "a"], probing):
        assert main(words) in (0, 2)
    for value in (f"{name}:Mine", f"./{name}", task):
        sweep = {"name": "evil", "base": {"task": value}, "axes": [{"field": "task", "values": [value]}]}
        Path("sweep.json").write_bytes(msgspec.json.encode(sweep))
        assert main(["sweep", "sweep.json", "--dry-run"]) == 2
        assert main(["sweep", "sweep.json"]) == 2
    assert not Path("evil ran").exists() and not Path("runs").exists()
    eb.use("evil.py")
    assert Path("evil ran").exists(), "the file would have left a trace"


def test_an_argument_of_a_task_process_is_the_only_way_to_a_file(here):
    """A worker imports what its driver names, with the hash that it names."""
    start = {"do": "start", "spec": own().builtins(), "members": [0], "state": None, "width": 1, "devices": 1}
    Path("ran").unlink()
    user_code._loaded.clear()
    with Path("commands").open("wb") as commands:
        send(commands, {**start, "kernel": None, "code": []})
        send(commands, {**start, "kernel": None, "code": [f"{'0' * 64}:mine.py"]})
    with Path("commands").open("rb") as commands, Path("answers").open("wb") as answers:
        serve(commands, answers)
    with Path("answers").open("rb") as answers:
        errors = [(receive(answers) or {})["error"] for _ in range(2)]
    assert errors[0][0] == "task" and errors[1][0] == "code" and not Path("ran").exists()


# ---- files that cannot be used


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        (None, "./own.py", "no such file"),
        ("def f(:", "./own.py", "line 1: SyntaxError"),
        ("x = 1\nraise ValueError('a\\nb')", "./own.py", r"line 2: ValueError: a\nb"),
        ("import sys\nsys.exit(3)", "./own.py", "line 2: SystemExit: 3"),
        ("x = 1", "./own.py", "must be FILE.py:NAME; the file has the tasks none"),
        (MINE, "./own.py:Min", "there is no such class; the file has the tasks Mine (did you mean 'Mine'?)"),
        (MINE, "./own.py:Path", "must be a frozen msgspec struct"),
        (MINE, "./own.py:Cloud", "is no task: it has no prompt_type, metrics, context, check_pairing"),
        (MINE.replace("rate: float = 1.0", "rate: float"), "./own.py:Mine", "line 6: TypeError: Required field 'rate'"),
        (MINE + "class Two(Mine, frozen=True): pass", "./own.py", "the file has the tasks Mine, Two"),
        (
            "import ebbtide as eb\neb.train(eb.Spec(), 'out')",
            "./own.py",
            "trains while it is imported: put that part under",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_line(here, capsys, text, words, says):
    Path("study.py").write_text(STUDY)
    if text is not None:
        Path("own.py").write_text(text)
    assert main(["run", "./study.py", "--task", words]) == 2
    assert says in told(capsys) and not Path("runs").exists() and not Path("out").exists()


FAULTY = """
import ebbtide as eb

class Open(eb.FewShot, frozen=True, kw_only=True):
    size: int

class Broken(eb.Regression, frozen=True):
    slots: int = 3
    def sample(self, key, index, source, bank, split):
        prompt = super().sample(key, index, source, bank, split)
        if self.slots == 0:
            return prompt.missing
        return prompt._replace(inputs=prompt.inputs[: self.slots])

class Renamed(eb.FewShot, frozen=True, rename="upper"):
    size: int = 3

class Opaque(eb.FewShot, frozen=True):
    size: range = range(3)

class Flat(eb.Transformer, frozen=True):
    def apply(self, params, prompt, tap=None):
        return super().apply(params, prompt)[..., 0]
"""


def test_faults_of_a_class_are_told_before_anything_is_written(here, capsys):
    Path("own.py").write_text(FAULTY)
    module, functions = eb.use("own.py"), {"source": eb.Functions(dim=2), "evaluators": ("train",), "keep_best": None}
    for parts, says in (
        ({"task": module.Open(size=1)}, "task = 'own.py:Open': every field needs a default, as has not size"),
        (
            {"task": module.Broken(context=4), **functions},
            r"draws inputs of shape \(3, 2, 2\); context and source need \(5, 2, 2\)",
        ),
        ({"task": module.Renamed()}, "must have its fields under their own names"),
        ({"task": module.Opaque()}, "task = 'Opaque': its fields must be data"),
        ({"model": module.Flat()}, r"model = 'Flat': answers with the shape \(2,\); needed is"),
    ):
        with pytest.raises(InputError, match=says):
            eb.train(replace(SHORT, **parts), "run", processes=0)
    Path("study.py").write_text(STUDY)
    words = ["--task", "own.py:Broken", "--task.slots", "0", "--source", "functions", "--evaluators", '["train"]']
    assert main(["run", "study.py", *words, "--out", "run"]) == 2
    assert "code = 'own.py': line 12: AttributeError: 'FunctionPrompt' object has no attribute" in told(capsys)
    assert not Path("run").exists()


def test_a_class_that_no_file_has_at_its_top_is_refused():
    class Nested(eb.FewShot, frozen=True):
        pass

    with pytest.raises(InputError, match=r"code = 'Nested': must be a class at the top of a Python file"):
        replace(SPEC, task=Nested()).digest()


def test_a_file_is_imported_once_and_as_it_was_hashed(here):
    """Also where it is changed within a second to as many bytes, which a cached translation would not notice."""
    Path("mine.py").write_text("X = 1\n")
    times = Path("mine.py").stat()
    first = eb.use("mine.py")
    assert eb.use("./mine.py") is first and first.X == 1
    Path("mine.py").write_text("X = 2\n")
    os.utime("mine.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert eb.use("mine.py").X == 2 and first.X == 1


def test_two_copies_of_a_file_are_two_modules_and_one_computation(here):
    (here / "copy").mkdir()
    (here / "copy/mine.py").write_text(MINE)
    one, other = eb.use("mine.py"), eb.use("copy/mine.py")
    specs = [replace(SHORT, task=module.Mine()) for module in (one, other)]
    assert one is not other and specs[0].digest() == specs[1].digest()


def test_a_file_that_fails_after_it_has_made_a_spec_is_not_taken_for_loaded(here):
    Path("mine.py").write_text(MINE + "\nSPEC = eb.Spec(task=Mine()).digest()\nraise ValueError\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"line 23: ValueError"):
            eb.use("mine.py")


def test_the_compiled_kernel_serves_ones_own_tasks_and_no_model_of_ones_own(here):
    shape = SHORT.shape()
    assert native.unsupported_reason(eb.Transformer(layers=1, width=16, heads=2), shape) is None
    assert native.unsupported_reason(mine("Net"), shape) == "a model in a file of the user is not served"


def test_every_question_to_data_is_refused_and_no_attribute_is_invented(forget):
    data = CustomTask("mine.py", "a" * 64, "Mine", {"mark": 3, "check": 4})
    assert data.mark == 3 and not hasattr(data, "__len__") and isinstance(data, Custom)
    for name in ("check", "sample", "outputs", "metrics"):
        with pytest.raises(InputError, match=r"--code mine\.py"):
            getattr(data, name)
    assert header(SPEC).digest == SPEC.digest()
