"""Relabelling: how the labels of a few-shot sequence are overwritten, by evaluators and by label noise."""

from typing import Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Int, UInt

from ebbtide.tasks.draws import unit
from ebbtide.tasks.labels import first_occurrence
from ebbtide.traced import Traced


class Pair(msgspec.Struct, frozen=True, tag="pair", forbid_unknown_fields=True):
    """Relabelling of the ICL evaluator: the query's class and the distractor's class get the two `labels` in random
    order, in the context and as the target. The labels must differ and be below the number of the read-out's labels.

    >>> task = eb.FewShot(context=4, burst=2, rest="no_support", relabel=eb.Pair((0, 1)))
    >>> source = eb.Gaussian(classes=64, dim=8, holdout_classes=8)
    >>> task.check(source)
    """

    labels: tuple[int, int] = (0, 1)


class HoldoutPair(msgspec.Struct, frozen=True, tag="holdout_pair", forbid_unknown_fields=True):
    """Relabelling: the query's class and the distractor's class get, in random order, a pair of labels that never occur
    together in training. Needs the labels `PerSequence` with `holdout_pairs`.

    >>> eb.FewShot(labels=eb.PerSequence(count=5, holdout_pairs=2), relabel=eb.HoldoutPair()).labels.pairs()
    10
    """


class Flip(msgspec.Struct, frozen=True, tag="flip", forbid_unknown_fields=True):
    """Relabelling: the query's class and the distractor's class swap their labels, and the target is the query's new
    label. ICL is right then, and the weights are wrong.

    >>> eb.FewShot(relabel=eb.Flip()).relabel
    Flip()
    """


class CopyQueryLabel(msgspec.Struct, frozen=True, tag="copy_query_label", forbid_unknown_fields=True):
    """Relabelling of the CIWL evaluator: one random slot of the context gets the label of the query's class, and keeps
    its exemplar. The target stays.

    >>> eb.FewShot(burst=0, rest="unique", relabel=eb.CopyQueryLabel()).relabel
    CopyQueryLabel()
    """


class Keep(msgspec.Struct, frozen=True, tag="keep", forbid_unknown_fields=True):
    """No relabelling: every label is that of its class.

    >>> eb.FewShot().relabel
    Keep()
    """


class LabelNoise(msgspec.Struct, frozen=True, tag="label_noise", forbid_unknown_fields=True):
    """Label noise of training: labels are replaced with probability `share` by one that is drawn uniformly from all
    labels of the task, the right one among them. The evaluators other than `train` have no noise.

    Args:
        share: the probability of a draw; a traced field, so it may differ between members.
        of: the labels that are drawn. "context": every label of the context by itself, so that it is the context that
            cannot be trusted (as in Ku et al. 2025, arXiv 2505.09855); "target": the target alone, which neither the
            context nor the weights can then tell; "classes": every class of the sequence by itself, in the context and
            as the target alike, so that it is the weights that cannot be trusted.

    In the public code of Chan et al. 2025 (arXiv 2410.23042, github.com/chanb/simple_icl) labels of the context and the
    target change independently: "context" and "target" at once.

    >>> eb.FewShot(relabel=eb.LabelNoise(share=0.1)).relabel.of
    'classes'
    """

    share: Traced = 0.1
    of: Literal["context", "target", "classes"] = "classes"

    def draw(
        self, labels: Int[Array, " slots"], classes: Int[Array, " slots"], words: UInt[Array, " slots"], total: int
    ) -> Int[Array, " slots"]:
        """The labels of a sequence, whose last slot is the query, with some of them drawn from `total` labels. A random
        number u, uniform on [0, 1), decides on both: there is a draw where u < share, and u / share is uniform then."""
        u = jax.vmap(unit)(words[first_occurrence(classes)] if self.of == "classes" else words)
        drawn = jnp.minimum(u / jnp.maximum(self.share, 1e-9) * total, total - 1).astype(labels.dtype)
        last = jnp.arange(labels.shape[0]) == labels.shape[0] - 1
        may = {"context": ~last, "target": last, "classes": jnp.ones_like(last)}[self.of]
        return jnp.where(may & (u < self.share), drawn, labels)


Relabel = Keep | Pair | HoldoutPair | Flip | CopyQueryLabel | LabelNoise
