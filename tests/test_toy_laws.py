"""Toy laws: the exact form against tensors and automatic gradients, the study, its folder and its command."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.mechanisms import laws
from ebbtide.mechanisms.laws import Competition, NestedLogits, Product, descend, draw
from ebbtide.pages.gather import gather
from ebbtide.pages.page import NOT_RUN, entries_page
from ebbtide.papers.registry import find_study, preset_of
from ebbtide.papers.toy_laws import study as toy_laws
from ebbtide.papers.toy_laws.study import TOY_LAWS, Descent, ToyLaws
from ebbtide.runs.signed import DamagedError
from ebbtide.studies.claim import Judgement, judge
from ebbtide.studies.computation import ComputationPlan, read_record
from ebbtide.studies.evidence import ONLY, Arm, Evidence
from ebbtide.studies.registration import verdict_seed
from ebbtide.studies.study import setup
from ebbtide.studies.verdict import Verdict

pytestmark = pytest.mark.usefixtures("quick_compile")

SEEDS = range(200, 203)
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
TINY = [
    ("seeds", "6"),
    ("seed", "200"),
    ("product_descent.steps", "200"),
    ("competition_descent.steps", "400"),
    ("nested_descent.steps", "100"),
]


def outer(*vectors):
    """The outer product, as a whole tensor."""
    return jnp.einsum("i,j,k->ijk", *vectors) if len(vectors) == 3 else jnp.einsum("i,j->ij", *vectors)


def half_square(difference):
    return 0.5 * (difference**2).mean()


def product_loss(vectors, targets):
    return half_square(outer(*targets) - outer(*vectors))


def competition_parts(vectors, targets, law: Competition):
    (a, b, c, d), (at, bt, ct, dt) = vectors, targets
    one, two = half_square(outer(at, bt, ct) - outer(a, b, c)), half_square(outer(dt, bt, ct) - outer(d, b, c))
    both = half_square(outer(a, d))
    return (one + law.mu1) * (two + law.mu2) + law.alpha * both, one, two, both


def by_tensors(loss, parts, dims, seed: int, rate: float, steps: int, fixed=()) -> np.ndarray:
    """Losses [part, step] of gradient descent on whole tensors, gradients by automatic differentiation."""
    with jax.enable_x64(True):
        vectors, targets = ([jnp.asarray(x, jnp.float64) for x in some] for some in zip(*draw(dims, seed), strict=True))
        vectors = [targets[i] if i in fixed else v for i, v in enumerate(vectors)]
        seen, slope = [], jax.jit(jax.grad(loss))
        for _ in range(steps + 1):
            seen.append([float(x) for x in parts(vectors, targets)])
            slopes = slope(vectors, targets)
            vectors = [v if i in fixed else v - rate * s for i, (v, s) in enumerate(zip(vectors, slopes, strict=True))]
        return np.array(seen).T


@pytest.mark.parametrize("fixed", [(), (2,), (1, 2), (0,)])
def test_products_are_trained_as_whole_tensors_are(fixed):
    law = Product(dim=4, fixed=fixed)
    course = descend(law, law.start(SEEDS), 0.05, 60)
    assert course.losses.shape == (1, 3, 61) and (course.losses[0, :, -1] < course.losses[0, :, 0]).all()
    for i, seed in enumerate(SEEDS):
        brute = by_tensors(product_loss, lambda v, t: [product_loss(v, t)], law.dims, seed, 0.05, 60, fixed)
        np.testing.assert_allclose(course.losses[:, i], brute, **EXACT)


@pytest.mark.parametrize("law", [Competition(3, 7), Competition(3, 7, mu1=0.0), Competition(4, 2, 0.3, 0.2, 0.7)])
def test_the_competition_is_trained_as_whole_tensors_are(law):
    course = descend(law, law.start(SEEDS), 0.03, 60, every=2)
    for i, seed in enumerate(SEEDS):
        brute = by_tensors(
            lambda v, t: competition_parts(v, t, law)[0],
            lambda v, t: competition_parts(v, t, law),
            law.dims,
            seed,
            0.03,
            60,
        )
        np.testing.assert_allclose(course.losses[:, i], brute[:, ::2], **EXACT)


@pytest.mark.parametrize("law", [NestedLogits(), NestedLogits(8, 2, 4), NestedLogits(4, 1, 9), NestedLogits(2, 1, 2)])
def test_slopes_of_the_nested_logits_are_those_of_automatic_differentiation(law):
    law.check()
    count = law.pairs // law.burst - 1

    def loss(logits):
        first, match, read = logits
        a = jax.nn.sigmoid(first - jnp.log(2.0 * law.pairs))
        m = jax.nn.sigmoid(a * match - jnp.log(float(count)))
        context = [read * m] + [read * (1 - m) / count] * count
        return -jax.nn.log_softmax(jnp.stack(context + [0.0 * m] * (law.labels - count - 1)))[0]

    with jax.enable_x64(True):
        for logits in np.random.default_rng(0).normal(0, 3, (20, 3)):
            value, slope = jax.value_and_grad(loss)(jnp.asarray(logits, jnp.float64))
            np.testing.assert_allclose(law.slopes(logits[:, None])[:, 0], np.asarray(slope), **EXACT)
            np.testing.assert_allclose(law.losses(logits[:, None])[0, 0], float(value), **EXACT)


def test_nested_logits_know_nothing_at_zero_and_all_when_all_is_given():
    law = NestedLogits()
    loss, context, a, m = law.losses(np.zeros((3, 1)))[:, 0]
    np.testing.assert_allclose([loss, context, a, m], [np.log(32), 8 / 32, 1 / 17, 1 / 8], **EXACT)
    np.testing.assert_allclose(law.losses(np.full((3, 1), laws.FIXED_LOGIT))[:, 0], [0, 1, 1, 1], atol=1e-12)
    state = replace(law, fixed=(0, 2)).start(range(5))
    course = descend(replace(law, fixed=(0, 2)), state, 0.1, 50)
    np.testing.assert_allclose(course.losses[2], 1, atol=1e-12)  # a given logit is not trained
    assert (course.losses[0, :, -1] < 0.01).all()


@settings(max_examples=40)
@examples(st.integers(0, 2**31 - 1), st.integers(3, 12), st.integers(3, 30), st.floats(0, 0.5), st.floats(0, 1))
def test_states_stay_those_of_vectors_and_small_steps_descend(seed, dim, slow, mu1, alpha):
    law = Competition(dim, slow, mu1=mu1, alpha=alpha)
    state = law.start(range(seed, seed + 2))
    before = law.losses(state)
    for _ in range(20):
        state = law.step(state, 1e-4)
        square, overlap, target = state
        assert (square >= 0).all() and (overlap**2 <= square * target * (1 + 1e-9)).all()
    after = law.losses(state)
    assert (after >= -1e-9).all() and (after[0] <= before[0] * (1 + 1e-12)).all()


def test_a_seed_does_not_depend_on_its_company_and_laws_of_one_seed_share_it():
    law = Competition(5, 9)
    many, alone = (descend(law, law.start(seeds), 0.05, 40) for seeds in (range(7, 11), range(9, 10)))
    np.testing.assert_array_equal(many.losses[:, 2], alone.losses[:, 0])
    np.testing.assert_array_equal(law.start(range(3))[:, :1], Product(dim=5).start(range(3))[:, :1])


def test_a_product_that_is_zero_has_the_loss_of_its_plateau():
    for law, levels in ((p := Product(dim=4), p.level), (c := Competition(4, 6), c.levels)):
        state = law.start(SEEDS)
        state[:2] = 0
        losses = law.losses(state)
        np.testing.assert_allclose(losses[:1] if law is p else losses[1:3], np.atleast_2d(levels(state)), **EXACT)


def test_a_seed_rests_once_its_loss_is_small_enough():
    law = Product(dim=20, fixed=(1, 2))
    free = descend(law, law.start(SEEDS), 1.0, 100)
    course = descend(law, law.start(SEEDS), 1.0, 100, stop=1e-3)
    for i, at in enumerate(course.stopped):
        assert at > 0 and free.losses[0, i, at] < 1e-3 <= free.losses[0, i, at - 1]
        np.testing.assert_array_equal(course.losses[0, i, : at + 1], free.losses[0, i, : at + 1])
        assert (course.losses[0, i, at:] == course.losses[0, i, at]).all()
    with pytest.raises(InputError, match="every = 3: must divide the 100 steps"):
        descend(law, law.start(SEEDS), 1.0, 100, every=3)


def test_a_rate_that_is_too_large_diverges_without_a_word_and_supports_no_claim():
    law = Product(dim=3)
    course = descend(law, law.start(SEEDS), 1e6, 50)
    assert not np.isfinite(course.losses[0, :, -1]).any()
    setting = ToyLaws(seeds=3, seed=200, product_descent=Descent(rate=1e6, steps=20))
    setting = replace(setting, competition_descent=Descent(rate=1e6, steps=20), nested_descent=Descent(steps=20))
    scalars = toy_laws.summarise(setting, toy_laws.compute(setting))
    found = {one.claim: one.verdict for one in judged(scalars)}
    assert all(
        found[name] != "holds" for name in ("shorter-plateau", "emergence", "transience", "persistence", "abrupt")
    )


def judged(scalars: dict[str, np.ndarray]) -> list[Judgement]:
    """Every claim of the study on the numbers of its members."""
    evidence = Evidence({ONLY: Arm(scalars=scalars)})
    return [judge(claim, evidence) for claim in TOY_LAWS.experiments[0].claims]


def setting_of(*fields: tuple[str, str]) -> ToyLaws:
    """The setting of the preset with fields changed."""
    plan = setup(TOY_LAWS, fields=fields).plan()
    assert isinstance(plan, ComputationPlan) and isinstance(plan.computation.setting, ToyLaws)
    return plan.computation.setting


# ---- the measures


def test_measures_on_made_up_curves():
    steps = np.arange(0, 12, 2)
    curves = np.array([[2.0, 1.05, 1.0, 0.6, 0.4, 0.1], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(toy_laws.first_below(curves, 0.5, steps), [8, np.nan])
    np.testing.assert_array_equal(toy_laws.plateau_steps(curves, steps), [4, 12])
    l1 = np.array([[3.0, 1.0, 0.95, 0.5, 0.05, 0.6], [1.0] * 6])
    l2 = np.array([[9.0, 1.0, 1.0, 1.2, 0.5, 0.0], [1.0] * 6])
    np.testing.assert_allclose(toy_laws.l2_rise(l1, l2), [0.2, np.nan])


def test_a_seed_that_stays_on_the_plateau_meets_no_claim_about_those_that_leave():
    setting = ToyLaws(seed=200, seeds=9)
    short = Descent(steps=2)
    setting = replace(setting, product_descent=short, competition_descent=short, nested_descent=short)
    curves = toy_laws.compute(setting)
    one, two = np.array([1.0, 0.0, 0.9]), np.array([1.0, 1.1, 0.0])
    for arm in toy_laws.COMPETITION:
        curves[f"competition/{arm}/L1"] = np.stack([*[one] * 8, np.ones(3)])
        curves[f"competition/{arm}/L2"] = np.stack([two] * 9)
    curves["competition/steps"] = np.arange(3)
    scalars = toy_laws.summarise(setting, curves)
    found = {claim.claim: claim for claim in judged(scalars)}
    assert found["transience"].n == 9 and found["transience"].members[:8] == pytest.approx([0.9] * 8)
    assert found["transience"].members[8] is None and found["transience"].verdict == "holds"
    assert found["bump"].members[:8] == pytest.approx([0.1] * 8) and found["replacement"].verdict == "holds"
    assert found["persistence"].verdict == "fails" and found["same-seeds"].members == [1] * 9


# ---- the study


@pytest.fixture(scope="module")
def quick() -> tuple[ToyLaws, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The preset on twelve seeds that are neither the verdict's nor the tuning's."""
    setting = replace(setting_of(), seed=500, seeds=12)
    curves = toy_laws.compute(setting)
    return setting, curves, toy_laws.summarise(setting, curves)


@pytest.mark.thorough
def test_the_laws_do_what_the_papers_say_in_structure(quick):
    """Which seeds stay on the plateau depends on the random numbers; what those do that leave it does not."""
    _, curves, s = quick
    words = toy_laws.COMPETITION
    left = s[f"{words['unequal']}: left"] > 0
    assert left.sum() >= 6
    l1, l2 = curves["competition/unequal/L1"][left], curves["competition/unequal/L2"][left]
    assert np.median(l1.min(axis=1)) < 0.05 and np.median(l1[:, -1]) > 0.8 and np.median(l2[:, -1]) < 0.01
    stays = s[f"{words['equal']}: left"] > 0
    assert (s[f"{words['equal']}: last L1"][stays] < 0.1).all() and stays.sum() >= 6
    halves = [np.nanmedian(s[f"product, {arm} given: steps to half"]) for arm in toy_laws.PRODUCT]
    assert halves[0] > 3 * halves[1] > 3 * halves[2]
    assert np.median(s["product, b and c given: steps on the plateau"]) < 10
    assert (s["logits, none given: fall / time before"] < 0.1).all()


def test_claims_are_fixed_and_no_tuning_seed_is_a_verdict_seed():
    assert find_study("toy-laws") is TOY_LAWS
    claims = TOY_LAWS.experiments[0].claims
    names = [claim.name for claim in claims]
    assert len(set(names)) == len(names) == 13
    assert all(
        c.statement and c.source and c.metric and np.isfinite(c.threshold) for c in TOY_LAWS.experiments[0].claims
    )
    setting = setting_of()
    setting.check()
    assert setting.seeds == 40 and setting.seed == verdict_seed("toy-laws", "quick", round=1) > 1000
    assert msgspec.json.decode(msgspec.json.encode(setting), type=ToyLaws) == setting


def test_the_folder_holds_all_and_the_same_again_gives_the_same_bytes(tmp_path):
    folder = tmp_path / "runs" / "toy"
    verdict = setup(TOY_LAWS, fields=TINY).plan().conclude(folder)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(files) == {"computed.json", "curves.npz", "figure.png", "figure.svg", "verdict.json"}
    assert msgspec.json.decode(files["verdict.json"], type=Verdict) == verdict
    assert verdict.preset == "quick*" and verdict.seeds == "200 to 205" and len(verdict.claims) == 13
    assert json.loads(files["verdict.json"])["claims"][0]["members"]
    with np.load(folder / "curves.npz") as curves:
        assert curves["product/none"].shape == (6, 201) and curves["competition/steps"][-1] == 400
    assert setup(TOY_LAWS, fields=TINY).plan().conclude(folder) == verdict
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == files


def test_a_folder_of_something_else_is_left_alone(tmp_path, one_line):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError) as caught:
        setup(TOY_LAWS, fields=TINY).plan().conclude(tmp_path)
    one_line(caught, "out", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]
    setup(TOY_LAWS, fields=TINY).plan().conclude(tmp_path / "a")
    with pytest.raises(InputError, match="of another setting"):
        setup(TOY_LAWS, fields=[*TINY, ("seeds", "4")]).plan().conclude(tmp_path / "a")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("seeds", "1")], "seeds = 1: must be from 2 to 1024"),
        ([("seeds", "many")], "seeds = 'many': expected int"),
        ([("seed", "-1")], "seed = -1: must be from 0"),
        ([("sedes", "3")], r"sedes = 3: no such field \(did you mean 'seeds'\?\)"),
        ([("competition.mu3", "3")], r"competition.mu3 = 3: no such field"),
        ([("product.dim", "0")], "product.dim = 0: expected int >= 1"),
        ([("product.fixed", "[1]")], r"product.fixed = \(1,\): must be empty"),
        ([("nested.burst", "3")], "burst = 3: must divide the 8 pairs"),
        ([("nested.labels", "7")], "labels = 7: must be 8 or more"),
        ([("nested_descent.every", "7")], "nested_descent.every = 7: must divide the 3000 steps"),
        ([("product_descent.stop", "1")], "product_descent.stop = 1.0: must be 0"),
        (
            [("seeds", "1024"), ("product_descent.steps", "1000000")],
            "product_descent.every = 1: so small that the 1024 seeds give more than",
        ),
    ],
)
def test_a_setting_that_cannot_be_computed_is_told_in_one_line(fields, message):
    with pytest.raises(InputError, match=message) as caught:
        setting_of(*fields)
    assert "\n" not in str(caught.value)


def test_names_that_are_not_there_and_studies_that_train_nothing():
    with pytest.raises(InputError, match=r"preset = 'quik': toy-laws has quick \(did you mean 'quick'"):
        setup(TOY_LAWS, preset="quik").plan()
    with pytest.raises(InputError, match=r"study = 'toy-laws': trains nothing.*ebbtide run toy-laws"):
        preset_of("toy-laws", "quick")
    with pytest.raises(InputError, match=r"study = 'toy-law'.*did you mean 'toy-laws'"):
        find_study("toy-law")


# ---- the command line and reports


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = [word for name, text in TINY for word in (f"--{name}", text)]


def test_the_command_writes_a_folder_named_by_the_setting_and_exits_by_the_verdict(here, capsys):
    assert main(["run", "toy-laws", "--check", *WORDS]) == 1  # so few steps bear out nothing
    text = capsys.readouterr().out
    assert "FAILS" in text and "verdict runs/toy-laws-quick-" in text
    (folder,) = (here / "runs").iterdir()
    digest = setting_of(*TINY).digest()
    assert folder.name == f"toy-laws-quick-{digest[:8]}"
    record = read_record(folder)
    assert record.command() == f"ebbtide run toy-laws --preset quick --check {' '.join(WORDS)}"
    assert main(record.command().split()[1:]) == 1 and len(list((here / "runs").iterdir())) == 1


def test_a_dry_run_prints_the_setting_and_options_of_training_are_refused(here, capsys):
    assert main(["run", "toy-laws", "--dry-run", "--competition.mu1", "0.2"]) == 0
    printed = msgspec.json.decode(capsys.readouterr().out, type=ToyLaws)
    assert printed.competition.mu1 == 0.2 and not (here / "runs").exists()
    for words in (["--jobs", "2"], ["--experiment", "x"], ["--deterministic"], ["--width", "1"], ["--preset", "cpu"]):
        assert main(["run", "toy-laws", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and words[0][2:] in error


def test_studies_lists_it(capsys):
    for words in ([], ["toy-laws"]):
        assert main(["studies", *words]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "toy-laws" in text and "2503.05631" in text and "nine tenths" in text and "about 10 s" in text


def test_a_report_tells_of_it(here, capsys):
    assert main(["report", "toy-laws", "--out", "p.html"]) == 2
    assert "has no run in runs yet (make one with: ebbtide run toy-laws)" in capsys.readouterr().err
    main(["run", "toy-laws", *WORDS])
    main(["run", "toy-laws", *WORDS, "--out", "runs/other", "--seed", "300"])
    assert main(["report", "toy-laws", "--out", "p.html"]) == 0
    page = (here / "p.html").read_text()
    assert "mechanism 1 is lost again" in page and "data:image/svg+xml" in page and "Numbers of each seed (6)" in page
    entries = gather(["toy-laws"], here / "runs")
    assert [one.kind for one in entries] == ["computation"] * 2 and [one.earlier for one in entries] == [False, True]
    assert NOT_RUN not in {one.kind for one in entries} and entries_page("t", entries)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("computed.json", "{", "computed.json is damaged"),
        ("verdict.json", "[]", "verdict.json is damaged"),
        ("verdict.json", None, "Not judged yet"),
    ],
)
def test_a_damaged_folder_is_told(here, name, text, said):
    folder = here / "runs/toy-laws-x"
    setup(TOY_LAWS, fields=TINY).plan().conclude(folder)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    (entry,) = [one for one in gather(["toy-laws"], here / "runs") if one.kind != NOT_RUN]
    assert said.lower() in entry.problem.lower() and entry.claims is None
    assert entry.damaged == (name == "computed.json")
    if entry.damaged:
        with pytest.raises(DamagedError):
            read_record(folder)
