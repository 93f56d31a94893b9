"""Glyphs: handwriting-like characters drawn from a seed; needs no data file."""

from functools import partial, reduce
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt, UInt8, UInt32

from ebbtide.errors import require
from ebbtide.keys import Purpose, root
from ebbtide.sources import strokes
from ebbtide.sources.bank import FLOAT, Bank, SeededSource, Sizes, array_bytes, check_counts
from ebbtide.sources.components import principal_components
from ebbtide.sources.images import look_up_pixels, pixel_bank
from ebbtide.traced import Traced

COMPONENTS = 64
"""Coordinates of `pca64`."""

HELD_OUT = 2**31
"""Held-out classes and exemplars are numbered from here, so that they do not depend on the number of training ones."""

CHUNK = 4096
"""Images drawn at a time."""


class Glyphs(SeededSource, frozen=True, tag="glyphs", forbid_unknown_fields=True):
    """Characters of one to four pen strokes, each drawn anew by an unsteady hand.

    The strokes of a class (lines, arcs, rings, hooks, corners, zigzags, waves, most of them touching)
    are a pure function of (seed, class); an exemplar, of (seed, class, exemplar): the knots and the
    strokes are displaced, the character turned, slanted, stretched and moved, the pen is wider or
    thinner, all in proportion to `motor` (0: all exemplars of a class are the same image; see
    `strokes.drawings` for the amounts). Counts and `side` change neither the characters nor the hand,
    and held-out classes and exemplars stay the same when there are more for training.

    `features`: `pixels` (side * side values from 0 to 1, ink = 1, row by row; one byte each in memory) or
    `pca64` (the first 64 principal components of the training exemplars of the training classes, each
    with zero mean and unit variance there).

    >>> eb.Glyphs(classes=2, exemplars=3, holdout_classes=1, holdout_exemplars=0).images().shape
    (3, 3, 28, 28)
    """

    classes: int = 1024
    exemplars: int = 15
    side: int = 28
    features: Literal["pixels", "pca64"] = "pixels"
    motor: Traced = 1.0
    holdout_classes: int = 128
    holdout_exemplars: int = 5
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return Bank

    def check(self) -> None:
        """Raises `InputError` for sizes that cannot be drawn."""
        check_counts(self)
        for name in ("classes", "exemplars", "holdout_classes", "holdout_exemplars"):
            require(getattr(self, name) <= HELD_OUT, f"source.{name}", getattr(self, name), "must be at most 2^31")
        most, why = (105, "") if self.features == "pixels" else (56, " with pca64")
        require(28 <= self.side <= most, "source.side", self.side, f"must be from 28 to {most}{why}")
        require(0 <= self.motor <= 10, "source.motor", self.motor, "must be from 0 to 10")
        if self.features == "pca64":
            different = self.classes * (self.exemplars if self.motor > 0 else 1)
            allowed = f"{COMPONENTS} components need more than {COMPONENTS} different training images, not {different}"
            require(different > COMPONENTS, "source.features", self.features, allowed)

    def sizes(self) -> Sizes:
        dim = self.side**2 if self.features == "pixels" else COMPONENTS
        return Sizes(self.classes, self.holdout_classes, self.exemplars, self.holdout_exemplars, dim)

    def bank_bytes(self) -> int:
        """Bytes of all images, one for each pixel, or of their components."""
        return array_bytes(self.sizes(), 1 if self.features == "pixels" else FLOAT)

    def building_bytes(self) -> int:
        """Bytes of the images whose components are taken."""
        return 0 if self.features == "pixels" else array_bytes(self.sizes()._replace(dim=self.side**2), 1)

    def build(self) -> Bank:
        """The bank of every exemplar, drawn from `seed`."""
        images = self.images()
        if self.features == "pixels":
            return pixel_bank(images)
        features = principal_components(images.reshape(*images.shape[:2], -1), self.classes, self.exemplars, COMPONENTS)
        return Bank(jnp.asarray(features), root(0, Purpose.SOURCE), jnp.float32(0))

    def look_up(
        self, bank: Bank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots dim"]:
        """Exemplar `exemplars[i]` of class `classes[i]`."""
        if self.features == "pixels":
            return look_up_pixels(bank, classes, exemplars)
        return bank.features[classes, exemplars]

    def images(self) -> UInt8[np.ndarray, "class exemplar side side"]:
        """All exemplars, ink = 255: training classes first, then held-out ones; likewise within a class."""
        classes = _numbers(self.classes, self.holdout_classes)
        exemplars = _numbers(self.exemplars, self.holdout_exemplars)
        knots = self._knots(classes)
        drawn = np.empty((len(classes) * len(exemplars), self.side, self.side), np.uint8)
        for i in range(0, len(drawn), CHUNK):
            c, e = np.divmod(np.arange(i, min(i + CHUNK, len(drawn))), len(exemplars))
            drawn[i : i + CHUNK] = self._render(knots[c], classes[c], exemplars[e])
        return drawn.reshape(len(classes), len(exemplars), self.side, self.side)

    def draw(self, place: int, exemplar: int) -> UInt8[np.ndarray, "side side"]:
        """A single one of `images`: exemplar number `exemplar` of the class in this place."""
        own = _numbers(self.classes, self.holdout_classes)[[place]]
        number = _numbers(self.exemplars, self.holdout_exemplars)[[exemplar]]
        return self._render(self._knots(own), own, number)[0]

    def _knots(self, classes: Int[np.ndarray, " class"]) -> Float[np.ndarray, "class stroke knot 2"]:
        """The strokes of classes, by their numbers in the random stream."""
        key = jax.random.fold_in(root(self.seed, Purpose.SOURCE), 0)
        return strokes.shapes(_words(key, classes[:, None], strokes.SHAPE_WORDS))

    def _render(
        self,
        knots: Float[np.ndarray, "image stroke knot 2"],
        classes: Int[np.ndarray, " image"],
        exemplars: Int[np.ndarray, " image"],
    ) -> UInt8[np.ndarray, "image side side"]:
        """The images of exemplars of classes, by their numbers in the random stream."""
        key = jax.random.fold_in(root(self.seed, Purpose.SOURCE), 1)
        words = _words(key, np.stack([classes, exemplars], -1), strokes.HAND_WORDS)
        return strokes.render(*strokes.drawings(knots, words, self.motor), self.side)


def _numbers(train: int, held_out: int) -> Int[np.ndarray, " number"]:
    """The numbers of classes or exemplars in the random stream: training ones, then held-out ones."""
    return np.concatenate([np.arange(train), HELD_OUT + np.arange(held_out)])


def _words(key: Key[Array, ""], numbers: Int[np.ndarray, "row level"], count: int) -> UInt32[np.ndarray, "row count"]:
    """`count` random words for each row: the bits of fold_in(... fold_in(key, first number) ...)."""
    rows = 1 << (len(numbers) - 1).bit_length()  # a power of two: few programs
    padded = np.zeros((rows, numbers.shape[1]), np.uint32)
    padded[: len(numbers)] = numbers
    return np.asarray(_bits(key, jnp.asarray(padded), count))[: len(numbers)]


@partial(jax.jit, static_argnames="count")
def _bits(key: Key[Array, ""], numbers: UInt32[Array, "row level"], count: int) -> UInt32[Array, "row count"]:
    def one(row: Array) -> Array:
        return jax.random.bits(reduce(jax.random.fold_in, row, key), (count,), jnp.uint32)

    return jax.vmap(one)(numbers)
