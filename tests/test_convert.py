"""Runs whose members begin with a context in their weights: what they answer, what they record, what is refused."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import save_file

import ebbtide as eb
from ebbtide.cli import main
from ebbtide.errors import InputError
from ebbtide.mechanisms.conversion import query_alone
from ebbtide.models.linearized import BiasedSoftmax, Linearized
from ebbtide.models.positions import NoPositions, Rotary
from ebbtide.models.transformer import Transformer
from ebbtide.sources.functions import Functions
from ebbtide.tasks.prompt import part
from ebbtide.tasks.regression import Regression
from ebbtide.training.context import DrawnContext, StoredContext, record_file
from ebbtide.training.convert import convert_run as convert_in_workers
from ebbtide.training.convert import converted_spec
from ebbtide.training.driver import resume, train
from ebbtide.training.run import Run
from tiny import SPEC

pytestmark = pytest.mark.usefixtures("quick_compile")

MODEL = Transformer(layers=2, width=16, heads=2, attention=Linearized(), positions=Rotary())
LINEARIZED = replace(SPEC, model=MODEL, sequences=64, evaluation_sequences=8, evaluators=("icl", "iwl"))
convert_run = partial(convert_in_workers, processes=0)
FIRST, SECOND = DrawnContext("icl", 3), DrawnContext("iwl", 1)


@pytest.fixture(scope="module")
def donor(tmp_path_factory) -> Run:
    return train(LINEARIZED, tmp_path_factory.mktemp("donor") / "run", processes=0)


@pytest.fixture(scope="module")
def converted(donor, tmp_path_factory) -> Run:
    return convert_run(donor, FIRST, tmp_path_factory.mktemp("converted") / "run")


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_every_member_answers_a_query_alone_as_it_did_after_the_context(donor, converted):
    for member in range(2):
        model, params = donor.model(member)
        wide, folded = converted.model(member)
        prompt = part(eb.prompts_of(donor.spec, "icl", 8), 3, 1)
        close(wide.apply(folded, query_alone(prompt)), model.apply(params, prompt))


def test_prompts_of_the_new_run_follow_the_context(donor, converted):
    """Two contexts one after the other are one longer context."""
    model, params = donor.model()
    wide, folded = converted.model()
    first, then = part(eb.prompts_of(donor.spec, "icl", 8), 3, 1), part(eb.prompts_of(donor.spec, "iwl", 8), 1, 1)
    longer = then._replace(
        exemplars=jnp.concatenate([first.exemplars[:-1], then.exemplars]),
        labels=jnp.concatenate([first.labels, then.labels]),
    )
    close(wide.apply(folded, then), model.apply(params, longer))


def test_a_converted_run_is_a_run_that_records_where_it_came_from(donor, converted):
    start = converted.spec.start
    assert start is not None and (start.run, start.sequences, start.context) == (str(donor.path), 64, FIRST)
    newest = next(donor.manifests())[1]
    assert converted.header.identity["start_sha256"] == newest.state.sha256
    assert converted.checkpoints() == [0] and converted.status() == "interrupted"
    assert converted.metrics()["icl"].shape == (2, 1)
    assert converted.spec.model == replace(MODEL, attention=Linearized(biases=True))
    assert converted.spec == converted_spec(donor, FIRST)


def test_it_can_be_probed_and_trained_further(converted, tmp_path):
    (result,) = eb.probe_run(converted, ["induction_strength"], "icl", sequences=8)
    assert result.values.shape == (1, 2, 2, 2)
    again = train(converted.spec, tmp_path / "again", processes=0)
    assert again.status() == "complete" and again.checkpoints()[0] == 0
    begun = {name: array.copy() for name, array in again._at(0).items()}
    kept = converted._at(0)
    for name, array in begun.items():
        close(array, kept[name])
    moved = [name for name, array in again._at(64).items() if not np.array_equal(array, begun[name])]
    assert any(name.endswith("b_kv") for name in moved)
    assert resume(again).status() == "complete"


def test_conversions_compose_and_are_undone(donor, converted, tmp_path):
    twice = convert_run(converted, SECOND, tmp_path / "twice")
    back = convert_run(twice, replace(SECOND, undo=True), tmp_path / "back")
    whole = convert_run(back, replace(FIRST, undo=True), tmp_path / "whole")
    model, params = donor.model(1)
    wide, plain = whole.model(1)
    close(wide.apply(plain, prompts := eb.prompts_of(donor.spec, "icl", 8)), model.apply(params, prompts))
    for name, array in back._at(0).items():
        close(array, converted._at(0)[name])
    assert np.abs(twice._at(0)["blocks.0.attn.b_kv"] - back._at(0)["blocks.0.attn.b_kv"]).max() > 1e-2


def test_a_context_of_a_file_is_named_by_its_content(donor, tmp_path):
    prompt = part(eb.prompts_of(donor.spec, "icl", 8), 3, 1)
    file = tmp_path / "context.safetensors"
    pairs = {"exemplars": np.asarray(prompt.exemplars[:-1, 0]), "labels": np.asarray(prompt.labels[:, 0], np.int32)}
    save_file(pairs, file)
    run = convert_run(donor, record_file(str(file)), tmp_path / "run")
    same = convert_run(donor, FIRST, tmp_path / "same")
    jax.tree.map(close, run.model()[1], same.model()[1])
    save_file({"exemplars": pairs["exemplars"] + 1, "labels": pairs["labels"]}, file)
    with pytest.raises(InputError, match=r"start\.context\.file = .*context"):
        train(run.spec, tmp_path / "other", processes=0)
    for wrong in (
        {"exemplars": pairs["exemplars"][:, :3], "labels": pairs["labels"]},
        {"exemplars": pairs["exemplars"], "labels": pairs["labels"] + 1000},
        {"exemplars": pairs["exemplars"], "labels": pairs["labels"][:-1]},
        {"exemplars": pairs["exemplars"]},
    ):
        save_file(wrong, file)
        with pytest.raises(InputError, match=r"start\.context\.file = .*must"):
            convert_run(donor, record_file(str(file)), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_functions_are_converted_too(tmp_path):
    spec = replace(
        LINEARIZED,
        task=Regression(context=4),
        source=Functions(dim=3),
        model=replace(MODEL, pairing="joint"),
        evaluators=("train",),
        keep_best=None,
    )
    donor = train(spec, tmp_path / "donor", processes=0)
    run = convert_run(donor, DrawnContext("train", 2), tmp_path / "run")
    prompt = part(eb.prompts_of(donor.spec, "train", 8), 2, 1)
    (model, params), (wide, folded) = donor.model(), run.model()
    close(wide.apply(folded, query_alone(prompt)), model.apply(params, prompt))
    file = tmp_path / "context.safetensors"
    save_file({"inputs": np.asarray(prompt.inputs[:-1, 0]), "responses": np.asarray(prompt.responses[:-1, 0])}, file)
    stored = convert_run(donor, record_file(str(file)), tmp_path / "stored")
    jax.tree.map(close, stored.model()[1], folded)


def test_softmax_attention_needs_random_features(tmp_path):
    spec = replace(LINEARIZED, model=replace(MODEL, attention="softmax", positions=NoPositions()), members=1)
    donor = train(spec, tmp_path / "donor", processes=0)
    with pytest.raises(InputError, match=r"model\.attention = 'softmax'.*--approximate"):
        convert_run(donor, FIRST, tmp_path / "run")
    run = convert_run(donor, FIRST, tmp_path / "run", random_features=32)
    assert run.spec.model == replace(spec.model, attention=BiasedSoftmax(32))
    with pytest.raises(InputError, match="random_features = 16: must be 0"):
        convert_run(run, SECOND, tmp_path / "twice", random_features=16)
    twice = convert_run(run, SECOND, tmp_path / "twice")
    assert np.isfinite(twice.metrics()["icl"]).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"model": replace(MODEL, attention=Linearized(biases=True), positions=eb.Learned())},
            r"model\.positions = 'learned'",
        ),
        ({"interventions": (eb.Ablate(at="blocks.0.attn.hook_z"),)}, r"interventions = 1: must be none"),
    ],
)
def test_a_spec_that_cannot_hold_a_context_is_refused(donor, change, named):
    spec = replace(converted_spec(donor, FIRST), **change)
    with pytest.raises(InputError, match=named):
        spec.check()


@pytest.mark.parametrize("context", [DrawnContext("flip", 0), DrawnContext("icl", 8)])
def test_a_context_that_is_no_prompt_of_the_run_is_refused(donor, context):
    with pytest.raises(InputError, match=r"start\.context\.(evaluator|index)"):
        converted_spec(donor, context).check()


def test_the_command_converts_and_undoes(donor, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ebbtide.cli.convert.convert_run", convert_run)
    words = [str(donor.path), "--context", "icl:3", "--out", str(tmp_path / "one")]
    assert main(["convert", *words]) == 0
    assert "with the context icl:3" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "one"), "--undo", "--out", str(tmp_path / "two")]) == 0
    assert "without the context icl:3" in capsys.readouterr().out
    assert main(["show", str(tmp_path / "two")]) == 0
    assert "context" in capsys.readouterr().out
    assert main(["fsck", str(tmp_path / "two")]) == 0
    start = Run(tmp_path / "two").spec.start
    assert start is not None and start.context == replace(FIRST, undo=True)


@pytest.mark.parametrize("context", ["icl", "icl:-1", "icl:x", ":", "no.safetensors", None])
def test_what_names_no_context_is_refused_in_one_line(donor, tmp_path: Path, capsys, context):
    words = ["--context", context] if context is not None else []
    assert main(["convert", str(donor.path), *words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_stored_context_is_hostile_until_read(donor, tmp_path):
    file = tmp_path / "context.safetensors"
    file.write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match=r"start\.context\.file"):
        convert_run(donor, record_file(str(file)), tmp_path / "run")
    lost = StoredContext(str(tmp_path / "lost.safetensors"), 64, "0" * 64)
    with pytest.raises(InputError, match=r"start\.context\.file"):
        convert_run(donor, lost, tmp_path / "run")
