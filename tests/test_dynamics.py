"""Dynamical systems in context: what the task draws, the model over states, and the experiment's exact predictors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis import layer_probes
from ebbtide.analysis.layer_probes import ProbeScores
from ebbtide.analysis.predictions import Predictions, fresh_prompts
from ebbtide.compile import compile_fast
from ebbtide.errors import InputError
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.taps import record
from ebbtide.models.model import response_losses
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.papers.representations import dynamics as representations_dynamics
from ebbtide.papers.representations import measures as representations_measures
from ebbtide.papers.representations.dynamics import DYNAMICS, SYSTEM
from ebbtide.papers.representations.study import REPRESENTATIONS
from ebbtide.sources.functions import Functions, represent_float64
from ebbtide.sweeps.plan import group
from ebbtide.tasks.dynamics import Dynamics, scale_to_unit_rms
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.prompt import FunctionPrompt
from ebbtide.tasks.regression import Regression
from ebbtide.training.engine import Engine
from ebbtide.training.optimizer import Adam
from ebbtide.training.spec import Spec, from_json
from evidence_tools import finished
from sweep_tools import make_sweep, plan_of

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCE, TASK = Functions(dim=2, history=3, layers=1, representations=2, seed=3), Dynamics(context=10, noise=0.2)
SPEC = Spec(
    task=TASK,
    source=SOURCE,
    model=Transformer(layers=2, width=16, heads=2, pairing="states"),
    optimizer=Adam(lr=3e-3),
    batch=32,
    sequences=9_600,
    evaluators=("train",),
    evaluation_sequences=300,
    keep_best=None,
)


def draw(n: int = 2000, task: Dynamics = TASK) -> FunctionPrompt:
    key, split = root(2, Purpose.DATA), SOURCE.sizes().split()
    return compile_fast(lambda i: task.sample(key, i, SOURCE, SOURCE.build(), split))(jnp.arange(n, dtype=jnp.uint32))


def test_every_state_follows_from_the_three_before_by_the_prompts_own_system():
    prompt = draw()
    x, y = np.asarray(prompt.inputs, np.float64), np.asarray(prompt.responses, np.float64)
    np.testing.assert_array_equal(x[1:], y[:-1])
    long = np.concatenate([np.zeros((2, *x.shape[1:])), x])
    there = np.concatenate([long[i : i + len(x)] for i in range(3)], axis=-1)
    there /= np.sqrt(np.square(there).mean(-1, keepdims=True))
    maps = np.asarray(SOURCE.build().maps, np.float64)
    which = np.asarray(prompt.latent["representation"])
    known = np.where(which[None, :, None] == 0, represent_float64(maps[0], there), represent_float64(maps[1], there))
    noise = y - np.einsum("sbf,bdf->sbd", known, np.asarray(prompt.latent["weights"], np.float64))
    assert noise.std() == pytest.approx(0.2, rel=0.02) and abs(noise.mean()) < 0.005
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.001, "noise is drawn anew for every state"
    assert set(which) == {0, 1}
    weights = np.asarray(prompt.latent["weights"])
    assert weights.shape == (2000, 2, 6) and weights.std() == pytest.approx(6**-0.5, rel=0.03)


def test_no_system_grows_and_none_dies():
    size = np.abs(np.asarray(draw(task=replace(TASK, context=200)).responses)).reshape(201, -1)
    assert size.max() < 10
    assert size[-20:].mean() == pytest.approx(size[:20].mean(), rel=0.1)


def test_a_history_is_scaled_to_one_and_zeros_stay():
    x = np.asarray([[3.0, 4.0], [0.0, 0.0], [-1e-12, 0.0]])
    root_two = 2**0.5
    expected = [[0.6 * root_two, 0.8 * root_two], [0, 0], [-root_two, 0]]
    np.testing.assert_allclose(scale_to_unit_rms(x), expected, rtol=1e-12)
    np.testing.assert_allclose(scale_to_unit_rms(jnp.asarray(x)), expected, rtol=1e-6)


def test_an_example_depends_on_its_number_alone():
    whole, key, split = draw(50), root(2, Purpose.DATA), SOURCE.sizes().split()
    some = compile_fast(lambda i: TASK.sample(key, i, SOURCE, SOURCE.build(), split))(jnp.asarray([7, 3], jnp.uint32))
    np.testing.assert_allclose(whole.responses[:, jnp.asarray([7, 3])], some.responses, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"source": replace(SOURCE, pool=4)}, "source.pool = 4: must be 0"),
        ({"model": Transformer()}, r"model.pairing = 'interleaved': must be states for the task dynamics"),
        ({"model": Recurrent()}, r"model.pairing = 'interleaved': must be states"),
        ({"task": Regression(), "evaluators": ("train",)}, "source.history = 3: must be 1"),
        (
            {"task": Regression(), "source": Functions(), "evaluators": ("train",)},
            r"model.pairing = 'states': states are for streams: each predicts the next",
        ),
        ({"task": FewShot(), "source": Spec().source}, "states are for streams"),
        ({"source": Spec().source}, r"source = 'gaussian': must be functions for the task dynamics"),
        ({"model": replace(SPEC.model, mask="none")}, "must be causal"),
        ({"evaluators": ("prior",)}, "must be one of train"),
        ({"source": replace(SOURCE, nonzero=7)}, "source.nonzero = 7: must be at most dim x history = 6"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, line):
    with pytest.raises(InputError, match=line) as found:
        replace(SPEC, **changes).check()
    assert "\n" not in str(found.value)


def test_the_spec_survives_json():
    assert from_json(SPEC.to_json()) == SPEC
    SPEC.check()


def test_a_model_over_states_answers_each_from_what_is_before_it():
    model, prompt = SPEC.model, draw(5)
    params, answer = (
        compile_fast(lambda key: model.init(key, **SPEC.shape()))(jax.random.key(0)),
        compile_fast(model.apply),
    )
    assert "label" not in params and params["readout"]["w"].shape == (16, 2) and model.tokens(10) == 11
    there = answer(params, prompt)
    assert there.shape == (11, 5, 2)
    later = answer(params, prompt._replace(inputs=prompt.inputs.at[6].add(1.0)))
    np.testing.assert_allclose(there[:6], later[:6], atol=1e-6)
    assert np.abs(np.asarray(there - later))[6:].max() > 0.01
    blind = answer(params, prompt._replace(responses=prompt.responses + 1))
    np.testing.assert_array_equal(there, blind)


def test_the_loss_of_a_vector_is_the_mean_over_its_numbers():
    prompt = draw(4)
    off = jnp.asarray([1.0, 3.0])
    losses = response_losses(prompt.responses + off, prompt)
    np.testing.assert_allclose(losses, np.full((11, 4), 5.0), rtol=1e-5)


@pytest.mark.thorough
def test_training_explains_states():
    engine = Engine(SPEC)
    start, data = engine.init(0), engine.data(0)

    prompt, measured = fresh_prompts(SPEC, "train", 500).prompt, compile_fast(SPEC.model.loss)

    def loss(state) -> float:
        return float(measured(state.params, prompt))

    before = loss(start)
    after = loss(engine.train(start, data, jnp.uint32(300)))
    assert after < 0.85 * before


def test_copied_tokens_carry_their_exemplar_in_the_token_of_the_response():
    model = Transformer(layers=1, width=16, heads=2, pairing="copied")
    plain = replace(model, pairing="interleaved")
    source, task = Functions(dim=3), Regression(context=4)
    key, split = root(2, Purpose.DATA), source.sizes().split()
    prompt = compile_fast(lambda i: task.sample(key, i, source, source.build(), split))(jnp.arange(5, dtype=jnp.uint32))
    params = compile_fast(lambda key: model.init(key, context=4, dim=3, labels=0))(jax.random.key(0))
    without = {name: value for name, value in params.items() if name != "copy"}
    same = compile_fast(lambda key: plain.init(key, context=4, dim=3, labels=0))(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), without, same))

    def tokens(one: Transformer, params) -> jax.Array:
        return compile_fast(lambda p: record(one, p, prompt, "hook_embed")[1])(params)["hook_embed"]

    more = tokens(model, params) - tokens(plain, same)
    np.testing.assert_allclose(more[1::2], model.encoder.apply(params["copy"], prompt.inputs[:-1]), atol=1e-6)
    np.testing.assert_array_equal(more[::2], 0)


PROMPTS = 400


def answered(says=None) -> Predictions:
    """A member that answers what `says` makes of its answers; 0 unless given."""
    sweep = make_sweep(REPRESENTATIONS, DYNAMICS, "quick")
    spec = group(sweep, sweep.points())[0].spec
    asked = fresh_prompts(spec, "train", PROMPTS)
    silent = Predictions(np.asarray([64]), np.zeros((1, *asked.responses.shape)), asked, spec)
    return silent if says is None else silent._replace(outputs=says(silent)[None])


@pytest.mark.parametrize("preset", DYNAMICS.presets)
def test_the_plan_can_run(preset):
    plan = plan_of(REPRESENTATIONS, DYNAMICS, preset)
    assert DYNAMICS in REPRESENTATIONS.experiments and set(DYNAMICS.claims_on(plan.comparison.arms)) == set(
        DYNAMICS.claims
    )
    sweep = plan.sweep
    spec = group(sweep, sweep.points())[0].spec
    spec.check()
    assert isinstance(spec.source, Functions) and spec.seeds.world is not None


def test_the_posterior_mean_is_best_and_others_are_far():
    found = answered()
    noise = found.responses - representations_dynamics.noiseless_states(found)
    assert noise.std() == pytest.approx(0.3, rel=0.03)
    made = {name: one.mean() for name, one in representations_dynamics.predictor_errors(found).items()}
    assert min(made, key=lambda name: made[name]) == "posterior mean"
    assert min(made["ridge on states"], made["another representation"]) > 3 * made["posterior mean"]


def test_claims_hold_of_the_posterior_mean_with_layers_in_order_and_fail_of_silence(monkeypatch):
    early, late = np.asarray([0.2, 0.9, 0.99, 0.99]), np.asarray([0.1, 0.1, 0.2, 0.95])
    says, streams = (
        representations_dynamics.posterior_mean,
        {"state before": early, "phi": early, "posterior mean": late},
    )
    monkeypatch.setattr(representations_measures, "predict_arm", lambda *_, **__: [answered(says), None])
    for module in (layer_probes, representations_dynamics):  # claims, figures
        monkeypatch.setattr(module, "probe_members", lambda *_: [ProbeScores(streams, {}), None])
    evidence = finished([SYSTEM])
    for claim in DYNAMICS.claims:
        estimate = claim.estimate(evidence)
        assert estimate[0] > claim.threshold and np.isnan(estimate[1]), claim.name
    assert DYNAMICS.figures is not None
    drawn = DYNAMICS.figures(evidence, "title")
    assert set(drawn) == {"contest.png", "probes.png"} and all(one[:4] == b"\x89PNG" for one in drawn.values())
    says, streams = None, {"state before": late * 0, "phi": late, "posterior mean": early}
    for claim in DYNAMICS.claims:
        assert claim.estimate(evidence)[0] < claim.threshold, claim.name


def test_probes_are_asked_for_every_state():
    found = answered()
    wanted = representations_dynamics.probe_targets(found)
    assert wanted.responses == {}
    np.testing.assert_array_equal(wanted.inputs["state before"][1:], found.inputs[:-1])
    assert {len(one) for one in wanted.inputs.values()} == {25}
    assert SYSTEM in plan_of(REPRESENTATIONS, DYNAMICS).comparison.arms
