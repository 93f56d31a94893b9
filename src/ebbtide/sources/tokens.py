"""Tokens of a language model: classes are clusters of its embedding vectors."""

from typing import Annotated, Literal

import msgspec

from ebbtide.errors import require
from ebbtide.sources.bank import FLOAT
from ebbtide.sources.features import Count, FrozenFeatures
from ebbtide.sources.omniglot import data_folder


def tokens_file(classes: int, exemplars: int) -> str:
    """The name of the file that `ebbtide data tokens` writes."""
    return f"tokens_{classes}x{exemplars}.npz"


class Tokens(FrozenFeatures, frozen=True, tag="tokens", forbid_unknown_fields=True, kw_only=True):
    """Clusters of a language model's token embeddings (Singh et al. 2023, arXiv 2311.08360, section 4.3), read from the
    folder that EBBTIDE_DATA names.

    `file_classes` and `file_exemplars` are the numbers with which the file was made (`ebbtide data tokens --classes
    1600 --exemplars 10`). The vocabulary may have filled fewer classes (`ebbtide data info` shows how many). An
    exemplar is a token, so held-out exemplars are other words of the same cluster.

    >>> eb.Tokens(file_classes=1600, file_exemplars=10).exemplars
    10
    """

    file_classes: Count = 1600
    file_exemplars: Count = 10
    classes: Count = 1500
    exemplars: Count = 10
    holdout_classes: Count = 100
    holdout_exemplars: Annotated[int, msgspec.Meta(ge=0)] = 0
    standardise: Literal["none", "coordinate", "norm", "coordinate_then_norm"] = "coordinate_then_norm"
    class_order_seed: Annotated[int, msgspec.Meta(ge=0)] | None = 1337

    def file(self) -> tuple[str, str]:
        """The path of the file and the name of the array in it. Raises `InputError`, saying how to make the file, when
        it is missing."""
        folder, name = data_folder(), tokens_file(self.file_classes, self.file_exemplars)
        command = (
            f"ebbtide data tokens --from wordllama --classes {self.file_classes} --exemplars {self.file_exemplars}"
        )
        allowed = f"needs {name} in {folder}; set EBBTIDE_DATA to a folder that has it, or make it: {command}"
        require((folder / name).is_file(), "source", "tokens", allowed)
        return str(folder / name), "features"

    def number_bytes(self) -> int:
        return FLOAT

    def data_needed(self) -> str:
        return "tokens, in the folder that EBBTIDE_DATA names"
