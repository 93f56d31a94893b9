"""A run as its user sees it: its spec, its models, its curves with named axes."""

import inspect
import sys
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import ebbtide as eb
from ebbtide.runs.reading import load_record
from ebbtide.runs.writer import Writer
from ebbtide.training.start import to_dotted
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
