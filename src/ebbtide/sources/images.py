"""Images as exemplars: eight transforms of every character, and a bank with one byte per pixel."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt, UInt8

from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import Bank

INK = 255
"""The byte of a pixel that is all ink."""


def eight_transforms(
    images: Shaped[np.ndarray, "class exemplar side side"],
) -> Shaped[np.ndarray, "eight_classes exemplar side side"]:
    """Eight classes for every class: its rotations and mirror images, the same transform for all its exemplars.

    Class 8 c + 4 f + k is class c, mirrored left to right if f = 1, then turned by k * 90 degrees counter-clockwise.
    The eight are consecutive, so that a permutation of classes can keep them together (Chan et al. 2022, arXiv
    2205.05055; the 12,800 classes of Singh et al. 2023, arXiv 2311.08360).
    """
    transformed = np.empty((len(images), 8, *images.shape[1:]), images.dtype)
    for flip in (0, 1):
        image = images[..., ::-1] if flip else images
        for k in range(4):
            transformed[:, 4 * flip + k] = np.rot90(image, k, axes=(-2, -1))
    return transformed.reshape(-1, *images.shape[1:])


def pixel_bank(images: UInt8[np.ndarray, "class exemplar side side"]) -> Bank:
    """The bank of images with ink = 255: flattened row by row, one byte per pixel (a quarter of float32)."""
    return Bank(jnp.asarray(images.reshape(*images.shape[:2], -1)), root(0, Purpose.SOURCE), jnp.float32(0))


def look_up_pixels(
    bank: Bank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
) -> Float[Array, "*slots dim"]:
    """Exemplar `exemplars[i]` of class `classes[i]` as float32 in [0, 1], ink = 1."""
    return bank.features[classes, exemplars].astype(jnp.float32) / INK
