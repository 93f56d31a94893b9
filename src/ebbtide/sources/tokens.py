"""Tokens of a language model: classes are clusters of its embedding vectors."""

from typing import Annotated, Literal

import msgspec

from ebbtide.errors import InputError
from ebbtide.sources.features import Count, FrozenFeatures
from ebbtide.sources.omniglot import data_folder


def tokens_file(classes: int, exemplars: int) -> str:
    """The name of the file that `ebbtide data tokens` makes."""
    return f"tokens_{classes}x{exemplars}.npz"
