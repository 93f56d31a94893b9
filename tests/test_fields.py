"""Fields set from text, and mistakes explained in one line."""

from typing import Any

import msgspec
import pytest

from ebbtide.errors import InputError
from ebbtide.models.cells import CellReadout
from ebbtide.models.positions import Rotary
from ebbtide.models.transformer import Transformer
from ebbtide.sources.features import Features
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.glyphs import Glyphs
from ebbtide.sources.omniglot import Omniglot
from ebbtide.studies.describe import defaults, differing
from ebbtide.tasks.labels import Shared
from ebbtide.training import fields
from ebbtide.training.fields import assign_all, override, override_all
from ebbtide.training.optimizer import SGD, Adam
from ebbtide.training.schedule import Cosine, Schedule
from ebbtide.training.spec import Spec, from_builtins


def changed(*settings: tuple[str, str]) -> Spec:
    data = msgspec.to_builtins(Spec())
    override_all(Spec, data, settings)
    return from_builtins(data)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("batch", "64", 64),
        ("optimizer.lr", "3e-4", 3e-4),
        ("optimizer.lr", "1", 1.0),
        ("task.distractor", "false", False),
        ("task.rest", "unique", "unique"),
        ("task.rest", '"unique"', "unique"),
        ("evaluators", '["icl", "iwl"]', ("icl", "iwl")),
        ("vary", '{"optimizer.lr": [0.1, 0.2]}', {"optimizer.lr": [0.1, 0.2]}),
        ("source", "glyphs", Glyphs()),
        ("source", "omniglot", Omniglot()),
        ("source", "runs/my features.npz", Features(path="runs/my features.npz")),
        ("source", "x.safetensors", Features(path="x.safetensors")),
        ("optimizer", "sgd", SGD()),
        ("optimizer.schedule", "cosine", Cosine()),
        ("model.positions", "rotary", Rotary()),
        ("task.labels", '{"type": "shared", "count": 5}', Shared(5)),
    ],
)
def test_override(name, text, value):
    at: object = changed((name, text))
    for part in name.split("."):
        at = getattr(at, part)
    assert at == value and type(at) is type(value)


def test_overrides_build_on_each_other():
    spec = changed(("task.labels", "shared"), ("task.labels.count", "7"), ("optimizer", "sgd"), ("optimizer.lr", "0.5"))
    assert (spec.task.labels, spec.optimizer) == (Shared(7), SGD(lr=0.5))  # pyright: ignore


def test_a_struct_is_set_before_its_own_fields_whatever_comes_first():
    named, own = ("model", "recurrent"), ("model.width", "48")
    assert changed(named, own) == changed(own, named) != changed(named)
    assert changed(own, ("model.width", "24"), named) == changed(named, ("model.width", "24"))


@pytest.mark.parametrize("settings", [[("source", "gausian"), ("source.classes", "12")], [("source", "gausian")]])
def test_a_struct_that_there_is_not_is_told_before_its_fields(settings):
    with pytest.raises(InputError, match=r"^source = 'gausian': must be one of .*mean 'gaussian'\?\)$"):
        changed(*settings)


def test_a_file_brings_the_other_fields_of_its_source():
    spec = changed(("source", "x.npz"), ("source.classes", "99"), ("source.array", "y"))
    assert spec.source == Features(path="x.npz", classes=99, array="y")


def test_naming_the_present_struct_keeps_its_fields():
    spec = changed(("source.classes", "99"), ("source", "gaussian"), ("optimizer.lr", "0.5"), ("optimizer", "adam"))
    assert (spec.source, spec.optimizer) == (Gaussian(classes=99), Adam(lr=0.5))


def test_a_field_of_a_struct_that_is_given_whole_changes_the_spec_and_not_what_was_given():
    given: dict[str, Any] = {"model": msgspec.to_builtins(Transformer(width=32, heads=4))}
    specs = []
    for width in ({"model.width": 8, "model.positions.spare": 3}, {}):
        data = msgspec.to_builtins(Spec())
        assign_all(Spec, data, given | width)
        specs.append(from_builtins(data))
    assert [spec.model.width for spec in specs] == [8, 32]  # pyright: ignore[reportAttributeAccessIssue]
    assert given == {"model": msgspec.to_builtins(Transformer(width=32, heads=4))}


def test_a_struct_that_is_not_there_yet_gets_the_defaults_that_are_made_for_each(monkeypatch):
    class Part(msgspec.Struct, frozen=True):
        needed: int
        names: list[str] = msgspec.field(default_factory=lambda: ["a"])
        schedule: Schedule = Schedule()

    monkeypatch.setattr(fields, "_walk", lambda *arguments, **options: (Part | None, None))
    found = fields._optional(Part, {}, ["part"])
    assert found == {"needed": None, "names": ["a"], "schedule": msgspec.to_builtins(Schedule())}


def test_an_override_changes_nothing_else():
    before, after = msgspec.to_builtins(Spec()), msgspec.to_builtins(changed(("optimizer.b1", "0.5")))
    assert before["optimizer"].pop("b1") == 0.9 and after["optimizer"].pop("b1") == 0.5
    assert before == after


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optimiser.lr", "did you mean 'optimizer'?"),
        ("optimizer.learning", "optimizer has the fields lr, schedule"),
        ("task.contxt", "did you mean 'context'?"),
        ("batchsize", "did you mean 'batch'?"),
        ("batch.size", "batch has the fields none"),
        ("task.labels.count", "task.labels has the fields none"),
        ("zzz", "a spec has the fields task, source"),
    ],
)
def test_an_unknown_field_suggests_the_nearest(name, said):
    with pytest.raises(InputError) as caught:
        changed((name, "1"))
    text = str(caught.value)
    assert said in text and "no such field" in text
    assert name.startswith(caught.value.field)
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "field", "value", "said"),
    [
        (("batch", "many"), "batch", "many", "expected int, got str"),
        (("batch", "1.5"), "batch", 1.5, "expected int"),
        (("batch", "0"), "batch", 0, ">= 1"),
        (("optimizer.lr", "fast"), "optimizer.lr", "fast", "expected float, got str"),
        (("optimizer.b1", "1"), "optimizer.b1", 1, "< 1"),
        (("seeds.init", "-1"), "seeds.init", -1, ">= 0"),
        (("seeds.data", "2147483648"), "seeds.data", 2**31, "<= 2147483647"),
        (
            ("task.rest", "uniqe"),
            "task.rest",
            "uniqe",
            "must be one of iid, no_support, unique (did you mean 'unique'?)",
        ),
        (("source.scale", "big"), "source.scale", "big", "must be one of coordinate, norm"),
        (("source", "omnigloss"), "source", "omnigloss", "did you mean 'omniglot'?"),
        (("source", "gausian"), "source", "gausian", "must be one of gaussian, glyphs, omniglot, tokens, features"),
        (("optimizer", "adan"), "optimizer", "adan", "did you mean 'adam'?"),
        (("task.labels", "share"), "task.labels", "share", "did you mean 'shared'?"),
        (("optimizer.schedule", "cosin"), "optimizer.schedule", "cosin", "did you mean 'cosine'?"),
        (("task.labels", '{"type": "shared", "cout": 3}'), "task.labels.cout", 3, "did you mean 'count'?"),
        (("task.labels", '{"type": "shared", "count": "x"}'), "task.labels.count", "x", "expected int, got str"),
        (("task.relabel", '{"type": "pair", "labels": [1, "b"]}'), "task.relabel.labels.1", "b", "expected int"),
        (("evaluators", '["icl", 3]'), "evaluators.1", 3, "expected str"),
        (("evaluators", "icl"), "evaluators", "icl", "expected array"),
        (("vary", '{"optimizer.lr": ["a"]}'), "vary", {"optimizer.lr": ["a"]}, "expected float, got str"),
        (("interventions", '[{"type": "inducton"}]'), "interventions.0", "inducton", "did you mean 'induction'?"),
        (("interventions", '[{"type": "forbid", "rose": 1}]'), "interventions.0.rose", 1, "did you mean 'rows'?"),
        (("vary", "lr"), "vary", "lr", "expected object, got str"),
        (("vary", '{"optimizer.lr": 1}'), "vary", {"optimizer.lr": 1}, "expected array, got int"),
        (("schedule", "log"), "schedule", "log", "expected object"),
        (("source", "features"), "source", {"type": "features"}, "path"),
    ],
)
def test_a_value_that_does_not_fit_is_explained(setting, field, value, said, one_line):
    with pytest.raises(InputError) as caught:
        changed(setting)
    one_line(caught, field, value)
    assert said in caught.value.allowed


def test_a_struct_that_is_absent_while_unset_is_created_by_one_of_its_fields():
    """Neither the fields that stored specs lack (a model's read-out) nor their unset fields (a start's context) stand
    in the way."""
    data = Spec().builtins()
    assert "readout" not in data["model"]
    assign_all(Spec, data, {"model.readout.cells": 4, "start.run": "donor", "start.sequences": 64})
    spec = from_builtins(data)
    assert isinstance(spec.model, Transformer) and spec.model.readout == CellReadout(cells=4)
    assert spec.start is not None and spec.start.context is msgspec.UNSET
    with pytest.raises(InputError, match=r"model.readuot = 4: no such field \(did you mean 'readout'\?\)"):
        override(Spec, Spec().builtins(), "model.readuot.cells", "4")


def test_an_unset_field_has_no_default_to_compare_with():
    spec = Spec(model=Transformer(readout=CellReadout(cells=4)))
    assert "model.readout" not in defaults(Spec())
    assert differing(spec.builtins(), defaults(spec)) == {
        "model.readout.decomposition": "latent",
        "model.readout.cells": 4,
        "model.readout.hidden": 2,
    }
