"""Characters as pen strokes: their shape, the variation of the hand, and the drawing.

Lengths are in units of the image's side, y points down, angles are in radians. A stroke is the Catmull-Rom spline
through `KNOTS` knots. Every character has `STROKES` strokes in memory; one with fewer repeats its first, which draws
nothing new. All functions work on many characters at once.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt32

STROKES, KNOTS, STEPS = 4, 7, 4
"""Largest number of strokes of a character, knots of a stroke, and straight segments drawn between two knots."""

TURNS = KNOTS - 2
"""Inner knots of a stroke, at which it can turn."""

OWN = 11
"""Random words per stroke, besides one for each turn."""

SHAPE_WORDS = 2 + STROKES * (OWN + TURNS)
"""Random words that determine the shape of a character."""

HAND_WORDS = 7 + STROKES * 2 * (1 + KNOTS)
"""Random words that determine one drawing of a character."""

AMOUNT = (0.2, 0.6, 0.88)
"""Cumulative probabilities that a character has at most 1, 2 or 3 strokes."""

PEN = 0.05
"""Width of the pen, about that of Omniglot."""

MARGIN = 1 / 28
"""Distance of ink from the edge: no ink reaches the outermost pixels, from 28 pixels a side on."""

BLOCK = 64
"""Images drawn at a time, so that they stay in the processor's cache."""


class Kind(NamedTuple):
    """A kind of stroke: its probability, least and largest turn, the share of the turn at each inner knot, and its
    length."""

    probability: float
    least: float
    largest: float
    share: tuple[float, ...]
    length: float


KINDS = (
    Kind(0.36, -0.1, 0.1, (0.2, 0.2, 0.2, 0.2, 0.2), 1.0),  # line
    Kind(0.15, 1.2, 3.6, (0.2, 0.2, 0.2, 0.2, 0.2), 1.2),  # arc
    Kind(0.11, 1.8, 3.6, (0.0, 0.0, 0.2, 0.4, 0.4), 1.2),  # hook
    Kind(0.09, 1.4, 1.9, (0.0, 1.0, 0.0, 0.0, 0.0), 1.3),  # early corner
    Kind(0.08, 1.4, 1.9, (0.0, 0.0, 0.0, 1.0, 0.0), 1.3),  # late corner
    Kind(0.07, 4.8, 5.4, (0.2, 0.2, 0.2, 0.2, 0.2), 1.7),  # ring
    Kind(0.07, 1.5, 2.4, (0.0, 1.0, 0.0, -1.0, 0.0), 1.6),  # zigzag
    Kind(0.07, 1.8, 3.4, (0.5, 0.5, 0.0, -0.5, -0.5), 1.5),  # wave
)
LINE, SIMPLE = 0.36, 0.79
"""A kind drawn by u < `LINE` is a line; one by u < `SIMPLE` is no ring, zigzag or wave."""

HEADINGS = (0.0, np.pi / 2, np.pi / 4, 3 * np.pi / 4)
"""Initial directions of a stroke: right, down, down to the right, down to the left."""


def unit(words: UInt32[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Random words as numbers strictly between 0 and 1."""
    return (words.astype(np.float64) + 0.5) / 2**32


def shapes(words: UInt32[np.ndarray, "class words"]) -> Float[np.ndarray, "class stroke knot 2"]:
    """The knots of characters, relative to their middle, from `SHAPE_WORDS` words each.

    A stroke starts in one of the `HEADINGS`, give or take 5 degrees, and turns as its kind does. The stroke of a
    one-stroke character turns as two kinds do, and characters of three or four strokes have simple kinds only. From the
    second on a stroke touches a knot of an earlier one of another heading, with its beginning, its middle or its end,
    or begins a little away from it.
    """
    u = unit(words)
    count = 1 + np.searchsorted(AMOUNT, u[:, 0])
    own = u[:, 2:].reshape(len(u), STROKES, -1)
    lowest, highest = np.where(count == 1, LINE, 0.0)[:, None], np.where(count > 2, SIMPLE, 1.0)[:, None]
    kind = _kind(lowest + (highest - lowest) * own[:, :, 3])
    turns = _turns(kind, own)
    turns[:, 0] += np.where((count == 1)[:, None], turns[:, 1], 0.0)
    knots = np.empty((len(u), STROKES, KNOTS, 2))
    heading = np.empty((len(u), STROKES), int)
    each = np.arange(len(u))
    for j in range(STROKES):
        before, sets_out, slip, _, _, _, length, at, touch, away, where = own[:, j, :OWN].T
        parent = (before * j).astype(int)
        if j == 0:
            heading[:, j] = np.searchsorted((0.42, 0.8, 0.9), sets_out)
        else:
            heading[:, j] = (heading[each, parent] + 1 + (sets_out * 3).astype(int)) % 4
        first = np.array(HEADINGS)[heading[:, j]] + np.radians(5) * _normal(slip)
        angles = first[:, None] + np.concatenate([np.zeros((len(u), 1)), np.cumsum(turns[:, j], 1)], 1)
        step = np.array([k.length for k in KINDS])[kind[:, j]] * (0.6 + 0.7 * length) / (KNOTS - 1)
        moves = step[:, None, None] * _direction(angles)
        knots[:, j] = np.concatenate([np.zeros((len(u), 1, 2)), np.cumsum(moves, 1)], 1)
        if j > 0:
            there = np.where(at < 0.8, np.floor(3 * at / 0.8) * (KNOTS // 2), np.floor(KNOTS * (at - 0.8) / 0.2))
            here = np.choose(np.searchsorted((0.6, 0.85), touch), (0, KNOTS // 2, KNOTS - 1))
            shift = knots[each, parent, there.astype(int)] - knots[each, j, here]
            shift += np.where(away < 0.12, 0.3, 0.0)[:, None] * _direction(2 * np.pi * where)
            knots[:, j] += shift[:, None]
    knots = np.where((np.arange(STROKES) < count[:, None])[..., None, None], knots, knots[:, :1])
    low, high = knots.min((1, 2), keepdims=True), knots.max((1, 2), keepdims=True)
    size = (0.5 + 0.25 * u[:, 1])[:, None, None, None]
    return (knots - (low + high) / 2) * size / (high - low).max(-1, keepdims=True)


def _normal(u: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Normally distributed numbers from uniform ones."""
    from scipy.special import ndtri  # a fifth of the time that a process takes to start

    return ndtri(u)


def _kind(u: Float[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
    """The index into `KINDS` for numbers from 0 to 1, by the kinds' probabilities."""
    return np.searchsorted(np.cumsum([kind.probability for kind in KINDS])[:-1], u)


def _turns(
    kind: Int[np.ndarray, "class stroke"], own: Float[np.ndarray, "class stroke words"]
) -> Float[np.ndarray, "class stroke turn"]:
    """The turn at every inner knot: a share of the kind's turn, to either side, with 4 degrees of noise."""
    least, largest = (np.array([getattr(k, name) for k in KINDS])[kind] for name in ("least", "largest"))
    total = (least + (largest - least) * own[:, :, 4]) * np.where(own[:, :, 5] < 0.5, -1, 1)
    return total[..., None] * np.array([k.share for k in KINDS])[kind] + np.radians(4) * _normal(own[:, :, OWN:])


def _direction(angle: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 2"]:
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def drawings(
    knots: Float[np.ndarray, "image stroke knot 2"], words: UInt32[np.ndarray, "image words"], motor: float
) -> tuple[Float[np.ndarray, "image stroke point 2"], Float[np.ndarray, " image"]]:
    """Paths and pen widths of characters as drawn by a hand of variation `motor`, inside the image.

    Every deviation is Gaussian and proportional to `motor`. At 1 the standard deviations are: 0.012 along each axis for
    a knot (correlated between neighbours on a stroke), 0.018 for a stroke; 6 degrees of rotation and 0.12 of slant for
    the character, 13 % for its width and its height, 0.06 along each axis for its position; 12 % for the width of the
    pen (at most a factor of 2).
    """
    z = motor * _normal(unit(words))
    offset, noise = np.split(z[:, 7:].reshape(len(z), STROKES, 1 + KNOTS, 2), [1], 2)
    padded = np.concatenate([noise[:, :, :1], noise, noise[:, :, -1:]], 2)
    smooth = (padded[:, :, :-2] + 2 * noise + padded[:, :, 2:]) / np.sqrt(6)
    moved = knots + 0.018 * offset + 0.012 * smooth
    repeats = (knots == knots[:, :1]).all((2, 3), keepdims=True)
    moved = np.where(repeats, moved[:, :1], moved)
    turn, slant, wide, tall = 0.105 * z[:, 0], 0.12 * z[:, 1], np.exp(0.13 * z[:, 2]), np.exp(0.13 * z[:, 3])
    cos, sin = np.cos(turn), np.sin(turn)
    affine = np.stack([cos * wide, cos * slant - sin * tall, sin * wide, sin * slant + cos * tall], -1)
    points = _splines(np.einsum("nij,nskj->nski", affine.reshape(-1, 2, 2), moved))
    pen = PEN * np.clip(np.exp(0.12 * z[:, 6]), 0.5, 2)
    return _inside(points + 0.5 + 0.06 * z[:, None, None, 4:6], MARGIN + pen / 2), pen


def _splines(knots: Float[np.ndarray, "image stroke knot 2"]) -> Float[np.ndarray, "image stroke point 2"]:
    """Points on the Catmull-Rom splines through the knots, extended straight beyond the ends."""
    before, after = 2 * knots[:, :, :1] - knots[:, :, 1:2], 2 * knots[:, :, -1:] - knots[:, :, -2:-1]
    around = np.concatenate([before, knots, after], 2)
    t = np.arange(STEPS) / STEPS
    basis = 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    windows = np.stack([around[:, :, i : i + KNOTS - 1] for i in range(4)])
    points = np.einsum("wt,wnskx->nsktx", basis, windows).reshape(*knots.shape[:2], -1, 2)
    return np.concatenate([points, knots[:, :, -1:]], 2)


def _inside(
    points: Float[np.ndarray, "image stroke point 2"], margin: Float[np.ndarray, " image"]
) -> Float[np.ndarray, "image stroke point 2"]:
    """The paths moved, and shrunk where necessary, so that no point is nearer to the edge than `margin`."""
    least = margin[:, None, None, None]
    low, high = points.min((1, 2), keepdims=True), points.max((1, 2), keepdims=True)
    shrink = np.minimum(1, (1 - 2 * least) / (high - low).max(-1, keepdims=True))
    middle, half = (low + high) / 2, (high - low) / 2 * shrink
    return np.clip(middle, least + half, 1 - least - half) + (points - middle) * shrink


def render(
    points: Float[np.ndarray, "image stroke point 2"], pen: Float[np.ndarray, " image"], side: int
) -> UInt8[np.ndarray, "image side side"]:
    """Images of side x side pixels, ink = 255, of the paths drawn with round pens of the given widths.

    A pixel whose middle is r pixels away from the path gets min(max(w/2 + 1/2 - r, 0), w, 1) of the ink: the share of a
    window one pixel wide, r away from the middle of a line w wide, that the line covers.
    """
    drawn = np.empty((len(points), side, side), np.uint8)
    starts, ends = (points[:, :, s].reshape(len(points), -1, 2) for s in (slice(None, -1), slice(1, None)))
    pieces = np.concatenate([starts, ends], -1).astype(np.float32) * np.float32(side)
    width = (pen * side).astype(np.float32)
    for i in range(0, len(points), BLOCK):
        rows = np.minimum(np.arange(i, i + BLOCK), len(points) - 1)  # always a full block: one program
        block = np.asarray(_ink(jnp.asarray(pieces[rows]), jnp.asarray(width[rows]), side))
        drawn[i : i + BLOCK] = block[: len(points) - i]
    return drawn


@partial(jax.jit, static_argnames="side")
def _ink(
    pieces: Float[Array, "image piece 4"], width: Float[Array, " image"], side: int
) -> UInt8[Array, "image side side"]:
    """`render` for segments (x, y, x', y') and pens in pixels, by the squared distance to the nearest segment."""
    centre = jnp.arange(side) + 0.5
    x, y = centre[None, None, :], centre[None, :, None]
    step = pieces[..., 2:] - pieces[..., :2]
    length = jnp.sqrt((step**2).sum(-1))
    a_point = (length == 0)[..., None]  # has any direction
    way = jnp.where(a_point, jnp.asarray([1.0, 0.0]), step / jnp.where(a_point, 1.0, length[..., None]))

    def nearer(i: Array, squared: Array) -> Array:
        (ax, ay), (ux, uy) = ((v[:, i, 0, None, None], v[:, i, 1, None, None]) for v in (pieces, way))
        along = (x - ax) * ux + (y - ay) * uy
        across = (y - ay) * ux - (x - ax) * uy
        beyond = along - jnp.clip(along, 0, length[:, i, None, None])
        return jnp.minimum(squared, beyond**2 + across**2)

    far = jnp.full((len(pieces), side, side), jnp.inf, jnp.float32)
    distance = jnp.sqrt(jax.lax.fori_loop(0, pieces.shape[1], nearer, far))
    pen = width[:, None, None]
    ink = jnp.clip(pen / 2 + 0.5 - distance, 0, jnp.minimum(pen, 1))
    return jnp.round(255 * ink).astype(jnp.uint8)
