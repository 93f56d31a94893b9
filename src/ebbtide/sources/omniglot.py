"""Omniglot as frozen features: 1,623 handwritten characters, 20 drawings each."""

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from jaxtyping import Array, Float, Int, UInt

from ebbtide.errors import InputError
from ebbtide.sources import features as frozen
from ebbtide.sources.bank import Bank, Sizes

FILES = {"pca64": "omniglot_features_pca64.npz", "full": "omniglot_features.npz"}
Count = Annotated[int, msgspec.Meta(ge=1)]


def data_folder() -> Path:
    """Where data files are looked for: $EBBTIDE_DATA, else the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("EBBTIDE_DATA") or cache / "ebbtide")


class Omniglot(msgspec.Struct, frozen=True, tag="omniglot", forbid_unknown_fields=True):
    """Frozen ImageNet features of Omniglot (Lake et al. 2015): `full` (448-d) or `pca64` (64-d).

    Read from `omniglot_features.npz` or `omniglot_features_pca64.npz` in the folder that
    EBBTIDE_DATA names. Split, order and standardisation are those of `Features`.
    """

    features: Literal["pca64", "full"] = "pca64"
    classes: Count = 1500
    exemplars: Count = 15
    holdout_classes: Count = 100
    holdout_exemplars: Count = 5
    standardise: frozen.Standardise = "coordinate_then_norm"
    class_order_seed: int | None = 1337

    def check(self) -> None:
        """Raises `InputError` when the file is missing (and says how to get it) or too small."""
        frozen.check_split(self, self._shape())

    def sizes(self) -> Sizes:
        return frozen.split_sizes(self, self._shape())

    def build(self) -> Bank:
        return frozen.build(self, features.read_array(str(self._path()), "features"))

    def look_up(
        self, bank: Bank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Exemplar `exemplars[i]` of class `classes[i]`."""
        return bank.features[classes, exemplars]

    def _path(self) -> Path:
        path = data_folder() / FILES[self.features]
        if not path.is_file():
            allowed = f"needs {FILES[self.features]} in {data_folder()}; set EBBTIDE_DATA to a folder that has it (README: Data)"
            raise InputError("source", "omniglot", allowed)
        return path

    def _shape(self) -> tuple[int, ...]:
        return frozen.array_shape(str(self._path()), "features")
