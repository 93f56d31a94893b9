"""A sweep that has been trained is read anywhere: on any machine, without its data, whatever became of its preset."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError, Interrupted
from ebbtide.pages.gather import entry_of, gather
from ebbtide.pages.origin import known_sweep
from ebbtide.papers import registry
from ebbtide.papers.registry import find_study
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.places import looking_in, resolve_path
from ebbtide.runs.signed import SCHEMA, sign
from ebbtide.sources.features import Features
from ebbtide.studies.comparison import Comparison, description_digest, find_verdict, folder_in, judge_sweep
from ebbtide.studies.study import Experiment, Study
from ebbtide.studies.verdict import verdict_in, write_verdict
from ebbtide.sweeps import driver
from ebbtide.sweeps.axes import Axis
from ebbtide.sweeps.driver import run_sweep
from ebbtide.sweeps.executors import NAMES, trains_here
from ebbtide.sweeps.folder import StoredSweep, SweepFolder, places
from ebbtide.sweeps.plan import group_unchecked
from ebbtide.sweeps.results import load
from ebbtide.sweeps.sweep import Resources, Sweep, read_sweep
from ebbtide.training import limits
from ebbtide.training.start import checkpoint
from sweep_tools import BASE, _Idle, made, make_sweep, plan_of
from tiny import write_run

pytestmark = pytest.mark.usefixtures("quick_compile")

SHORT = BASE | {"sequences": 1600}
SWEEP = Sweep(name="try", base=SHORT, axes=(Axis(seeds=2),))
OF_PRESET = replace(SWEEP, study="transience")


class Elsewhere(_Idle):
    """An executor whose tasks run on other machines."""

    here = False


def from_file(path: Path) -> Sweep:
    """A sweep over frozen features in a file."""
    np.savez(path, features=np.random.default_rng(0).normal(size=(80, 4, 8)).astype(np.float32))
    counts = {
        name: SHORT[f"source.{name}"] for name in ("classes", "exemplars", "holdout_classes", "holdout_exemplars")
    }
    base = {name: value for name, value in SHORT.items() if not name.startswith("source.")}
    return replace(SWEEP, base=base | {"source": {"type": "features", "path": str(path), **counts}})


def states(path: Path) -> list[str]:
    return [row.state for row in load(path).rows]


def change_preset(monkeypatch: pytest.MonkeyPatch, name: str = "transience", **changes: Any) -> None:
    """What a later version of the package might do: other defaults in every preset of a study."""
    study = find_study(name)
    bases = {key: one._replace(spec=replace(one.spec, **changes)) for key, one in study.bases.items()}
    replace_study(monkeypatch, study._replace(bases=bases))


def replace_study(monkeypatch: pytest.MonkeyPatch, changed: Study) -> None:
    every = tuple(changed if one.name == changed.name else one for one in registry.STUDIES)
    monkeypatch.setattr(registry, "STUDIES", every)


def told(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the status of a sweep says; its results are read and its page is made, too."""
    assert states(path) == ["finished"] * 2
    assert main(["sweep", "collect", str(path), "--out", str(path.parent / "t.csv")]) == 0
    assert not entry_of(path).problem
    assert main(["sweep", "status", str(path)]) == 0
    return capsys.readouterr().out


def test_a_finished_sweep_is_read_on_a_machine_of_little_memory(tmp_path, monkeypatch, capsys):
    path = made(tmp_path / "s", SWEEP).path
    monkeypatch.setattr(limits, "physical_memory", lambda: 10_000)
    assert "not planned" not in told(path, capsys)


def test_a_finished_sweep_is_read_without_its_data(tmp_path, capsys):
    path = made(tmp_path / "s", from_file(tmp_path / "x.npz")).path
    (tmp_path / "x.npz").unlink()
    assert "not planned" not in told(path, capsys)
    run_sweep(from_file(tmp_path / "x.npz"), path)  # nothing is left to train
    (tmp_path / "x.npz").unlink()
    assert main(["sweep", str(path)]) == 0


def test_a_finished_sweep_is_read_after_its_preset_has_changed(tmp_path, monkeypatch, capsys):
    path = made(tmp_path / "s", OF_PRESET).path
    change_preset(monkeypatch, keep_best=None)
    assert "not planned" not in told(path, capsys)
    assert main(["sweep", str(path)]) == 0 and states(path) == ["finished"] * 2
    assert SweepFolder(path).sweep.spec().keep_best == "icl", "going on with a folder is going on with its sweep"


def test_a_sweep_given_again_after_its_preset_has_changed_keeps_what_is_the_same(tmp_path, monkeypatch, capsys):
    axes = (
        Axis(chain=(Axis(field="keep_best", values=["icl"]), Axis(field="optimizer.lr", values=[0.1]))),
        Axis(seeds=1),
    )
    file = tmp_path / "s.json"
    file.write_bytes(replace(OF_PRESET, axes=axes).to_json())
    path = made(tmp_path / "s", replace(OF_PRESET, axes=axes)).path
    before = SweepFolder(path).members
    change_preset(monkeypatch, keep_best=None)
    assert main(["sweep", str(file), "--out", str(path), "--dry-run"]) == 0
    line = "transience's preset quick has changed since "
    assert line in capsys.readouterr().out and states(path) == ["finished"] * 2
    said: list[str] = []
    monkeypatch.setattr(driver._Loop, "run", lambda self: None)  # pyright: ignore[reportPrivateUsage]
    run_sweep(read_sweep(file), path, say=said.append)
    assert sum(one.startswith(line) for one in said) == 1
    assert states(path) == ["finished", "missing"] and before.items() <= SweepFolder(path).members.items()
    run_sweep(read_sweep(file), path, say=said.append)
    assert sum(one.startswith(line) for one in said) == 1, "said once, when it happens"


def test_a_folder_of_an_earlier_version_has_its_preset_by_name(tmp_path, monkeypatch):
    """It holds no base in full."""
    path = made(tmp_path / "s", OF_PRESET).path
    text = (path / "sweep.json").read_bytes()
    without(path)
    assert (path / "sweep.json").read_bytes() != text and states(path) == ["finished"] * 2
    change_preset(monkeypatch, keep_best=None)
    assert states(path) == ["missing"] * 2


def without(path: Path) -> None:
    """Makes of a sweep's folder one that an earlier version has written."""
    rewritten(path, resolved=None, origin=None, made_in=None)


@pytest.mark.parametrize("field", ["resolved", "origin", "made_in"])
def test_a_description_cannot_hold_what_folders_hold(tmp_path, field):
    data = msgspec.to_builtins(SWEEP)
    data[field] = {"resolved": {}, "origin": {"experiment": "x", "preset": "quick", "arms": []}, "made_in": "."}[field]
    (tmp_path / "s.json").write_bytes(msgspec.json.encode(data))
    with pytest.raises(InputError) as caught:
        read_sweep(tmp_path / "s.json")
    assert caught.value.field == field


def test_a_sweep_without_its_study_is_the_same_sweep():
    alone = OF_PRESET.standalone()
    assert alone.study is None and alone.spec() == OF_PRESET.spec() and alone.points() == OF_PRESET.points()
    alone.check()


# --- experiments, their folders and verdicts

L2 = TRANSIENCE.experiment("l2")


def judged(path: Path, **fields: Any) -> Path:
    """The folder of an experiment that has run, with its verdict."""
    folder = made(path, make_sweep(TRANSIENCE, L2, "quick", SHORT | fields))
    verdict, _ = judge_sweep(TRANSIENCE, L2, "quick*", folder)
    write_verdict(path, verdict, {})
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return judged(tmp_path_factory.mktemp("finished") / "s")


def told_of(path: Path) -> tuple[Any, ...]:
    """What a page says of an experiment that is complete."""
    found = entry_of(path)
    claims = [claim.claim for claim in found.claims or ()]
    return found.experiment, found.preset, found.question, claims, dict(found.facts)["Arms"], found.problem


def rewritten(path: Path, **changes: Any) -> Path:
    """A sweep's folder whose description says something else."""
    now = replace(SweepFolder(path).sweep, **changes)
    (path / "sweep.json").write_bytes(sign(StoredSweep(SCHEMA, now), indent=1))
    return path


@pytest.mark.parametrize("earlier", [False, True])
def test_a_verdict_is_found_after_tasks_were_given_more(finished, tmp_path, earlier, monkeypatch):
    """The time limit of a task is no part of the question; also where an earlier version wrote the folder."""
    path = Path(shutil.copytree(finished, tmp_path / "s"))
    plain = SweepFolder(path).sweep
    if earlier:
        without(path)
        verdict = verdict_in(path)
        assert verdict is not None
        write_verdict(path, replace(verdict, digest=description_digest(plain)), {})
        assert find_verdict(path)
    else:
        more = {"resources": Resources(minutes=999), "task_members": 2, "task_minutes": 5.0, "tries": 7}
        assert SweepFolder.make(path, replace(plain, **more)).sweep.tries == 7 and find_verdict(path)
    change_preset(monkeypatch, sequences=32)  # the sweep has its own
    assert find_verdict(path) and not entry_of(path).problem


def test_a_verdict_on_another_preset_is_none_on_this_one(finished, tmp_path, monkeypatch):
    path = Path(shutil.copytree(finished, tmp_path / "s"))
    change_preset(monkeypatch, keep_best=None)
    assert find_verdict(path)
    SweepFolder.make(path, replace(SweepFolder(path).sweep, resolved=None))
    assert find_verdict(path) is None


@pytest.mark.parametrize("earlier", [False, True])
def test_a_page_tells_of_an_experiment_whose_preset_has_changed(finished, tmp_path, monkeypatch, earlier):
    """By what the folder says; in the folder of an earlier version by the verdict."""
    path = Path(shutil.copytree(finished, tmp_path / "runs" / "s"))
    before = told_of(path)
    assert before[:2] == ("transience/l2", "quick*") and before[3] and before[4] and not before[5]
    if earlier:
        without(path)
    preset = L2.presets["quick"]
    work = plan_of(find_study("transience"), L2).setup.experiment.presets["quick"].work
    assert isinstance(work, Comparison)
    field = "optimizer.decay.coefficient"
    arms = {name: point | {field: 2 * point[field]} for name, point in work.arms.items()}
    change_experiment(
        monkeypatch, L2._replace(presets=L2.presets | {"quick": preset._replace(work=work._replace(arms=arms))})
    )
    if not earlier:
        change_preset(monkeypatch, keep_best=None)
    assert told_of(path) == before
    found = entry_of(path)
    assert dict(found.facts)["Changed since"] and found.command == "ebbtide sweep transience-l2-quick.json"
    file = tmp_path / "again.json"
    file.write_text(found.texts[0][1])
    assert read_sweep(file).spec() == SweepFolder(path).sweep.spec(), "the file makes this sweep, not that of today"
    assert [one.name for one in gather(["transience/l2"], tmp_path / "runs") if one.kind == "sweep"] == ["s"]


def change_experiment(monkeypatch: pytest.MonkeyPatch, experiment: Experiment) -> None:
    """What a later version might do: another experiment of this name."""
    experiments = tuple(experiment if one.name == experiment.name else one for one in TRANSIENCE.experiments)
    replace_study(monkeypatch, find_study("transience")._replace(experiments=experiments))


def test_an_experiment_that_is_not_judged_yet_is_known_after_its_preset_has_changed(finished, tmp_path, monkeypatch):
    path = Path(shutil.copytree(finished, tmp_path / "s"))
    (path / "verdict.json").unlink()
    change_preset(monkeypatch, keep_best=None)
    found = entry_of(path)
    assert found.experiment == "transience/l2" and found.question == L2.question
    assert found.problem == "Not judged yet."


def test_an_experiment_is_looked_for_under_every_name_it_was_given(finished, tmp_path):
    """The time limit of a task is in the name of its folder, and may be raised later."""
    sweep = SweepFolder(finished).sweep
    usual = folder_in(tmp_path, sweep)
    assert usual.parent == tmp_path and not usual.exists()
    assert usual.name == f"{sweep.name}-{description_digest(sweep)[:8]}"
    more = replace(sweep, resources=Resources(minutes=999))
    shutil.copytree(finished, usual)
    (tmp_path / f"{sweep.name}-00000000").mkdir()
    assert folder_in(tmp_path, more) == folder_in(tmp_path, sweep) == usual
    other = make_sweep(TRANSIENCE, L2, "quick", SHORT | {"batch": 8})
    assert folder_in(tmp_path, other) != usual


@pytest.mark.parametrize(("name", "one"), [("transience", "early-stopping"), ("statisticians", "base")])
def test_the_sweep_of_a_shipped_experiment_is_the_same_after_its_preset_has_changed(name, one, tmp_path, monkeypatch):
    study = find_study(name)
    sweep = make_sweep(study, study.experiment(one), "quick")
    path = SweepFolder.make(tmp_path / "s", sweep).path
    addresses = [a for each in group_unchecked(sweep, sweep.points()) for a in each.addresses]
    change_preset(monkeypatch, name, keep_best=None, batch=4, sequences=400)
    found = SweepFolder(path).sweep
    assert [a for each in group_unchecked(found, found.points()) for a in each.addresses] == addresses
    now = make_sweep(study, study.experiment(one), "quick")
    assert [a for each in group_unchecked(now, now.points()) for a in each.addresses] != addresses
    known = known_sweep(found)
    assert known is not None and known.experiment.name == one and not known.command


# --- relative paths


def test_a_relative_path_is_meant_from_the_folder_where_the_sweep_was_made(tmp_path, monkeypatch):
    """Of a data file and of a run to start from; first the working folder, then that one, then the sweep's own."""
    for name in ("made", "other", "moved"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "made")
    from_file(Path("x.npz"))
    write_run(Path("runs/donor"), {"icl": [[0.5, 0.6]]}, [[1.0, 0.9]])
    folder = SweepFolder.make(Path("runs/s"), from_file(Path("x.npz")))
    assert folder.sweep.made_in == str(tmp_path / "made") and "made_in" not in folder.sweep.to_json().decode()
    path = tmp_path / "made" / "runs" / "s"
    source = Features(path="x.npz", classes=64, exemplars=2, holdout_classes=8, holdout_exemplars=2)
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(InputError, match=r"no such file$"):
        source.check_data()
    with looking_in(places(path, folder.sweep)):
        source.check_data()
        assert resolve_path("runs/donor") == str(tmp_path / "made/runs/donor") and len(source.read()) == 80
        from_file(Path("x.npz"))
        assert resolve_path("x.npz") == "x.npz" and resolve_path("y.npz") == "y.npz" and resolve_path("\0") == "\0"
        with pytest.raises(InputError, match=r"looked for from \., .*made, .*made\)"):
            checkpoint("runs/none", 0)
    assert resolve_path("runs/donor") == "runs/donor"
    shutil.move(tmp_path / "made" / "runs", tmp_path / "moved")
    shutil.rmtree(tmp_path / "made")
    with looking_in(places(tmp_path / "moved" / "runs" / "s", folder.sweep)):
        assert resolve_path("runs/donor") == str(tmp_path / "moved/runs/donor")


def test_a_sweep_goes_on_from_another_working_folder(tmp_path, monkeypatch):
    """Its tasks find the data that its description names by a relative path."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    sweep = from_file(Path("x.npz"))
    with pytest.raises(Interrupted):
        run_sweep(sweep, "s", on=_Idle())
    monkeypatch.chdir(tmp_path / "other")
    assert main(["sweep", "../s", "--jobs", "1"]) == 0
    assert states(tmp_path / "s") == ["finished"] * 2


# --- planning where tasks do not run


def test_a_login_node_plans_for_its_cluster(tmp_path, monkeypatch, capsys):
    """Neither the data nor the memory are here; the plan is the one that is made where they are."""
    sweep = from_file(tmp_path / "x.npz")
    with pytest.raises(Interrupted):
        run_sweep(sweep, tmp_path / "there", on=_Idle())
    (tmp_path / "x.npz").unlink()
    monkeypatch.setattr(limits, "physical_memory", lambda: 10_000)
    said: list[str] = []
    with pytest.raises(Interrupted):
        run_sweep(sweep, tmp_path / "here", on=Elsewhere(), say=said.append)
    assert any("no such file" in one and "checked again where it runs" in one for one in said)
    assert SweepFolder(tmp_path / "here").members == SweepFolder(tmp_path / "there").members
    with pytest.raises(InputError, match="no such file"):
        run_sweep(sweep, tmp_path / "new", on=_Idle())
    assert not (tmp_path / "new").exists()
    (tmp_path / "s.json").write_bytes(sweep.to_json())
    assert main(["sweep", str(tmp_path / "s.json"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "2 members to train" in out and out.count("this machine could not train these tasks") == 1
    assert main(["sweep", str(tmp_path / "s.json"), "--out", str(tmp_path / "new")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "no such file" in told and not (tmp_path / "new").exists()


def test_a_local_sweep_that_this_machine_cannot_hold_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "physical_memory", lambda: 10_000)
    with pytest.raises(InputError, match="this machine has 10,000"):
        run_sweep(SWEEP, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_only_tasks_of_a_cluster_run_elsewhere():
    assert {name: trains_here(name) for name in NAMES} == {
        "local": True,
        "slurm": False,
        "slurm-local": True,
        "ray": False,
    }
    assert trains_here(_Idle()) and not trains_here(Elsewhere())
