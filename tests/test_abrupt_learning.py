"""Study `abrupt-learning`: what its claims estimate, on made-up curves and on models that were trained for a moment."""

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.models.transformer import Transformer
from ebbtide.papers.abrupt_learning import study, transition
from ebbtide.papers.abrupt_learning.transition import MANY, TRANSITION
from ebbtide.studies.evidence import Arm, Evidence, Series
from ebbtide.training.driver import train
from tiny import SPEC

TIMES = np.arange(11) * 100


def evidence_of(icl: np.ndarray, attention: np.ndarray | None = None, at: np.ndarray = TIMES) -> Evidence:
    """Evidence of one member with this ICL, and with this attention of layer 1 to the token before."""
    curves = {"sequences": TIMES, "icl_holdout": icl[None], "train_loss": np.ones((1, len(TIMES)))}
    heads = None if attention is None else np.stack([attention, np.full_like(attention, np.nan)], -1)[None, ..., None]
    probes = {} if heads is None else {(MANY, "previous_token", "icl_holdout"): Series(heads, at)}
    return Evidence({MANY: Arm(curves)}, probes)


def estimate(name: str, evidence: Evidence) -> float:
    return float(next(one for one in TRANSITION.claims if one.name == name).estimate(evidence)[0])


JUMP = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0])


def test_a_jump_is_abrupt_and_what_grows_evenly_is_not():
    assert estimate("abrupt", evidence_of(JUMP)) == pytest.approx(1 / 3 - 80 / 610)
    for gradual in (TIMES / 2000 + 0.5, 1 - 0.5 * np.exp(-TIMES / 200)):
        assert estimate("abrupt", evidence_of(gradual)) < -7
    assert np.isnan(estimate("abrupt", evidence_of(np.full(11, 0.5))))


def test_a_high_value_by_chance_is_no_beginning():
    icl = JUMP.copy()
    icl[2] = 0.6
    assert transition.icl_sequences(evidence_of(icl))[0] == pytest.approx(610)


def test_a_measure_comes_first_only_if_it_begins_before_icl():
    """Checkpoints need not be evenly spaced; the measure may fall first; ICL must come in the end."""
    at = np.array([0, 100, 200, 400, 900, 1000])
    before = np.array([0.2, 0.1, 0.1, 0.3, 1.1, 1.1])
    assert estimate("exemplar first", evidence_of(JUMP, before, at)) == pytest.approx(610 - 300)
    assert estimate("exemplar first", evidence_of(JUMP, JUMP)) == pytest.approx(0, abs=10)
    late = np.where(TIMES > 800, 1.0, 0.0)
    assert estimate("exemplar first", evidence_of(JUMP, late)) < -150
    assert np.isnan(estimate("exemplar first", evidence_of(JUMP, np.full(11, 0.2))))
    assert np.isnan(estimate("exemplar first", evidence_of(np.full(11, 0.6), before, at)))


@pytest.mark.parametrize(("ciwl", "stops"), [([0.1, 0.3, 0.3, 0.2, 0.1], True), ([0.1, 0.2, 0.3, 0.6, 0.9], False)])
def test_learning_in_the_weights_stops_where_it_no_longer_rises(monkeypatch, ciwl, stops):
    monkeypatch.setattr(study, "smooth", lambda curve: curve)
    icl = np.array([[0.5, 0.5, 0.75, 1.0, 1.0]])
    curves = {"sequences": np.arange(5), "icl_holdout": icl, "ciwl": np.array([ciwl]), "train_loss": np.ones((1, 5))}
    evidence = Evidence({study.MANY: Arm(curves)})
    assert (study.halted_ciwl(evidence)[0] > 0) == stops
    curves["icl_holdout"] = np.full((1, 5), 0.5)
    assert np.isnan(study.halted_ciwl(Evidence({study.MANY: Arm(curves)}))[0])


@pytest.mark.usefixtures("quick_compile")
def test_the_claims_on_the_transition_are_estimated_from_kept_models(tmp_path):
    model = Transformer(layers=2, width=16, heads=1, mlp_ratio=0)
    run = train(replace(SPEC, model=model, evaluators=("icl_holdout",)), tmp_path / "run", processes=0)
    evidence = Evidence({MANY: Arm(run.metrics(), run.chance(), ("finished",) * 2, tuple((m, run) for m in range(2)))})
    for claim in TRANSITION.claims:
        assert claim.estimate(evidence).shape == (2,), claim.name
    for curve in transition.PROGRESS.values():
        assert np.isfinite(curve(evidence).values).all()
    assert TRANSITION.figures is not None
    assert set(TRANSITION.figures(evidence, "title")) == {"progress.png"}
