"""Experiments: arms by members, claims compared member by member, verdict and figure in the sweep's folder."""

import msgspec
import numpy as np
import pytest

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.evaluation.summary import Curves
from ebbtide.mechanisms.measures import find_measure
from ebbtide.papers.registry import STUDIES, find_study
from ebbtide.runs.folder import RunFolder
from ebbtide.studies import sweep_evidence
from ebbtide.studies.claim import Claim, above, below, larger
from ebbtide.studies.comparison import Comparison, conclude_sweep, find_verdict, judge_sweep
from ebbtide.studies.evidence import Evidence, Series
from ebbtide.studies.study import Experiment, Preset
from ebbtide.studies.sweep_evidence import evidence_of_sweep
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.plan import group
from ebbtide.sweeps.results import load
from sweep_tools import BASE, made, make_sweep, plan_of, trained

pytestmark = pytest.mark.usefixtures("quick_compile")

STUDY = find_study("transience")
TINY = {**BASE, "sequences": 3200, "source.seed": 5, "keep_best": "icl"}
ARMS = {"slow": {"optimizer.lr": 1e-4}, "fast": {"optimizer.lr": 3e-3}}
CLAIMS = (
    above("sure", "icl is a number", "definition", "icl_peak", "fast", 0.0),
    below("impossible", "icl is below nothing", "definition", "icl_peak", "fast", 0.0),
    larger("learns", "the fast arm has the lower loss", "definition", "train_loss_final", "slow", "fast"),
    above("elsewhere", "is not asked here", "definition", "icl_peak", "an arm that is not here", 0.0),
)
WORK = Comparison(ARMS, TINY, members=6)
PRESET = Preset(WORK, 1, "tiny")
EXPERIMENT = Experiment("try", "Does it learn?", "nowhere", CLAIMS, {"quick": PRESET}, shows=("icl", "iwl"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> SweepFolder:
    sweep = make_sweep(STUDY, EXPERIMENT, "quick")
    return trained(tmp_path_factory.mktemp("experiment") / "s", sweep)


def test_arms_are_compared_member_by_member_in_the_order_of_their_seeds(folder):
    arms, rows = evidence_of_sweep(load(folder.path), ARMS), load(folder.path).rows
    assert [row.axes["seeds.member"] for row in rows] == [0, 1, 2, 3, 4, 5] * 2
    for i, arm in enumerate(ARMS):
        own = rows[6 * i : 6 * i + 6]
        assert {row.axes["optimizer.lr"] for row in own} == {ARMS[arm]["optimizer.lr"]}
        np.testing.assert_allclose(arms.scalar(arm, "icl_peak"), [row.scalars["icl_peak"] for row in own])
    verdict, _ = judge_sweep(STUDY, EXPERIMENT, "quick", folder)
    learns = verdict.claims[2]
    expected = arms.scalar("slow", "train_loss_final") - arms.scalar("fast", "train_loss_final")
    np.testing.assert_allclose(np.asarray(learns.members, float), expected)
    assert learns.n == 6 and learns.above == 6


def test_the_verdict_says_what_it_rests_on(folder):
    verdict = conclude_sweep(STUDY, EXPERIMENT, "quick", folder)
    assert [one.claim for one in verdict.claims] == ["sure", "impossible", "learns"]
    assert [one.verdict for one in verdict.claims][:2] == ["holds", "fails"] and not verdict.holds()
    assert verdict.study == "transience/try" and verdict.scaled == "tiny" and verdict.sequences == 3200
    assert "6 members an arm" in verdict.seeds and "seeds.data 50" in verdict.seeds and "source.seed 5" in verdict.seeds
    assert verdict.command == "ebbtide run transience --experiment try --preset quick --check"
    assert find_verdict(folder.path) == verdict
    assert (folder.path / "figure.png").read_bytes()[:4] == b"\x89PNG" and (folder.path / "figure.svg").exists()


NARROW = EXPERIMENT._replace(
    claims=(*CLAIMS, above("slow", "icl is a number", "definition", "icl_peak", "slow", 0.0)),
    presets={"quick": Preset(WORK._replace(arms={"slow": {"model.width": 8}, "fast": {"model.width": 16}}), 1, "tiny")},
)
"""Arms of different shapes, so that no task has members of both."""


def test_an_arm_that_did_not_finish_takes_the_verdict_from_its_own_claims_alone(tmp_path):
    """The other arm's claims are judged as ever, and the figures are drawn of what there is."""
    folder = made(tmp_path / "s", make_sweep(STUDY, NARROW, "quick"), leave=1)
    verdict = conclude_sweep(STUDY, NARROW, "quick", folder)
    answers = {claim.claim: claim for claim in verdict.claims}
    assert {name: claim.verdict for name, claim in answers.items()} == {
        "sure": "undecided",
        "impossible": "undecided",
        "learns": "undecided",
        "slow": "holds",
    }
    assert answers["learns"].note == "6 of 6 members of fast not finished" and answers["slow"].note == ""
    assert find_verdict(folder.path) == verdict and (folder.path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_an_experiment_of_which_nothing_has_finished_is_undecided(tmp_path):
    folder = made(tmp_path / "s", make_sweep(STUDY, NARROW, "quick"), leave=2)
    verdict = conclude_sweep(STUDY, NARROW, "quick", folder)
    assert {claim.verdict for claim in verdict.claims} == {"undecided"} and verdict.sequences == 0


def test_a_member_that_diverged_supports_no_claim_whatever_its_numbers_are(tmp_path):
    """Its first evaluation may well have been a good one."""
    arms = {"slow": {"optimizer.lr": 1e-4}, "fast": {"optimizer.lr": 3e-3}}
    first = Claim("first", "", "definition", "", 0.0, lambda found: found.curves("fast")["icl"][:, 0], ("fast",))
    one = NARROW._replace(
        presets={"quick": Preset(WORK._replace(arms=arms), 1, "tiny")}, claims=(first, *NARROW.claims)
    )
    folder = made(tmp_path / "s", make_sweep(STUDY, one, "quick"), bad=3e-3)
    verdict, found = judge_sweep(STUDY, one, "quick", folder)
    answers = {claim.claim: claim for claim in verdict.claims}
    assert (first.estimate(found) > 0).all()
    assert answers["first"].verdict == "fails" and answers["first"].note == "6 of 6 members of fast diverged"
    assert answers["slow"].verdict == "holds"


class Remembering(Evidence):
    """Evidence that remembers the arms that were read; of no arm is there a member that could be asked."""

    def __init__(self) -> None:
        super().__init__({})
        self.read: set[str] = set()

    def curve(self, arm: str, name: str) -> Series:
        self.read.add(arm)
        return Series(np.full((2, 9), np.nan), np.linspace(0, 100, 9))

    def curves(self, arm: str) -> Curves:
        self.read.add(arm)
        names = ("train_loss", "icl", "icl_holdout", "iwl", "ciwl", "flip")
        return {name: np.full((2, 9), np.nan) for name in names} | {"sequences": np.linspace(0, 100, 9)}

    def scalar(self, arm: str, name: str) -> np.ndarray:
        self.read.add(arm)
        return np.full(2, np.nan)

    def score_best(self, arm: str, evaluator: str = "icl") -> np.ndarray:
        return self.scalar(arm, evaluator)

    def runs(self, arm: str) -> list[tuple[int, RunFolder | None]]:
        self.read.add(arm)
        return [(0, None), (1, None)]

    def probe(self, arm: str, measure: str, evaluator: str) -> Series:
        self.read.add(arm)
        return Series(np.full((2, 9, *[8] * len(find_measure(measure).axes)), np.nan), np.linspace(0, 100, 9))


def has_arms(experiment: Experiment) -> bool:
    """Whether an experiment's work is a comparison of arms."""
    return all(isinstance(preset.work, Comparison) for preset in experiment.presets.values())


@pytest.mark.parametrize("study", STUDIES, ids=lambda one: one.name)
def test_a_claim_names_the_arms_that_it_reads(study):
    """By these it is known which claims an arm that did not finish concerns, and where a claim can be asked."""
    for experiment in study.experiments:
        for claim in experiment.claims if has_arms(experiment) else ():
            evidence = Remembering()
            values = claim.estimate(evidence)
            assert evidence.read == set(claim.arms) != set(), (experiment.name, claim.name)
            assert len(values) == 2


def test_the_best_model_is_measured_on_prompts_it_was_not_chosen_by(folder):
    arms = evidence_of_sweep(load(folder.path), ARMS)
    again = arms.score_best("fast")
    chosen = [run.best()["value"] for task in folder.specs if (run := folder.run(task))]
    assert again.shape == (6,) and ((again >= 0) & (again <= 1)).all()
    assert not np.array_equal(np.sort(again), np.sort(np.concatenate(chosen))[-3:]), "other prompts, other accuracies"


def test_a_best_model_that_does_not_fit_the_spec_is_one_line(folder, monkeypatch):
    best = {"value": np.zeros(3), "readout.w": np.zeros((3, 1), np.float32)}
    monkeypatch.setattr(RunFolder, "best", lambda run: best)
    with pytest.raises(InputError, match="best models': lacks the parameter"):
        evidence_of_sweep(load(folder.path), ARMS).score_best("fast")


def test_members_that_stopped_early_keep_their_model_and_train_no_more(tmp_path):
    stopping = {"stopping": {"patience": 400, "window": 1, "margin": 1.0}}  # nothing rises so much: all stop at 400
    arms = {"to the end": {"stopping": None}, "stopped": stopping}
    one = EXPERIMENT._replace(presets={"quick": Preset(WORK._replace(arms=arms), 1, "tiny")}, claims=CLAIMS[:0])
    found = evidence_of_sweep(load(trained(tmp_path / "s", make_sweep(STUDY, one, "quick")).path), arms)
    ends = [int(found.curve(arm, "icl").sequences[-1]) for arm in ("stopped", "to the end")]
    assert ends[0] <= 800 < 3200 == ends[1] == found.sequences()
    assert np.isfinite(found.scalar("stopped", "icl_final")).all()
    short, whole = found.curves("stopped"), found.curves("to the end")
    count = short["icl"].shape[1]
    np.testing.assert_array_equal(short["icl"][:, :2], whole["icl"][:, :2])
    padded = sweep_evidence._pad_curves(short, 1, {name: whole[name][1] for name in ("icl", "train_loss")})
    np.testing.assert_array_equal(padded["icl"][count:], np.full(len(padded["icl"]) - count, short["icl"][1, -1]))
    assert np.isnan(padded["train_loss"][count:]).all()


def test_what_is_not_there_is_refused_in_one_line(folder):
    with pytest.raises(InputError, match=r"experiment = 'tri': transience has"):
        STUDY.experiment("tri")
    with pytest.raises(InputError, match=r"preset = 'paper': try has quick"):
        EXPERIMENT.preset("paper")
    arms = evidence_of_sweep(load(folder.path), ARMS)
    with pytest.raises(InputError, match="arm = 'nobody': must be one of slow, fast"):
        arms.scalar("nobody", "icl_peak")
    with pytest.raises(InputError, match=r"scalar = 'icl_peek'.*did you mean 'icl_peak'"):
        arms.scalar("slow", "icl_peek")


EVERY = [(study, one) for study in STUDIES for one in study.experiments if has_arms(one)]


@pytest.mark.parametrize(("study", "experiment"), EVERY, ids=[f"{s.name}-{e.name}" for s, e in EVERY])
def test_every_experiment_can_be_planned_and_every_claim_is_asked_somewhere(study, experiment):
    for preset, size in experiment.presets.items():
        sweep, work = make_sweep(study, experiment, preset), size.work
        sweep.check()
        assert work.members >= 5 and sweep.size() == work.members * len(work.arms)
        assert experiment.claims_on(work.arms), preset
        if not (size.needs or work.donor):
            addresses = [a for one in group(sweep, sweep.points()) for a in one.addresses]
            assert len(set(addresses)) == sweep.size(), "two arms are the same"
    asked = {claim.name for s in experiment.presets.values() for claim in experiment.claims_on(s.work.arms)}
    assert asked == {claim.name for claim in experiment.claims}
    assert len({claim.name for claim in experiment.claims}) == len(experiment.claims)


PRESETS = [
    pytest.param(study.name, one.name, preset, marks=[] if preset == next(iter(one.presets)) else pytest.mark.thorough)
    for study, one in EVERY
    for preset in one.presets
]


@pytest.mark.parametrize(("study", "experiment", "preset"), PRESETS)
def test_every_preset_prints_its_plan_or_says_in_one_line_what_it_needs(study, experiment, preset, capsys, monkeypatch):
    monkeypatch.delenv("EBBTIDE_DATA", raising=False)
    code = main(["run", study, "--experiment", experiment, "--preset", preset, "--dry-run"])
    needs = find_study(study).experiment(experiment).presets[preset].needs
    out, err = capsys.readouterr()
    planned = "members into" in out or out.startswith("first the run that arms start from: ")
    assert (code == 0 and planned) or (needs and code == 2 and err.count("\n") == 1)


def test_an_arm_without_a_field_is_refused():
    """It would be no point of the sweep, and a comparison of that arm alone a sweep without members."""
    study = find_study("positions")
    shifts = study.experiment("shifts")
    work = plan_of(study, shifts).comparison
    empty = work._replace(arms={"as it is": {}})
    one = shifts._replace(presets={"quick": shifts.presets["quick"]._replace(work=empty)})
    with pytest.raises(InputError, match=r"arms = 'as it is': must give a field"):
        plan_of(study, one)


def test_what_the_user_says_holds_for_arms_that_say_otherwise(capsys):
    """Also inside a struct that an arm gives whole; unless the arms would be the same, or have no such field."""
    study = find_study("positions")
    shifts = study.experiment("shifts")
    before = msgspec.json.encode(plan_of(study, shifts).comparison.arms)
    made = make_sweep(study, shifts, "quick", {"sequences": 64_000, "model.width": 16, "batch": 8})
    specs = [one.spec for one in group(made, made.points())]
    assert len(specs) == 4 and all(
        (one.sequences, getattr(one.model, "width", None), one.batch) == (64_000, 16, 8) for one in specs
    )
    assert msgspec.json.encode(plan_of(study, shifts).comparison.arms) == before, "the arms stay as written"
    for arguments, line in (
        (["transient-ridge", "--source.pool", "8"], "source.pool = 8: is what the arms few functions and "),
        (
            ["regularisation", "--optimizer.decay.coefficient", "0.1"],
            "optimizer.decay.coefficient = 0.1: is what the arms ",
        ),
        (["positions", "--model.heads", "2"], "model.heads = 2: no such field; model has the fields layers, "),
    ):
        assert main(["run", *arguments, "--dry-run"]) == 2
        told = capsys.readouterr()
        assert not told.out and told.err.startswith(f"ebbtide: {line}") and told.err.count("\n") == 1


def test_a_plan_names_each_arm_with_its_members(capsys):
    assert main(["run", "statisticians", "--experiment", "base", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for arm in plan_of(find_study("statisticians"), find_study("statisticians").experiment("base")).comparison.arms:
        (line,) = [one for one in lines if one.startswith(f"{arm} ")]
        assert line.removeprefix(arm).split()[:2] == ["seeds.member", "9"]


def test_a_study_without_claims_of_its_own_is_its_first_experiment(capsys):
    assert main(["run", "regularisation", "--dry-run"]) == 0
    assert "regularisation-l2-quick: 72 members" in capsys.readouterr().out


def test_the_command_line_runs_one_and_its_exit_code_is_the_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fields = [word for name, value in TINY.items() for word in (f"--{name}", str(value).replace("'", '"'))]
    arguments = ["run", "transience", "--experiment", "zipf", "--out", "z", "--check", *fields]
    arguments += [
        "--evaluators",
        '["icl", "icl_holdout", "iwl", "ciwl", "icl_rare", "iwl_common"]',
        "--source.classes",
        "100",
    ]
    assert main(arguments) == 1  # so little training cannot bear out the claims
    text = capsys.readouterr().out
    assert "exponent 1" in text and "FAILS" in text and "not registered: fields were changed" in text
    assert (tmp_path / "z/verdict.json").exists() and (tmp_path / "z/figure.svg").exists()
    assert main([*arguments[:-2], "--source.classes", "100"]) == 1, "again: nothing to train, the same verdict"
