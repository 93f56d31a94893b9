"""The presets `paper` of transience and coopetition train as one public code each does: data, read-out and schedule."""

import pytest

from ebbtide.errors import InputError
from ebbtide.models.encoders import ResNet
from ebbtide.models.positions import LearnedUniform, Sinusoidal
from ebbtide.models.transformer import Transformer
from ebbtide.papers.registry import find_study
from ebbtide.sources.omniglot import Omniglot
from ebbtide.studies.comparison import Comparison, SweepPlan
from ebbtide.studies.study import setup
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Fixed
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Constant, WarmupInverseSqrt
from ebbtide.training.spec import Spec

CHAN = {"main"}
"""Experiments of transience whose preset `paper` is the jointly trained one."""


def specs(study: str) -> list[tuple[str, str, Spec]]:
    """(experiment, arm, spec) of all presets `paper` of a study, with its base and the runs that arms start from."""
    one = find_study(study)
    found = [("", "base", one.base("paper").spec)]
    for experiment in one.experiments:
        preset = experiment.presets.get("paper")
        if preset and isinstance(preset.work, Comparison):
            plan = setup(one, experiment.name, "paper").plan()
            assert isinstance(plan, SweepPlan)
            found += [(experiment.name, arm, spec) for arm, spec in plan.specs().items()]
            donor = preset.work.donor
            found += [(experiment.name, donor.name, donor.spec)] if donor else []
    return found


@pytest.mark.parametrize("study", ["transience", "coopetition"])
def test_frozen_features_are_trained_as_by_their_own_public_code(study):
    frozen = [one for one in specs(study) if one[0] not in CHAN]
    assert len(frozen) > 10
    for experiment, arm, spec in frozen:
        task, source, optimizer, where = spec.task, spec.source, spec.optimizer, f"{experiment}, {arm}"
        assert isinstance(task, FewShot) and isinstance(source, Omniglot) and isinstance(optimizer, Adam)
        assert (source.features, source.standardise) == ("resnet18", "none"), where
        assert (task.exemplar_draw, task.reserved_labels) == ("independent", 0), where
        assert task.outputs(source.stand_in()) == task.labels.total(source.classes), where
        assert optimizer.schedule == Constant() and spec.batch == 32, where
        assert not getattr(spec.model, "attention_bias", False), where


def test_each_study_has_its_own_model_and_rate():
    large, small = (find_study(name).base("paper").spec for name in ("transience", "coopetition"))
    assert large.model == Transformer(layers=12, width=64, heads=8, positions=Sinusoidal(max_time=30.0))
    positions = LearnedUniform(init_sd=96**-0.5, spare=27)
    assert small.model == Transformer(layers=2, width=64, heads=8, mlp_ratio=0, positions=positions)
    assert (large.optimizer.lr, small.optimizer.lr) == (3e-4, 1e-5)
    shape = {"context": 2, "dim": 512, "labels": small.task.outputs(small.source.stand_in())}
    assert small.model.parameters(**shape) == 1_719_232, "as many as the public code's model has"


def test_the_jointly_trained_run_is_that_of_chan_et_al():
    ((_, _, spec),) = [one for one in specs("transience") if one[0] in CHAN]
    task, source = spec.task, spec.source
    assert isinstance(task, FewShot) and isinstance(source, Omniglot)
    assert (source.features, source.side, source.classes) == ("pixels", 105, 1600)
    assert (task.exemplar_draw, task.labels) == ("without_replacement", Fixed())
    assert task.outputs(source.stand_in()) == 1623, "with those of the held-out classes"
    assert spec.optimizer == Adam(lr=3e-4, schedule=WarmupInverseSqrt(warmup=4000))
    positions = Sinusoidal(max_time=30.0)
    encoder = ResNet(norm="batch")
    assert spec.model == Transformer(
        layers=12, width=64, heads=8, positions=positions, attention_bias=True, encoder=encoder
    )


def test_evaluators_of_reserved_labels_need_some(one_line):
    spec = find_study("coopetition").base("paper").spec
    with pytest.raises(InputError) as caught:
        spec.task.check_evaluator("icl_reserved", spec.source.stand_in())
    one_line(caught, "task.reserved_labels", 0)
