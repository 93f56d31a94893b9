"""Tokens of a language model: classes are clusters of its embedding vectors."""

from typing import Annotated

import msgspec

from ebbtide.errors import InputError
from ebbtide.sources.features import Count, FrozenFeatures
from ebbtide.sources.omniglot import data_folder

Clustering = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,6}x[1-9][0-9]{0,6}$")]


class Tokens(FrozenFeatures, frozen=True, tag="tokens", forbid_unknown_fields=True, kw_only=True):
    """Token embeddings clustered into classes (arXiv 2311.08360, section 4.3), from `tokens_CxE.npz` in the
    folder that EBBTIDE_DATA names; `clustering` is that CxE, "1600x10" or "3200x5" in the paper.

    The file's classes are in the order farthest first; `class_order_seed = null` keeps it, so that held-out
    classes are those that lie nearest to the others. A class has few tokens: by default all are trained on.
    """

    clustering: Clustering = "1600x10"
    classes: Count = 1400
    exemplars: Count = 10
    holdout_classes: Count = 100
    holdout_exemplars: Annotated[int, msgspec.Meta(ge=0)] = 0

    def file(self) -> tuple[str, str]:
        """Raises `InputError`, saying how to make the file, when it is missing."""
        classes, _, exemplars = self.clustering.partition("x")
        path = data_folder() / tokens_file(int(classes), int(exemplars))
        if not path.is_file():
            make = f"ebbtide data tokens --from wordllama --classes {classes} --exemplars {exemplars}"
            allowed = (
                f"needs {path.name} in {path.parent}; set EBBTIDE_DATA to a folder that has it, or make it: {make}"
            )
            raise InputError("source", "tokens", allowed)
        return str(path), "features"


def tokens_file(classes: int, exemplars: int) -> str:
    """The name of the file that `ebbtide data tokens` makes."""
    return f"tokens_{classes}x{exemplars}.npz"
