"""How the labels of a few-shot sequence are overwritten, for evaluators."""

import msgspec


class Pair(msgspec.Struct, frozen=True, tag="pair", forbid_unknown_fields=True):
    """Relabel: query class and distractor class get `labels` in random order (the ICL evaluator)."""

    labels: tuple[int, int] = (0, 1)


class HoldoutPair(msgspec.Struct, frozen=True, tag="holdout_pair", forbid_unknown_fields=True):
    """Relabel: query class and distractor class get a pair of labels held out from training, in random order."""


class Flip(msgspec.Struct, frozen=True, tag="flip", forbid_unknown_fields=True):
    """Relabel: query class and distractor class swap their labels; so does the target."""


class CopyQueryLabel(msgspec.Struct, frozen=True, tag="copy_query_label", forbid_unknown_fields=True):
    """Relabel: the label of one random context slot becomes the query's own (the CIWL evaluator)."""


class Keep(msgspec.Struct, frozen=True, tag="keep", forbid_unknown_fields=True):
    """No relabelling."""


Relabel = Keep | Pair | HoldoutPair | Flip | CopyQueryLabel
