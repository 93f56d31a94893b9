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
from ebbtide.tasks.task import FunctionTask


class Dynamics(FunctionTask, frozen=True, tag="dynamics", forbid_unknown_fields=True):
    r"""Sequences of `context` + 1 states, the last of which is the query, of

    $$x_{t+1} = W \phi_r(h_t / \mathrm{rms}(h_t)) + \sigma \epsilon_t, \quad h_t = [x_{t-k+1}; \dots; x_t], \quad
    x_1 \sim N(0, I_d),$$

    states before the first being 0 (after Guo et al. 2023, arXiv 2310.10616, the dynamical setting). $\phi_r$ is one of
    the source's representations (`Functions`), of `history` = k states side by side; every row of W is drawn for the
    prompt as weights are. The input of slot t is $x_t$, its response $x_{t+1}$, a vector: coordinate by coordinate a
    linear regression on $\phi_r$, with ridge as its posterior mean.

    rms is the root of the mean square. Without it some systems grow without bound: with 2 states of 2 numbers, noise .3
    and one leaky layer 3 in 100 have a state beyond 100 after 24 steps, though the mean square of most falls.

    Example i of a stream is a pure function of (root key, i), whatever the batch size.
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 24
    noise: Annotated[float, msgspec.Meta(ge=0)] = 0.3

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("loss", "query_loss", "explained")

    @property
    def headline(self) -> str:
        return "explained"

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source is `Functions` without a pool."""
        tag = source.__struct_config__.tag  # pyright: ignore[reportAttributeAccessIssue]
        require(isinstance(source, Functions), "source", tag, "must be functions for the task dynamics")
        assert isinstance(source, Functions)
        require(source.pool == 0, "source.pool", source.pool, "must be 0: every prompt has a system of its own")

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` unless the model reads states."""
        require(pairing == "states", "model.pairing", pairing, "must be states for the task dynamics")

    def evaluators(self) -> tuple[str, ...]:
        """Names of its instruments, in the order of their stream indices: training's prompts."""
        return ("train",)

    def variant(self, name: str) -> "Dynamics":
        """The task of an evaluator."""
        return self

    def outputs(self, source: SourceLike) -> int:
        """Labels of a response: none, it is a vector of real numbers."""
        return 0

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: FunctionBank, split: Split
    ) -> FunctionPrompt:
        """Examples `index` of the stream `key`; `latent["weights"]` is W, [batch, dim, features]."""
        assert isinstance(source, Functions)
        return function_prompts(lambda own: self._one(own, source, bank), key, index)

    def _one(
        self, key: Key[Array, ""], source: Functions, bank: FunctionBank
    ) -> tuple[Float[Array, "slots dim"], Float[Array, "slots dim"], Array, dict[str, Array]]:
        start_key, weights_key, choice_key, noise_key = jax.random.split(key, 4)
        weights = jax.vmap(source.fresh)(jax.random.split(weights_key, source.dim))
        which = jax.random.randint(choice_key, (), 0, source.representations)
        noise = self.noise * jax.random.normal(noise_key, (self.context + 1, source.dim))
        first = jax.random.normal(start_key, (source.dim,))

        def after(history: Float[Array, " features"], shock: Float[Array, " dim"]) -> tuple[Array, Array]:
            state = source.represent(bank, which, scaled(history)) @ weights.T + shock
            return jnp.concatenate([history[source.dim :], state]), state

        before = jnp.zeros(source.features).at[-source.dim :].set(first)
        _, states = jax.lax.scan(after, before, noise)
        inputs = jnp.concatenate([first[None], states[:-1]])
        return inputs, states, jnp.ones(self.context, bool), {"weights": weights, "representation": which}


def scaled(history: Any) -> Any:
    """An array [*slots, features] of NumPy or JAX with a root mean square of 1 over the features; zeros stay zeros."""
    square = (history**2).mean(-1, keepdims=True)
    return history / (square + (square == 0)) ** 0.5
