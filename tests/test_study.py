"""Claims and verdicts: what holds, what fails and what stays open."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.stats import binomtest

from ebbtide.errors import InputError
from ebbtide.papers.registry import STUDIES, find_study
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.runs.folder import RunFolder
from ebbtide.studies.claim import (
    Claim,
    Judgement,
    decide,
    digest_of_claims,
    family_words,
    judge,
    judge_all,
    members_needed,
    most_false_holds,
)
from ebbtide.studies.comparison import Comparison
from ebbtide.studies.computation import Computation
from ebbtide.studies.evidence import Arm, Evidence
from ebbtide.studies.single_run import SingleRun, conclude_run, judge_run
from ebbtide.studies.study import Experiment, Preset, Study
from ebbtide.studies.verdict import Verdict, read_verdict
from tiny import write_run

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.9, 0.8, 0.7, 0.85, 0.9, 0.9], "holds"),
        ([0.5] * 6, "holds"),
        ([0.5] * 5, "undecided"),  # five of five: more than 48 % of all
        ([0.25] * 6, "fails"),  # not above
        ([0.1, 0.0, -0.2, 0.1, 0.2, 0.24], "fails"),
        ([0.9] * 5 + [0.0], "undecided"),
        ([0.9] * 8 + [0.0], "holds"),  # one seed of nine on another path, however far
        ([0.9] * 8 + [-99.0], "holds"),
        ([0.2] * 8 + [0.9], "fails"),
        ([0.9] * 15 + [0.0] * 5, "holds"),
        ([0.9] * 14 + [0.0] * 6, "undecided"),
        ([0.9] * 5 + [0.0] * 15, "fails"),
        ([0.9] * 6 + [0.0] * 14, "undecided"),
        ([0.9] * 5 + [NAN], "undecided"),  # a diverged member counts as not above
        ([0.9] * 5 + [INF], "undecided"),
        ([0.9] * 8 + [NAN], "holds"),
        ([0.1] * 5 + [NAN], "fails"),
        ([NAN] * 6, "fails"),
        ([0.9], "undecided"),
        ([NAN, NAN], "undecided"),
        ([], "undecided"),
    ],
)
def test_a_claim_is_judged_by_the_number_of_members_above(values, verdict):
    """Of most members: 6 of 6, 8 of 9, 15 of 20 (sign test, two-sided 5 %)."""
    claim = Claim("c", "", "", "", 0.25, lambda evidence: np.array(values, float))
    found = judge(claim, Evidence({"": Arm()}))
    finite = np.array(values, float)[np.isfinite(values)]
    assert found.verdict == verdict and found.n == len(values) and found.above == (finite > 0.25).sum()
    assert found.estimate == (pytest.approx(np.median(finite)) if len(finite) else None)
    assert (found.low is None) == (len(finite) < 6)


@pytest.mark.parametrize(
    ("count", "n", "verdict"),
    [(17, 17, "holds"), (16, 16, "undecided"), (19, 20, "undecided"), (20, 20, "holds"), (31, 32, "holds")],
)
def test_a_claim_on_four_in_five_seeds_takes_more_of_them(count, n, verdict):
    assert decide(count, n, 0.8) == verdict
    assert members_needed(0.8) == 17 and members_needed(0.5) == 6


def test_too_few_members_for_any_verdict_are_told():
    claim = Claim("c", "", "", "", 0.0, lambda evidence: np.ones(5), share=0.8)
    assert judge(claim, Evidence({"": Arm()})).note == "17 members are needed for a verdict"


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 1.5, NAN])
def test_a_share_that_no_sample_can_exceed_is_refused(share):
    with pytest.raises(InputError, match=r"share = .* must be between 0 and 1"):
        decide(3, 3, share)


@pytest.mark.parametrize("unfinished", [1, 3])
def test_a_member_that_has_not_finished_leaves_a_claim_undecided(unfinished):
    """It may still go either way; one that has diverged can only count against."""
    assert decide(20, 20, 0.5) == "holds" and decide(20, 20, 0.5, unfinished) == "undecided"
    assert decide(0, 20, 0.5) == "fails" and decide(0, 20, 0.5, unfinished) == "undecided"


@pytest.mark.parametrize(("n", "share"), [(6, 0.5), (12, 0.5), (20, 0.5), (32, 0.8)])
def test_a_false_claim_seldom_holds_and_a_true_one_seldom_fails(n, share):
    """Of members of whom exactly the share is above, at most 2.5 % of verdicts go either way; so it is worked out."""
    drawn = np.random.default_rng(0).binomial(n, share, 20_000)
    found = [decide(int(count), n, share) for count in drawn]
    rates = {verdict: found.count(verdict) / len(found) for verdict in ("holds", "fails")}
    assert 0 < rates["holds"] < 0.028 and 0 < rates["fails"] < 0.028
    claim = Claim("c", "", "", "", 0.0, lambda evidence: np.ones(n), share=share)
    assert abs(most_false_holds([judge(claim, Evidence({"": Arm()}))]) - rates["holds"]) < 0.004


def test_a_family_of_claims_is_corrected():
    """Twenty claims at p = .0207 hold one by one; together none does, and one at p = 1e-6 does."""
    few = np.array([1.0] * 15 + [0.0] * 5)
    claims = [Claim(str(i), "", "", "", 0.5, lambda evidence: few) for i in range(20)]
    judged = judge_all([*claims, claims[0]._replace(estimate=lambda evidence: np.ones(20))], Evidence({"": Arm()}))
    assert {one.verdict for one in judged} == {"holds"}
    assert [one.only_alone() for one in judged] == [True] * 20 + [False]
    words = family_words(judged)
    assert "If all 21 claims were false, at most 0.43 would hold by chance" in words and "Holm" in words
    assert "Holm" not in family_words(judged[-1:]) and family_words([]) == ""


def test_a_verdict_by_the_earlier_rule_is_told_as_it_was():
    old = Judgement("c", "", "", "", 0.5, 0.7, 0.6, 0.8, 4, 4, [0.7] * 4, "holds")
    assert (old.needed(), old.share_words(), old.only_alone()) == ("> 0.5", "", False)
    assert most_false_holds([old]) == pytest.approx(0.025)
    new = judge(Claim("c", "", "", "", 0.5, lambda evidence: np.ones(6), share=0.8), Evidence({"": Arm()}))
    assert (new.needed(), new.share_words()) == ("> 0.5 in over 80 %", "54 to 100 %")


def test_a_claim_whose_members_are_not_there_takes_nothing_from_the_others():
    def not_there(evidence):
        raise AssertionError("no member is there to be asked")

    claims = [
        Claim("gone", "", "", "", 0.0, not_there, ("gone",)),
        Claim("diverged", "", "", "", 0.0, not_there, ("diverged",)),
        Claim("partly", "", "", "", 0.0, lambda evidence: np.ones(6), ("partly",)),
        Claim("whole", "", "", "", 0.0, lambda evidence: np.ones(6), ("whole",)),
    ]
    states = {
        "gone": ("missing",) * 6,
        "diverged": ("diverged",) * 6,
        "partly": ("diverged", *["finished"] * 5),
        "whole": ("finished",) * 6,
    }
    evidence = Evidence({name: Arm(states=own) for name, own in states.items()})
    found = [judge(claim, evidence) for claim in claims]
    assert [one.verdict for one in found] == ["undecided", "fails", "undecided", "holds"]
    assert [one.members for one in found] == [[None] * 6, [None] * 6, [None, *[1.0] * 5], [1.0] * 6]
    assert [one.note for one in found] == [
        "6 of 6 members of gone not finished",
        "6 of 6 members of diverged diverged",
        "1 of 6 members of partly diverged",
        "",
    ]


def test_the_digest_of_claims_tells_a_threshold_from_another():
    one = Claim("a", "b", "c", "d", 0.5, lambda evidence: np.ones(3))
    assert digest_of_claims([one]) == digest_of_claims([one._replace(estimate=np.asarray)])
    changed = [one._replace(**{name: "x"}) for name in ("name", "statement", "source", "metric")]
    others = [*changed, one._replace(threshold=0.6), one._replace(arms=("x",)), one._replace(share=0.8)]
    assert len({digest_of_claims([claim]) for claim in (one, *others)}) == 8


NAMES = [claim.name for claim in TRANSIENCE.experiments[0].claims]
CURVE = [0.5, 0.6, 0.8, 0.9, 0.9, 0.9, 0.7, 0.5, 0.4, 0.4]


def run_of(path: Path, icl, iwl=None, loss=None, members=6, **changes) -> RunFolder:
    """Members that differ by a hundredth each."""
    jitter = np.arange(members)[:, None] / 100
    n = len(icl)
    loss = [NAN, *np.linspace(4, 1, n - 1)] if loss is None else loss
    made = {
        "icl": np.asarray(icl) - jitter,
        "iwl": np.asarray(np.linspace(0, 0.9, n) if iwl is None else iwl) - jitter,
        "ciwl": np.linspace(0.3, 1, n) - jitter,
        "train": np.linspace(0.5, 1, n) - jitter,
    }
    return write_run(path, made, np.asarray(loss) + jitter, **changes)


@pytest.mark.parametrize(
    ("case", "verdicts"),
    [
        ({}, dict.fromkeys(NAMES, "holds")),
        ({"icl": [*CURVE[:6], 0.9, 0.9, 0.9, 0.9]}, {"rise": "holds", "fall": "fails", "hidden": "fails"}),
        ({"icl": [0.5] * 10}, {"rise": "fails", "fall": "fails"}),
        ({"iwl": [0.0] * 10}, {"fall": "holds", "iwl": "fails", "ciwl": "holds"}),
        ({"loss": [NAN, 4, 3, 2, 1, 1, 2, 3, 4, 4]}, {"fall": "holds", "hidden": "fails"}),
        ({"members": 1}, dict.fromkeys(NAMES, "undecided")),
    ],
    ids=["transient", "persistent", "never", "no IWL", "loss rises", "one member"],
)
def test_the_claims_of_transience_on_made_up_curves(tmp_path, case, verdicts):
    verdict, _ = judge_run(TRANSIENCE, run_of(tmp_path / "run", **{"icl": CURVE} | case))
    found = {claim.claim: claim.verdict for claim in verdict.claims}
    assert {name: found[name] for name in verdicts} == verdicts
    assert verdict.holds() == (set(found.values()) == {"holds"})
    assert set(found) == set(NAMES)


def test_a_diverged_member_is_not_counted_as_one_whose_icl_fell(tmp_path):
    run = run_of(tmp_path / "whole", CURVE)
    curves = {k: v.copy() for k, v in run.metrics().items()}
    evaluators = ("icl", "iwl", "ciwl", "train")
    for name in (*evaluators, "train_loss"):
        curves[name][3, 4:] = NAN
    run = write_run(tmp_path / "run", {k: curves[k] for k in evaluators}, curves["train_loss"])
    verdict, _ = judge_run(TRANSIENCE, run)
    assert {c.verdict for c in verdict.claims} == {"undecided"} and not verdict.holds()
    assert all(c.members[3] is None and c.n == 6 and c.above == 5 for c in verdict.claims)


def test_a_judgement_states_its_numbers(tmp_path):
    claim = Claim("c", "statement", "source", "metric", 0.25, lambda s: s["x"])
    values = np.array([0.1, 0.3, 0.4, 0.8, 0.2, 0.6])
    work = SingleRun("quick", lambda run: {"x": values})
    study = Study("s", "paper", "?", (Experiment("s", "?", "", (claim,), {"quick": Preset(work, None, "")}),))
    verdict, _ = judge_run(study, run_of(tmp_path / "run", CURVE))
    (found,) = verdict.claims
    assert (found.claim, found.threshold, found.n, found.above, found.verdict) == ("c", 0.25, 6, 4, "undecided")
    assert found.estimate == pytest.approx(0.35) and found.members == pytest.approx(values.tolist())
    assert (found.low, found.high) == (0.1, 0.8)
    share = binomtest(4, 6, 0.5).proportion_ci(0.95, "exact")
    assert (found.share, found.share_low, found.share_high) == pytest.approx((0.5, share.low, share.high))
    assert found.p == found.p_corrected == pytest.approx(binomtest(4, 6, 0.5, alternative="greater").pvalue)
    assert verdict.summary["x"] == values.tolist()
    assert (verdict.study, verdict.preset, verdict.sequences) == ("s", "quick", 1024)


def test_a_study_that_can_be_run_without_icl_answers_that_it_cannot_tell(tmp_path):
    run = write_run(tmp_path / "run", {"iwl": [[0.0, 0.5, 0.9]] * 6}, [[NAN, 2, 1]] * 6)
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


@pytest.mark.parametrize("study", [study for study in STUDIES if study.bases], ids=lambda one: one.name)
def test_every_base_is_another_run_and_some_work_starts_from_it(study):
    assert len({base.spec.digest() for base in study.bases.values()}) == len(study.bases)
    works = [preset.work for one in study.experiments for preset in one.presets.values()]
    trained = [work for work in works if not isinstance(work, Computation)]  # a computation starts from no base
    used = {work.preset if isinstance(work, Comparison) else work.base for work in trained}
    assert used == set(study.bases)
