"""The bursty few-shot task for models of other frameworks: evaluation prompts and training batches in NumPy, batch
first."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ebbtide.errors import require
from ebbtide.evaluation import evaluators as instruments
from ebbtide.evaluation.metrics import chance
from ebbtide.evaluation.oracles import ORACLES
from ebbtide.evaluation.strategies import NEEDED, OracleProbabilities, oracle_probabilities
from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import SourceLike
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import FewShot
from ebbtide.tasks.labels import Polysemy
from ebbtide.tasks.prompt import Prompt, part
from ebbtide.tasks.task import Evaluator

EVALUATORS = ("train", "icl", "icl_reserved", "icl_holdout", "iwl", "ciwl", "flip")
SOURCE, TASK = Gaussian(), FewShot()
LAST_SEQUENCE = 2**32 - 1
ORACLE_BATCH = 512
"""Prompts evaluated by an oracle at a time: its logits hold every label."""


class Batch(NamedTuple):
    """Sequences of `context` (example, label) pairs and a query example, the last; `target` is its label."""

    examples: Float[np.ndarray, "batch slots dim"]
    labels: Int[np.ndarray, "batch context"]
    target: Int[np.ndarray, " batch"]


def batch_first(prompt: Prompt) -> Batch:
    """The visible part of a prompt, and the target: float32 and int64, writable copies."""
    examples = np.array(np.swapaxes(prompt.exemplars, 0, 1), np.float32, order="C")
    labels = np.array(np.swapaxes(prompt.labels, 0, 1), np.int64, order="C")
    return Batch(examples, labels, np.array(prompt.target, np.int64))


class FewShotSuite:
    """Evaluation prompts and training batches of `task` over the classes of `source`.

    `sequences` prompts for each of `evaluators` (names: `FewShot.evaluator`) are drawn from
    `seed` when the suite is made, and stay. They are those of an ebbtide run with `seeds.evaluation = seed` and as
    many `evaluation_sequences`: its curves and a model's from outside are read by the same instruments. Labels are
    the integers 0 to `outputs` - 1, of which the task's `reserved_labels` last ones never occur in training.

    Raises `InputError` for a task or an evaluator that cannot be drawn from this source (an odd `context`, too
    few classes), an unknown evaluator, fewer than 2 sequences, a seed outside 0 to 2^31 - 1.

    Source: Singh et al. 2023 (2311.08360) sections 2 and 3; Singh et al. 2025 (2503.05631) section 2.

    >>> suite = eb.FewShotSuite(evaluators=("icl",), sequences=8)
    >>> suite.prompts("icl").examples.shape  # [sequence, slot, feature]
    (8, 3, 64)
    """

    def __init__(
        self,
        *,
        source: SourceLike = SOURCE,
        task: FewShot = TASK,
        evaluators: str | Sequence[str] = EVALUATORS,
        sequences: int = 500,
        seed: int = 0,
    ):
        names = (evaluators,) if isinstance(evaluators, str) else tuple(evaluators)
        require(isinstance(source, SourceLike), "source", source, "must be a source, e.g. eb.Gaussian()")
        require(isinstance(task, FewShot), "task", task, "must be a task, e.g. eb.FewShot()")
        whole_number("sequences", sequences, 2)
        whole_number("seed", seed, 0, 2**31 - 1)
        source.check()
        source.check_data()
        task.check(source)
        instruments.check(names, task, source)
        sizes = source.sizes()
        self.source, self.task, self.names = source, task, names
        self.sequences, self.seed = sequences, seed
        self.context, self.dim, self.outputs = task.context, sizes.dim, task.outputs(source)
        self._bank = source.build()
        self._suite = instruments.build_suite(names, task, source, self._bank, sequences=sequences, seed=seed)
        self._host = {name: jax.tree.map(np.asarray, self._suite.of(name)) for name in names}
        self._oracles: dict[str, OracleProbabilities] = {}
        self._chance: dict[str, dict[str, float]] = {}
        self._sample = jax.jit(lambda key, index, bank: task.sample(key, index, source, bank, sizes.split()))

    @property
    def evaluators(self) -> tuple[Evaluator, ...]:
        """The evaluators, in the order of `names`."""
        return self._suite.evaluators

    def prompt(self, name: str) -> Prompt:
        """Prompts of one evaluator as drawn: token-major, with their latent variables. Raises `InputError` if the suite
        has no such evaluator."""
        require(name in self.names, "evaluator", name, f"must be one of the suite's: {', '.join(self.names)}")
        return self._host[name]

    def prompts(self, name: str) -> Batch:
        """Prompts of one evaluator as a model gets them: NumPy arrays, batch first. Raises `InputError` if the suite
        has no such evaluator."""
        return batch_first(self.prompt(name))

    def batches(self, size: int, *, seed: int = 0, start: int = 0) -> Iterator[Batch]:
        """Training batches of `size` sequences, without end: sequences start, start + 1, ... of the stream of `seed`,
        on which member 0 of an ebbtide run with `seeds.data = seed` trains. Sequence i is the same whatever the size.
        Raises `InputError` for a size below 1 and for a start or a seed below 0."""
        whole_number("size", size, 1, LAST_SEQUENCE)
        whole_number("seed", seed, 0, 2**31 - 1)
        whole_number("start", start, 0, LAST_SEQUENCE)
        return self._batches(root(seed, Purpose.DATA), size, start)

    def _batches(self, key: jax.Array, size: int, start: int) -> Iterator[Batch]:
        while start + size <= LAST_SEQUENCE:
            index = jnp.uint32(start) + jnp.arange(size, dtype=jnp.uint32)
            yield batch_first(self._sample(key, index, self._bank))
            start += size

    def chance(self, name: str) -> dict[str, float]:
        """Value of a uniform guess by every metric (`evaluation.metrics.chance`)."""
        if name not in self._chance:
            group = self.evaluators[self.names.index(name)].group
            self._chance[name] = chance(self._suite.of(name), self.outputs, group)
        return self._chance[name]

    @property
    def tells_strategies(self) -> bool:
        """Whether fractions of strategies can be estimated: the suite has all evaluators of `strategies.NEEDED`, and
        one label per class (of several labels the oracles know only the one that the sequence picked)."""
        return set(NEEDED) <= set(self.names) and not isinstance(self.task.labels, Polysemy)

    def oracle_probabilities(self, name: str) -> OracleProbabilities:
        """Probabilities of every oracle for the prompts of one evaluator (computed once)."""
        if name not in self._oracles:
            starts = range(0, self.sequences, ORACLE_BATCH)
            parts = [part(self.prompt(name), i, min(ORACLE_BATCH, self.sequences - i)) for i in starts]
            self._oracles[name] = OracleProbabilities.join(
                [oracle_probabilities(one, self.outputs, ORACLES) for one in parts]
            )
        return self._oracles[name]


def whole_number(field: str, value: int, least: int, most: int | None = None) -> None:
    """Raises `InputError` unless `value` is an integer from `least` to `most`."""
    allowed = f"must be a whole number from {least}" + ("" if most is None else f" to {most}")
    good = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(good and value >= least and (most is None or value <= most), field, value, allowed)
