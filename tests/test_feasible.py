"""What a spec means is the same on every machine; whether a machine can run it is asked of that machine."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.models.encoders import ResNet
from ebbtide.sources.features import Features
from ebbtide.sources.omniglot import Omniglot
from ebbtide.sources.tokens import Tokens
from ebbtide.training import limits
from ebbtide.training.feasible import check_feasible
from ebbtide.training.spec import Spec
from ebbtide.training.start import Start
from tiny import SPEC

COUNTS: Any = {"classes": 64, "exemplars": 2, "holdout_classes": 8, "holdout_exemplars": 2}
FROM_FILE = replace(SPEC, source=Features(path="nowhere.npz", **COUNTS))
PIXELS = replace(
    SPEC,
    source=Omniglot(features="pixels", side=28, standardise="none", **COUNTS),
    model=replace(SPEC.model, encoder=ResNet(stem=3, stem_channels=4, channels=(4,))),
)
DONOR = replace(SPEC, start=Start(run="nowhere", sequences=512, parts=("blocks.0.*",)), freeze=("blocks.0.*",))
ELSEWHERE: dict[str, tuple[Spec, str]] = {
    "a file": (FROM_FILE, "source.path"),
    "a file and frozen parameters": (replace(FROM_FILE, freeze=("blocks.*",)), "source.path"),
    "images": (PIXELS, "source"),
    "tokens": (replace(SPEC, source=Tokens(**COUNTS)), "source"),
    "a donor": (DONOR, "start.run"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_only_another_machine_has_is_no_fault_of_the_spec(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBBTIDE_DATA", str(tmp_path))
    spec, field = ELSEWHERE[name]
    spec.check()
    with pytest.raises(InputError) as caught:
        check_feasible(spec)
    assert caught.value.field == field and len(str(caught.value).splitlines()) == 1


def test_a_spec_means_the_same_on_a_machine_of_little_memory(monkeypatch):
    monkeypatch.setattr(limits, "physical_memory", lambda: 10_000)
    SPEC.check()
    with pytest.raises(InputError, match="this machine has 10,000"):
        check_feasible(SPEC)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"task": replace(SPEC.task, context=61)}, "task.context"),
        ({"source": replace(FROM_FILE.source, classes=3)}, "source.classes"),
        ({"source": replace(FROM_FILE.source, holdout_exemplars=0), "evaluators": ("iwl_exemplar",)}, "source.holdout"),
        ({"freeze": ("blocks.7.*",)}, "freeze"),
        ({"start": Start(run="nowhere", sequences=0, parts=("blocks.7.*",))}, "start.parts"),
        ({"batch": 16, "model": replace(SPEC.model, width=2**24)}, "model.width"),
    ],
)
def test_what_no_file_could_mend_is_refused_without_one(changes, field):
    with pytest.raises(InputError) as caught:
        replace(FROM_FILE, **changes).check()
    assert caught.value.field.startswith(field)


def test_a_file_whose_exemplars_the_encoder_cannot_read_is_refused_where_it_is(tmp_path):
    """Only the file says that its exemplars are no square images."""
    np.savez(tmp_path / "x.npz", features=np.ones((72, 4, 8), np.float32))
    spec = replace(FROM_FILE, model=PIXELS.model, source=replace(FROM_FILE.source, path=str(tmp_path / "x.npz")))
    spec.check()
    with pytest.raises(InputError, match="needs square images"):
        check_feasible(spec)
    check_feasible(replace(spec, model=SPEC.model))
