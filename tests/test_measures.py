"""Measures of heads, against heads whose attention is known; probes of a run; linear read-outs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from msgspec.structs import replace

from ebbtide.cli import main
from ebbtide.cli.probe import _name, _print
from ebbtide.errors import InputError
from ebbtide.evaluation.metrics import per_sequence
from ebbtide.mechanisms.intervene import answer, intervention_tap
from ebbtide.mechanisms.interventions import Ablate, Induction, KeepClean, PreviousToken
from ebbtide.mechanisms.linear import joint_plane, ridge_probe
from ebbtide.mechanisms.measures import MEASURES, PARTS, STRENGTHS, measure
from ebbtide.mechanisms.taps import record
from ebbtide.models.model import Model
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.report.probe_figure import heads_figure, rank_heads
from ebbtide.runs.folder import RunFolder
from ebbtide.tasks.fewshot import METRICS
from ebbtide.training.driver import train
from ebbtide.training.probe import ProbeResult
from effort import THOROUGH
from intervention_tools import BATCH, MODEL, PROMPT, SHAPE, weights
from tiny import SPEC

pytestmark = pytest.mark.usefixtures("quick_compile")
LABELS = np.array(PROMPT.labels)
LABELS[1] = (np.asarray(PROMPT.target) + 1) % 6
MIXED = PROMPT._replace(labels=jax.device_put(LABELS))
"""Every context shows the target and another label."""


def clamped(monkeypatch, *interventions: Any) -> None:
    """What `record` sees from now on is the model with interventions."""
    plain = record

    def changed(model: Model, params: Any, prompt: Any, *globs: str, **how: Any) -> Any:
        return plain(
            model, params, prompt, *globs, **how | {"tap": intervention_tap(model, params, prompt, interventions)}
        )

    monkeypatch.setattr("ebbtide.mechanisms.measures.record", changed)


def test_the_strength_that_is_clamped_is_the_strength_that_is_measured(monkeypatch):
    clamped(monkeypatch, Induction(layer=1, heads=(2,), strength=0.75), PreviousToken(heads=(1,), strength=0.5))
    found = measure("induction_strength", MODEL, weights(), MIXED)
    assert found.shape == (2, 4) and found[1, 2] == pytest.approx(0.5, abs=1e-6)
    assert measure("label_attention", MODEL, weights(), MIXED)[1, 2] == pytest.approx(1, abs=1e-6)
    before, itself = (measure(name, MODEL, weights(), MIXED) for name in ("previous_token", "self_attention"))
    assert before[0, 1] == pytest.approx(0.5) and itself[0, 1] == pytest.approx(0.5)
    assert np.isnan(before[1]).all() and np.isnan(itself[1]).all()
    assert 0 < before[0, 0] < 1


def test_direct_effects_of_heads_and_the_rest_add_up_to_the_logits():
    """With the last norm's scale held, heads, MLPs, embedding and bias sum to the logit difference."""
    model = Transformer(layers=2, width=16, heads=4, mlp_ratio=0)
    params = model.init(jax.random.key(3), **SHAPE)
    logits, seen = record(model, params, MIXED, "hook_embed", "blocks.1.hook_resid_post")
    heads = measure("logit_attribution", model, params, MIXED).sum()
    final, embed = seen["blocks.1.hook_resid_post"][-1], seen["hook_embed"][-1]
    scale = 1 / np.sqrt(final.var(-1, keepdims=True) + 1e-5)
    total = direct = 0.0
    for b in range(BATCH):
        others = sorted(set(np.asarray(MIXED.labels)[:, b].tolist()) - {int(MIXED.target[b])})
        w = np.asarray(params["readout"]["w"])
        toward = w[:, MIXED.target[b]] - w[:, others].mean(1)
        total += float(logits[b, MIXED.target[b]] - logits[b, jnp.array(others)].mean())
        direct += float(((embed[b] - embed[b].mean()) * scale[b]) @ toward)
    assert heads == pytest.approx((total - direct) / BATCH, abs=1e-5)


def test_ablations_agree_with_each_other():
    one = Transformer(layers=2, width=16, heads=1)
    params = one.init(jax.random.key(2), **SHAPE)
    assert measure("composition", one, params, MIXED).shape == (len(PARTS),)
    assert measure("only_head", one, params, MIXED)[0] == accuracy_with(one, params)
    shallow = Transformer(layers=1, width=16, heads=2)
    found = measure("composition", shallow, shallow.init(jax.random.key(2), **SHAPE), MIXED)
    assert (found == found[0]).all()
    assert measure("copy_curve", MODEL, weights(), MIXED).shape == (4, len(STRENGTHS))
    without = measure("without_head", MODEL, weights(), MIXED)
    assert without.shape == (2, 4)
    assert without[0, 2] == accuracy_with(MODEL, weights(), Ablate(at="blocks.0.attn.hook_z", heads=(2,)))


def accuracy_with(model: Transformer, params: Any, *interventions: Any, metric: str = "accuracy") -> Any:
    """A metric, mean over the prompts, under interventions."""
    return per_sequence(answer(model, params, MIXED, interventions), MIXED)[METRICS.index(metric)].mean()


def test_the_strongest_heads_are_kept_first_and_the_last_loss_is_the_models():
    params = weights()
    losses = measure("strongest_heads", MODEL, params, MIXED)
    strongest = int(measure("induction_strength", MODEL, params, MIXED)[1].argmax())
    others = tuple(head for head in range(4) if head != strongest)
    gone = [Ablate(at="blocks.1.attn.hook_z"), Ablate(at="blocks.1.attn.hook_z", heads=others)]
    expected = [accuracy_with(MODEL, params, one, metric="loss") for one in gone]
    np.testing.assert_allclose(losses[jnp.array([0, 1, 4])], [*expected, accuracy_with(MODEL, params, metric="loss")])


def test_previous_token_heads_are_told_from_the_others_by_their_attention(monkeypatch):
    params = weights()
    clamped(monkeypatch, PreviousToken(heads=(1, 3)), PreviousToken(heads=(0, 2), strength=0.25))
    ours = measure("wiring", MODEL, params, MIXED)
    expected = [
        accuracy_with(
            MODEL, params, Ablate(at="blocks.0.attn.hook_z", heads=heads), KeepClean(at=f"blocks.1.attn.{at}")
        )
        for heads in ((1, 3), (0, 2))
        for at in ("hook_pattern", "hook_v")
    ]
    np.testing.assert_allclose(ours, expected)
    shallow = Transformer(layers=1, width=16, heads=2)
    params = shallow.init(jax.random.key(2), **SHAPE)
    assert (measure("wiring", shallow, params, MIXED) == accuracy_with(shallow, params)).all()


def test_unknown_measures_and_other_models_are_refused(one_line):
    with pytest.raises(InputError) as caught:
        measure("induction_strenght", MODEL, weights(), MIXED)
    one_line(caught, "measure", "induction_strenght")
    with pytest.raises(InputError, match="is of transformers"):
        measure("only_head", Recurrent(), None, MIXED)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory) -> RunFolder:
    spec = replace(SPEC, model=Transformer(layers=2, width=16, heads=2))
    folder = tmp_path_factory.mktemp("probed") / "run"
    train(spec, folder, processes=0)
    return RunFolder(folder)


FIRST_BY_AXES = {one.axes: name for name, one in reversed(MEASURES.items())}
ASKED = {name: MEASURES[name] for name in (MEASURES if THOROUGH else FIRST_BY_AXES.values())}
"""The first measure of those that have the same axes; in `make thorough` all."""


def test_measures_of_a_run_by_command(a_run, tmp_path, capsys):
    assert (
        main(["probe", str(a_run.path), "--measure", ",".join(ASKED), "--sequences", "20", "--out", str(tmp_path)]) == 0
    )
    out = capsys.readouterr().out
    for name, one in ASKED.items():
        with np.load(tmp_path / f"{name}-icl.npz", allow_pickle=False) as file:
            assert file["axes"].tolist() == ["checkpoint", "member", *one.axes]
            assert file["sequences"].tolist() == [0, 512, 1024]
            assert file["values"].shape[:2] == (3, 2) and file["values"].ndim == 2 + len(one.axes)
        assert (tmp_path / f"{name}-icl.png").read_bytes()[:4] == b"\x89PNG" and name in out


def test_heads_of_different_members_are_averaged_by_rank_not_by_number(capsys):
    """Every member has one strong head of layer 1, another one in each; a member that diverged does not count."""
    values = np.full((2, 3, 2, 2), 0.1)
    values[1, 0, 1, 0] = values[1, 1, 1, 1] = 0.9
    values[1, 2] = np.nan
    probed = ProbeResult("induction_strength", MEASURES["induction_strength"], "icl", np.array([0, 1000]), values)
    _print(probed)
    title, head, _, last = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert "by rank, largest at the end first (1 not finite left out)" in title
    ranks = [f"layer {i} rank {h}" for i in (0, 1) for h in (1, 2)]
    assert head.split()[1:] == " ".join(ranks).split()
    assert last.split()[1:] == ["0.10", "0.10", "0.90", "0.10"]
    ranked, order = rank_heads(values)
    assert order[:2, 1].tolist() == [[0, 1], [1, 0]] and ranked[1, :2, 1, 0].tolist() == [0.9, 0.9]


def test_every_panel_of_a_map_of_heads_has_numbers_of_its_own(monkeypatch):
    drawn: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    values = np.zeros((3, 5, 1, 2))
    values[-1, 1, 0] = 0, 1  # of member 1 head 1 comes first
    heads_figure("A title", "attention", np.array([0, 1000, 2000]), values)
    panels = drawn[0].axes[:5]
    words = [[label.get_text() for label in (*p.get_xticklabels(), *p.get_yticklabels())] for p in panels]
    assert all(one[:3] == ["0", "1k", "2k"] for one in words)
    assert words[0][3:] == ["0:0", "0:1"] and words[1][3:] == ["0:1", "0:0"]
    assert "largest value at the end first" in drawn[0].get_suptitle()


def test_the_title_of_a_run_in_a_sweep_names_the_sweep(tmp_path):
    (tmp_path / "lots").mkdir()
    (tmp_path / "lots" / "sweep.json").touch()
    assert _name(tmp_path / "lots" / "runs" / "b98e93344d06d257") == "lots, task b98e9334"
    assert _name(tmp_path / "mine") == "mine"


def test_probing_changes_nothing_in_the_run(a_run):
    before = {p: p.read_bytes() for p in a_run.path.rglob("*") if p.is_file()}
    assert main(["probe", str(a_run.path), "--measure", "label_attention", "--sequences", "20", "--on", "iwl"]) == 0
    after = {p: p.read_bytes() for p in a_run.path.rglob("*") if p.is_file()}
    assert {p: after[p] for p in before} == before
    assert {p.parent.name for p in set(after) - set(before)} == {"probes"}
    assert main(["fsck", str(a_run.path)]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--measure", "nothing"], "must be one of induction_strength"),
        (["--measure", ""], "name at least one"),
        (["--measure", "only_head", "--on", "icll"], "did you mean 'icl'"),
        (["--measure", "only_head", "--sequences", "1"], "at least 2"),
    ],
)
def test_bad_words_to_probe(a_run, capsys, words, says):
    assert main(["probe", str(a_run.path), *words]) == 2
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1


def test_the_joint_plane_is_that_of_the_covariance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 4)) @ np.diag([5, 2, 1, 0.1])
    plane = joint_plane(x, 2)
    flat = x.reshape(15, 4) - x.reshape(15, 4).mean(0)
    values, vectors = np.linalg.eigh(flat.T @ flat)
    for k in range(2):
        expected = flat @ vectors[:, -1 - k]
        got = plane.points.reshape(15, 2)[:, k]
        np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(plane.explained, values[::-1][:2] / values.sum(), rtol=1e-9)
    with pytest.raises(InputError, match="from 1 to 4"):
        joint_plane(x, 5)


def test_ridge_probes_read_what_is_linear_and_only_that():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 600)
    mean = rng.normal(size=(4, 10))
    assert ridge_probe(mean[label] + 0.1 * rng.normal(size=(600, 10)), label) == 1.0
    assert ridge_probe(rng.normal(size=(600, 10)), label) < 0.4
    with pytest.raises(InputError, match="larger than 0"):
        ridge_probe(mean[label], label, penalty=0.0)
    with pytest.raises(InputError, match="both sides"):
        ridge_probe(mean[label], label, test=0.0)


def test_a_linear_probe_over_training_agrees_with_the_one_outside():
    found = measure("linear_probe", MODEL, weights(), MIXED)
    seen = record(MODEL, weights(), MIXED, "blocks.1.hook_resid_post")[1]["blocks.1.hook_resid_post"][-1]
    outside = ridge_probe(np.asarray(seen), np.asarray(MIXED.target), test=4 / 7)
    assert found.shape == (3,) and found[-1] == pytest.approx(outside)


def test_outputs_are_probabilities_of_the_target():
    found = measure("outputs", MODEL, weights(), MIXED)
    logits = np.asarray(MODEL.apply(weights(), MIXED))
    for b in range(BATCH):
        shown = sorted(set(np.asarray(MIXED.labels)[:, b].tolist()))
        p = np.exp(logits[b, shown]) / np.exp(logits[b, shown]).sum()
        assert found[b] == pytest.approx(p[shown.index(int(MIXED.target[b]))], rel=1e-4)
