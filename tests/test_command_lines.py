"""Random command lines of runs, experiments, computed studies and sweeps: a plan, or one line on what is wrong."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ebbtide.cli import main
from ebbtide.papers.registry import STUDIES
from ebbtide.studies.computation import Computation
from ebbtide.training.spec import Spec
from effort import examples
from tiny import contents

TOKENS = ["0", "1", "-1", "3", "8", "16", "64", "1e3", "0.5", "1e-3", "1e400", "nan", "9" * 30, "true", "null", "abc"]
TOKENS += ["", "[]", "{}", "[1, 2]", '{"type": "adam"}', "[[[[[[[[[[[[1]]]]]]]]]]]]", "1_000", "-"]
TOKENS += ["\u202e\x1b[2J[/x]"]
WORDS = [
    "gaussian",
    "glyphs",
    "omniglot",
    "functions",
    "concepts",
    "transformer",
    "recurrent",
    "deepset",
    "sgd",
    "full",
]
NAMES = [
    "optimizer.lrr",
    "lr",
    "model",
    "task.labels.kind",
    "spec",
    "a.b.c.d.e",
    "vary",
    "members",
    "seeds.member",
    ".",
    "x" * 300,
]
SOUND: dict[str, list[Any]] = {
    "optimizer.lr": [1e-3, 3e-3],
    "model.width": [8, 16],
    "batch": [16, 32],
    "source.noise": [0, 1],
}
"""Fields with values that they can have."""
OPTIONS = [["--processes", "0"], ["--width", "-2"], ["--jobs", "abc"], ["--executor", "moon"], ["--deterministic"]]
OPTIONS += [["--kernel", "xla"], ["--preset", "cpu"], ["--preset", "hug"], ["--experiment", "l3"], ["--jobs", "2"]]
"""Options with good values and bad ones; some belong to another kind of study."""


def leaves(data: Any, name: str = "") -> list[str]:
    """The dotted names of all fields of a description in builtins, those of structs too."""
    if not isinstance(data, dict):
        return [name]
    inner = [
        leaf for key, value in data.items() if key != "type" for leaf in leaves(value, f"{name}.{key}".lstrip("."))
    ]
    return [name, *inner] if name else inner


def a_field(rng: random.Random, names: list[str]) -> tuple[str, str]:
    """A field, mostly one that there is, and a value, sometimes one that could be its own."""
    name = rng.choice(names) if rng.random() < 0.9 else rng.choice(NAMES)
    return name, rng.choice(TOKENS if rng.random() < 0.8 else WORDS)


def run_line(rng: random.Random) -> list[str]:
    """`ebbtide run` of a study or of one of its experiments."""
    study = rng.choice(STUDIES)
    line = ["run", study.name]
    work = study.experiments[0].presets["quick"].work
    names = leaves(msgspec.to_builtins(work.setting if isinstance(work, Computation) else study.bases["quick"].spec))
    if rng.random() < 0.6:
        experiment = rng.choice(study.experiments)
        line += ["--experiment", experiment.name, "--preset", rng.choice(list(experiment.presets))]
    for _ in range(rng.randrange(4)):
        name, value = a_field(rng, names)
        line += [f"--{name}", value]
    for _ in range(rng.random() < 0.2):
        line += rng.choice(OPTIONS)
    return line


def sweep_line(rng: random.Random, folder: Path) -> list[str]:
    """`ebbtide sweep` of a description with fields, axes and numbers of its own, some of them wrong."""
    names = leaves(msgspec.to_builtins(Spec()))

    def axis(depth: int = 0) -> dict[str, Any]:
        kind = rng.choice(["values", "linear", "log", "seeds", "zip", "chain"][: 4 if depth else 6])
        if kind == "seeds":
            return {"seeds": rng.choice([1, 2, 3, 3, 0, 10**9, "x"])}
        if kind in ("zip", "chain"):
            return {kind: [axis(1) for _ in range(rng.randrange(1, 3))]}
        if rng.random() < 0.7:
            field, values = rng.choice(list(SOUND.items()))
            return {"field": field, "values": values} if kind == "values" else {"field": field, kind: [1e-3, 1e-2, 2]}
        ends = [rng.choice([0, 1e-3, 1, -1]), rng.choice([0, 1e-2, 5]), rng.choice([0, 1, 3, 10**7])]
        odd = [rng.choice([1, 0, -1, 0.5, "abc", None, True, [], {}]) for _ in range(rng.randrange(4))]
        return {"field": a_field(rng, names)[0], kind: odd if kind == "values" else ends}

    description: dict[str, Any] = {"name": rng.choice(["a"] * 9 + ["../a", "", "[/x]", "a" * 100])}
    description["base"] = dict(a_field(rng, names) for _ in range(rng.random() < 0.3))
    description["axes"] = [axis() for _ in range(rng.randrange(3))]
    for key, value in [("study", "transience"), ("preset", "cpu"), ("tries", 0), ("resources", {"cpus": 0}), ("x", 1)]:
        if rng.random() < 0.05:
            description[key] = value
    file = folder / "sweep.json"
    file.write_text(json.dumps(description))
    return ["sweep", str(file)]


def check_line(line: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """The exit code of a command line that only plans. It is 0 or 2; what is wrong is told in one line of text; nothing
    is written."""
    before = contents(Path())
    try:
        code = main([*line, "--dry-run"])
    except SystemExit as end:  # what argparse says of its own options: usage, then one line
        assert isinstance(end.code, int)
        code = end.code
    said = capsys.readouterr()
    assert code in (0, 2), (line, code)
    last = said.err.splitlines()[-1:] if said.err.startswith("usage:") else said.err.splitlines()
    assert len(last) == (code == 2), (line, said.err)
    assert said.err == "" or said.err.startswith(("usage:", "ebbtide: ")), (line, said.err)
    assert all(one.isprintable() or one == "\n" for one in said.err), (line, said.err)
    assert "Traceback" not in said.out + said.err, line
    assert contents(Path()) == before, line
    return code


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_random_command_line_is_a_plan_or_one_line(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path / "none"))
    codes = []
    for seed in range(examples(quick=25, thorough=600)):
        rng = random.Random(f"{kind} {seed}")
        line = run_line(rng) if kind == "run" else sweep_line(rng, tmp_path)
        codes.append(check_line(line, capsys))
    assert {0, 2} == set(codes), "some are plans, some are not"


def test_a_field_that_is_wrong_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words, field in (
        (["run", "transience", "--optimizer.lr", "abc"], "optimizer.lr"),
        (["run", "transience", "--experiment", "l2", "--batch", "0"], "batch"),
        (["run", "transience", "--experiment", "l2", "--batch", "9" * 30], "batch"),
        (["run", "toy-laws", "--seeds", "-1"], "seeds"),
    ):
        assert check_line(words, capsys) == 2
        main([*words, "--dry-run"])
        assert capsys.readouterr().err.startswith(f"ebbtide: {field} = ")
