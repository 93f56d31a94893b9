"""Study `keeping-icl`: prices against the same member without a method, and what tells the claims apart."""

from typing import Any

import numpy as np
import pytest

from ebbtide.papers.keeping_icl.study import KEEPING, KEEPING_ICL, STOPPED, _prices
from ebbtide.studies.claim import judge
from ebbtide.studies.comparison import SweepPlan
from ebbtide.studies.study import setup
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.results import load
from ideal_tools import LATE, PERSISTENT, WEIGHTS, evidence_of, specs_of

SPECS = specs_of(KEEPING_ICL, KEEPING, "quick")
USUAL = LATE
CHEAP = [(0.0, {}), (0.5, {"icl": 0.95, "icl_holdout": 0.95, "iwl": 0.95})]
"""ICL and IWL at once: the dual process."""


def evidence(**courses: Any) -> Any:
    """Evidence in which every arm does as if it had no method, but for those that are named."""
    named = {arm: courses.get(arm.replace(" ", "_"), USUAL) for arm in SPECS}
    return evidence_of(SPECS, named, {"no method": 0.9})


def test_prices_are_those_of_the_same_member():
    found = _prices(evidence(active_forgetting=PERSISTENT, temporary_forgetting=CHEAP))
    assert list(found) == [STOPPED, *(arm for arm in SPECS if arm != "no method")]
    end = (0.65 + 0.695) / 2  # of LATE, smoothed: .94 at six tenths of the training, .65 at its end, 17 evaluations
    np.testing.assert_allclose(found["active forgetting"].icl, 0.99 - end, atol=1e-3)
    assert (found["active forgetting"].iwl < -0.6).all() and (found["temporary forgetting"].iwl > 0.2).all()
    np.testing.assert_allclose(found[STOPPED].icl, 0.9 - end, atol=1e-3)
    stopped, nothing = found[STOPPED], found["L2 on all"]
    assert (stopped.iwl < -0.6).all() and stopped.loss is not None and (stopped.loss > 0).all()
    assert nothing.loss is not None and found["half bursty"].loss is None is found["label noise"].loss
    assert not nothing.icl.any() and not nothing.iwl.any() and not nothing.loss.any()


def verdicts(**courses: Any) -> dict[str, str]:
    made = evidence(**courses)
    return {claim.name: judge(claim, made).verdict for claim in KEEPING.claims}


def test_both_asks_for_icl_and_for_iwl():
    assert verdicts(temporary_forgetting=CHEAP)["both"] == "holds"
    for one_of_them in (PERSISTENT, WEIGHTS, USUAL):
        assert verdicts(temporary_forgetting=one_of_them)["both"] == "fails"


@pytest.mark.parametrize(("course", "verdict"), [(PERSISTENT, "holds"), (CHEAP, "fails"), (USUAL, "fails")])
def test_active_forgetting_ends_iwl(course, verdict):
    assert verdicts(active_forgetting=course)["active ends IWL"] == verdict


def test_the_figure_is_drawn():
    assert KEEPING.figures is not None
    drawn = KEEPING.figures(evidence(active_forgetting=PERSISTENT), "keeping-icl (quick)")
    assert list(drawn) == ["prices.png"] and drawn["prices.png"].startswith(b"\x89PNG")


def test_arms_without_forgetting_have_none_in_the_table_of_the_sweep(tmp_path):
    """A field that is unset in some arms is an axis of the others."""
    plan = setup(KEEPING_ICL, "keeping-icl", "quick").plan()
    assert isinstance(plan, SweepPlan)
    SweepFolder.make(tmp_path / "sweep", plan.sweep)
    rows = load(tmp_path / "sweep").rows
    shown = dict(zip(SPECS, [row.axes["forgetting"] for row in rows[:: len(rows) // len(SPECS)]], strict=True))
    assert {arm for arm, value in shown.items() if value is not None} == {"active forgetting", "temporary forgetting"}
    assert '"until":256000' in shown["temporary forgetting"]
