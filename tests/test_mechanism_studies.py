"""The studies of mechanisms: every arm can be trained, and what their claims estimate is what they say."""

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.evaluation.summary import first_crossing
from ebbtide.models.transformer import Transformer
from ebbtide.papers.abrupt_learning.study import ABRUPT_LEARNING
from ebbtide.papers.coopetition import study as coopetition
from ebbtide.papers.coopetition.study import COOPERATION, COOPETITION, QUICK, graft_curve
from ebbtide.papers.induction_heads.claims import HALF, sequences_to_loss
from ebbtide.papers.induction_heads.settings import ALL
from ebbtide.papers.induction_heads.study import INDUCTION_HEADS
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.evidence import Arm, Evidence, evidence_of_run
from ebbtide.studies.single_run import own_experiment
from ebbtide.training.driver import train
from sweep_tools import plan_of
from tiny import SPEC

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_when_a_loss_is_reached_is_interpolated():
    loss = [[np.nan, 1.0, 0.5, 0.1], [np.nan, 1.0, 0.9, 0.8], [np.nan, 0.2, 0.1, 0.0], [np.nan, np.nan, 0.5, 0.1]]
    curves = {"sequences": 100 * np.arange(4), "train_loss": np.asarray(loss)}
    got = sequences_to_loss(Evidence({ALL: Arm(curves)}), ALL, 0.3)
    np.testing.assert_allclose(got[:3], [250.0, 300.0, 100.0])  # between; never: the end; at the first evaluation
    assert np.isnan(got[3]) and pytest.approx(np.log(2) / 2) == HALF


def test_where_a_curve_crosses_a_level():
    x = np.array([0.0, 10.0, 20.0])
    curves = np.array([[0.0, 0.5, 1.0], [0.8, 0.0, 1.0], [0.0, 0.5, 0.6]])
    np.testing.assert_array_equal(first_crossing(x, curves, 0.75), [15, 0, np.nan])


@pytest.mark.parametrize("study", [INDUCTION_HEADS, COOPETITION, ABRUPT_LEARNING], ids=lambda one: one.name)
def test_every_arm_is_a_spec_that_can_be_run(study):
    for experiment in study.experiments:
        if experiment is study.own():  # a run
            continue
        plan = plan_of(study, experiment)
        points, work = plan.sweep.points(), plan.comparison
        if work.donor:  # which is not there
            points = [one for one in points if not one.get("start")]
        assert len(points) >= work.members
        for claim in experiment.claims:
            assert set(claim.arms) <= set(work.arms), claim.name


def test_cooperation_starts_where_the_studys_own_run_ends():
    warm = plan_of(COOPETITION, COOPERATION).comparison.arms["with the second half of the final model"]
    assert warm["start"]["run"] == f"runs/coopetition-quick-{QUICK.digest()[:8]}"
    assert warm["start"]["sequences"] == QUICK.sequences and warm["freeze"] == list(warm["start"]["parts"])


def test_the_second_half_grafted_into_the_last_checkpoint_is_that_model(tmp_path):
    """And into the first one is not: there the halves are of different models."""
    spec = replace(SPEC, model=Transformer(layers=2, width=16, heads=2, mlp_ratio=0), evaluators=("icl", "flip"))
    train(spec, tmp_path / "run", processes=0)
    run = RunFolder(tmp_path / "run")
    curves, got = run.metrics(), graft_curve(run, "icl")
    assert got.shape == (2, 3)
    np.testing.assert_allclose(got[:, -1], curves["icl"][:, -1], atol=1e-6)


@pytest.mark.parametrize("last", [False, True])
def test_a_checkpoint_that_does_not_fit_the_spec_cannot_be_grafted(tmp_path, monkeypatch, last):
    spec = replace(SPEC, model=Transformer(layers=2, width=16, heads=2, mlp_ratio=0), evaluators=("icl",))
    run = train(spec, tmp_path / "run", processes=0)
    kept = coopetition.checkpoints(run)
    del kept[-1 if last else 0][1]["readout.w"]
    monkeypatch.setattr(coopetition, "checkpoints", lambda run: kept)
    with pytest.raises(InputError, match=r"checkpoint \d+': lacks the parameter readout.w"):
        graft_curve(run, "icl")


def test_the_scalars_of_coopetition(tmp_path):
    spec = replace(
        SPEC, model=Transformer(layers=2, width=16, heads=2, mlp_ratio=0), evaluators=("icl", "iwl", "ciwl", "flip")
    )
    train(spec, tmp_path / "run", processes=0)
    (experiment, work), run = own_experiment(COOPETITION), RunFolder(tmp_path / "run")
    found = evidence_of_run(run, work.scalars(run))
    for claim in experiment.claims:
        assert claim.estimate(found).shape == (2,) and np.isfinite(claim.estimate(found)).all(), claim.name
    assert (found["turned"] >= 0).all() and (found["turned"] <= 1).all()
