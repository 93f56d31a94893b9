"""A run that its study could not judge is refused before it is trained, in one line that names the field."""

import pytest
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError, require
from ebbtide.papers.registry import STUDIES, find_study
from ebbtide.studies.comparison import SweepPlan
from ebbtide.studies.rehearsal import rehearse
from ebbtide.studies.single_run import RunPlan, check_judgeable
from ebbtide.studies.study import setup
from ebbtide.training.spec import Spec
from tiny import SPEC, write_run


@pytest.mark.parametrize("study", STUDIES, ids=lambda one: one.name)
def test_every_preset_of_every_experiment_can_be_judged(study):
    for experiment in study.experiments:
        for preset in experiment.presets:
            plan = setup(study, experiment.name, preset).plan()
            if isinstance(plan, SweepPlan):
                plan.check_judgeable()
            elif isinstance(plan, RunPlan):
                check_judgeable(study, plan.spec, {})


@pytest.mark.parametrize(
    ("words", "field", "says"),
    [
        (
            ["coopetition", "--evaluators", '["train","icl"]'],
            "evaluators = ",
            "cannot be judged: there would be no 'flip'",
        ),
        (
            ["transience", "--experiment", "l2", "--evaluators", '["train"]'],
            "evaluators = ",
            "there would be no 'icl_final'",
        ),
        (
            ["abrupt-learning", "--evaluators", '["train", "icl"]'],
            "evaluators = ",
            "abrupt-learning/data cannot be judged",
        ),
        (["transience", "--experiment", "early-stopping", "--keep_best", "null"], "keep_best = ", "the best model of"),
        (
            ["coopetition", "--evaluators", '["train","icl"]', "--batch", "64", "--members", "2"],
            "evaluators = ['train', 'icl'], batch = 64, members = 2: then coopetition cannot be judged: ",
            "there would be no 'flip'",
        ),
        (
            ["transience", "--experiment", "l2", "--evaluators", '["train"]', "--batch", "64"],
            "evaluators = ['train'], batch = 64: then transience/l2 cannot be judged: ",
            "there would be no 'icl_final'",
        ),
        (
            ["context-to-weights", "--experiment", "through-training", "--model.positions", "learned"],
            "model.positions = 'learned': ",
            "must be rotary, none or identical",
        ),
        (["context-to-weights", "--model.mask", "none"], "model.mask = 'none': ", "must be causal"),
    ],
)
def test_what_cannot_be_judged_is_not_trained(tmp_path, monkeypatch, capsys, words, field, says):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *words]) == 2
    said = capsys.readouterr().err
    assert field in said and says in said and len(said.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_single_run_of_a_model_that_cannot_be_measured_is_refused_too():
    def check(spec: Spec) -> None:
        require(spec.batch < 64, "batch", spec.batch, "must be below 64")

    study = find_study("transience")
    experiments = tuple(one._replace(check=check) if one.name == study.name else one for one in study.experiments)
    spec = study.bases["quick"].spec
    with pytest.raises(InputError, match="must be below 64"):
        check_judgeable(study._replace(experiments=experiments), replace(spec, batch=64), {"batch": 64})


def test_evaluators_that_are_not_needed_can_be_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evaluators = '["train","icl","flip","ciwl"]'
    assert main(["run", "coopetition", "--evaluators", evaluators, "--dry-run"]) == 0


def test_a_run_that_was_trained_and_cannot_be_judged_says_so_in_one_line(tmp_path, capsys):
    curve = [[0.5, 0.6, 0.7]]
    label = {"study": "coopetition", "preset": "quick*"}
    run = write_run(tmp_path / "run", {"icl": curve, "iwl": curve}, [[4, 3, 2]], replace(SPEC, members=1), label=label)
    assert main(["resume", str(run.path)]) == 2
    said = capsys.readouterr().err
    assert "curve = 'flip'" in said and len(said.splitlines()) == 1


def test_a_check_that_names_a_changed_field_is_left_as_it_is_and_another_told_with_the_changed_ones():
    def judging() -> None:
        require(False, "model.layers", 1, "must be at least 2")

    with pytest.raises(InputError, match=r"^model.layers = 1: must be at least 2$"):
        rehearse(judging, "mine", {"model.layers": 1})
    words = r"model = \{'layers': 1\}, batch = 64: then mine cannot be judged: model.layers = 1: must be at least 2"
    with pytest.raises(InputError, match=words):
        rehearse(judging, "mine", {"model": {"layers": 1}, "batch": 64})
