"""Markov chains: a finite pool of transition matrices that training can memorise, or a new one for every prompt."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt

from ebbtide.keys import Purpose, root
from ebbtide.sources.bank import FLOAT, SeededSource, Sizes


class ChainBank(NamedTuple):
    """log P(next | state) of every chain in the pool; without a pool one chain whose rows are uniform."""

    logs: Float[Array, "pool states states"]


class Chains(SeededSource, frozen=True, tag="chains", forbid_unknown_fields=True):
    r"""Markov chains over `states` states, $P(x_{t+1} = j \mid x_t = i) = T_{ij}$, whose rows $T_i$ are drawn from
    Dirichlet(`concentration`).

    Args:
        states: the number k of states, which are the symbols of a stream.
        pool: the number N of chains that are drawn once, from the seed: the finite set of tasks of Park et al. 2025
            (2412.01003) and Gibson, Cui & Reddy 2026 (2604.12151). 0: every prompt has a chain of its own (Edelman et
            al. 2024, 2402.11004).
        concentration: the parameter of the symmetric Dirichlet distribution; 1: all rows are equally likely.
        seed: the seed of the pool.

    All chains of a pool are equally likely.

    >>> source = eb.Chains(states=3, pool=4)
    >>> source.build().logs.shape, bool(np.allclose(np.exp(source.build().logs).sum(-1), 1))
    ((4, 3, 3), True)
    """

    states: Annotated[int, msgspec.Meta(ge=2)] = 5
    pool: Annotated[int, msgspec.Meta(ge=0)] = 0
    concentration: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def bank_type(self) -> type:
        return ChainBank

    def check(self) -> None:
        """Does nothing: all sizes are compatible."""

    def sizes(self) -> Sizes:
        """Numbers of classes and features: the pool's chains are classes with one exemplar each (one class without a
        pool), states are one-hot."""
        return Sizes(max(self.pool, 1), 0, 1, 0, self.states)

    def bank_bytes(self) -> int:
        """Bytes of the pool."""
        return max(self.pool, 1) * self.states**2 * FLOAT

    def building_bytes(self) -> int:
        return 0

    def build(self) -> ChainBank:
        """The pool, drawn from `seed`."""
        if not self.pool:
            return ChainBank(jnp.full((1, self.states, self.states), -jnp.log(self.states)))
        keys = jax.random.split(root(self.seed, Purpose.SOURCE), self.pool)
        return ChainBank(jax.vmap(self.sample_prior)(keys))

    def sample_prior(self, key: Key[Array, ""]) -> Float[Array, "states states"]:
        """Logarithms of the transition probabilities of a chain drawn from the prior; none is -inf."""
        return self.sample_rows(key, self.states)

    def sample_rows(self, key: Key[Array, ""], rows: int) -> Float[Array, "rows states"]:
        """Logarithms of distributions over the states, drawn from the Dirichlet distribution; none is -inf."""
        shape = (rows, self.states)
        if self.concentration == 1:  # gamma variates are exponential ones, which are drawn all at once
            logs = jnp.log(jnp.maximum(jax.random.exponential(key, shape), jnp.finfo(jnp.float32).tiny))
        else:
            logs = jax.random.loggamma(key, self.concentration, shape)
        return jax.nn.log_softmax(logs, axis=-1)

    def sample_first(self, key: Key[Array, ""], transitions: Float[Array, "states states"]) -> Int[Array, ""]:
        """The first symbol of a stream: uniform, whatever the chain."""
        return jax.random.randint(key, (), 0, self.states)

    def look_up(
        self, bank: ChainBank, classes: Int[Array, "*slots"], exemplars: UInt[Array, "*slots"]
    ) -> Float[Array, "*slots states states"]:
        """Chains of the pool with the numbers `classes`."""
        return bank.logs[classes]
