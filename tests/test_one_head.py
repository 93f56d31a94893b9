"""The model of one head and an MLP: its equation, its taps, what decays of it, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.errors import InputError
from ebbtide.models.model import mean_loss
from ebbtide.training.kernels import unsupported_reason
from ebbtide.training.spec import from_json
from model_tools import BATCH, CONTEXT, DIM, idle_taps, prompt_of

pytestmark = pytest.mark.usefixtures("quick_compile")

MODEL = eb.OneHead(hidden=6)
SPEC = eb.Spec(
    task=eb.FewShot(context=4, burst=1, distractor=False, labels=eb.Shared(2), reserved_labels=0),
    source=eb.Gaussian(classes=16, exemplars=1, dim=5, noise=0.0, scale="norm", holdout_classes=4, holdout_exemplars=0),
    model=MODEL,
    optimizer=eb.SGD(lr=0.1),
    batch=8,
    sequences=80,
    evaluators=("train", "icl", "iwl"),
)


def stirred():
    """Parameters of which none is 0 or 1."""
    params = MODEL.init(jax.random.key(0), context=CONTEXT, dim=DIM, labels=2)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), params)


def score_of(params, exemplars: np.ndarray, labels: np.ndarray) -> float:
    """The score of one sequence by the equation of the docstring, token by token, in float64."""
    block = jax.tree.map(lambda a: np.asarray(a, float), params)["blocks"][0]
    attention, mlp = block["attn"], block["mlp"]
    shown = np.vstack([np.eye(2)[labels], np.zeros(2)])
    tokens = []
    for token in np.hstack([exemplars, shown]):
        normed = (token - token.mean()) / np.sqrt(token.var() + 1e-5)
        tokens.append(normed * attention["norm"]["scale"] + attention["norm"]["offset"])
    scores = np.asarray([(token @ attention["k"]) @ (tokens[-1] @ attention["q"]) for token in tokens])
    weights = np.exp(scores - scores.max())
    x = tokens[-1] + sum(w * (token @ attention["v"]) for w, token in zip(weights / weights.sum(), tokens, strict=True))
    for layer in "12":
        x = np.maximum(x @ mlp[f"w{layer}"] + mlp[f"b{layer}"], 0)
    return float((x @ mlp["w3"] + mlp["b3"])[0])


def test_it_computes_its_equation_and_its_loss_is_logistic():
    params, prompt = stirred(), prompt_of(labels=2)
    logits = np.asarray(MODEL.apply(params, prompt))
    exemplars, labels = np.asarray(prompt.exemplars, float), np.asarray(prompt.labels)
    scores = np.asarray([score_of(params, exemplars[:, i], labels[:, i]) for i in range(BATCH)])
    np.testing.assert_allclose(logits, np.stack([0 * scores, scores], 1), rtol=1e-4, atol=1e-5)
    signs = 2 * np.asarray(prompt.target) - 1
    assert float(mean_loss(jnp.asarray(logits), prompt)) == pytest.approx(
        np.logaddexp(0, -signs * scores).mean(), rel=1e-4
    )


def test_every_tap_is_of_a_value_that_is_used():
    assert idle_taps(MODEL, stirred()) == []


def test_the_order_of_the_pairs_is_not_seen():
    params, prompt = stirred(), prompt_of(labels=2)
    order = np.asarray([2, 0, 1, 3])
    turned = prompt._replace(exemplars=prompt.exemplars[order], labels=prompt.labels[order[:-1]])
    np.testing.assert_allclose(MODEL.apply(params, turned), MODEL.apply(params, prompt), atol=1e-5)


@pytest.mark.parametrize(("on", "decayed"), [("attention", {"attn"}), ("mlp", {"mlp"}), ("all", {"attn", "mlp"})])
def test_decay_by_place_is_that_of_the_public_code(on, decayed):
    factors = eb.WeightDecay(coefficient=0.1, on=on).decay_factors(stirred())["blocks"][0]
    for part in ("attn", "mlp"):
        found = {float(one) for one in jax.tree.leaves(factors[part])}
        assert found == ({np.float32(0.1)} if part in decayed else {0.0})


def test_a_spec_of_it_survives_json_and_is_left_to_xla():
    SPEC.check()
    assert from_json(SPEC.to_json()) == SPEC
    assert "only transformers" in (unsupported_reason(SPEC) or "")


def test_other_labels_than_two_are_refused():
    with pytest.raises(InputError, match="two labels"):
        replace(SPEC, task=replace(SPEC.task, reserved_labels=2)).check()
