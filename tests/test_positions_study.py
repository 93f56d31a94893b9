"""The study of positions: its arms differ in what they say alone, and its measures are what they say."""

from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis.predictions import predict_arm
from ebbtide.evaluation.baselines import ridge
from ebbtide.models.positions import Learned, NoPositions
from ebbtide.models.transformer import Transformer
from ebbtide.papers.positions import measures as positions_measures
from ebbtide.papers.positions import study as positions
from ebbtide.papers.positions.measures import (
    SHIFTS,
    baseline_errors,
    count_shifts_won,
    mean_query_error,
    pad_prompt,
    prompts_of_length,
    query_errors,
)
from ebbtide.papers.positions.study import (
    BARE,
    CAUSAL,
    DEEPSET,
    ORDER,
    POSITIONS,
    QUICK,
    QUICK_ARMS,
    ROTARY,
    SAME,
    SET,
    SET_LEARNED,
    SET_SAME,
    SHIFTED,
    SINE,
)
from ebbtide.studies.comparison import Comparison, conclude_sweep
from ebbtide.studies.evidence import Evidence
from ebbtide.studies.study import Experiment
from ebbtide.studies.sweep_evidence import evidence_of_sweep
from ebbtide.sweeps.folder import SweepFolder
from ebbtide.sweeps.results import load
from ebbtide.training.fields import override
from ebbtide.training.spec import Spec, from_builtins
from evidence_tools import finished
from sweep_tools import make_sweep, plan_of, trained

pytestmark = pytest.mark.usefixtures("quick_compile")

TRAINED = (CAUSAL, SET_LEARNED, DEEPSET)
TINY = {
    "task.context": 4,
    "source.dim": 2,
    "batch": 16,
    "schedule.evaluations": 3,
    "schedule.spacing": "linear",
    "evaluators": ["train"],
    "evaluation_sequences": 20,
}


def spec_of(arm: str) -> Spec:
    data = msgspec.to_builtins(QUICK)
    for name, value in QUICK_ARMS[arm].items():
        override(Spec, data, name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return from_builtins(data)


def changed(one: Any, other: Any, name: str = "") -> set[str]:
    """Dotted names of the fields in which two builtins differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.get("type") == other.get("type"):
        return set().union(*(changed(one.get(k), other.get(k), f"{name}.{k}") for k in {*one, *other}))
    return {name[1:]} if one != other else set()


def work(experiment: Experiment, preset: str = "quick") -> Comparison:
    return plan_of(POSITIONS, experiment, preset).comparison


def test_arms_differ_in_what_they_say_alone():
    specs = {arm: spec_of(arm) for arm in QUICK_ARMS}
    built = {arm: msgspec.to_builtins(spec) for arm, spec in specs.items()}
    for group in ((CAUSAL, SINE, ROTARY, BARE, SAME), (SET, SET_SAME, SET_LEARNED)):
        for arm in group[1:]:
            assert changed(built[group[0]], built[arm]) == {"model.positions"}
    unmasked = {"model.mask", "model.pairing", "task.lengths", "sequences"}
    assert changed(built[BARE], built[SET]) == unmasked
    assert changed(built[SAME], built[SET_SAME]) == unmasked
    assert changed(built[CAUSAL], built[DEEPSET]) == {"model"}
    sizes = {arm: spec.parameters() for arm, spec in specs.items()}
    assert all(sizes[BARE] == sizes[SET] <= size < 1.1 * sizes[BARE] for arm, size in sizes.items() if arm != DEEPSET)
    for spec in specs.values():
        spec.check()


@pytest.mark.parametrize("experiment", [SHIFTED, ORDER], ids=lambda one: one.name)
def test_every_claim_is_asked_at_every_size(experiment):
    for preset in experiment.presets:
        assert experiment.claims_on(work(experiment, preset).arms) == experiment.claims
    assert set(work(SHIFTED).arms) | set(work(ORDER).arms) == set(QUICK_ARMS)


def test_learned_positions_reach_to_the_longest_prompts():
    for arm in (CAUSAL, SET_LEARNED):
        model = spec_of(arm).model
        assert isinstance(model, Transformer) and isinstance(model.positions, Learned)
        longest = max(positions_measures.LONGER) * positions.CONTEXT
        assert model.tokens(positions.CONTEXT) + model.positions.spare == model.tokens(longest)


def tiny() -> Experiment:
    """The experiment with three arms and models that know next to nothing."""
    quick = work(SHIFTED)
    small = positions.arms(
        Transformer(layers=1, width=8, heads=2), replace(positions.DeepSet(layers=1), width=8), 4, 480
    )
    three = quick._replace(arms={arm: small[arm] for arm in TRAINED}, base=quick.base | TINY, members=2)
    claims = SHIFTED.claims + ORDER.claims
    return SHIFTED._replace(
        presets={"quick": SHIFTED.presets["quick"]._replace(work=three)},
        scalars=("train_final",),
        claims=claims,
        figures=lambda found, title: positions_measures.draw_figures(found, title, TRAINED),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> SweepFolder:
    return trained(tmp_path_factory.mktemp("positions") / "s", make_sweep(POSITIONS, tiny(), "quick"))


@pytest.fixture(scope="module")
def evidence(folder) -> Evidence:
    return evidence_of_sweep(load(folder.path), TRAINED)


def test_errors_are_normalised_squared_errors_on_prompts_that_all_arms_share(evidence):
    found = {arm: query_errors(evidence, arm, "skewed", prompts=50) for arm in TRAINED}
    for arm, members in found.items():
        for m, answered in enumerate(predict_arm(evidence, arm, "skewed", prompts=50, last=True)):
            own = members[m]
            assert answered is not None and own is not None
            said = answered.responses[-1]
            expected = (answered.values()[-1, -1] - said) ** 2 / (said**2).mean()
            np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-5)
    inputs = [prompts_of_length(_spec(evidence, arm), "skewed", 4, 50).inputs for arm in TRAINED]
    for other in inputs[1:]:
        np.testing.assert_array_equal(inputs[0], other)
    one = mean_query_error(evidence, DEEPSET, "skewed")
    assert one.shape == (2,) and np.allclose(mean_query_error(evidence, DEEPSET, "skewed", log=True), np.log(one))


def _spec(evidence: Evidence, arm: str) -> Spec:
    place, run = evidence.runs(arm)[0]
    assert run is not None
    return positions_measures._model_at(run.snapshot(), place)[0]


def test_every_length_is_answered(evidence):
    for arm in TRAINED:
        for times in (1, 2, 4):
            assert np.isfinite(mean_query_error(evidence, arm, times=times)).all()
        errors = [one for one in query_errors(evidence, arm, pairs=1, prompts=20) if one is not None]
        assert np.isfinite([one.mean() for one in errors]).all()


def test_a_model_that_has_learned_nothing_is_not_compared(evidence, monkeypatch):
    claim = next(one for one in SHIFTED.claims if one.arms == (DEEPSET, CAUSAL))
    assert np.isnan(claim.estimate(evidence)).all(), "these models know next to nothing"
    monkeypatch.setattr(positions_measures, "LEARNED", np.inf)
    assert np.isfinite(claim.estimate(evidence)).all()


def test_shifts_are_won_on_prompts_alike(evidence, monkeypatch):
    assert count_shifts_won(evidence, DEEPSET, DEEPSET).tolist() == [0, 0]
    rng = np.random.default_rng(0)
    base = rng.exponential(size=400)

    def faked(_: Any, arm: str, shift: str) -> list[Any]:
        better = arm == SET and SHIFTS.index(shift) < 5
        noise = rng.normal(scale=0.01, size=400)
        return [base - 0.1 * better + noise - noise.mean(), None]

    monkeypatch.setattr(positions_measures, "query_errors", faked)
    won = count_shifts_won(finished([SET, CAUSAL]), SET, CAUSAL)
    assert won[0] == 5 and np.isnan(won[1])


def test_absent_pairs_change_no_answer_of_a_model_without_mask():
    model = Transformer(layers=2, width=8, heads=2, mask="none", pairing="joint", positions=NoPositions())
    spec = replace(QUICK, model=model, task=replace(QUICK.task, lengths="random"))
    params = model.init(jax.random.key(0), **spec.shape())
    short = prompts_of_length(spec, "train", 3, 7).prompt
    longer = pad_prompt(short, 10)
    assert longer.inputs.shape == (11, 7, 3) and not np.asarray(longer.present[3:]).any()
    np.testing.assert_array_equal(longer.responses[-1], short.responses[-1])
    np.testing.assert_allclose(model.apply(params, longer), model.apply(params, short), rtol=1e-4, atol=1e-5)
    assert pad_prompt(longer, 4) is longer


def test_baselines_are_given_the_same_prompts():
    spec = replace(QUICK, task=replace(QUICK.task, lengths="full"))
    drawn = prompts_of_length(spec, "train", 6, 300)
    x, y = drawn.inputs, drawn.responses
    found = baseline_errors(spec, "train", 6, 300)
    expected = ((ridge(x, y, 0.04 * 3)[-1] - y[-1]) ** 2).mean() / (y[-1] ** 2).mean()
    assert found["ridge"] == pytest.approx(expected) and found["ridge"] <= min(found.values()) + 1e-3
    assert jnp.isfinite(jnp.asarray(list(found.values()))).all()


def test_every_claim_is_asked_in_every_preset():
    for preset in SHIFTED.presets:
        assert set(SHIFTED.claims_on(work(SHIFTED, preset).arms)) == set(SHIFTED.claims)


def test_the_verdict_and_its_figures(folder, monkeypatch):
    monkeypatch.setattr(positions_measures, "FIGURE_PROMPTS", 20)
    monkeypatch.setattr(positions_measures, "SHIFTS", ("skewed",))
    monkeypatch.setattr(positions_measures, "LONGER", (2,))
    verdict = conclude_sweep(POSITIONS, tiny(), "quick", folder)
    assert len(verdict.claims) == 3 and all(len(claim.members) == 2 for claim in verdict.claims)
    assert (folder.path / "errors.png").read_bytes()[:4] == b"\x89PNG"
    assert b"skewed" in (folder.path / "errors.svg").read_bytes()
