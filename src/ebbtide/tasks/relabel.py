"""Relabelling: how evaluators overwrite the labels of a few-shot sequence."""

import msgspec


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


Relabel = Keep | Pair | HoldoutPair | Flip | CopyQueryLabel
