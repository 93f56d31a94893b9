"""Metrics of a changed model: those that its run recorded, read by the same instruments."""

from typing import Any

import jax
import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.sources.features import Features
from ebbtide.training.driver import train
from tiny import SPEC

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compile) -> eb.Run:
    return train(replace(SPEC, sequences=256), tmp_path_factory.mktemp("score") / "run", processes=0)


def test_without_interventions_it_is_what_the_run_recorded(run):
    curves = run.metrics()
    found = None
    for member in range(2):
        for i, at in enumerate(curves["sequences"]):
            if at not in (0, 256):
                continue
            spec, params = eb.model_at(run.path, member, int(at))
            for name in spec.evaluators:
                found = eb.score(spec, params, name, member=member)
                assert found.value == pytest.approx(curves[name][member, i], rel=1e-6)
                assert found.error == pytest.approx(curves[f"{name}/error"][member, i], rel=1e-5)
                for metric, mean in found.means.items():
                    assert mean == pytest.approx(curves[f"{name}/{metric}"][member, i], rel=1e-6)
    assert (
        found is not None
        and found.headline == "accuracy"
        and set(found.means) == set(run.header.metrics) == set(found.errors)
    )


def test_a_changed_model_is_read_by_the_same_metric(run):
    spec, params = eb.model_at(run)
    cut = jax.tree.map(lambda x: x, params)
    cut["blocks"][0]["attn"] = cut["blocks"][0]["attn"] | {"o": cut["blocks"][0]["attn"]["o"].at[:8].set(0.0)}
    by_weights = eb.score(spec, cut, "icl")
    by_tap = eb.score(spec, params, "icl", (eb.Ablate(at="blocks.0.attn.hook_z", heads=(0,)),))
    np.testing.assert_allclose(list(by_tap.means.values()), list(by_weights.means.values()), rtol=1e-5)
    assert by_tap.means["loss"] != eb.score(spec, params, "icl").means["loss"]
    trained_so = replace(spec, interventions=(eb.Ablate(at="blocks.0.attn.hook_z", heads=(0,)),))
    assert eb.score(trained_so, params, "icl") == by_tap, "a spec's own interventions act in every pass"


def test_a_data_file_that_was_replaced_meanwhile_is_read_anew(tmp_path, run):
    """One path and one model, other features: what is cached for a spec belongs to the content of its file."""
    file = tmp_path / "x.npz"
    source = Features(path=str(file), classes=64, exemplars=2, holdout_classes=8, holdout_exemplars=2)
    spec, (_, params) = replace(run.spec, source=source), eb.model_at(run)

    def losses(*seeds: int) -> list[float]:
        found = []
        for seed in seeds:
            np.savez(file, features=np.random.default_rng(seed).normal(size=(80, 4, 8)).astype(np.float32))
            found.append(eb.score(spec, params, "icl").means["loss"])
        return found

    first, other, again = losses(0, 1, 0)
    assert first == again != other


def test_an_evaluator_that_the_run_does_not_have_and_numbers_of_numpy(run):
    spec, params = eb.model_at(run)
    head = np.int64(1)
    found = eb.score(spec, params, "flip", (eb.Ablate(at="blocks.0.attn.hook_z", heads=(head,)),))  # pyright: ignore
    assert found.evaluator == "flip" and 0 <= found.value <= 1


def test_functions_in_context_are_scored_too():
    task = eb.Regression(context=4)
    model = eb.Transformer(layers=1, width=8, heads=2)
    spec = replace(SPEC, task=task, source=eb.Functions(dim=2), model=model, evaluators=("train",), keep_best=None)
    params = spec.model.init(jax.random.key(0), **spec.shape())
    whole = eb.score(spec, params, "train")
    gone = eb.score(spec, params, "train", (eb.Ablate(at="blocks.0.attn.hook_z"),))
    assert whole.headline == "explained" and whole.value <= 1 and gone.value != whole.value


def test_what_cannot_be_scored_is_told_in_one_line(run):
    spec, params = eb.model_at(run)

    def changed(**how: Any) -> object:
        return eb.score(spec, params, "icl", (eb.Ablate(at="*.hook_z", **how),))

    bad = [
        (lambda: eb.score(spec, params, "iccl"), "evaluators", "did you mean 'icl'"),
        (lambda: eb.score(spec, params, "icl", member=2), "member", "must be from 0 to 1"),
        (lambda: changed(heads=(7,)), "interventions.0.heads", "must be from 0 to 1"),
        (lambda: changed(how="Mean"), "interventions.0.how", "zero, mean"),
        (lambda: eb.model_at(run.path.parent / "none"), "run", "not a run folder"),
    ]
    for call, field, words in bad:
        with pytest.raises(eb.InputError, match=words) as caught:
            call()
        assert caught.value.field == field and "\n" not in str(caught.value)


def test_a_measure_of_heads_refuses_functions_in_one_line():
    task, source = eb.Regression(context=4), eb.Functions(dim=2)
    spec = replace(SPEC, task=task, source=source, evaluators=("train",), keep_best=None)
    params = spec.model.init(jax.random.key(0), **spec.shape())
    with pytest.raises(eb.InputError, match="must be few-shot prompts") as caught:
        eb.measure("induction_strength", spec.model, params, eb.prompts_of(spec, "train", 4))
    assert caught.value.field == "prompt"
