"""The complete description of a run, as data."""

import math
from typing import Annotated, Any

import msgspec
from jaxtyping import Array, Key
from msgspec.structs import replace

from ebbtide.compile import Precision
from ebbtide.errors import InputError, nearest, require
from ebbtide.evaluation import evaluators
from ebbtide.keys import Purpose, root
from ebbtide.mechanisms.intervene import check_all
from ebbtide.mechanisms.interventions import AnyIntervention
from ebbtide.models.model import Shape
from ebbtide.models.transformer import Transformer
from ebbtide.sources.bank import SeededSource
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.task import CellTask
from ebbtide.traced import replace_at, traced_fields
from ebbtide.training import identity, limits
from ebbtide.training.context import check_context
from ebbtide.training.custom import as_data, try_out, with_code
from ebbtide.training.fields import explain
from ebbtide.training.forgetting import Forgetting
from ebbtide.training.kinds import AnyOptimizer, ModelPart, SourcePart, TaskPart
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Schedule
from ebbtide.training.start import Start, select, shapes
from ebbtide.training.watch import EarlyStopping

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
MOST_SEQUENCES = 2**32 - 1
MOST_HELD = 2**30
"""Largest number of bytes of images that an encoder may hold at a time in an evaluation."""


class Seeds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seeds of the three random streams, from 0 to 2^31 - 1. Member m uses (init, i) and (data, i) with i = `member` +
    m.

    Args:
        init: of the initial parameters.
        data: of the training prompts.
        evaluation: of the evaluation prompts.
        member: the number i of the first member.
        world: None: all members learn the same classes (functions, concepts), those of `source.seed`, and answer the
            same evaluation prompts. A number w: member m has those of `source.seed` + w + i, and evaluation prompts of
            `evaluation` + w + i, so that what members disagree about counts classes and prompts too. Exemplars in a
            file are shared in any case.

    >>> eb.Seeds(init=1).data
    0
    """

    init: Seed = 0
    data: Seed = 0
    evaluation: Seed = 0
    member: Seed = 0
    world: Seed | None = None


VARIED_SEEDS = ("seeds.init", "seeds.data", "seeds.member")
"""Seeds that may differ between members as traced fields do: no program depends on them."""


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The complete description of a run: `members` models of one shape, trained side by side.

    Args:
        task: how prompts are drawn.
        source: where exemplars, functions or concepts come from.
        model: the model.
        optimizer: the optimiser, with its learning rate and schedule.
        batch: sequences in a batch.
        sequences: sequences that each member is trained on, a multiple of `batch`.
        distinct: the number of different sequences of a member's stream, which come again in the same order: sequence
            i is number i mod `distinct`. 0: every sequence is new.
        members: the number of models.
        vary: values that differ between members: for a traced field (see `traced_fields`) or a seed (`VARIED_SEEDS`)
            one value for each member, e.g. `{"optimizer.lr": [1e-3, 3e-4]}`. A varied `seeds.member` is the i of
            `Seeds`.
        schedule: when members are evaluated, and which checkpoints are kept.
        evaluators: names of the task's evaluators.
        evaluation_sequences: prompts of each evaluator.
        keep_best: the evaluator by which every checkpoint also holds each member's best model so far; None, or not one
            of `evaluators`: no best model is kept.
        stopping: early stopping.
        seeds: seeds of the random streams.
        interventions: changes of every forward pass, in training and in evaluation.
        start: another run whose parameters the members start from.
        freeze: globs of parameters that are not trained, e.g. `blocks.1.*`.
        precision: of the factors of the model's matrix products, in training and in evaluation: "float32" (23 bits, the
            default), or on accelerators "tf32" (10) or "bf16" (7). Parameters, sums and data are float32 in any case.
        forgetting: parameters that are drawn again at regular intervals; unset: none.

    Raises:
        InputError: from `check`, which training calls first; a spec itself may hold anything of the right types.

    >>> spec = eb.Spec(task=eb.FewShot(context=4, burst=2), model=eb.Transformer(width=32), sequences=128_000)
    >>> spec.check()
    >>> spec.batch, spec.sequences // spec.batch  # sequences in a batch, optimiser steps
    (128, 1000)
    """

    task: TaskPart = FewShot()
    source: SourcePart = Gaussian()
    model: ModelPart = Transformer()
    optimizer: AnyOptimizer = Adam()
    batch: Positive = 128
    sequences: Positive = 1_024_000
    distinct: Annotated[int, msgspec.Meta(ge=0)] = 0
    members: Positive = 1
    vary: dict[str, list[float]] = {}
    schedule: Schedule = Schedule()
    evaluators: tuple[str, ...] = ("train", "icl", "icl_reserved", "icl_holdout", "iwl", "ciwl", "flip")
    evaluation_sequences: Annotated[int, msgspec.Meta(ge=2)] = 500
    keep_best: str | None = "icl"
    stopping: EarlyStopping | None = None
    seeds: Seeds = Seeds()
    interventions: tuple[AnyIntervention, ...] = ()
    start: Start | None = None
    freeze: tuple[str, ...] = ()
    precision: Precision | msgspec.UnsetType = msgspec.UNSET  # float32; absent from the JSON of specs without it
    forgetting: Forgetting | msgspec.UnsetType = msgspec.UNSET  # not None: absent from the JSON of specs without it

    def __post_init__(self) -> None:
        if self.precision == "float32":  # the default has one name
            msgspec.structs.force_setattr(self, "precision", msgspec.UNSET)

    def product_precision(self) -> Precision:
        """The precision of the model's matrix products."""
        return "float32" if isinstance(self.precision, msgspec.UnsetType) else self.precision

    def check(self) -> None:
        """Raises `InputError` (one line: field, value, what is allowed) if this describes no run. The answer is the
        same on every machine: no file is read (see `feasible.check_feasible` for what this machine can do)."""
        self.check_integers()
        require(self.sequences <= MOST_SEQUENCES, "sequences", self.sequences, f"must be at most {MOST_SEQUENCES}")
        nearby = max(round(self.sequences / self.batch), 1) * self.batch
        allowed = f"must be a multiple of batch = {self.batch}, e.g. {nearby}"
        require(self.sequences % self.batch == 0, "sequences", self.sequences, allowed)
        allowed = f"must be below sequences = {self.sequences}, or 0: every sequence is new"
        require(self.distinct < self.sequences, "distinct", self.distinct, allowed)
        self.source.check()
        plain = replace(self, source=self.source.stand_in())
        self.task.check(plain.source)
        self.model.check()
        self.task.check_pairing(self.model.pairing)
        self.model.check_cells(self.task.cells(plain.source) if isinstance(self.task, CellTask) else 0)
        self.model.encoder.check(plain.source.sizes().dim)
        self.optimizer.check()
        self.schedule.check(self.sequences)
        evaluators.check(self.evaluators, self.task, plain.source)
        allowed = f"must be null or one of the run's evaluators: {', '.join(self.evaluators)}"
        require(self.keep_best in (None, "icl", *self.evaluators), "keep_best", self.keep_best, allowed)
        if self.stopping is not None:
            self.stopping.check(self.evaluators)
        limits.check_size(plain)
        try_out(plain)
        check_all(self.interventions, self.model, plain.shape(), self.task.prompt_type)
        if self.start is not None and self.start.context is not msgspec.UNSET:
            check_context(self.start.context, self)
        parts = {"start.parts": self.start.parts if self.start else (), "freeze": self.freeze}
        if any(parts.values()):
            names = list(shapes(self.model, plain.shape()))
            for name, globs in parts.items():
                select(globs, names, name)
        if not isinstance(self.forgetting, msgspec.UnsetType):
            names = list(shapes(self.model, plain.shape()))
            self.forgetting.check(self.batch, self.sequences, names, self.freeze)
        most = 2**31 - self.members
        require(self.seeds.member <= most, "seeds.member", self.seeds.member, f"must be at most {most}")
        names = self.variable()
        for name, values in self.vary.items():
            if name not in names:
                raise InputError("vary", name, f"must be one of {', '.join(names)}{nearest(name, names)}")
            allowed = f"needs one value for each of the {self.members} members"
            require(len(values) == self.members, f"vary.{name}", values, allowed)
            for value in dict.fromkeys(values):
                self.check_value(name, value)
        if self.seeds.world is not None:
            most = 2**31 - 1 - max(self.number(m) for m in range(self.members)) - self.seeds.evaluation
            allowed = f"must be at most {most} with seeds.evaluation = {self.seeds.evaluation} and these members"
            require(self.seeds.world <= most, "seeds.world", self.seeds.world, allowed)

    def check_integers(self) -> None:
        """Raises `InputError` for a whole number too large for its use: what comes before any arithmetic with it."""
        limits.check_integers(identity.typed(self))

    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that every evaluator records."""
        return self.task.metrics

    def check_value(self, name: str, value: float) -> None:
        """Raises `InputError` unless the field `name` (one of `variable`) may have this value."""
        if name in VARIED_SEEDS:
            whole = value == int(value) and 0 <= value < 2**31
            return require(whole, name, value, "must be a whole number from 0, below 2^31")
        checked = replace_at(self, name, value)
        checked.source.check()
        checked.task.check(checked.source.stand_in())
        checked.optimizer.check()

    def variable(self) -> list[str]:
        """The dotted names of all fields that may differ between members."""
        return [*traced_fields(as_data(self)), *VARIED_SEEDS]

    def values(self, member: int) -> dict[str, float]:
        """The values of the varied traced fields of one member."""
        return {name: values[member] for name, values in self.vary.items() if name not in VARIED_SEEDS}

    def root(self, purpose: Purpose, member: int) -> Key[Array, ""]:
        """The root key of a member's stream: (seed, purpose, i), with `seeds.init` for what draws parameters, else
        `seeds.data`."""
        draws_parameters = purpose in (Purpose.INIT, Purpose.FORGETTING)
        name, own = ("seeds.init", self.seeds.init) if draws_parameters else ("seeds.data", self.seeds.data)
        seed = int(self.vary[name][member]) if name in self.vary else own
        return root(seed, purpose, self.number(member))

    def number(self, member: int) -> int:
        """The number of the member in place `member` of the run, its i: a varied `seeds.member`, else `seeds.member` +
        `member`. It goes with a member from run to run; its place does not."""
        if "seeds.member" in self.vary:
            return int(self.vary["seeds.member"][member])
        return self.seeds.member + member

    def world(self, member: int) -> "Spec":
        """This spec with a member's own values of the varied fields of task and source, and, with `seeds.world`, the
        member's own seeds of source and evaluation: what its data are drawn by."""
        values = {name: value for name, value in self.values(member).items() if not name.startswith("optimizer.")}
        spec = self.with_values(values)
        if self.seeds.world is None:
            return spec
        own, source = self.seeds.world + self.number(member), spec.source
        if isinstance(source, SeededSource):
            source = replace(source, seed=source.seed + own)
        seeds = replace(self.seeds, evaluation=self.seeds.evaluation + own, world=None)
        return replace(spec, source=source, seeds=seeds)

    def worlds(self) -> int:
        """An upper bound of the number of different `world`s that the members have."""
        if self.seeds.world is not None:
            return self.members
        varied = [own for name, own in self.vary.items() if not name.startswith(("optimizer.", "seeds."))]
        return len(set(zip(*varied, strict=False))) if varied else 1

    def with_values(self, values: dict[str, Any]) -> "Spec":
        """This spec with fields replaced; values may be traced."""
        spec = self
        for name, value in values.items():
            spec = replace_at(spec, name, value)
        return spec

    def shape(self) -> Shape:
        """Sizes that the model must fit: the number of pairs of a prompt, of features of an exemplar, and of labels."""
        return {"context": self.task.context, "dim": self.source.sizes().dim, "labels": self.outputs()}

    def outputs(self) -> int:
        """The number of labels of the read-out; 0 where a response is a real number."""
        return self.task.outputs(self.source)

    def parameters(self) -> int:
        """The number of trained parameters of a model, by which models are matched in size."""
        return self.model.parameters(**self.shape())

    def best_evaluator(self) -> str | None:
        """The evaluator by which the best models are chosen; None where none are kept."""
        return self.keep_best if self.keep_best in self.evaluators else None

    def steps(self) -> int:
        """The length of the run in optimiser steps."""
        return self.sequences // self.batch

    def evaluation_part(self) -> int:
        """The number of sequences of an evaluator that are evaluated at a time: all, unless an encoder's images of them
        would take more than a gigabyte; then a number that divides them evenly and is at least a batch."""
        n, slots = self.evaluation_sequences, self.task.context + 1
        each = limits.FLOAT * slots * self.model.encoder.stored_values(self.source.sizes().dim)
        if each * n <= MOST_HELD:
            return n
        pairs = [(i, n // i) for i in range(1, math.isqrt(n) + 1) if n % i == 0]
        parts = sorted(part for pair in pairs for part in pair if part >= min(self.batch, n))
        return max((part for part in parts if each * part <= MOST_HELD), default=parts[0])

    def builtins(self) -> dict[str, Any]:
        """This spec in dicts, lists and scalars: what `from_builtins` reads."""
        return msgspec.to_builtins(as_data(self))

    def to_json(self) -> bytes:
        """Canonical JSON: sorted keys, every field present, numbers in the type of their field."""
        return identity.canonical_json(self)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields that differ from their defaults: the name of this
        computation. A field that a later version adds does not rename older runs; a default it changes does."""
        return identity.digest(self)

    def addresses(self) -> list[str]:
        """SHA-256 of what each member computes: all fields that differ from their defaults, those that may differ
        between members by name. Neither the choice of varied fields nor the other members of the run change it."""
        return identity.addresses(self, self.variable())


def from_json(text: bytes) -> Spec:
    """The spec in a JSON text. Raises `InputError` in one line for anything that does not fit."""
    try:
        return from_builtins(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError("spec", "JSON", str(error)) from error


def from_builtins(data: Any) -> Spec:
    """The spec in dicts, lists and scalars, with objects of a user's classes where their files were loaded. Raises
    `InputError` in one line for invalid data."""
    identity.check_json(data)
    try:
        return with_code(msgspec.convert(data, Spec))
    except msgspec.ValidationError as error:
        raise explain(error, data, Spec) from error
