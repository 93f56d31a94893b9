"""Random integers by index arithmetic, at a cost that does not depend on the number of classes.

All functions work on one sequence (scalars); batches come from `jax.vmap`. Random integers are `bits % n` of 32 random
bits, so that a probability is off by at most n / 2^32 of its value.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt

from ebbtide.errors import require
from ebbtide.traced import Traced

Word = UInt[Array, ""]
Index = Int[Array, ""]


def integer(word: Word, n: int) -> Index:
    """A random integer, uniform on 0 .. n-1."""
    return (word % jnp.uint32(n)).astype(jnp.int32)


def unit(word: Word) -> Float[Array, ""]:
    """A random number, uniform on [0, 1) in steps of 2^-24."""
    return (word >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def ascending(values: list[Index]) -> list[Index]:
    """The given few values in ascending order."""
    return list(jnp.sort(jnp.stack(values))) if len(values) > 1 else values


def skip(r: Index, taken: list[Index]) -> Index:
    """The r-th of the integers 0, 1, 2, ... that are not in `taken` (distinct values)."""
    for t in ascending(taken):
        r = r + (r >= t)
    return r


def distinct(words: UInt[Array, " k"], n: int, taken: list[Index] | None = None) -> list[Index]:
    """k different integers from 0 .. n-1, none of them in `taken`, uniform over ordered choices."""
    seen = list(taken or [])
    start = len(seen)
    for word in words:
        seen.append(skip(integer(word, n - len(seen)), seen))
    return seen[start:]


def other_label(r: Index, label: Index, labels: int) -> Index:
    """The r-th of the classes 0, 1, 2, ... whose label `class mod labels` is not `label`.

    Classes lie in rows of `labels`; every row holds labels - 1 allowed ones. With as many labels as classes this is the
    r-th class other than `label`.
    """
    row, column = r // (labels - 1), r % (labels - 1)
    return row * labels + column + (column >= label)


def zipf_weights(classes: int, exponent: Traced | Array) -> Float[Array, " classes"]:
    """Probabilities proportional to (c + 1)^-exponent for class c; class 0 is the most frequent."""
    ranks = jnp.arange(1, classes + 1, dtype=jnp.float32)
    weights = jnp.exp(-exponent * jnp.log(ranks))
    return weights / weights.sum()


def pool_member(key: Key[Array, ""], pool: int, exponent: float) -> Int[Array, ""]:
    """The number of one task of a pool, with probabilities `zipf_weights`."""
    if exponent == 0:
        return jax.random.randint(key, (), 0, pool)
    edges = jnp.cumsum(zipf_weights(pool, exponent))[:-1]  # without the last, so that rounding cannot lead beyond it
    return (jax.random.uniform(key) >= edges).sum().astype(jnp.int32)


def check_pool_weights(exponent: float, pool: int) -> None:
    """Raises `InputError` for tasks of unequal probability where there is no pool of them."""
    require(exponent == 0 or pool > 0, "task.zipf", exponent, "must be 0 without a pool (source.pool)")


def weighted(
    word: Word, weights: Float[Array, " n"], edges: Float[Array, " n_plus_1"], taken: list[Index] | None = None
) -> Index:
    """One draw with probabilities `weights`, restricted to values not in `taken`.

    `edges` is the cumulative sum with a leading 0. By inverse transform: the mass of the taken values is cut out of the
    unit interval, so that no rejection is needed; the cost is O(log n).
    """
    taken = ascending(list(taken or []))
    left = edges[-1]
    for t in taken:
        left = left - weights[t]
    u = unit(word) * left
    for t in taken:
        u = jnp.where(u >= edges[t], u + weights[t], u)
    n = weights.shape[0]
    c = jnp.clip(jnp.searchsorted(edges, u, side="right") - 1, 0, n - 1).astype(jnp.int32)
    for t in taken + taken:  # rounding may land on the edge of a taken value: step off it, twice past the end
        c = jnp.where(c == t, (c + 1) % n, c)
    return c
