"""Urns: a finite pool of distributions over colours that training can memorise, or a new urn for every prompt."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ebbtide.sources.chains import Chains


class Urns(Chains, frozen=True, tag="urns", forbid_unknown_fields=True):
    r"""Urns of balls in V = `states` colours, drawn with replacement: $P(x_t = v) = \theta_v$, whatever came before,
    with $\theta$ from Dirichlet(`concentration`). An urn is a Markov chain whose rows are all $\theta$, so everything
    that is said of `Chains` holds, but for the first symbol: it is a draw from the urn too.

    Args:
        states: the number V of colours, which are the symbols of a stream.
        pool: the number D of urns that are drawn once, from the seed: the finite set of tasks of Wurgaft et al. 2025
            (2506.17859). 0: every prompt has an urn of its own.
        concentration: the parameter of the symmetric Dirichlet distribution; 1: all urns are equally likely.
        seed: the seed of the pool.

    All urns of a pool are equally likely.

    >>> source = eb.Urns(states=8, pool=4)
    >>> urns = np.exp(source.build().logs)
    >>> urns.shape, bool((urns == urns[:, :1]).all())
    ((4, 8, 8), True)
    """

    def sample_prior(self, key: Key[Array, ""]) -> Float[Array, "states states"]:
        """Logarithms of the probabilities of colours in an urn drawn from the prior, once for every row."""
        return jnp.broadcast_to(self.sample_rows(key, 1), (self.states, self.states))

    def sample_first(self, key: Key[Array, ""], transitions: Float[Array, "states states"]) -> Int[Array, ""]:
        """The first colour, drawn from the urn."""
        return jax.random.categorical(key, jnp.log(transitions[0]))
