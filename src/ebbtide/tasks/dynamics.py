"""Dynamical systems in context: states of one random system, each of which is predicted from those before it."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key, UInt

from ebbtide.errors import require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.sources.functions import FunctionBank, Functions
from ebbtide.tasks.prompt import FunctionPrompt, function_prompts
from ebbtide.tasks.task import FunctionTask, check_stream
from ebbtide.traced import kind_name


class Dynamics(FunctionTask, frozen=True, tag="dynamics", forbid_unknown_fields=True):
    r"""Sequences of `context` + 1 states, the last of which is the query, of

    $$x_{t+1} = W \phi_r(h_t / \mathrm{rms}(h_t)) + \sigma \epsilon_t, \quad h_t = [x_{t-k+1}; \dots; x_t], \quad
    x_1 \sim N(0, I_d),$$

    where states before the first are 0 (after Guo et al. 2023, arXiv 2310.10616, the dynamical setting). $\phi_r$ is
    one of the source's representations (`Functions`), of `history` = k states side by side; every row of W is drawn for
    the prompt as weights are. The input of slot t is $x_t$, its response $x_{t+1}$, a vector: coordinate by coordinate
    a linear regression on $\phi_r$, with ridge as its posterior mean.

    rms is the root of the mean square. Without it some systems grow without bound: with 2 states of 2 numbers, noise .3
    and one leaky layer 3 in 100 have a state beyond 100 after 24 steps, though the mean square of most falls.

    Args:
        context: the number of states before the query.
        noise: the standard deviation of the noise, sigma.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size.

    >>> task, source = eb.Dynamics(context=6), eb.Functions(dim=2, history=2, layers=1)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> task.sample(jax.random.key(0), index, source, source.build(), split).responses.shape  # [slot, batch, dim]
    (7, 5, 2)
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 24
    noise: Annotated[float, msgspec.Meta(ge=0)] = 0.3

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source is `Functions` without a pool."""
        tag = kind_name(source)
        require(isinstance(source, Functions), "source", tag, "must be functions for the task dynamics")
        assert isinstance(source, Functions)
        require(source.pool == 0, "source.pool", source.pool, "must be 0: every prompt has a system of its own")

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` unless the model reads states."""
        check_stream(pairing, "dynamics")

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators: `train`, prompts as in training."""
        return ("train",)

    def variant(self, name: str) -> "Dynamics":
        """The task of the evaluator `name`: this one."""
        return self

    def outputs(self, source: SourceLike) -> int:
        """0: a response is a vector of real numbers, no label."""
        return 0

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: FunctionBank, split: Split
    ) -> FunctionPrompt:
        """Prompts with the numbers `index` of the stream `key`; `latent["weights"]` is W, [batch, dim, features]."""
        assert isinstance(source, Functions)
        return function_prompts(lambda own: self._one(own, source, bank), key, index)

    def _one(
        self, key: Key[Array, ""], source: Functions, bank: FunctionBank
    ) -> tuple[Float[Array, "slots dim"], Float[Array, "slots dim"], Array, dict[str, Array]]:
        start_key, weights_key, choice_key, noise_key = jax.random.split(key, 4)
        weights = jax.vmap(source.sample_prior)(jax.random.split(weights_key, source.dim))
        which = jax.random.randint(choice_key, (), 0, source.representations)
        noise = self.noise * jax.random.normal(noise_key, (self.context + 1, source.dim))
        first = jax.random.normal(start_key, (source.dim,))

        def after(history: Float[Array, " features"], shock: Float[Array, " dim"]) -> tuple[Array, Array]:
            state = source.represent(bank, which, scale_to_unit_rms(history)) @ weights.T + shock
            return jnp.concatenate([history[source.dim :], state]), state

        before = jnp.zeros(source.features).at[-source.dim :].set(first)
        _, states = jax.lax.scan(after, before, noise)
        inputs = jnp.concatenate([first[None], states[:-1]])
        return inputs, states, jnp.ones(self.context, bool), {"weights": weights, "representation": which}


def scale_to_unit_rms(history: Any) -> Any:
    """The array [*slots, features] (NumPy or JAX), scaled to a root mean square of 1 over the features; zeros stay
    zeros."""
    square = (history**2).mean(-1, keepdims=True)
    return history / (square + (square == 0)) ** 0.5
