"""Omniglot as frozen features: 1,623 handwritten characters, 20 drawings each."""

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ebbtide.errors import InputError
from ebbtide.sources.features import Count, FrozenFeatures

FILES = {"pca64": "omniglot_features_pca64.npz", "full": "omniglot_features.npz"}


def data_folder() -> Path:
    """Where data files are looked for: $EBBTIDE_DATA, else the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("EBBTIDE_DATA") or cache / "ebbtide")


class Omniglot(FrozenFeatures, frozen=True, tag="omniglot", forbid_unknown_fields=True, kw_only=True):
    """Frozen ImageNet features of Omniglot (Lake et al. 2015): `full` (448-d) or `pca64` (64-d).

    Read from `omniglot_features.npz` or `omniglot_features_pca64.npz` in the folder that
    EBBTIDE_DATA names. Classes are shuffled once, as in the public code of Chan et al. 2022.
    """

    features: Literal["pca64", "full"] = "pca64"
    classes: Count = 1500
    holdout_classes: Count = 100
    standardise: Literal["none", "coordinate", "norm", "coordinate_then_norm"] = "coordinate_then_norm"
    class_order_seed: Annotated[int, msgspec.Meta(ge=0)] | None = 1337

    def file(self) -> tuple[str, str]:
        """Raises `InputError`, saying how to get the data, when the file is missing."""
        name, folder = FILES[self.features], data_folder()
        if not (folder / name).is_file():
            allowed = f"needs {name} in {folder}; set EBBTIDE_DATA to a folder that has it (see Data in the README)"
            raise InputError("source", "omniglot", allowed)
        return str(folder / name), "features"
