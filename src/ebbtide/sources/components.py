"""Standardised principal components of images."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

ROWS = 4096
"""Images multiplied at a time."""


def principal_components(
    pixels: UInt8[np.ndarray, "class exemplar pixel"], classes: int, exemplars: int, count: int
) -> Float[np.ndarray, "class exemplar {count}"]:
    """The first `count` principal components of all images, fitted to the first `classes` classes' first `exemplars`
    exemplars.

    Every coordinate has zero mean and unit variance over the images of the fit. The sign of an axis is chosen so that
    its largest weight is positive.
    """
    from scipy.linalg import eigh

    train = pixels[:classes, :exemplars].reshape(-1, pixels.shape[-1])
    mean, size = train.mean(0, dtype=np.float64), pixels.shape[-1]
    squares = np.zeros((size, size))
    for block in _blocks(train):
        squares += (block - mean).T @ (block - mean)
    variance, axes = eigh(squares / len(train), subset_by_index=[size - count, size - 1])
    variance, axes = variance[::-1], axes[:, ::-1]
    sign = np.sign(axes[np.abs(axes).argmax(0), np.arange(count)])
    axes = axes * sign / np.sqrt(np.maximum(variance, 1e-9))
    flat = pixels.reshape(-1, size)
    projected = np.concatenate([((block - mean) @ axes).astype(np.float32) for block in _blocks(flat)])
    return projected.reshape(*pixels.shape[:2], count)


def _blocks(rows: UInt8[np.ndarray, "row pixel"]) -> Iterator[np.ndarray]:
    yield from (rows[i : i + ROWS] for i in range(0, len(rows), ROWS))
