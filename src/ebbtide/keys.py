"""Random keys without state: every key is a pure function of (seed, purpose, index).

Initialisation, training data, evaluation and source have separate root keys, so changing one seed leaves the other
streams as they were. The generator is named explicitly, so that a change of JAX's default cannot change a stream;
golden arrays in the tests pin the streams.
"""

from enum import IntEnum

import jax
from jaxtyping import Array, Int, Key


class Purpose(IntEnum):
    """The purpose of a key. The numbers are part of every random stream: never renumber them."""

    INIT = 0
    DATA = 1
    EVALUATION = 2
    SOURCE = 3
    ORACLE = 4
    FORGETTING = 5


def root(seed: int, purpose: Purpose, index: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """The root key of a random stream: fold_in(fold_in(key(seed), purpose), index)."""
    return root_of(seed_key(seed), purpose, index)


def seed_key(seed: int) -> Key[Array, ""]:
    """key(seed), of a generator that is named explicitly."""
    return jax.random.key(seed, impl="threefry2x32")


def root_of(key: Key[Array, ""], purpose: Purpose, index: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """fold_in(fold_in(key, purpose), index): `root` of the seed that `key` was made of."""
    return jax.random.fold_in(jax.random.fold_in(key, int(purpose)), index)
