"""The protocol of tasks: all that the rest of the code needs of a way to draw prompts."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec
from jaxtyping import Array, Key, UInt

from ebbtide.errors import InputError, nearest, require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.tasks.prompt import FunctionPrompt, Prompt, PromptType


@runtime_checkable
class Task(Protocol):
    """A way to draw prompts: a frozen struct with a tag of its own, listed in `training/kinds.py`.

    The loss, the tokens of models and the use of the compiled kernel follow from the type of a task's prompts
    (`tasks/prompt.py`), of which there are two. The memory that a task needs follows from `context`, `outputs` and its
    source.
    """

    @property
    def prompt_type(self) -> PromptType:
        """The type of the prompts; a constant."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics (`evaluation/metrics.py`) of every prompt of an evaluation, in the order of the last
        axis of every metric array; a constant."""
        ...

    @property
    def context(self) -> int:
        """Number of pairs before the query; a field."""
        ...

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` for fields that do not go together, or cannot be drawn from `source`. Reads no file."""
        ...

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` unless a model whose tokens are made by `pairing` (`models/model.py`) can read the
        prompts."""
        ...

    def outputs(self, source: SourceLike) -> int:
        """Number of labels of a model's read-out; 0 where a response is a real number, or a vector of real numbers."""
        ...

    def evaluators(self) -> tuple[str, ...]:
        """Names of all evaluators of the task, in the order of their stream numbers: append, never insert."""
        ...

    def evaluator(self, name: str, source: SourceLike) -> "Evaluator":
        """The evaluator `name` for models trained on this task and source. Raises `InputError` for an unknown name."""
        ...

    def check_evaluator(self, name: str, source: SourceLike) -> None:
        """Raises `InputError` when there is no such evaluator, or it cannot be drawn from `source`."""
        ...

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: Any, split: Split
    ) -> Prompt | FunctionPrompt:
        """Prompts with the numbers `index` of the stream `key`: prompt i is a pure function of (key, i), whatever the
        batch size. Can be compiled."""
        ...


@runtime_checkable
class CellTask(Protocol):
    """A task whose prompts may be `CellPrompt`s answers one more question."""

    def cells(self, source: SourceLike) -> int:
        """Number of cells of a response; 0 where the prompts are no `CellPrompt`s."""
        ...


class Evaluator(NamedTuple):
    """A distribution of prompts with the metric by which it is reported, and the classes and exemplars it draws from.

    `task` is derived from the training task. `stream` is part of the evaluator's random stream: never renumber.
    `headline` is one of the task's metrics that has a chance level; `group` is the number of labels of a class that
    count as right.
    """

    name: str
    stream: int
    task: Task
    headline: str
    split: Split
    group: int = 1


class FunctionTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of the tasks of functions in context: prompts of pairs in which every response is predicted.

    A subclass defines `context`, `check`, `check_pairing`, `evaluators`, `variant`, `outputs` and `sample`; one whose
    responses are neither numbers nor labels `metrics` and the `headline` among them too.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("loss", "query_loss", "explained")

    @property
    def prompt_type(self) -> PromptType:
        return FunctionPrompt

    @property
    def headline(self) -> str:
        """The metric by which all evaluators are reported."""
        return "explained"

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `variant`."""
        raise NotImplementedError

    def variant(self, name: str) -> "FunctionTask":
        """The task of the evaluator `name`, one of `evaluators`."""
        raise NotImplementedError

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` for fields that do not go together, or cannot be drawn from `source`."""
        raise NotImplementedError

    def evaluator(self, name: str, source: SourceLike) -> Evaluator:
        """The evaluator `name`: a `variant` of this task, reported by its headline."""
        names = self.evaluators()
        if name not in names:
            raise InputError("evaluators", name, f"must be one of {', '.join(names)}{nearest(name, names)}")
        task: Any = self.variant(name)
        return Evaluator(name, names.index(name), task, self.headline, source.sizes().split())

    def check_evaluator(self, name: str, source: SourceLike) -> None:
        """Raises `InputError` when there is no such evaluator, or it cannot be drawn from `source`."""
        self.evaluator(name, source).task.check(source)


def check_pairs(pairing: str) -> None:
    """`Task.check_pairing` of a task whose prompts are pairs of an input and a response. Raises `InputError` for a
    model over states, which has no token for a response."""
    require(pairing != "states", "model.pairing", pairing, "states are for streams: each predicts the next")


def check_stream(pairing: str, task: str) -> None:
    """`Task.check_pairing` of a `task` (its tag) in which every input is predicted from those before it. Raises
    `InputError` unless the model reads states."""
    require(pairing == "states", "model.pairing", pairing, f"must be states for the task {task}")
