"""Linear functions for regression tasks: a pool of weights that training can memorise, and fixed representations."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt

from ebbtide.errors import require
from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import SeededSource, Sizes, array_bytes

SLOPE = 0.01
"""Slope of the leaky ReLU on its negative side."""


class FunctionBank(NamedTuple):
    """Weights of the pool (one row of zeros without a pool), and weight matrices of every representation's layers."""

    pool: Float[Array, "pool features"]
    maps: Float[Array, "representations layers features features"]


class Functions(SeededSource, frozen=True, tag="functions", forbid_unknown_fields=True):
    r"""Linear functions of a representation, $f(x) = \langle w, \phi_r(x) \rangle$ with $x, w$ of `dim` numbers.

    Weights are $w \sim N(0, \mathrm{scale}^2 I)$. Every $\phi_r$ is fixed: layers $z \leftarrow \mathrm{leaky}(Q z)$
    with random orthogonal $Q$ and slope .01 (Guo et al. 2023, 2310.10616, section 4).

    Args:
        dim: the number d of features of an input.
        pool: the number of weights that are drawn once, from the seed: the finite set of tasks of Raventos et al. 2023
            (2306.15063) and Carroll et al. 2025 (2501.17745). 0: every prompt has weights of its own.
        scale: the standard deviation of a weight; None: 1/sqrt(features), so that the response has variance 1 for
            $x \sim N(0, I)$.
        nonzero: the number s of random coordinates that are not 0, with a variance d/s times as large; None: all.
        layers: the number of layers of a representation; 0: $\phi(x) = x$.
        representations: the number of representations.
        history: for dynamical systems (task `Dynamics`), the number of last states, side by side, that are represented;
            representation and weights then have `features` = history dim numbers.
        seed: the seed of the pool and of the representations.

    >>> source = eb.Functions(dim=3, pool=4)
    >>> source.features, source.build().pool.shape
    (3, (4, 3))
    """

    dim: Annotated[int, msgspec.Meta(ge=1)] = 8
    pool: Annotated[int, msgspec.Meta(ge=0)] = 0
    scale: Annotated[float, msgspec.Meta(gt=0)] | None = None
    nonzero: Annotated[int, msgspec.Meta(ge=1)] | None = None
    layers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    representations: Annotated[int, msgspec.Meta(ge=1)] = 1
    history: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return FunctionBank

    def check(self) -> None:
        """Raises `InputError` for more nonzero weights than features, or several representations without layers."""
        if self.nonzero is not None:
            allowed = f"must be at most dim x history = {self.features}"
            require(self.nonzero <= self.features, "source.nonzero", self.nonzero, allowed)
        several = self.representations > 1 and self.layers == 0
        require(not several, "source.representations", self.representations, "must be 1 where layers = 0")

    @property
    def features(self) -> int:
        """Number of features that a representation takes and returns."""
        return self.dim * self.history

    @property
    def deviation(self) -> float:
        """Standard deviation of a weight under the prior."""
        return self.scale if self.scale is not None else self.features**-0.5

    def sizes(self) -> Sizes:
        """Numbers of classes and features: the pool's weights are classes with one exemplar each; without a pool there
        is a single class."""
        return Sizes(max(self.pool, 1), 0, 1, 0, self.dim)

    def bank_bytes(self) -> int:
        """Bytes of the pool."""
        return array_bytes(self.sizes())

    def building_bytes(self) -> int:
        return 0

    def build(self) -> FunctionBank:
        """The pool and the representations, drawn from `seed`."""
        key = root(self.seed, Purpose.SOURCE)
        pool_key, map_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        keys = jax.random.split(pool_key, max(self.pool, 1))
        pool = jax.vmap(self.sample_prior)(keys) if self.pool else jnp.zeros((1, self.features))
        square = (self.representations, self.layers, self.features, self.features)
        maps = jnp.linalg.qr(jax.random.normal(map_key, square))[0] if self.layers else jnp.zeros(square)
        return FunctionBank(pool, maps)

    def sample_prior(self, key: Key[Array, ""]) -> Float[Array, " features"]:
        """Weights drawn from the prior."""
        weights_key, choice_key = jax.random.split(key)
        w = self.deviation * jax.random.normal(weights_key, (self.features,))
        if self.nonzero is None:
            return w
        rank = jnp.argsort(jnp.argsort(jax.random.uniform(choice_key, (self.features,))))
        return jnp.where(rank < self.nonzero, w * (self.features / self.nonzero) ** 0.5, 0.0)

    def represent(
        self, bank: FunctionBank, which: Int[Array, ""], x: Float[Array, "*slots features"]
    ) -> Float[Array, "*slots features"]:
        r"""$\phi(x)$ of every input, under representation number `which`."""
        for layer in range(self.layers):
            x = jax.nn.leaky_relu(x @ bank.maps[which, layer].T, SLOPE)
        return x

    def look_up(
        self, bank: FunctionBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots features"]:
        """Weights of the pool with the numbers `classes`."""
        return bank.pool[classes]


def represent_float64(
    maps: Float[np.ndarray, "layers dim dim"], x: Float[np.ndarray, "*slots dim"]
) -> Float[np.ndarray, "*slots dim"]:
    r"""$\phi(x)$ of every input in float64, for classical predictors: as `Functions.represent` with the same layers."""
    for q in maps:
        z = x @ q.T
        x = np.where(z > 0, z, SLOPE * z)
    return x
