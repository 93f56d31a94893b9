"""The spec as data: round trips, its digest, its checks."""

import hashlib
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ebbtide.errors import InputError
from ebbtide.evaluation.metrics import TABLE
from ebbtide.models.deepset import DeepSet
from ebbtide.models.encoders import ResNet
from ebbtide.models.positions import Identical, Learned, LearnedUniform, NoPositions, Rotary, Sinusoidal
from ebbtide.models.recurrent import Recurrent
from ebbtide.models.transformer import Transformer
from ebbtide.sources.bank import SourceLike
from ebbtide.sources.features import Features
from ebbtide.sources.gaussian import Gaussian
from ebbtide.sources.glyphs import Glyphs
from ebbtide.sources.omniglot import Omniglot
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Fixed, PerSequence, Polysemy, Shared
from ebbtide.tasks.relabel import Pair
from ebbtide.tasks.task import Task
from ebbtide.traced import replace_at, traced_fields, value_at
from ebbtide.training.identity import without_defaults
from ebbtide.training.kinds import AnyModel, AnyOptimizer, AnySource, AnyTask
from ebbtide.training.optimizer import SGD, Adam, WeightDecay
from ebbtide.training.schedule import Constant, Cosine, Schedule, WarmupInverseSqrt
from ebbtide.training.spec import Seeds, Spec, from_builtins, from_json
from effort import examples

SPEC = Spec(sequences=12_800)
SPECS = [
    SPEC,
    Spec(source=Omniglot(), optimizer=SGD(schedule=Cosine(warmup=3)), model=Transformer(positions=Sinusoidal())),
    Spec(source=Glyphs(features="pca64", side=56), vary={"source.motor": [0.5]}),
    Spec(source=Features(path="x.npz"), optimizer=Adam(schedule=WarmupInverseSqrt()), task=FewShot(relabel=Pair())),
    Spec(task=FewShot(labels=Polysemy()), model=Transformer(positions=Rotary()), vary={"optimizer.lr": [1, 2]}),
    Spec(task=FewShot(labels=Shared()), model=Transformer(positions=NoPositions())),
    Spec(task=FewShot(labels=PerSequence(5, holdout_pairs=1))),
    Spec(model=Transformer(encoder=ResNet(), pairing="joint")),
    Spec(model=Transformer(positions=Identical())),
    Spec(model=DeepSet()),
    Spec(model=Recurrent("rnn", encoder=ResNet(channels=(8,), norm="layer"))),
]


def example(kind: type[msgspec.Struct]) -> Any:
    """A struct of this kind, with text in the fields that have no default."""
    return kind(**{one.name: "x.npz" for one in msgspec.structs.fields(kind) if one.required})


KINDS = {"task": AnyTask, "source": AnySource, "model": AnyModel, "optimizer": AnyOptimizer}
SPECS += [Spec(**{field: example(kind)}) for field, union in KINDS.items() for kind in get_args(union)]


@pytest.mark.parametrize(("field", "protocol"), [("task", Task), ("source", SourceLike)])
def test_every_kind_answers_what_is_asked_of_it(field, protocol):
    for kind in get_args(KINDS[field]):
        missing = [name for name in dir(protocol) if name[0] != "_" and not hasattr(kind, name)]
        assert missing == [], f"{kind.__name__} lacks {missing}"


def test_every_metric_of_a_task_is_known_and_every_evaluator_is_read_by_one_of_them():
    for kind in get_args(AnyTask):
        task = kind()
        source = next(one for one in map(example, get_args(AnySource)) if serves(one, task))
        assert set(task.metrics) <= set(TABLE)
        for i, name in enumerate(task.evaluators()):
            one = task.evaluator(name, source)
            assert one.headline in task.metrics and (one.name, one.stream) == (name, i)


def serves(source: SourceLike, task: Task) -> bool:
    try:
        task.check(source.stand_in())
    except InputError:
        return False
    return True


@pytest.mark.parametrize("spec", SPECS)
def test_json_round_trip(spec):
    again = from_json(spec.to_json())
    assert again == spec
    assert (again.to_json(), again.digest()) == (spec.to_json(), spec.digest())


def test_json_holds_every_field_and_nothing_else():
    data = msgspec.json.decode(SPEC.to_json())
    absent = {"precision", "forgetting"}  # where they are not set: see test_precision.py and test_forgetting.py
    assert set(data) == set(Spec.__struct_fields__) - absent
    assert data["source"] == {"type": "gaussian"} | {f: getattr(SPEC.source, f) for f in Gaussian.__struct_fields__}
    assert list(data) == sorted(data) and list(data["task"]) == sorted(data["task"])


def test_whole_numbers_and_lists_name_the_same_computation():
    """A float field given as 1 and a tuple given as a list do not change the digest."""
    one = Spec(optimizer=Adam(lr=1), task=FewShot(p_bursty=1), evaluators=["icl"])  # pyright: ignore
    other = Spec(optimizer=Adam(lr=1.0), task=FewShot(p_bursty=1.0), evaluators=("icl",))
    assert one.digest() == other.digest() == from_json(one.to_json()).digest()


def sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def test_the_digest_is_that_of_the_fields_that_are_not_at_their_defaults():
    assert Spec().digest() == sha256(b"{}")
    one = Spec(batch=32, optimizer=Adam(lr=0.5), members=2, vary={"optimizer.lr": [0.1, 0.2]}, evaluators=("icl",))
    text = b'{"batch":32,"evaluators":["icl"],"members":2,"optimizer":{"lr":0.5,"type":"adam"},'
    assert one.digest() == sha256(text + b'"vary":{"optimizer.lr":[0.1,0.2]}}')
    assert Spec(optimizer=SGD()).digest() == sha256(b'{"optimizer":{"type":"sgd"}}')


def test_a_field_that_a_later_version_adds_does_not_rename_a_run():
    class Later(Spec, frozen=True, kw_only=True):
        curiosity: float = 0.5

    def name(spec: Spec) -> str:
        return sha256(msgspec.json.encode(without_defaults(spec), order="sorted"))

    assert name(Later(batch=32)) == name(Spec(batch=32)) != name(Later(batch=32, curiosity=0.6))


def test_the_default_spec_can_be_run():
    Spec().check()


def other_word(holder: Any, name: str, value: str) -> str:
    """Another of the words that the field allows; where any text is allowed, other text."""
    hint = get_type_hints(type(holder))[name]
    words = [word for part in (hint, *get_args(hint)) for word in get_args(part)]  # also of a union with structs
    return next((word for word in words if isinstance(word, str) and word != value), value + "x")


def other_value(holder: Any, name: str) -> Any:
    """A different value that the field `name` of a struct may hold."""
    value = msgspec.to_builtins(getattr(holder, name))
    match value:
        case bool():
            return not value
        case int():
            return value - 1 if name == "side" else value + 1  # images have a largest side
        case float():
            return value / 2 + 0.01
        case str():
            return other_word(holder, name, value)
        case None:
            start = {"run": "other", "sequences": 3}
            return {"stopping": {"patience": 3}, "decay": {"on": "mlp"}, "start": start}.get(name, 3)
        case () | []:
            windows = [{"start": 0, "end": 9, "every": 3}]
            return {"windows": windows, "interventions": [{"type": "induction"}], "freeze": ["norm.*"]}[name]
        case list() | tuple():
            return [*value[:-1], "other" if isinstance(value[-1], str) else value[-1] + 4]
        case dict():
            return {"optimizer.lr": [1.0]}


def leaves(data: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, value in data.items():
        if isinstance(value, dict) and value and name != "vary":
            found += leaves(value, (*path, name))
        elif name != "type":
            found.append((*path, name))
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_the_digest_changes_with_any_field(spec):
    digests, names = {spec.digest()}, leaves(msgspec.to_builtins(spec))
    assert len(names) >= 38
    for *parents, name in names:
        data = msgspec.to_builtins(spec)
        at = data
        for part in parents:
            at = at[part]
        at[name] = other_value(value_at(spec, ".".join(parents)) if parents else spec, name)
        digests.add(from_builtins(data).digest())
    assert len(digests) == len(names) + 1


def test_the_digest_tells_structs_of_equal_fields_apart():
    one, other = (Spec(model=Transformer(positions=p)) for p in (Sinusoidal(max_time=9.0), Rotary(max_time=9.0)))
    assert one.digest() != other.digest()


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, task=FewShot(labels=PerSequence(8)))])
def test_a_valid_spec_passes(spec):
    spec.check()
    assert spec.steps() == 100


REFUSED: list[tuple[str, Any, dict[str, Any]]] = [
    ("members", 0, {"members": 0}),
    ("optimizer.decay.coefficient", -1.0, {"optimizer": Adam(decay=WeightDecay(coefficient=-1.0))}),
    ("seeds.member", 2**31 - 1, {"seeds": Seeds(member=2**31 - 1), "members": 2}),
    ("seeds.member", 0.5, {"vary": {"seeds.member": [0.5]}}),
    ("batch", 0, {"batch": 0}),
    ("batch", "128", {"batch": "128"}),
    ("evaluation_sequences", 1, {"evaluation_sequences": 1}),
    ("sequences", 12_801, {"sequences": 12_801}),
    ("sequences", 64, {"sequences": 64}),
    ("sequences", 2**32, {"sequences": 2**32}),
    ("model.heads", 7, {"model": Transformer(heads=7)}),
    ("model.heads", 0, {"model": Transformer(heads=0)}),
    ("model.width", 0, {"model": Transformer(width=0)}),
    ("task.burst", 5, {"task": FewShot(context=8, burst=5)}),
    ("task.rest", "other", {"task": FewShot(rest="other")}),  # pyright: ignore
    ("task.context", 3, {"task": FewShot(context=3)}),
    ("source.classes", 9, {"task": FewShot(context=8), "source": Gaussian(classes=9)}),
    ("source.classes", 0, {"source": Gaussian(classes=0)}),
    ("source.holdout_classes", 1, {"source": Gaussian(holdout_classes=1)}),
    ("source.noise", -1.0, {"source": Gaussian(noise=-1.0)}),
    ("optimizer.lr", 0.0, {"optimizer": Adam(lr=0.0)}),
    ("optimizer.b2", 1.0, {"optimizer": Adam(b2=1.0)}),
    ("schedule.first", 20_000, {"schedule": Schedule(spacing="log", first=20_000)}),
    ("schedule.evaluations", 1, {"schedule": Schedule(evaluations=1)}),
    ("seeds.init", -1, {"seeds": Seeds(init=-1)}),
    ("evaluators", "icll", {"evaluators": ("icll",)}),
    ("vary", "optimizer.rate", {"vary": {"optimizer.rate": [0.1]}}),
    ("vary", "batch", {"vary": {"batch": [64.0]}}),
    ("vary.optimizer.lr", [0.1, 0.2], {"vary": {"optimizer.lr": [0.1, 0.2]}}),
    ("optimizer.lr", -1.0, {"members": 2, "vary": {"optimizer.lr": [0.1, -1.0]}}),
    ("task.zipf", 11.0, {"members": 2, "vary": {"task.zipf": [1.0, 11.0]}}),
    ("task.p_bursty", 2.0, {"vary": {"task.p_bursty": [2.0]}}),
    ("source.noise", -0.5, {"vary": {"source.noise": [-0.5]}}),
]


@pytest.mark.parametrize(("field", "value", "changes"), REFUSED, ids=[f"{r[0]}={r[1]}" for r in REFUSED])
def test_impossible_specs_are_refused_in_one_line(field, value, changes, one_line):
    with pytest.raises(InputError) as caught:
        replace(SPEC, **changes).check()
    one_line(caught, field, value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["optimizer.lr", "source.noise", "task.zipf", "optimizer.eps"])
def test_numbers_that_are_none_are_refused(name, value, one_line):
    """JSON has no NaN and no infinity: such a spec could not be read back."""
    varied = replace(SPEC, vary={name: [value]})
    for field, spec in ((name, replace_at(SPEC, name, value)), (f"vary.{name}.0", varied)):
        with pytest.raises(InputError) as caught:
            spec.check()
        one_line(caught, field, value)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"{", "spec"),
        (b"[]", "spec"),
        (b"\xff", "spec"),
        (b"", "spec"),
        (b'{"batch":""}', "batch"),
        (b'{"b": 3}', "b"),
    ],
)
def test_bad_json_is_refused_in_one_line(text, field):
    with pytest.raises(InputError) as caught:
        from_json(text)
    assert caught.value.field == field
    assert len(str(caught.value).splitlines()) == 1


def test_traced_fields_and_values():
    names = traced_fields(SPEC)
    assert set(names) == {"task.p_bursty", "task.zipf", "source.noise", "optimizer.lr"}
    spec = replace(SPEC, members=2, vary={"optimizer.lr": [0.1, 0.2], "source.noise": [0.0, 2.0]})
    spec.check()
    assert spec.values(1) == {"optimizer.lr": 0.2, "source.noise": 2.0}
    member = spec.with_values(spec.values(1))
    assert (member.optimizer.lr, member.source) == (0.2, Gaussian(noise=2.0))
    assert spec.with_values({}) == spec


positions = st.sampled_from(
    [Learned(), Sinusoidal(), NoPositions(), Learned(init_sd=0.02), Learned(spare=3), LearnedUniform(), Identical()]
)
schedules = st.one_of(
    st.builds(Constant, warmup=st.integers(0, 50)),
    st.builds(WarmupInverseSqrt, warmup=st.integers(1, 50)),
    st.builds(Cosine, warmup=st.integers(0, 50), final=st.floats(0, 1)),
)
rates = st.floats(1e-8, 10)


@st.composite
def specs(draw) -> Spec:
    context, heads = 2 * draw(st.integers(1, 4)), draw(st.integers(1, 4))
    batch, members = draw(st.integers(1, 64)), draw(st.integers(1, 3))
    labels = st.one_of(
        st.builds(Fixed),
        st.builds(Shared, count=st.integers(2, 12)),
        st.builds(Polysemy, per_class=st.integers(1, 4)),
        st.builds(PerSequence, count=st.integers(9, 30)),
    )
    task = st.builds(
        FewShot,
        context=st.just(context),
        burst=st.integers(0, context // 2),
        distractor=st.booleans(),
        rest=st.sampled_from(["iid", "no_support", "unique"]),
        exemplar_draw=st.sampled_from(["independent", "without_replacement", "match"]),
        p_bursty=st.floats(0, 1),
        zipf=st.floats(0, 3),
        labels=labels,
    )
    size = st.integers(1, 30)
    source = st.builds(
        Gaussian,
        classes=st.integers(40, 90),
        exemplars=st.integers(5, 9),
        dim=size,
        noise=st.floats(0, 5),
        infinite=st.booleans(),
        holdout_classes=st.integers(2, 9),
        holdout_exemplars=size,
        seed=st.integers(0, 2**31),
    )
    optimizers = (st.builds(Adam, lr=rates, schedule=schedules), st.builds(SGD, lr=rates, schedule=schedules))
    return Spec(
        task=draw(task),
        source=draw(source),
        model=Transformer(layers=draw(st.integers(1, 3)), width=4 * heads, heads=heads, positions=draw(positions)),
        optimizer=draw(st.one_of(*optimizers)),
        batch=batch,
        sequences=batch * draw(st.integers(1, 1000)),
        members=members,
        vary=draw(st.sampled_from([{}, {"optimizer.lr": draw(st.lists(rates, min_size=members, max_size=members))}])),
        schedule=Schedule(evaluations=draw(st.integers(2, 50)), checkpoints=draw(st.integers(2, 9))),
    )


@settings(max_examples=examples(quick=60, thorough=600))
@given(specs())
def test_any_valid_spec_passes_and_round_trips(spec):
    spec.check()
    again = from_json(spec.to_json())
    assert again == spec and again.digest() == spec.digest()
    points = spec.schedule.points(spec.sequences, spec.batch)
    assert points[-1] == spec.sequences and all(p % spec.batch == 0 for p in points)
    assert np.all(np.diff(points) > 0)
