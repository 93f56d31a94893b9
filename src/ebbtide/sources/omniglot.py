"""Omniglot: 1,623 handwritten characters, 20 drawings each, as pixels or as frozen features."""

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from jaxtyping import Array, Float, Int, UInt

from ebbtide.errors import InputError, require
from ebbtide.machine import cache_folder
from ebbtide.sources.bank import FLOAT, Bank
from ebbtide.sources.drawings import FILE, drawings_shape, read_drawings
from ebbtide.sources.features import Count, FrozenFeatures, array_shape, read_array
from ebbtide.sources.images import eight_transforms, look_up_pixels, pixel_bank
from ebbtide.sources.layout import TRANSFORMS, Layout, shuffle_characters, to_released_order

Kind = Literal["pca64", "full", "pixels", "hog", "efficientnet-lite0", "resnet18"]
NETWORK = "efficientnet-lite0"
OTHER_NAMES = {
    f"omniglot_{NETWORK}_pca64.npz": "omniglot_features_pca64.npz",
    f"omniglot_{NETWORK}.npz": "omniglot_features.npz",
}
"""Older names of feature files, beside the name that `ebbtide data features` gives; they are read where they exist."""


def data_folder() -> Path:
    """The folder of data files: $EBBTIDE_DATA, else the user's cache folder."""
    return Path(os.environ.get("EBBTIDE_DATA") or cache_folder())


def features_file(encoder: str, *, transforms: bool = False, pca: int = 0) -> str:
    """The name of the file that `ebbtide data features` writes."""
    eight, dims = "_x8" if transforms else "", f"_pca{pca}" if pca else ""
    return f"omniglot_{encoder}{eight}{dims}.npz"


class Omniglot(FrozenFeatures, frozen=True, tag="omniglot", forbid_unknown_fields=True, kw_only=True):
    """Characters of Omniglot (Lake et al. 2015), read from the folder that EBBTIDE_DATA names.

    `features`: `pixels` of `side` x `side` (one byte each, looked up as float32 in [0, 1], ink = 1; `standardise` must
    be "none"); or frozen features of the images: `full` or `efficientnet-lite0` (the same: 448 numbers), `resnet18`
    (512 numbers), `hog` (512 numbers, no network). `pca` > 0 takes the first `pca` principal components of them;
    `pca64` is `full` with `pca = 64`. `standardise = "none"` gives features as they are stored, as the public code of
    Singh et al. 2023 takes those of ResNet-18.

    Classes are permuted once, as in the public code of Chan et al. 2022 (arXiv 2205.05055). With `transforms` each
    character makes eight classes (`eight_transforms`; 12,984 in all): row 8 c + t is character c under transform t,
    characters stay together in the permutation, and held-out classes must be whole characters. `layout =
    "released_script"` takes the rows as the public feature script of Singh et al. 2023 writes them
    (`released_script_order`); without `transforms` the first eighth of them, as in that script's file "norotate".

    >>> eb.Omniglot(features="pixels", side=28, standardise="none").known_dim()
    784
    """

    features: Kind = "pca64"
    classes: Count = 1500
    holdout_classes: Count = 100
    standardise: Literal["none", "coordinate", "norm", "coordinate_then_norm"] = "coordinate_then_norm"
    class_order_seed: Annotated[int, msgspec.Meta(ge=0)] | None = 1337
    side: Annotated[int, msgspec.Meta(ge=28, le=105)] = 105
    transforms: bool = False
    layout: Layout = "correct"
    pca: Annotated[int, msgspec.Meta(ge=0)] = 0

    def file(self) -> tuple[str, str]:
        """The path of the file and the name of the array in it. Raises `InputError`, saying how to get the data, when
        the file is missing."""
        folder, array = data_folder(), "features"
        if self.features == "pixels":
            names, array, command = (FILE,), "images_packed", "ebbtide data fetch omniglot"
        else:
            encoder = NETWORK if self.features in ("pca64", "full") else self.features
            pca = 64 if self.features == "pca64" else self.pca
            name = features_file(encoder, transforms=self._eight(), pca=pca)
            names = (OTHER_NAMES[name], name) if name in OTHER_NAMES else (name,)
            command = f"ebbtide data features --encoder {encoder}"
            command += f"{' --augment' if self._eight() else ''}{f' --pca {pca}' if pca else ''}"
        for name in names:
            if (folder / name).is_file():
                return str(folder / name), array
        allowed = f"needs {names[0]} in {folder}; set EBBTIDE_DATA to a folder that has it, or make it: {command}"
        raise InputError("source", "omniglot", allowed)

    def check(self) -> None:
        """Raises `InputError` for fields that contradict each other."""
        if self.features == "pixels":
            allowed = "pixels are kept as bytes: must be 'none'"
            require(self.standardise == "none", "source.standardise", self.standardise, allowed)
        reducible = self.features not in ("pixels", "pca64")
        require(reducible or self.pca == 0, "source.pca", self.pca, f"must be 0 with features = {self.features!r}")
        super().check()

    def check_data(self) -> None:
        """Raises `InputError` for missing data, too many classes, or a character divided between training and held-out
        classes."""
        super().check_data()
        if self._eight():
            self._check_whole_characters()

    def number_bytes(self) -> int:
        """One byte for a pixel."""
        return 1 if self.features == "pixels" else FLOAT

    def data_needed(self) -> str:
        return f"omniglot ({self.features}), in the folder that EBBTIDE_DATA names"

    def known_dim(self) -> int | None:
        """The number of pixels of an image, or of principal components."""
        if self.features == "pixels":
            return self.side**2
        return 64 if self.features == "pca64" else self.pca or None

    def shape(self) -> tuple[int, ...]:
        """(classes, exemplars, features) of the data."""
        path, array = self.file()
        if self.features == "pixels":
            characters, each = drawings_shape(Path(path))
            rows, dim = characters * (TRANSFORMS if self.transforms else 1), self.side**2
            return rows, each, dim
        rows, each, dim = array_shape(path, array)
        if self._eight():
            allowed = f"{Path(path).name} has {rows} classes: not eight for each character"
            require(rows % TRANSFORMS == 0, "source.transforms", self.transforms, allowed)
        return (rows if self.transforms or not self._eight() else rows // TRANSFORMS), each, dim

    def read(self) -> np.ndarray:
        """All rows in their layout: floats [class, exemplar, feature], or bytes [class, exemplar, side, side]."""
        path, array = self.file()
        if self.features == "pixels":
            images = read_drawings(Path(path)).pixels(self.side)
            rows = eight_transforms(images) if self._eight() else images
        else:
            rows = read_array(path, array)
        rows = to_released_order(rows) if self.layout == "released_script" else rows
        return rows[: self.shape()[0]]

    def order(self, have: int) -> np.ndarray:
        """A permutation of the classes that keeps the eight classes of a character together."""
        if not self._eight():
            return super().order(have)
        return shuffle_characters(np.arange(have), TRANSFORMS, self.class_order_seed)

    def build(self) -> Bank:
        """The bank: features are standardised, pixels stay bytes."""
        return pixel_bank(self.select(self.read())) if self.features == "pixels" else super().build()

    def look_up(
        self, bank: Bank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Exemplar `exemplars[i]` of class `classes[i]`."""
        found = look_up_pixels if self.features == "pixels" else super().look_up
        return found(bank, classes, exemplars)

    def _check_whole_characters(self) -> None:
        character = self.order(self.shape()[0]) // TRANSFORMS
        first = len(character) - self.holdout_classes  # where the held-out ones begin
        better = first
        while 0 < better < len(character) and character[better - 1] == character[better]:
            better -= 1
        allowed = f"must be whole characters of {TRANSFORMS} classes each, e.g. {len(character) - better}"
        require(better == first, "source.holdout_classes", self.holdout_classes, allowed)

    def _eight(self) -> bool:
        """Whether a row is a character under one transform, or a mixture of such."""
        return self.transforms or self.layout == "released_script"
