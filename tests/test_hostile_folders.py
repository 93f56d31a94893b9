"""Folders whose every signature is right and whose content is anything: each command that reads one tells what it holds
or says one line on what is wrong with it; it never fails inside, commands the terminal or writes elsewhere."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.report.arms_figure import Panel, arms_figure
from ebbtide.report.grid_figure import Curve, curves_by_figure
from ebbtide.runs.signed import SCHEMA, sign
from ebbtide.studies.claim import Judgement
from ebbtide.studies.computation import Record
from ebbtide.studies.verdict import Verdict
from ebbtide.sweeps import folder as sweep_folder
from ebbtide.sweeps.folder import Failure, SweepFolder
from ebbtide.sweeps.sweep import Sweep
from ebbtide.training.spec import from_builtins
from effort import examples
from sweep_tools import BASE, LR, WIDTH, made
from tiny import write_run

pytestmark = pytest.mark.usefixtures("quick_compile")

COUNT = examples(quick=6, thorough=220)
SWEEP = Sweep(name="try", base=BASE, axes=(WIDTH, LR))
CLAIM = Judgement("peak", "ICL emerges", "Fig. 2", "peak of icl", 0.5, 0.7, 0.6, 0.8, 2, 2, [0.7, 0.7], "holds")
TEXTS = ("", "\x1b[2J\x1b[31mx", "[bold]x[/]", "a\nb\r\tc", "\u202eabc\u200b", "../../../outside/victim", "/etc/x")
TEXTS += ("x\0y", "9" * 400, "[" * 500 + "]" * 500)
TEXTS += (":smile:", "<script>alert(1)</script>", "$\\frac{x$", "x" * 3000, "\u00e9\U0001f600", "nan", "icl", "1")
NUMBERS = (0, 1, -1, 2, 2**31, 2**32 - 1, 2**63, 2**64, 10**400, 10**6, -(2**63), 0.5, -0.0, 1e308, -1e308, 1e-320, 1e5)


class Kind(NamedTuple):
    """A sort of folder: how a sound one is made, which records in it are spoilt, which commands read it. In a command
    FOLDER, PARENT and OUT stand for places."""

    make: Callable[[Path], None]
    records: tuple[str, ...]
    commands: tuple[str, ...]


def verdict(study: str, digest: str) -> bytes:
    """A verdict.json that holds."""
    summary: dict[str, list[float | None]] = {"icl_peak": [0.7, None], "icl_final": [0.7, 0.7]}
    one = Verdict(study, "A paper (2024)", "quick", digest, 1024, "95 %", [CLAIM], summary)
    return msgspec.json.encode(replace(one, question="Does it?", seeds="0 to 1", version="0.1", claims_digest="ab"))


def make_run(path: Path) -> None:
    """A complete run with models and a verdict."""
    curve = np.linspace(0.2, 0.9, 5)
    run = write_run(path, {"icl": [curve] * 2, "iwl": [curve] * 2}, [[4, 3, 2, 1, 1]] * 2, models=True)
    (path / "verdict.json").write_bytes(verdict("transience", run.header.digest))


def make_computed(path: Path) -> None:
    """A computation of toy laws with a verdict; its curves are not read again."""
    path.mkdir()
    record = Record("toy_laws", "quick*", "ab", [("seeds", "2")], {"seed": 0, "law": {"rate": 0.1}}, "2026-01-01")
    (path / "computed.json").write_bytes(msgspec.json.encode(record))
    (path / "verdict.json").write_bytes(verdict("toy_laws", "ab"))


def make_sweep(path: Path) -> None:
    """A sweep of which all tasks but one have run; that one has failed as often as it may."""
    folder = made(path, SWEEP, members=1, leave=1)
    waiting = list(folder.specs)[-1]
    (path / "failures" / waiting).mkdir(parents=True)
    record = Failure(SCHEMA, waiting, "error", "Traceback\nValueError: no", 0)
    for i in range(1, 4):
        (path / "failures" / waiting / f"{i:04d}.json").write_bytes(sign(record))
    (path / "verdict.json").write_bytes(verdict("transience/try", "ab"))


MANIFESTS = "checkpoints/*/manifest.json"
RUN_COMMANDS = (
    "show FOLDER",
    "ls PARENT",
    "fsck FOLDER",
    "export FOLDER --format csv --out OUT/curves.csv",
    "report FOLDER --out OUT/page.html",
    "show FOLDER --figure OUT/figure.svg",
    "probe FOLDER --measure induction_strength --sequences 2 --out OUT/probes",
)
SWEEP_COMMANDS = (
    "sweep status FOLDER",
    "sweep collect FOLDER --out OUT/table.csv",
    "sweep collect FOLDER --curves --out OUT/curves.csv",
    "sweep figure FOLDER --phase model.width optimizer.lr --out OUT/phase.svg",
    "sweep figure FOLDER --curve icl --by optimizer.lr --split model.width --out OUT/lines.svg",
    "report FOLDER --out OUT/page.html",
    "sweep FOLDER --dry-run",
    "ls FOLDER/runs",
)
KINDS = {
    "run": Kind(make_run, ("run.json", "verdict.json", MANIFESTS), RUN_COMMANDS),
    "computed": Kind(make_computed, ("computed.json", "verdict.json"), ("report FOLDER --out OUT/page.html",)),
    "sweep": Kind(
        make_sweep,
        ("sweep.json", "verdict.json", "plans/*.json", "failures/*/*.json", "runs/*/run.json", f"runs/*/{MANIFESTS}"),
        SWEEP_COMMANDS,
    ),
}


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside decoded JSON."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in inner:
        yield (*path, name)
        yield from places(value, (*path, name))


def same(data: Any) -> Any:
    """A copy of decoded JSON, however deep."""
    return json.loads(json.dumps(data))


def anything(rng: random.Random, now: Any) -> Any:
    """What may stand in the place of the value `now`: often of its type, so that more than the decoder is tried."""
    nested: list[Any] = []
    for _ in range(500):
        nested = [nested]
    several = [now] * 3 if not isinstance(now, list) else [*now, *same(now)]
    other = [None, True, False, [], {}, nested, several, {"type": rng.choice(TEXTS)}, {rng.choice(TEXTS): now}]
    like = TEXTS if isinstance(now, str) else NUMBERS if type(now) in (int, float) else other
    return rng.choice(like if rng.random() < 0.6 else [*TEXTS, *NUMBERS, *other])


def spoil(rng: random.Random, body: Any) -> Any:
    """The body of a record with one or two places changed, removed, added or doubled."""
    body = same(body)
    for _ in range(rng.randint(1, 2)):
        found = list(places(body))
        if not found:
            break
        depth = rng.randint(1, max(len(one) for one in found))
        *parents, last = rng.choice([one for one in found if len(one) == depth])
        at = body
        for part in parents:
            at = at[part]
        match rng.choice(["change", "change", "change", "remove", "add", "double"]):
            case "remove":
                del at[last]
            case "add" if isinstance(at, dict):
                at[rng.choice([*TEXTS, "type", "vary", "start"])] = anything(rng, at[last])
            case "double" if isinstance(at, list):
                at.extend(same(at))
            case _:
                at[last] = anything(rng, at[last])
    return body


def written(body: Any, signed: bool) -> bytes:
    """A record as its reader wants it; unlike ours, also with numbers that no decoder of ours takes."""
    text = msgspec.json.format(json.dumps(body).encode(), indent=-1)
    return sign(msgspec.Raw(text)) if signed else text


def agree(folder: Path) -> None:
    """Writes into a run's records the digest of its spec where this has one, as who forges a run would."""
    head = json.loads((folder / "run.json").read_bytes())["body"]
    try:
        digest = from_builtins(head["spec"]).digest()
    except (InputError, KeyError, TypeError, ValueError, RecursionError):
        return
    for file, signed in [(folder / "run.json", True), *((one, True) for one in folder.glob(MANIFESTS))]:
        body = json.loads(file.read_bytes())["body"]
        if isinstance(body, dict) and "digest" in body:
            file.write_bytes(written(body | {"digest": digest}, signed))
    if (folder / "verdict.json").exists():
        body = json.loads((folder / "verdict.json").read_bytes())
        if isinstance(body, dict) and "digest" in body:
            (folder / "verdict.json").write_bytes(written(body | {"digest": digest}, signed=False))


def mutations(rng: random.Random, kind: Kind, folder: Path) -> str:
    """Spoils one or two records of a sound folder; says which."""
    names = []
    for _ in range(rng.randint(1, 2)):
        file = rng.choice(sorted(folder.glob(rng.choice(kind.records))))
        data = json.loads(file.read_bytes())
        signed = isinstance(data, dict) and set(data) == {"body", "sha256"}
        file.write_bytes(written(spoil(rng, data["body"] if signed else data), signed))
        names.append(str(file.relative_to(folder)))
        if file.name == "run.json" and rng.random() < 0.7:
            agree(file.parent)
    return " and ".join(names)


def all_below(root: Path, but: Path) -> dict[str, bytes]:
    """Every file below a folder, not those below `but`."""
    files = [one for one in root.rglob("*") if but not in one.parents and one != but]
    return {str(one): one.read_bytes() if one.is_file() else b"" for one in files}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    """A sound folder of every kind."""
    root = tmp_path_factory.mktemp("sound")
    for name, kind in KINDS.items():
        kind.make(root / name)
    return {name: root / name for name in KINDS}


def run_command(words: list[str], capsys) -> tuple[int, str, str]:
    """A command's exit code and what it printed."""
    try:
        code = main(words)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 2
    said = capsys.readouterr()
    return code, said.out, said.err


def check_commands(kind: Kind, folder: Path, out: Path, capsys) -> dict[str, int]:
    """Puts a folder to every command that reads it; the exit codes."""
    codes = {}
    for text in kind.commands:
        words = [
            word.replace("FOLDER", str(folder)).replace("PARENT", str(folder.parent)).replace("OUT", str(out))
            for word in text.split()
        ]
        code, shown, errors = run_command(words, capsys)
        assert code in (0, 1, 2), text
        foul = [c for c in shown + errors if c not in "\n\t" and not c.isprintable()]
        assert not foul, (text, foul[:3])
        if code == 2:
            assert errors.strip() and errors.strip().splitlines()[-1].startswith("ebbtide: "), (text, errors)
        codes[text] = code
    return codes


@pytest.mark.parametrize("name", KINDS)
def test_every_command_reads_a_sound_folder(name, sound, tmp_path, capsys):
    codes = check_commands(KINDS[name], sound[name], tmp_path, capsys)
    assert codes == {text: int(text.startswith("sweep status")) for text in codes}  # a task is set aside


@pytest.mark.parametrize("name", KINDS)
def test_any_signed_content_of_a_folder_is_told_or_refused_in_one_line(name, sound, tmp_path, monkeypatch, capsys):
    kind = KINDS[name]
    for place in ("here", "out", "outside"):
        (tmp_path / place).mkdir()
    (tmp_path / "outside/victim").write_text("whole")
    monkeypatch.chdir(tmp_path / "here")
    for seed in range(COUNT):
        folder = tmp_path / "there" / "folder"
        shutil.copytree(sound[name], folder)
        spoilt = mutations(random.Random(f"{name} {seed}"), kind, folder)
        before = all_below(tmp_path, tmp_path / "out")
        try:
            check_commands(kind, folder, tmp_path / "out", capsys)
        except BaseException as error:
            error.add_note(f"{name} {seed}: {spoilt} was changed")
            raise
        assert all_below(tmp_path, tmp_path / "out") == before, (seed, spoilt)
        shutil.rmtree(tmp_path / "there")


def test_a_folder_of_many_more_points_than_were_planned_is_refused_before_they_are_made(tmp_path, capsys):
    write_sweep(
        tmp_path / "many", {"product": [{"seeds": 1000}, {"field": "optimizer.lr", "linear": [1e-3, 1e-2, 1000]}]}
    )
    for words in commands_of(tmp_path / "many", tmp_path):
        code, _, errors = run_command(words, capsys)
        assert code == 2 and "describes 1000000 points, its plans hold 0" in errors, words


def commands_of(folder: Path, out: Path) -> list[list[str]]:
    """The commands that read the points of a sweep's folder."""
    texts = [text for text in SWEEP_COMMANDS if "FOLDER/" not in text and "report" not in text]
    return [text.replace("FOLDER", str(folder)).replace("OUT", str(out)).split() for text in texts]


@pytest.mark.parametrize("chance", [-1e308, 1e5, 1e308])
def test_a_chance_level_that_no_panel_shows_leaves_the_figure_its_room(chance, sound, tmp_path, monkeypatch, capsys):
    """A word at such a level took the room of all panels, and matplotlib warned (a warning is an error here)."""
    folder = Path(shutil.copytree(sound["run"], tmp_path / "run"))
    head = json.loads((folder / "run.json").read_bytes())["body"]
    head["instruments"] = [one | {"chance": chance} for one in head["instruments"]]
    (folder / "run.json").write_bytes(sign(head))
    assert run_command(["show", str(folder), "--figure", str(tmp_path / "figure.svg")], capsys)[0] == 0
    curve = (np.arange(3.0), np.full((2, 3), 0.5))
    assert arms_figure([Panel("icl", {"a": curve}, chance)], ["a"], "t")
    assert curves_by_figure([Curve(1, None, *curve)], metric="icl", axis="a", split=None, chance=chance, title="t")


def write_sweep(folder: Path, *axes: dict[str, Any]) -> None:
    """A signed sweep.json with these axes and nothing else."""
    folder.mkdir()
    (folder / "sweep.json").write_bytes(sign({"schema": SCHEMA, "sweep": {"name": "many", "axes": axes}}))


@pytest.mark.parametrize(
    "axis",
    [
        {"field": "batch", "linear": [1, 101, 101]},
        {"field": "optimizer", "values": [{"type": "adam", "lr": 1e-3 + 1e-7 * i} for i in range(101)]},
    ],
    ids=["numbers", "structs"],
)
def test_a_folder_of_many_more_shapes_than_were_planned_is_refused(axis, tmp_path, monkeypatch, capsys):
    """Each shape is a spec of its own, which takes a millisecond to make."""
    monkeypatch.setattr(sweep_folder, "MOST_UNPLANNED_SHAPES", 100)
    write_sweep(tmp_path / "many", axis)
    for words in commands_of(tmp_path / "many", tmp_path):
        code, _, errors = run_command(words, capsys)
        assert code == 2 and "describes more than 100 static shapes, its plans hold 0" in errors, words


def test_as_many_shapes_as_were_planned_are_read(sound, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep_folder, "MOST_UNPLANNED_SHAPES", 1)
    for words in commands_of(sound["sweep"], tmp_path):
        assert run_command(words, capsys)[0] == ("status" in words)  # two widths: two shapes
    write_sweep(tmp_path / "unplanned", {"field": "model.width", "values": [8, 16]})
    code, _, errors = run_command(["sweep", "status", str(tmp_path / "unplanned")], capsys)
    assert code == 2 and "more than 1 static shapes" in errors


def test_all_plans_together_are_bounded_by_reading_and_by_writing(sound, tmp_path, monkeypatch, capsys):
    folder = Path(shutil.copytree(sound["sweep"], tmp_path / "sweep"))
    plan = folder / "plans/000001.json"
    size = plan.stat().st_size
    monkeypatch.setattr(sweep_folder, "LARGEST_PLANS", size)
    opened = SweepFolder(folder)
    with pytest.raises(InputError, match=r"its plans would take [0-9,]+ bytes, more than the [0-9,]+ that are read"):
        opened.add([])
    assert [one.name for one in (folder / "plans").iterdir()] == [plan.name]
    shutil.copy(plan, folder / "plans/000002.json")
    for words in commands_of(folder, tmp_path):
        code, _, errors = run_command(words, capsys)
        assert code == 2 and "plans/000002.json: has more than 0 bytes" in errors and len(errors.splitlines()) == 1


def test_a_description_is_bounded_by_reading_and_by_writing(sound, tmp_path, monkeypatch, capsys):
    size = (sound["sweep"] / "sweep.json").stat().st_size
    monkeypatch.setattr(sweep_folder, "LARGEST_SWEEP", size - 1)
    for words in commands_of(sound["sweep"], tmp_path):
        code, _, errors = run_command(words, capsys)
        assert code == 2 and f"sweep.json: has more than {size - 1} bytes" in errors
    with pytest.raises(InputError, match=r"takes [0-9,]+ bytes, more than the [0-9,]+ that are read"):
        SweepFolder.make(tmp_path / "new", replace(SWEEP, made_in=str(tmp_path)))
    assert not (tmp_path / "new").exists()
