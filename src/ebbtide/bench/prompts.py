"""The bursty few-shot task in NumPy on the host, batch first, for the plain implementations.

The same distribution as that of `FewShot` in the measured configurations, but not the same random stream.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebbtide.tasks.fewshot import FewShot
from ebbtide.training.spec import Spec


class Batch(NamedTuple):
    """A batch of sequences, the query exemplar last."""

    exemplars: Float[np.ndarray, "batch slots dim"]
    labels: Int[np.ndarray, "batch context"]
    target: Int[np.ndarray, " batch"]


class HostSampler:
    """A sampler of batches from a table of Gaussian exemplars."""

    def __init__(self, spec: Spec, seed: int = 0):
        assert isinstance(spec.task, FewShot)
        sizes = spec.source.sizes()
        self.task, self.batch = spec.task, spec.batch
        self.labels = spec.task.labels.total(sizes.classes)
        self.random = np.random.default_rng(seed)
        self.table = self.random.standard_normal((sizes.classes, sizes.exemplars, sizes.dim), np.float32)

    def draw(self) -> Batch:
        """The next batch: query copies, distractor copies and the rest in random order, then the query."""
        task, n, random = self.task, self.batch, self.random
        classes, exemplars, _ = self.table.shape
        query = random.integers(classes, size=(n, 1))
        other = (query + 1 + random.integers(classes - 1, size=(n, 1))) % classes
        rest = random.integers(classes, size=(n, task.context - 2 * task.burst))
        context = np.concatenate([query.repeat(task.burst, 1), other.repeat(task.burst, 1), rest], axis=1)
        chosen = np.concatenate([random.permuted(context, axis=1), query], axis=1)
        labels = chosen % self.labels
        drawn = self.table[chosen, random.integers(exemplars, size=chosen.shape)]
        return Batch(drawn, labels[:, :-1], labels[:, -1])
