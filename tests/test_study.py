"""Claims and verdicts: what holds, what fails and what stays open."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from ebbtide.errors import InputError
from ebbtide.papers.registry import STUDIES, find_study
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.claim import Claim, decide, digest_of_claims, judge
from ebbtide.studies.evidence import Arm, Evidence
from ebbtide.studies.single_run import SingleRun, conclude_run, judge_run
from ebbtide.studies.study import Experiment, Preset, Study
from ebbtide.studies.verdict import Verdict, read_verdict
from tiny import write_run

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.9, 0.8, 0.7, 0.85], "holds"),
        ([0.5, 0.5, 0.5, 0.5], "holds"),
        ([0.25, 0.25, 0.25, 0.25], "fails"),  # not above
        ([0.1, 0.0, -0.2, 0.1], "fails"),
        ([0.24, 0.1, 0.2, 0.3], "undecided"),
        ([0.9, 0.9, 0.9, 0.0], "undecided"),
        ([0.2, 0.2, 0.2, 0.9], "undecided"),
        ([0.9], "undecided"),  # one member has no interval
        ([0.1], "undecided"),
        ([0.0, 0.1, 0.2, 0.24], "undecided"),  # none is above, but the interval has the threshold in it
        ([0.5, 0.4, 0.3, 0.26], "undecided"),  # and its mirror image
        ([0.9, 0.9, 0.9, NAN], "undecided"),  # a diverged member cannot support a claim
        ([0.9, 0.9, 0.9, INF], "undecided"),
        ([0.1, 0.1, 0.1, NAN], "fails"),
        ([0.9, NAN, NAN, NAN], "undecided"),
        ([0.1, INF], "fails"),
        ([NAN, NAN], "fails"),
    ],
)
def test_decide(values, verdict):
    found, low, high = decide(np.array(values), 0.25)
    assert found == verdict
    finite = np.array(values)[np.isfinite(values)]
    if len(finite) > 1:
        half = student.ppf(0.975, len(finite) - 1) * finite.std(ddof=1) / np.sqrt(len(finite))
        assert (low, high) == pytest.approx((finite.mean() - half, finite.mean() + half))
    else:
        assert np.isnan(low) and np.isnan(high)


@pytest.mark.parametrize("values", [[0.9, 0.8, 0.7, NAN], [0.1, 0.0, 0.1, NAN], [NAN] * 4])
def test_a_member_that_has_not_finished_leaves_a_claim_undecided(values):
    """It may still go either way; one that has diverged can only count against."""
    unfinished = np.isnan(values)
    assert decide(np.array(values), 0.25, unfinished)[0] == "undecided"
    assert decide(np.array(values[:3] * 2), 0.25, np.zeros(6, bool))[0] == decide(np.array(values[:3] * 2), 0.25)[0]


def test_the_decision_at_the_threshold_is_wrong_as_often_on_both_sides():
    """At a true mean of exactly the threshold 2.5 % of the verdicts say holds and as many fails."""
    drawn = np.random.default_rng(0).normal(0.5, 0.1, (4000, 5))
    found = [decide(values, 0.5)[0] for values in drawn]
    for verdict in ("holds", "fails"):
        assert 0.015 < found.count(verdict) / len(found) < 0.035


def test_a_claim_whose_members_are_not_there_takes_nothing_from_the_others():
    def not_there(evidence):
        raise AssertionError("no member is there to be asked")

    claims = [
        Claim("gone", "", "", "", 0.0, not_there, ("gone",)),
        Claim("diverged", "", "", "", 0.0, not_there, ("diverged",)),
        Claim("partly", "", "", "", 0.0, lambda evidence: np.ones(3), ("partly",)),
        Claim("whole", "", "", "", 0.0, lambda evidence: np.ones(3), ("whole",)),
    ]
    states = {
        "gone": ("missing",) * 3,
        "diverged": ("diverged",) * 3,
        "partly": ("diverged", "finished", "finished"),
        "whole": ("finished",) * 3,
    }
    evidence = Evidence({name: Arm(states=own) for name, own in states.items()})
    found = [judge(claim, evidence) for claim in claims]
    assert [one.verdict for one in found] == ["undecided", "fails", "undecided", "holds"]
    assert [one.members for one in found] == [[None] * 3, [None] * 3, [None, 1.0, 1.0], [1.0] * 3]
    assert [one.note for one in found] == [
        "3 of 3 members of gone not finished",
        "3 of 3 members of diverged diverged",
        "1 of 3 members of partly diverged",
        "",
    ]


def test_the_digest_of_claims_tells_a_threshold_from_another():
    one = Claim("a", "b", "c", "d", 0.5, lambda evidence: np.ones(3))
    assert digest_of_claims([one]) == digest_of_claims([one._replace(estimate=np.asarray)])
    changed = [one._replace(**{name: "x"}) for name in ("name", "statement", "source", "metric")]
    others = [*changed, one._replace(threshold=0.6), one._replace(arms=("x",))]
    assert len({digest_of_claims([claim]) for claim in (one, *others)}) == 7


CURVE = [0.5, 0.6, 0.8, 0.9, 0.9, 0.9, 0.7, 0.5, 0.4, 0.4]


def run_of(path: Path, icl, iwl=None, loss=None, members=4, **changes) -> RunFolder:
    """Members that differ by a hundredth each."""
    jitter = np.arange(members)[:, None] / 100
    n = len(icl)
    loss = [NAN, *np.linspace(4, 1, n - 1)] if loss is None else loss
    made = {
        "icl": np.asarray(icl) - jitter,
        "iwl": np.asarray(np.linspace(0, 0.9, n) if iwl is None else iwl) - jitter,
        "ciwl": np.full((members, n), 0.5),
    }
    return write_run(path, made, np.asarray(loss) + jitter, **changes)


@pytest.mark.parametrize(
    ("case", "verdicts"),
    [
        ({}, {"rise": "holds", "fall": "holds", "replacement": "holds", "loss": "holds"}),
        ({"icl": [*CURVE[:6], 0.9, 0.9, 0.9, 0.9]}, {"rise": "holds", "fall": "fails"}),
        ({"icl": [0.5] * 10}, {"rise": "fails", "fall": "fails"}),
        ({"iwl": [0.0] * 10}, {"fall": "holds", "replacement": "fails"}),
        ({"loss": [NAN, 4, 3, 2, 1, 1, 2, 3, 4, 4]}, {"fall": "holds", "loss": "fails"}),
        ({"members": 1}, dict.fromkeys(("rise", "fall", "replacement", "loss"), "undecided")),
    ],
    ids=["transient", "persistent", "never", "no replacement", "loss rises", "one member"],
)
def test_the_claims_of_transience_on_made_up_curves(tmp_path, case, verdicts):
    verdict, _ = judge_run(TRANSIENCE, run_of(tmp_path / "run", **{"icl": CURVE} | case))
    found = {claim.claim: claim.verdict for claim in verdict.claims}
    assert {name: found[name] for name in verdicts} == verdicts
    assert verdict.holds() == (set(found.values()) == {"holds"})
    assert len(found) == 4


def test_a_diverged_member_is_not_counted_as_one_whose_icl_fell(tmp_path):
    run = run_of(tmp_path / "whole", CURVE)
    curves = {k: v.copy() for k, v in run.metrics().items()}
    for name in ("icl", "iwl", "ciwl", "train_loss"):
        curves[name][3, 4:] = NAN
    run = write_run(tmp_path / "run", {k: curves[k] for k in ("icl", "iwl", "ciwl")}, curves["train_loss"])
    verdict, _ = judge_run(TRANSIENCE, run)
    assert {c.verdict for c in verdict.claims} == {"undecided"} and not verdict.holds()
    assert all(c.members[3] is None and c.n == 4 and c.above == 3 for c in verdict.claims)


def test_a_judgement_states_its_numbers(tmp_path):
    claim = Claim("c", "statement", "source", "metric", 0.25, lambda s: s["x"])
    values = np.array([0.1, 0.3, 0.4, 0.8])
    work = SingleRun("quick", lambda run: {"x": values})
    study = Study("s", "paper", "?", (Experiment("s", "?", "", (claim,), {"quick": Preset(work, None, "")}),))
    verdict, _ = judge_run(study, run_of(tmp_path / "run", CURVE))
    (found,) = verdict.claims
    assert (found.claim, found.threshold, found.n, found.above, found.verdict) == ("c", 0.25, 4, 3, "undecided")
    assert found.estimate == pytest.approx(0.4) and found.members == pytest.approx([0.1, 0.3, 0.4, 0.8])
    assert (found.low, found.high) == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval()))
    assert verdict.summary["x"] == [0.1, 0.3, 0.4, 0.8]
    assert (verdict.study, verdict.preset, verdict.sequences) == ("s", "quick", 1024)


def test_a_study_that_can_be_run_without_icl_answers_that_it_cannot_tell(tmp_path):
    run = write_run(tmp_path / "run", {"iwl": [[0.0, 0.5, 0.9]] * 2}, [[NAN, 2, 1]] * 2)
    verdict = conclude_run(TRANSIENCE, run)
    assert {c.verdict for c in verdict.claims} == {"fails"} and all(c.estimate is None for c in verdict.claims)


def test_the_verdict_round_trips_and_lies_in_the_folder(tmp_path):
    run = run_of(tmp_path / "run", CURVE)
    assert read_verdict(run) is None
    verdict = conclude_run(TRANSIENCE, run)
    assert read_verdict(run) == verdict == msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict)
    assert {"verdict.json", "figure.png", "figure.svg"} <= {p.name for p in run.path.iterdir()}
    assert run.latest() is not None  # beside the committed files, not among them
    assert verdict.digest == run.header.digest
    before = {p: p.read_bytes() for p in run.path.glob("*.*")}
    conclude_run(TRANSIENCE, run)
    assert {p: p.read_bytes() for p in run.path.glob("*.*")} == before


def test_a_verdict_of_another_spec_is_no_verdict(tmp_path):
    run = run_of(tmp_path / "run", CURVE)
    other = replace(conclude_run(TRANSIENCE, run), digest="0" * 64)
    (run.path / "verdict.json").write_bytes(msgspec.json.encode(other))
    assert read_verdict(run) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"study": 1}'])
def test_a_damaged_verdict_is_told_in_one_line(tmp_path, one_line, text):
    run = run_of(tmp_path / "run", CURVE)
    (run.path / "verdict.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_verdict(run)
    one_line(caught, "run", str(run.path))
    assert "verdict.json is damaged" in str(caught.value)


def test_unknown_names_are_answered_with_the_known_ones():
    assert find_study("transience") is TRANSIENCE
    with pytest.raises(
        InputError, match=r"study = 'transient': must be one of transience, regularisation, .* \(did you mean"
    ):
        find_study("transient")
    with pytest.raises(InputError, match=r"preset = 'quik': transience has quick, cpu, paper \(did you mean 'quick'"):
        TRANSIENCE.base("quik")


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_study_says_beforehand_what_it_claims(study):
    for claims in [one.claims for one in study.experiments]:
        assert claims and len({c.name for c in claims}) == len(claims)
        for claim in claims:
            assert claim.statement and claim.source and claim.metric and np.isfinite(claim.threshold)
    if study.bases:
        study.bases["quick"].spec.check()  # needs no data


@pytest.mark.parametrize("study", [study for study in STUDIES if study.own() and study.bases], ids=lambda one: one.name)
def test_a_study_of_a_run_has_it_at_three_sizes(study):
    assert {"quick", "cpu", "paper"} == set(study.bases) == set(study.own().presets)
    assert len({base.spec.digest() for base in study.bases.values()}) == 3
