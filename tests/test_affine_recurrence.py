"""Study `affine-recurrence`: what a pass records, the numbers that its claims read, and its figures."""

from functools import lru_cache

import jax
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.analysis.predictions import PromptSet, fresh_prompts
from ebbtide.papers.affine_recurrence import measures, passes, pools
from ebbtide.papers.affine_recurrence.figures import draw_stages
from ebbtide.papers.affine_recurrence.measures import FIRST, Stages, stages_of
from ebbtide.papers.affine_recurrence.settings import QUICK
from ebbtide.papers.affine_recurrence.study import (
    AFFINE_RECURRENCE,
    ARM,
    IN_CONTEXT,
    copy_margin,
    harm_ratio,
    negative_margins,
    sequences_after_copying,
    strongest_negative,
)
from ebbtide.papers.registry import find_study
from ebbtide.training.kernels import unsupported_reason
from ideal_recurrence import copies_then_subtracts, exact_pass, general_then_pooled, stand_in

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = replace(QUICK, model=replace(QUICK.model, width=16, heads=2))


@lru_cache
def prompts() -> PromptSet:
    return fresh_prompts(SMALL, "prior", 60)


@lru_cache
def drawn() -> tuple[passes.Pass, np.ndarray]:
    """A pass of an untrained net, and its answer as the model gives it."""
    params = SMALL.model.init(jax.random.key(1), **SMALL.shape())
    raw = passes.compile_pass(SMALL.model)(params, prompts().prompt)
    return passes.finish_pass(raw, prompts()), np.asarray(SMALL.model.apply(params, prompts().prompt)[..., 0])


def test_the_study_is_known_and_the_compiled_kernel_trains_all_its_arms():
    assert find_study("affine-recurrence") is AFFINE_RECURRENCE
    assert unsupported_reason(QUICK) is None
    assert QUICK.task.context == 14, "16 terms: 15 are shown, 15 are asked"


def test_the_lens_after_the_last_layer_is_the_answer():
    one, answer = drawn()
    np.testing.assert_allclose(one.lens[-1], answer, atol=1e-5)
    assert one.lens.shape == one.probed.shape == (3, 15, 60) and one.ablated.shape == (2, 15, 60)
    assert one.scores.shape == one.pattern.shape == (60, 2, 15, 15) and one.direct.shape == (15, 60, 2)
    np.testing.assert_allclose(one.pattern.sum(-1), 1, atol=1e-5)


def test_heads_add_what_their_ablation_takes_where_no_mlp_follows():
    model = replace(SMALL.model, mlp_ratio=0, layers=1)
    params = model.init(jax.random.key(1), **SMALL.shape())
    raw = passes.compile_pass(model)(params, prompts().prompt)
    one = passes.finish_pass(raw, prompts())
    for head in range(2):
        taken = one.lens[-1] - one.ablated[head]
        added = one.direct[..., head] - one.direct[..., head].mean(1, keepdims=True)
        assert np.corrcoef(taken[1:].ravel(), added[1:].ravel())[0, 1] > 0.8


def test_probes_read_what_is_linear_in_a_stream_and_never_see_their_own_prompts():
    random = np.random.default_rng(0)
    stream = random.standard_normal((15, 60, 4))
    y = stream @ np.asarray([1.0, -2.0, 0.0, 3.0]) + 0.5
    np.testing.assert_allclose(passes.probe_predictions(stream, y), y, atol=1e-3)
    noise = random.standard_normal(y.shape)
    assert abs(np.corrcoef(passes.probe_predictions(stream, noise).ravel(), noise.ravel())[0, 1]) < 0.15


def test_numbers_of_a_model_that_copies_and_subtracts():
    end = stages_of(exact_pass(prompts(), 1.0), prompts())
    assert end.answer < 1e-6 and end.r2 > 1 - 1e-6
    assert (end.lens[:2] >= 1).all() and end.lens[2] == end.answer
    np.testing.assert_allclose(end.lens_copies[:2], 1, rtol=1e-6)
    np.testing.assert_allclose(end.similarity, [0, 1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(end.same_distance, [0, 1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(end.slope, [0.1, -0.3, 0.1, 0.1], rtol=1e-6)
    assert strongest_negative(end) == 1 and harm_ratio(end) == pytest.approx(100, rel=1e-3)


def test_recency_is_similarity_but_not_at_a_fixed_distance():
    one = exact_pass(prompts(), 1.0)
    recent = np.broadcast_to(np.arange(15.0), one.scores.shape)
    found = stages_of(one._replace(scores=recent), prompts())
    assert (found.similarity > 0.3).all() and (found.same_distance == 0).all()


def stages(**changes: object) -> Stages:
    zeros = np.zeros(4)
    return Stages(0.01, 1.0, zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros)._replace(**changes)  # pyright: ignore


def test_a_negative_similarity_head_is_similar_and_subtracts():
    one = stages(
        similarity=np.asarray([0.9, 0.2, 0.5, 0.6]),
        slope=np.asarray([0.2, -0.2, -0.1, -0.2]),
        harm=np.asarray([9.0, 1.0, 3.0, 2.0]),
    )
    assert (negative_margins(one) > 0).tolist() == [False, False, True, True]
    assert strongest_negative(one) == 2 and harm_ratio(one) == pytest.approx(3 / 4)
    assert strongest_negative(stages()) is None and np.isnan(harm_ratio(stages()))


def test_an_estimate_is_a_copy_by_its_likeness_and_its_error():
    assert copy_margin(1.0, 1.0) == pytest.approx(0.1) and copy_margin(1.9, 0.95) > 0 and copy_margin(0.55, 0.95) > 0
    assert copy_margin(2.1, 1.0) < 0 and copy_margin(0.4, 1.0) < 0 and copy_margin(1.0, 0.89) < 0
    assert copy_margin(0.0, 1.0) < 0


def test_copying_and_heads_are_dated_by_checkpoints(monkeypatch):
    stand_in(monkeypatch)
    ideal, none = copies_then_subtracts(IN_CONTEXT, "quick")
    np.testing.assert_allclose(sequences_after_copying(ideal), 0.3 * QUICK.sequences)
    assert np.isnan(sequences_after_copying(none)).all()
    series = measures.stage_series(ideal, ARM, "lens")
    assert series.values.shape == (6, 4, 3)
    figures = draw_stages(ideal, "title", ARM)
    assert list(figures) == ["stages.png"] and figures["stages.png"].startswith(b"\x89PNG")


def test_pools_are_read_at_the_terms_that_tell(monkeypatch):
    from ideal_functions import stand_in as stand_in_functions

    stand_in_functions(monkeypatch)
    ideal, _ = general_then_pooled(pools.POOLS, "quick")
    late = pools.late_errors(ideal, pools.FRESH, "prior")
    assert (late.values[:, -1] < 1e-4).all() and (late.values[:, 0] > 5).all()
    assert FIRST == 5 and (pools.second_error(ideal, pools.SOME) < 0.05).all()
    assert (pools.second_error(ideal, pools.FRESH) > 0.1).all()
