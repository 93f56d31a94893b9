"""Settings in words: what differs from defaults, seeds, scale, and the command that trains the same spec."""

import shlex
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from ebbtide.cli.parser import overrides, parser
from ebbtide.papers.transience.study import TRANSIENCE
from ebbtide.sources.gaussian import Gaussian
from ebbtide.studies.describe import (
    copied_queries,
    defaults,
    differing,
    flat,
    run_command,
    scale_words,
    seeds,
    value_text,
)
from ebbtide.tasks.fewshot import FewShot
from ebbtide.training.fields import override
from ebbtide.training.optimizer import Adam
from ebbtide.training.probe import prompts_of
from ebbtide.training.schedule import Cosine
from ebbtide.training.spec import Seeds, Spec, from_builtins
from ebbtide.training.watch import EarlyStopping
from tiny import SPEC

SPECS = {
    "the preset": TRANSIENCE.bases["quick"].spec,
    "another preset": TRANSIENCE.bases["paper"].spec,
    "tiny": SPEC,
    "nested": replace(SPEC, optimizer=Adam(schedule=Cosine(warmup=3)), stopping=EarlyStopping(patience=1600)),
    "varied": replace(SPEC, vary={"optimizer.lr": [1e-3, 3e-4], "seeds.member": [5, 9]}, keep_best=None),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_the_command_trains_the_same_spec(name, preset):
    spec, base = SPECS[name], TRANSIENCE.bases[preset].spec
    command = run_command("transience", preset, base, msgspec.to_builtins(spec))
    options, rest = parser().parse_known_args(shlex.split(command)[1:])
    assert (options.command, options.study, options.preset) == ("run", "transience", preset)
    data = msgspec.to_builtins(TRANSIENCE.base(options.preset).spec)
    for field, text in overrides(rest):
        override(Spec, data, field, text)
    assert from_builtins(data) == spec
    assert (name, preset) != ("the preset", "quick") or not rest


def test_settings_are_what_differs():
    base = msgspec.to_builtins(Spec())
    assert differing(base, defaults(Spec())) == {}
    spec = replace(Spec(), batch=16, optimizer=Adam(lr=0.5, schedule=Cosine(warmup=3)), seeds=Seeds(init=4))
    found = differing(msgspec.to_builtins(spec), defaults(spec))
    expected = {"optimizer.lr": 0.5, "optimizer.schedule": "cosine", "optimizer.schedule.warmup": 3}
    assert found == {**expected, "batch": 16, "seeds.init": 4}
    assert "stopping.patience" in differing(
        msgspec.to_builtins(replace(spec, stopping=EarlyStopping(patience=1))), defaults(spec)
    )


def test_seeds_and_scale_in_words():
    data = msgspec.to_builtins(replace(SPEC, seeds=Seeds(init=7, member=3)))
    assert seeds(data) == "members 3 to 4; source.seed 0, seeds.init 7, seeds.data 0, seeds.evaluation 0"
    assert seeds(data | {"vary": {"seeds.member": [1.0, 8.0]}}).startswith("members 1, 8;")
    paper = TRANSIENCE.bases["paper"]
    words = scale_words(data, paper.spec, "note")
    assert "model.layers 1 (paper: 12)" in words and "sequences 1,024 (paper: 1,600,000,000)" in words
    assert "model.layers" not in scale_words(data, paper.spec, "note", ["model.layers"])
    assert scale_words(msgspec.to_builtins(paper.spec), paper.spec, "note") == "note"


def copied_spec() -> Spec:
    """The quick preset with two exemplars of a class, drawn independently."""
    quick = TRANSIENCE.bases["quick"].spec
    assert isinstance(quick.task, FewShot) and isinstance(quick.source, Gaussian)
    task, source = replace(quick.task, exemplar_draw="independent"), replace(quick.source, exemplars=2)
    return replace(quick, task=task, source=source)


def test_how_often_a_query_is_a_copy_is_said_where_it_is_not_as_in_the_paper():
    paper, quick = TRANSIENCE.bases["paper"].spec, copied_spec()
    said = "bursty sequences whose query equals a context exemplar"
    assert f"{said} 50% (paper: 14%)" in scale_words(msgspec.to_builtins(quick), paper, "note")
    assert said not in scale_words(msgspec.to_builtins(quick), paper, "note", ["source.exemplars"])
    apart = replace(quick, task=replace(quick.task, exemplar_draw="without_replacement"))
    assert f"{said} 0% (paper: 14%)" in scale_words(msgspec.to_builtins(apart), paper, "note")
    matched = replace(quick, task=replace(quick.task, exemplar_draw="match"))
    assert f"{said} 100% (paper: 14%)" in scale_words(msgspec.to_builtins(matched), paper, "note")


def test_the_share_of_copied_queries_is_what_is_drawn():
    """Counted in prompts whose context has the query's class once."""
    spec = copied_spec()
    prompt = prompts_of(spec, "train", 4000)
    copied = (np.asarray(prompt.exemplars[:-1]) == np.asarray(prompt.exemplars[-1])).all(-1).any(0)
    share = copied_queries(flat(msgspec.to_builtins(spec)))
    assert share == 0.5 and abs(copied.mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000)


@pytest.mark.parametrize("value", [None, "2", -1, 0, 2.5, 10**400, [2]])
def test_fields_that_no_spec_has_copy_nothing(value):
    fields = {"task.exemplar_draw": "independent", "task.burst": 1, "source.exemplars": 2}
    assert copied_queries(fields | {"task.burst": value}) == 0.0
    assert 0 <= copied_queries(fields | {"source.exemplars": value}) <= 1e-12
    assert copied_queries(fields | {"task.exemplar_draw": value}) == 0.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1600, "1,600"),
        (0.0003, "0.0003"),
        (3e-05, "3e-05"),
        (True, "yes"),
        (None, "none"),
        ([1, 2.5], "1, 2.5"),
        ("a", "a"),
    ],
)
def test_values_in_words(value, words):
    assert value_text(value) == words


def test_any_dict_can_be_laid_flat():
    deep: dict[str, Any] = {}
    at = deep
    for _ in range(500):
        at["a"] = {}
        at = at["a"]
    assert flat(deep) and flat({"type": "x", "a": {"type": 3, "b": [1]}}) == {"a": 3, "a.b": [1]}
