"""Experiments whose arms start from a run that is trained with them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.cli.parser import RUNS
from ebbtide.errors import InputError
from ebbtide.papers.coopetition.study import COOPETITION
from ebbtide.papers.coopetition.switch import SWITCH, WINDOW
from ebbtide.papers.registry import STUDIES, find_study
from ebbtide.runs.folder import RunFolder
from ebbtide.sources.bank import SeededSource
from ebbtide.studies.claim import above
from ebbtide.studies.comparison import Comparison, seeds_of_round
from ebbtide.studies.donor import SHARED, Donor
from ebbtide.studies.registration import SEED_BLOCK
from ebbtide.studies.study import Experiment, Preset, Study
from ebbtide.sweeps.sweep import Sweep
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.relabel import CopyQueryLabel
from ebbtide.training.driver import train
from ebbtide.training.fields import assign_all
from ebbtide.training.spec import Spec, from_builtins
from sweep_tools import BASE, make_sweep, plan_of

pytestmark = pytest.mark.usefixtures("quick_compile")
FIELDS = {**BASE, "source.seed": 5, "keep_best": "icl"}


def small(**fields: Any) -> Spec:
    """The preset of a study with so little to do."""
    data = to_builtins(find_study("transience").base("quick").spec)
    assign_all(Spec, data, FIELDS | fields)
    return from_builtins(data)


DONOR = Donor("try-donor", small(members=6, sequences=1024), {"donor": "transience/try"})
WORK = Comparison(
    arms={"anew": {"start": None}, "from it": DONOR.start(512)},
    base={**FIELDS, "sequences": 1600},
    members=6,
    task_members=6,
    donor=DONOR,
)
CLAIMS = (above("sure", "icl is a number", "definition", "icl_peak", "from it", 0.0),)
EXPERIMENT = Experiment("try", "Does it start?", "nowhere", CLAIMS, {"quick": Preset(WORK, 1, "tiny")}, shows=("icl",))
ARGUMENTS = ["run", "transience", "--experiment", "try"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder, and the experiment among those of a study."""
    monkeypatch.chdir(tmp_path)
    add_experiment(monkeypatch, EXPERIMENT)
    return tmp_path


def add_experiment(monkeypatch: pytest.MonkeyPatch, experiment: Experiment) -> None:
    """Makes it one of the experiments of `transience`, in place of one of its name."""
    from ebbtide.papers import registry

    known = find_study("transience")
    others = tuple(one for one in known.experiments if one.name != experiment.name)
    study = known._replace(experiments=(*others, experiment))
    monkeypatch.setattr(registry, "STUDIES", tuple(study if one is known else one for one in registry.STUDIES))


def test_the_donor_is_trained_once_and_then_the_arms(here, capsys, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")  # no bits are compared
    assert main([*ARGUMENTS, "--dry-run"]) == 0
    assert (
        f"first the run that arms start from: 6 members x 1.02k sequences into {DONOR.path}" in capsys.readouterr().out
    )
    assert not (here / RUNS).exists()
    assert main([*ARGUMENTS, "--check"]) == 0
    text = capsys.readouterr().out
    assert "first the run that arms start from" in text and "HOLDS" in text.upper()
    assert DONOR.ready() and RunFolder(DONOR.path).header.label == DONOR.label
    before = {path: path.stat().st_mtime_ns for path in Path(DONOR.path).rglob("*") if path.is_file()}
    assert main([*ARGUMENTS, "--check"]) == 0
    assert "first the run" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main([*ARGUMENTS, "--dry-run"]) == 0
    assert "12 members into" in capsys.readouterr().out


def test_a_folder_with_another_run_is_one_clear_line(here, capsys):
    train(replace(DONOR.spec, sequences=512), DONOR.path, processes=0)
    with pytest.raises(InputError) as caught:
        DONOR.ready()
    words = f"donor = '{DONOR.path}': holds a run of another spec; move it away, and it will be trained"
    assert str(caught.value) == words
    assert main(ARGUMENTS) == 2
    assert capsys.readouterr().err == f"ebbtide: {words}\n"


def test_overrides_reach_the_donor_and_the_arms_start_from_it(here, capsys):
    """The donor is trained on the world that the arms are trained on, under a name of its own."""
    assert main([*ARGUMENTS, "--source.seed", "77", "--dry-run"]) == 0
    changed = plan_of(find_study("transience"), EXPERIMENT, "quick", {"source.seed": 77}).comparison
    assert changed.donor is not None and changed.donor.path != DONOR.path
    assert changed.donor.path in capsys.readouterr().out
    assert changed.donor.spec == replace(DONOR.spec, source=replace(DONOR.spec.source, seed=77))
    assert changed.arms["from it"]["start"]["run"] == changed.donor.path and changed.arms["anew"] == {"start": None}
    assert plan_of(find_study("transience"), EXPERIMENT, "quick", {}).comparison.donor == DONOR


WITH_DONORS = [
    pytest.param(study, experiment, name, id=f"{study.name}-{experiment.name}-{name}")
    for study in STUDIES
    for experiment in study.experiments
    for name, preset in experiment.presets.items()
    if isinstance(preset.work, Comparison) and preset.work.donor
]


def in_common(study: Study, setting: Comparison) -> dict[str, Any]:
    """The fields of source, task, model and optimiser in which a donor and the base of its arms agree."""
    assert setting.donor is not None
    arms = Sweep(name="arms", study=study.name, preset=setting.preset, base=setting.base).spec()
    found = {}
    for part in SHARED:
        ours, theirs = (to_builtins(getattr(spec, part)) for spec in (arms, setting.donor.spec))
        pairs = [(part, ours, theirs)]
        if isinstance(ours, dict):
            pairs = [(f"{part}.{name}", ours[name], theirs.get(name)) for name in ours if name != "type"]
        found |= {name: a for name, a, b in pairs if a == b}
    return found


@pytest.mark.parametrize(("study", "experiment", "preset"), WITH_DONORS)
def test_what_donor_and_arms_have_in_common_stays_in_common(study, experiment, preset):
    before = experiment.preset(preset).work
    assert before.donor is not None
    seed = "source.seed" if isinstance(before.donor.spec.source, SeededSource) else "source.class_order_seed"
    overrides = {
        seed: 77,
        "optimizer.lr": 5e-4,
        "batch": 8,
        "seeds.init": 9,
        "seeds.data": 70,
        "seeds.world": 80,
        "sequences": 64,
    }
    after = plan_of(study, experiment, preset, overrides).comparison
    assert after.donor is not None
    common = in_common(study, before)
    assert len(common) > 10
    now = in_common(study, after)
    assert now.keys() == common.keys() and now[seed] == 77
    old, new = before.donor.spec, after.donor.spec
    own = seeds_of_round(study.full_name(experiment), preset, before.round)
    assert new.seeds.init - 9 == old.seeds.init - own["seeds.init"], "other streams stay other streams"
    assert new.seeds.data - 70 == old.seeds.data - own["seeds.data"] != 0
    assert new.seeds.world == 80, "and the world is one"
    assert (new.sequences, new.schedule) == (old.sequences, old.schedule), "where arms begin is kept"
    runs = {point["start"]["run"] for point in after.arms.values() if point.get("start")}
    assert runs == {after.donor.path}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("source", "functions", "cannot be given whole"), ("source.seed", -3, "source.seed")],
)
def test_an_override_that_a_donor_cannot_take_is_one_clear_line(field, value, words):
    study = find_study("representations")
    with pytest.raises(InputError, match=words) as caught:
        plan_of(study, study.experiment("pasting"), "quick", {field: value})
    assert caught.value.field == field and len(str(caught.value).splitlines()) == 1


def test_a_field_that_arms_have_of_their_own_is_not_the_donors():
    study = find_study("representations")
    after = plan_of(study, study.experiment("pasting"), "quick", {"model.layers": 6}).comparison
    assert after.donor == plan_of(study, study.experiment("pasting")).comparison.donor


def test_a_donor_that_was_interrupted_is_gone_on_with(here):
    assert not DONOR.ready()
    train(DONOR.spec, DONOR.path, processes=0, label=DONOR.label)
    assert DONOR.ready()
    newest = sorted((here / DONOR.path / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    assert not DONOR.ready()


def test_arms_of_another_shape_than_the_donor_are_one_clear_line(here, capsys, monkeypatch):
    """Arms that have a width of their own: it is not the donor's, so an override of it is not either."""
    train(DONOR.spec, DONOR.path, processes=0, label=DONOR.label)
    arms = {name: point | {"model.width": 16} for name, point in WORK.arms.items()}
    add_experiment(monkeypatch, EXPERIMENT._replace(presets={"quick": Preset(WORK._replace(arms=arms), 1, "tiny")}))
    assert main([*ARGUMENTS, "--model.width", "8"]) == 2
    error = capsys.readouterr().err
    assert "start.run" in error and "has shape" in error and error.count("\n") == 1


WITH_DONOR = [(one.values[1], one.values[2]) for one in WITH_DONORS if one.values[0] is COOPETITION]


@pytest.mark.parametrize(("experiment", "preset"), WITH_DONOR, ids=lambda one: getattr(one, "name", one))
def test_every_arm_starts_from_a_checkpoint_that_its_donor_keeps(experiment, preset):
    setting = plan_of(COOPETITION, experiment, preset).comparison
    donor = setting.donor
    assert donor is not None and donor.path.startswith(f"{RUNS}/")
    donor.spec.check()
    kept = donor.spec.schedule.kept(donor.spec.sequences, donor.spec.batch)
    starts = [point["start"] for point in setting.arms.values() if point.get("start")]
    assert starts and all(one["run"] == donor.path and one["sequences"] in kept for one in starts)
    arm = from_builtins(make_sweep(COOPETITION, experiment, preset).builtins())
    assert arm.source == donor.spec.source and arm.model == donor.spec.model
    assert donor.spec.members >= setting.members
    outputs = {replace(spec, source=spec.source.stand_in()).outputs() for spec in (arm, donor.spec)}
    assert len(outputs) == 1


@pytest.mark.parametrize("experiment", [SWITCH, WINDOW], ids=lambda one: one.name)
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_arms_differ_in_where_they_start_alone(experiment, preset):
    points = list(plan_of(COOPETITION, experiment, preset).comparison.arms.values())
    assert all(set(point) <= {"start", "freeze"} for point in points)
    assert len({str(point) for point in points}) == len(points)
    frozen = [point.get("freeze") for point in points if point["start"]]
    assert all(one == (list(points[-1]["start"]["parts"]) if experiment is WINDOW else None) for one in frozen)


@pytest.mark.parametrize("experiment", [SWITCH, WINDOW], ids=lambda one: one.name)
def test_donors_have_never_seen_a_query_with_an_exemplar_of_its_class(experiment):
    donor = experiment.presets["quick"].work.donor.spec
    assert donor.task.burst == 0 and donor.task.rest == "unique" and isinstance(donor.task.relabel, CopyQueryLabel)
    arms = from_builtins(make_sweep(COOPETITION, experiment, "quick").builtins())
    assert isinstance(arms.task, FewShot) and arms.task.burst == 1
    assert donor.seeds.data != arms.seeds.data, "other sequences"


@pytest.mark.parametrize(("study", "experiment", "preset"), WITH_DONORS)
def test_a_member_and_its_donor_share_a_world_and_neither_weights_nor_sequences(study, experiment, preset):
    setting = plan_of(study, experiment, preset).comparison
    arms = replace(from_builtins(make_sweep(study, experiment, preset).builtins()), members=setting.members)
    donor = setting.donor.spec if setting.donor else arms
    assert donor.members == arms.members and donor.worlds() == arms.worlds() == arms.members
    for m in range(arms.members):
        ours, theirs = arms.world(m), donor.world(m)
        same = [(to_builtins(spec.source).get("seed"), spec.seeds.evaluation) for spec in (ours, theirs)]
        assert same[0] == same[1]
    seeds = [(spec.seeds.init, spec.seeds.data) for spec in (arms, donor)]
    assert seeds[0][0] != seeds[1][0] and seeds[0][1] != seeds[1][1]
    assert {number // SEED_BLOCK for pair in seeds for number in pair} == {arms.seeds.world // SEED_BLOCK}  # pyright: ignore


def test_another_spec_is_another_run():
    other = DONOR._replace(spec=replace(DONOR.spec, batch=32))
    assert other.path != DONOR.path and other.graft(0, ("blocks.1.*",))["freeze"] == ["blocks.1.*"]
