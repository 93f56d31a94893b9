"""The studies of mechanisms: every arm can be trained, and what their claims estimate is what they say."""

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.evaluation.summary import first_crossing
from ebbtide.models.transformer import Transformer
from ebbtide.papers.abrupt_learning.study import ABRUPT_LEARNING
from ebbtide.papers.coopetition import claims as coopetition_claims
from ebbtide.papers.coopetition import grafts
from ebbtide.papers.coopetition.claims import mechanism_claims, phase_claims, title_claim
from ebbtide.papers.coopetition.grafts import graft_curve
from ebbtide.papers.coopetition.study import COOPETITION, OWN
from ebbtide.papers.induction_heads.claims import HALF, sequences_to_loss
from ebbtide.papers.induction_heads.settings import ALL
from ebbtide.papers.induction_heads.study import INDUCTION_HEADS
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.evidence import Arm, Evidence, Series
from ebbtide.studies.rehearsal import UntrainedRun
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
        for preset in experiment.presets:
            plan = plan_of(study, experiment, preset)
            assert len(plan.sweep.points()) == plan.comparison.members * len(plan.comparison.arms)
            for spec in plan.specs().values():
                spec.check()


def test_the_second_half_grafted_into_the_last_checkpoint_is_that_model(tmp_path):
    """And into the first one is not: there the halves are of different models."""
    spec = replace(SPEC, model=Transformer(layers=2, width=16, heads=2, mlp_ratio=0), evaluators=("icl", "flip"))
    train(spec, tmp_path / "run", processes=0)
    run = RunFolder(tmp_path / "run")
    curves = run.metrics()
    for half in ("first", "second"):
        got = graft_curve(run, "icl", half)
        assert got.values.shape == (2, 3) and got.sequences.tolist() == [0, 512, 1024]
        np.testing.assert_allclose(got.values[:, -1], curves["icl"][:, -1], atol=1e-6)


@pytest.mark.parametrize("last", [False, True])
def test_a_checkpoint_that_does_not_fit_the_spec_cannot_be_grafted(tmp_path, monkeypatch, last):
    spec = replace(SPEC, model=Transformer(layers=2, width=16, heads=2, mlp_ratio=0), evaluators=("icl",))
    run = train(spec, tmp_path / "run", processes=0)
    kept = grafts.checkpoints(run)
    del kept[-1 if last else 0][1]["readout.w"]
    monkeypatch.setattr(grafts, "checkpoints", lambda run: kept)
    with pytest.raises(InputError, match=r"checkpoint \d+': lacks the parameter readout.w"):
        graft_curve(run, "icl", "second")


def test_which_half_of_the_circuit_changes_flip_is_asked_at_its_peak(monkeypatch):
    """As the paper has it; where neither half changes anything (an untrained net); where the second half does."""
    arm, at = "arm", np.asarray([0, 500, 1000])
    flip = np.asarray([[0.5, 0.7, 0.0]] * 2)
    run = UntrainedRun(SPEC)
    curves = {"sequences": at, "flip": flip, "train_loss": np.ones((2, 3))}
    evidence = Evidence({arm: Arm(curves, states=("finished",) * 2, runs=((0, run), (1, None)))})
    claim = next(one for one in mechanism_claims(arm) if one.name == "shared half")
    moved = {"first": np.asarray([[0.5, 0.05, 0.0]]), "second": np.asarray([[0.5, 0.68, 0.0]])}
    monkeypatch.setattr(coopetition_claims, "graft_curve", lambda run, evaluator, half: Series(moved[half], at))
    monkeypatch.setattr(coopetition_claims, "smooth", lambda curve: curve)
    found = claim.estimate(evidence)
    assert found[0] == pytest.approx(0.08) and np.isnan(found[1])
    moved |= {"first": flip[:1]}
    assert claim.estimate(evidence)[0] < 0
    moved |= {"first": np.asarray([[0.5, 0.05, 0.0]]), "second": np.asarray([[0.5, 0.05, 0.0]])}
    assert claim.estimate(evidence)[0] < 0


def test_the_claims_of_coopetition_are_estimated_from_kept_models(tmp_path):
    spec = replace(
        SPEC, model=Transformer(layers=2, width=16, heads=2, mlp_ratio=0), evaluators=("icl", "iwl", "ciwl", "flip")
    )
    run = train(spec, tmp_path / "run", processes=0)
    curves = run.metrics()
    runs = tuple((m, run) for m in range(2))
    evidence = Evidence({"arm": Arm(curves, run.chance(), ("finished",) * 2, runs)})
    for claim in (*phase_claims("arm"), *mechanism_claims("arm"), title_claim("title", "arm")):
        assert claim.estimate(evidence).shape == (2,) and np.isfinite(claim.estimate(evidence)).all(), claim.name
    turned = coopetition_claims.share_of_turned_heads(evidence, "arm")
    assert (turned >= 0).all() and (turned <= 1).all()
    assert set(OWN.figures(evidence, "title")) == {"heads.png", "grafts.png"}  # pyright: ignore
