"""Calibration: scripted strategies on every evaluator, against what theory says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbtide.evaluation.evaluators import build_suite
from ebbtide.evaluation.oracles import ORACLES, expected, truth_table
from ebbtide.tasks.fewshot import EVERY, NAMES, FewShot
from ebbtide.tasks.labels import PerSequence
from ebbtide.tasks.relabel import CopyQueryLabel, Flip, Pair
from ebbtide.verify import checks as verify

pytestmark = pytest.mark.usefixtures("quick_compile")

# Written by hand from the definitions. c: the chance level of the evaluator; 1/L: one label of all;
# ?: depends on the task (the copied label may be the majority).
#            train icl reserved holdout iwl  ciwl flip iwl_exemplar; icl common, rare; iwl common, rare; icl_pairs;
#            icl and flip without a copy
THEORY = {
    "ICL":      "1  1  1  1  0  c  1  0  1 1  0 0  1  1 1",
    "IWL":      "1  c  c  c  1  1  0  1  c c  1 1  c  c 0",
    "CIWL":     "1  c  c  c  0  1  0  0  c c  0 0  c  c 0",
    "majority": "c  c  c  c  0  ?  c  0  c c  0 0  c  c c",
    "last":     "c  c  c  c  0  c  c  0  c c  0 0  c  c c",
    "random":   "c  c  c  c  1/L c c 1/L  c c  1/L 1/L  c  c c",
}  # fmt: skip


def theory(oracle: str, evaluator: str, chance: float, outputs: int) -> float | None:
    entry = THEORY[oracle].split()[EVERY.index(evaluator)]
    return {"0": 0.0, "1": 1.0, "c": chance, "1/L": 1 / outputs, "?": None}[entry]


@pytest.fixture(scope="module")
def calibrated(quick_compile):
    """The checks of every calibration task, and its truth table."""
    return {name: verify.calibration(name) for name in verify.TASKS}


@pytest.mark.parametrize("task", verify.TASKS)
def test_the_checks_of_a_calibration_task_pass(calibrated, task):
    checks, _ = calibrated[task]
    assert len(checks) == 2 and all(one.passed and one.detail for one in checks), checks


@pytest.mark.parametrize("check", verify.SINGLE, ids=lambda one: one.__name__)
def test_each_check_passes(check):
    found = check()
    assert found.passed and found.detail, found


def test_the_checks_of_held_out_pairs_pass():
    checks = list(verify.holdout_pairs())
    assert len(checks) == 2 and all(one.passed and one.detail for one in checks), checks


@pytest.mark.thorough  # also what converts contexts into weights: test_convert.py, test_context_to_weights.py
def test_verify_passes_and_reports_every_check():
    checks: list[verify.Check] = []
    passed, tables = verify.run(checks.append)
    assert passed, [c for c in checks if not c.passed]
    names = [c.name for c in checks]
    assert len(names) == len(set(names)) == 2 * len(verify.TASKS) + 2 + len(verify.SINGLE) + 5
    assert all(c.detail for c in checks)
    assert list(tables) == list(verify.TASKS) and len(tables) == 3


@given(st.sampled_from(list(ORACLES)), st.sampled_from(EVERY), st.floats(0.01, 0.9), st.integers(2, 2000))
def test_the_expected_table_is_the_one_written_by_hand(oracle, evaluator, chance, outputs):
    assert expected(oracle, evaluator, chance, outputs) == theory(oracle, evaluator, chance, outputs)


@pytest.mark.parametrize("task", list(verify.TASKS))
@pytest.mark.parametrize("oracle", list(ORACLES))
def test_every_oracle_scores_what_theory_says(calibrated, task, oracle):
    row = calibrated[task][1][oracle]
    few_shot = verify.TASKS[task]
    outputs = few_shot.outputs(verify.SOURCE)
    assert set(row) == set(NAMES)
    for evaluator, (mean, error) in row.items():
        # c: two classes in context (train, icl, flip); of M different labels, one is the query's (ciwl)
        chance = 1 / few_shot.context if evaluator == "ciwl" else 0.5
        want = theory(oracle, evaluator, chance, outputs)
        if want in (0.0, 1.0):
            assert mean == want and error == 0, evaluator
        elif want is not None:
            sd = np.sqrt(want * (1 - want) / verify.SEQUENCES)
            assert abs(mean - want) < 4.5 * sd and error == pytest.approx(sd, rel=1.0), evaluator


def test_the_check_of_held_out_pairs_finds_one_that_is_trained_on(monkeypatch):
    """A test of the test: with one more pair in training both evaluators still have their truth table."""
    right = PerSequence.pairs
    monkeypatch.setattr(PerSequence, "held_out", lambda self, words: self.pair(words[0].astype("int32") % right(self)))
    found = {check.name: check.passed for check in verify.holdout_pairs()}
    assert found == {"truth table, held-out pairs of labels": True, "sequences, held-out pairs of labels": False}


WRONG = {"icl": Pair, "flip": Flip, "ciwl": CopyQueryLabel}
"""Evaluators and the relabelling that makes them what they are."""


@pytest.mark.parametrize("name", list(WRONG))
def test_the_check_finds_an_evaluator_that_is_not_relabelled(monkeypatch, name):
    """A test of the test: the same check that passes above fails here, and names the evaluator."""
    task, bank = FewShot(), verify.SOURCE.build()
    right = FewShot._relabel

    def check() -> verify.Check:
        suite = build_suite((name,), task, verify.SOURCE, bank, sequences=verify.SEQUENCES, seed=0)
        return verify.truth("task", task, suite, truth_table(suite, task.outputs(verify.SOURCE)))

    def wrong(self, labels, tags, words):
        return labels if isinstance(self.relabel, WRONG[name]) else right(self, labels, tags, words)

    assert check().passed
    monkeypatch.setattr(FewShot, "_relabel", wrong)
    found = check()
    assert not found.passed and f"on {name}:" in found.detail


def test_the_check_of_sequences_finds_two_classes_with_one_label(monkeypatch):
    """Then every answer from the context is right, and so is chance: only the structure shows it."""
    right = FewShot._relabel

    def wrong(self, labels, tags, words):
        made = right(self, labels, tags, words)
        return made * 0 if self.relabel == Pair((0, 1)) else made

    monkeypatch.setattr(FewShot, "_relabel", wrong)
    suite = build_suite(NAMES, FewShot(), verify.SOURCE, verify.SOURCE.build(), sequences=50, seed=0)
    found = verify.sequences("task", FewShot(), suite)
    assert not found.passed and found.detail == "icl: labels are 0 and 1"
