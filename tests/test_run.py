"""A run as its user sees it: its spec, its models, its curves with named axes."""

import inspect
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.models.transformer import Transformer
from ebbtide.runs.reading import load_record
from ebbtide.runs.signed import sign
from ebbtide.runs.writer import Writer
from ebbtide.sources.gaussian import Gaussian
from ebbtide.training import limits
from ebbtide.training.spec import from_builtins
from ebbtide.training.start import Start, member_numbers, to_dotted
from tiny import SPEC, header, same_bits, write_run

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quick_compile) -> Any:
    """A working folder with the run runs/first."""
    found = tmp_path_factory.mktemp("work")
    eb.train(SPEC, found / "runs/first", processes=0)
    return found


@pytest.fixture(scope="module")
def run(folder) -> eb.Run:
    return eb.Run(folder / "runs/first")


def test_training_returns_a_run_with_its_spec(folder):
    run = eb.train(SPEC, folder / "runs/first", processes=0)
    assert isinstance(run, eb.Run) and run.spec == SPEC and run.spec is run.spec


def test_a_spec_that_this_version_cannot_read_is_told_in_one_line(tmp_path):
    head = header()
    later = head.spec | {"model": {"type": "transformer", "width": 16, "heads": 2, "experts": 4}}
    run = eb.Run(write_run(tmp_path / "run", {"icl": [[0.5]]}, [[0.0]], spec=SPEC).path)
    run.header = replace(run.header, spec=later)
    with pytest.raises(eb.InputError, match=r"^model.experts = 4: no such field") as caught:
        _ = run.spec
    assert "\n" not in str(caught.value)


def test_a_spec_that_was_changed_is_told_in_one_line(tmp_path):
    run = eb.Run(write_run(tmp_path / "run", {"icl": [[0.5]]}, [[0.0]], digest="0" * 64).path)
    with pytest.raises(eb.InputError, match="spec and digest do not agree"):
        _ = run.spec


def test_a_model_has_the_parameters_of_its_member_at_its_checkpoint(run):
    for _, manifest in run.manifests():
        state = load_record(run.path, manifest.state)
        for member in range(2):
            model, params = run.model(member, at=manifest.sequences)
            ours = {f"params.{name}": np.asarray(leaf) for name, leaf in to_dotted(params).items()}
            assert model == SPEC.model
            assert same_bits(ours, {name: state[name][member] for name in ours})
    newest = to_dotted(run.model(1)[1])
    assert all((newest[name] == leaf).all() for name, leaf in to_dotted(run.model(1, at=1024)[1]).items())
    assert all((newest[name] == leaf).all() for name, leaf in to_dotted(run.model(1, at=np.int64(1024))[1]).items())


def test_the_best_model_is_the_one_that_the_run_kept(run):
    best = run.best()
    for member in range(2):
        _, params = run.model(member, at="best")
        assert all((np.asarray(leaf) == best[name][member]).all() for name, leaf in to_dotted(params).items())
        value = eb.score(run.spec, params, "icl", member=member).value
        assert value == pytest.approx(run.metrics()["icl"][member].max(), rel=1e-6) == best["value"][member]


def unchecked(run: eb.Run, at: Any) -> object:
    """`Run.model` as a user calls it: the types of its arguments are checked in the tests alone."""
    return inspect.unwrap(eb.Run.model)(run, at=at)


WRONG: dict[str, tuple[Any, str, str]] = {
    "no such member": (lambda run: run.model(2), "member", "must be from 0 to 1"),
    "no member": (lambda run: run.model(-1), "member", "must be from 0 to 1"),
    "no such checkpoint": (lambda run: run.model(at=700), "at", "the nearest checkpoint is at 512 sequences"),
    "no number": (lambda run: unchecked(run, at="newest"), "at", "None .the newest checkpoint. or 'best'"),
    "half a sequence": (lambda run: unchecked(run, at=512.5), "at", "must be a number of sequences"),
    "by its path": (lambda run: eb.model_at(run.path, 0, 513), "at", "the nearest checkpoint is at 512"),
    "no folder": (lambda run: eb.Run(run.path / "checkpoints"), "run", "not a run folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_there_is_told_in_one_line(name, run):
    call, field, says = WRONG[name]
    with pytest.raises(eb.InputError, match=says) as caught:
        call(run)
    assert caught.value.field == field and "\n" not in str(caught.value)


def test_a_run_without_best_models_says_so(tmp_path):
    run = eb.train(replace(SPEC, sequences=16, keep_best=None), tmp_path / "run", processes=0)
    with pytest.raises(eb.InputError, match="keeps no best models"):
        run.model(at="best")


def rewritten(run: eb.Run, path: Any, **changes: Any) -> eb.Run:
    """The run with arrays of its last checkpoint replaced (None: left out), signed as ever."""
    found = run.latest()
    assert found is not None
    state = load_record(run.path, found[1].state) | changes
    state = {name: array for name, array in state.items() if array is not None}
    writer = Writer(path, run.header)
    rows = run.arrays()
    writer.commit(sequences=1024, state=state, evaluations=rows, kept=True, finished=True, seconds=1.0)
    writer.close()
    return eb.Run(path)


W = "params.readout.w"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: None, "lacks the parameter readout.w"),
        (lambda w: w.astype(np.float64), r"readout.w is float64 \[2, 16, 66\], this spec needs float32 \[2, 16, 66\]"),
        (lambda w: w.astype(np.int32), r"readout.w is int32"),
        (lambda w: w[:, :-1], r"readout.w is float32 \[2, 15, 66\], this spec needs"),
        (lambda w: w[..., None], r"readout.w is float32 \[2, 16, 66, 1\]"),
    ],
)
def test_parameters_that_are_not_the_specs_are_refused_in_one_line(change, says, run, tmp_path):
    found = run.latest()
    w = load_record(run.path, found[1].state)[W]
    changed = rewritten(run, tmp_path / "run", **{W: change(w)})
    for call in (
        lambda: changed.model(),
        lambda: eb.model_at(changed, 1),
        lambda: eb.probe_run(changed, ["induction_strength"], "icl", sequences=4),
    ):
        with pytest.raises(eb.InputError, match=says) as caught:
            call()
        assert caught.value.field == "run" and "\n" not in str(caught.value)


def test_a_parameter_that_the_spec_has_no_use_for_is_refused(run, tmp_path):
    changed = rewritten(run, tmp_path / "run", **{"params.blocks.7.attn.q": np.zeros((2, 16, 16), np.float32)})
    with pytest.raises(eb.InputError, match=r"holds a parameter 'blocks\.7\.attn\.q'"):
        changed.model()


def test_best_parameters_are_held_to_the_spec_too(run, tmp_path):
    found = run.latest()
    best = load_record(run.path, found[1].state)["best.readout.w"]
    changed = rewritten(run, tmp_path / "run", **{"best.readout.w": best.astype(np.float64)})
    changed.model()
    with pytest.raises(eb.InputError, match=r"readout\.w is float64"):
        changed.model(at="best")


def test_a_member_without_a_number_has_no_best_model(run, tmp_path):
    changed = rewritten(run, tmp_path / "run", **{"watch.best_at": np.asarray([-1, 512], np.int64)})
    changed.model(1, at="best")
    with pytest.raises(eb.InputError, match="no evaluation of member 0 by icl was a number"):
        changed.model(0, at="best")


def test_a_damaged_checkpoint_is_told_in_one_line(run, tmp_path):
    changed = rewritten(run, tmp_path / "run")
    state = changed.path / "checkpoints/000000001024/state.safetensors"
    state.write_bytes(state.read_bytes()[:-4])
    for at in (None, 1024, "best"):
        with pytest.raises(eb.InputError) as caught:
            changed.model(at=at)
        assert caught.value.field == "run" and "\n" not in str(caught.value)


def forge(run: eb.Run, path: Path, **fields: Any) -> eb.Run:
    """A copy of a run's folder with fields of its spec replaced, every record signed again: `source__dim` is
    `source.dim`."""
    shutil.copytree(run.path, path)
    head = json.loads((path / "run.json").read_bytes())["body"]
    for name, value in fields.items():
        *parts, last = name.split("__")
        at = head["spec"]
        for part in parts:
            at = at[part]
        at[last] = value
    digest = from_builtins(head["spec"]).digest()
    for file in (path / "run.json", *path.glob("checkpoints/*/manifest.json")):
        body = head if file.name == "run.json" else json.loads(file.read_bytes())["body"]
        file.write_bytes(sign(body | {"digest": digest}))
    return eb.Run(path)


FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "classes": ({"source__classes": 4 * 10**9, "source__dim": 2**16}, "source.classes = 4000000000: .* no machine"),
    "layers": ({"model__layers": 10**8}, "model.layers = 100000000: must be at most 1024"),
    "width": ({"model__width": 2**30}, "model.width = 1073741824: .* no machine has more"),
    "context": ({"task__context": 10**8}, "task.context = 100000000: must be at most 1024"),
    "members": ({"members": 4 * 10**9}, "members = 4000000000: .* no machine has more"),
    "images": (
        {"source__exemplars": 10**9, "source__dim": 2**9},
        "source.exemplars = 1000000000: .* no machine has more",
    ),
    "evaluators": ({"evaluators": ["icl", "none"]}, "evaluators = 'none': must be one of"),
    "moderate": ({"model__width": 2**18}, "model.width = 262144: weights and optimiser state need .* this machine has"),
}


def forbid_work(monkeypatch) -> None:
    """Lets no source be built and no parameters be made or traced."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("something was drawn or made for a spec that no machine can run")

    monkeypatch.setattr(Gaussian, "build", refuse)
    monkeypatch.setattr(Transformer, "init", refuse)


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_spec_is_refused_before_anything_is_drawn_or_made_for_it(name, run, tmp_path, monkeypatch):
    fields, says = FORGED[name]
    forged = forge(run, tmp_path / "run", **fields)
    monkeypatch.setattr(limits, "physical_memory", lambda: 64 * 2**30)
    forbid_work(monkeypatch)
    for call in (
        lambda: forged.model(),
        lambda: eb.model_at(forged.path, 1),
        lambda: eb.probe_run(forged, ["induction_strength"], "icl", sequences=4),
    ):
        with pytest.raises(eb.InputError, match=f"run.json: its spec cannot be used: {says}") as caught:
            call()
        assert caught.value.field == "run" and "\n" not in str(caught.value)
    with pytest.raises(eb.InputError, match=says):
        eb.prompts_of(forged.spec, forged.spec.evaluators[0], 4)
    if "evaluators" not in fields:
        with pytest.raises(eb.InputError, match=r" = .*: .*(at most|at least|no machine|this machine)"):
            eb.score(forged.spec, {}, "icl")
    assert forged.status() == "complete" and forged.spec.batch == 16  # reading asks none of this


def test_a_copy_of_a_run_that_changes_nothing_is_used_as_the_run(run, tmp_path):
    copied = forge(run, tmp_path / "run")
    (ours,) = eb.probe_run(run, ["induction_strength"], "icl", sequences=4)
    (theirs,) = eb.probe_run(copied, ["induction_strength"], "icl", sequences=4)
    np.testing.assert_array_equal(ours.values, theirs.values)


def test_more_prompts_than_memory_holds_are_refused_before_they_are_drawn(run, monkeypatch):
    forbid_work(monkeypatch)
    for call in (
        lambda: eb.prompts_of(run.spec, "icl", 10**13),
        lambda: eb.probe_run(run, ["induction_strength"], "icl", sequences=10**13),
    ):
        with pytest.raises(eb.InputError, match=r"^sequences = 10000000000000: so many prompts need") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_checkpoints_are_held_to_the_spec_before_prompts_are_drawn(run, tmp_path, monkeypatch):
    changed = forge(run, tmp_path / "run", model__width=32)
    monkeypatch.setattr(Gaussian, "build", lambda self: pytest.fail("prompts were drawn"))
    with pytest.raises(eb.InputError, match="this spec needs float32"):
        eb.probe_run(changed, ["induction_strength"], "icl", sequences=4)


def test_a_donor_that_claims_any_number_of_members_costs_no_memory(run, tmp_path):
    forged = forge(run, tmp_path / "run", members=2**32 - 1)
    assert len(member_numbers(forged)) == 2**32 - 1
    start = Start(run=str(forged.path), sequences=1024)
    with pytest.raises(eb.InputError, match=r"has no member of this number, but 0, 1, 2.*, \.\.\. \(start.member"):
        start.check(SPEC.model, SPEC.shape(), [2**32])


def test_curves_with_named_axes_are_the_runs_metrics(run):
    data, curves = run.to_xarray(), run.metrics()
    assert data.value.dims == data.error.dims == ("member", "sequences", "evaluator", "metric")
    assert data.train_loss.dims == ("member", "sequences")
    np.testing.assert_array_equal(data.sequences, curves["sequences"])
    np.testing.assert_array_equal(data.steps, curves["steps"])
    np.testing.assert_array_equal(data.train_loss, curves["train_loss"])
    for evaluator in ("icl", "iwl"):
        for metric in run.header.metrics:
            one = data.sel(evaluator=evaluator, metric=metric)
            np.testing.assert_array_equal(one.value, curves[f"{evaluator}/{metric}"])
            np.testing.assert_array_equal(one.error, curves[f"{evaluator}/{metric}/error"])
        headline = data.headline.sel(evaluator=evaluator).item()
        np.testing.assert_array_equal(data.value.sel(evaluator=evaluator, metric=headline), curves[evaluator])
        assert data.chance.sel(evaluator=evaluator).item() == run.chance()[evaluator]
    assert data.attrs["digest"] == SPEC.digest()


def test_varied_fields_are_coordinates_of_the_members(tmp_path):
    spec = replace(SPEC, vary={"optimizer.lr": [1e-3, 3e-3], "seeds.data": [5.0, 6.0]})
    run = eb.Run(write_run(tmp_path / "run", {"icl": [[0.5, 1.0], [0.25, 0.75]]}, [[0, 1], [2, 3]], spec=spec).path)
    data = run.to_xarray()
    assert data["optimizer.lr"].dims == ("member",) and data["optimizer.lr"].values.tolist() == [1e-3, 3e-3]
    assert data.value.sel(metric="in_context_accuracy", evaluator="icl").values.tolist() == [[0.5, 1.0], [0.25, 0.75]]


@pytest.mark.parametrize("vary", [{"optimizer.lr": [1.0]}, {"x": [[1], [2]]}, {"x": ["a", "b"]}, {"x": 3}, [1, 2]])
def test_varied_fields_without_a_number_for_each_member_are_damage(vary, tmp_path):
    head = header()
    with pytest.raises(eb.InputError, match=r"run.json is damaged: spec.vary is not lists of a number for each member"):
        Writer(tmp_path / "run", replace(head, spec=head.spec | {"vary": vary}))  # it reads what it has written


def test_without_xarray_one_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(eb.InputError, match=r"needs xarray: pip install 'ebbtide\[export\]'"):
        run.to_xarray()
