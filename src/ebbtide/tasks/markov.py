"""Markov chains in context: a stream of symbols of one chain, each of which is predicted from those before it."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.sources.chains import ChainBank, Chains
from ebbtide.tasks import draws
from ebbtide.tasks.prompt import FunctionPrompt, function_prompts
from ebbtide.tasks.task import FunctionTask, check_stream
from ebbtide.traced import kind_name


class Markov(FunctionTask, frozen=True, tag="markov", forbid_unknown_fields=True):
    r"""Streams of `context` + 1 symbols of one Markov chain, each of which is to be followed by the next: the input of
    slot t is $x_t$ (one-hot), its response the number of $x_{t+1} \sim T_{x_t}$, with one transition matrix T for the
    whole prompt, drawn from the source's pool or, with `draw = "prior"`, made anew. Without a pool every prompt has a
    chain of its own (Edelman et al. 2024, arXiv 2402.11004; Park et al. 2025, arXiv 2412.01003).

    The first symbol of a chain is uniform, and so tells nothing of the chain: the posterior of each row of T given the
    stream is then a Dirichlet distribution with the counts of its transitions. After a first symbol from the chain's
    stationary distribution, as the papers draw it, it is not. The first symbol of `Urns` is from the urn.

    Args:
        context: the number of symbols before the last, the query.
        draw: "pool": chains of the source's pool, if it has one; "prior": a new chain for every prompt.
        zipf: the exponent a of the probabilities of the pool's chains, p(c) ~ (c + 1)^-a for number c; 0: all are
            equally likely.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size. `latent["chain"]` [batch] is the
    chain's number in the pool (-1: made anew), `latent["transitions"]` [batch, state, next state] its probabilities.

    >>> task, source = eb.Markov(context=6), eb.Chains(states=3)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    >>> prompt.inputs.shape, prompt.responses.shape, prompt.latent["chain"].tolist()
    ((7, 5, 3), (7, 5), [-1, -1, -1, -1, -1])
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 31
    draw: Literal["pool", "prior"] = "pool"
    zipf: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source is `Chains`."""
        tag = kind_name(source)
        require(isinstance(source, Chains), "source", tag, "must be chains for the task markov")
        assert isinstance(source, Chains)
        draws.check_pool_weights(self.zipf, source.pool)

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` unless the model reads states."""
        check_stream(pairing, "markov")

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `variant`."""
        return ("train", "prior")

    def variant(self, name: str) -> "Markov":
        """The task of the evaluator `name`: `train` (prompts as in training), or `prior` (chains made anew)."""
        return self if name == "train" else replace(self, draw="prior")

    def outputs(self, source: SourceLike) -> int:
        """Number of states."""
        assert isinstance(source, Chains)
        return source.states

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: ChainBank, split: Split
    ) -> FunctionPrompt:
        """Prompts with the numbers `index` of the stream `key`."""
        assert isinstance(source, Chains)
        return function_prompts(lambda own: self._one(own, source, bank), key, index)

    def _one(
        self, key: Key[Array, ""], source: Chains, bank: ChainBank
    ) -> tuple[Float[Array, "slots states"], Int[Array, " slots"], Array, dict[str, Array]]:
        chain_key, first_key, next_key = jax.random.split(key, 3)
        pooled = self.draw == "pool" and source.pool > 0
        chain = draws.pool_member(chain_key, source.pool, self.zipf) if pooled else jnp.int32(-1)
        transitions = jnp.exp(bank.logs[chain] if pooled else source.sample_prior(chain_key))
        first = source.sample_first(first_key, transitions)
        after = draw_next(transitions, jax.random.uniform(next_key, (self.context + 1,)))

        def step(state: Int[Array, ""], followers: Int[Array, " states"]) -> tuple[Array, Array]:
            return followers[state], followers[state]

        _, responses = jax.lax.scan(step, first, after)
        symbols = jnp.concatenate([first[None], responses[:-1]])
        latent = {"chain": chain, "transitions": transitions}
        return jax.nn.one_hot(symbols, source.states), responses, jnp.ones(self.context, bool), latent


def draw_next(
    transitions: Float[Array, "states states"], uniform: Float[Array, " slots"]
) -> Int[Array, "slots states"]:
    """The state that would follow every state at every slot, by inversion of the cumulative probabilities at a uniform
    number of the slot."""
    edges = jnp.cumsum(transitions[:, :-1], axis=-1)  # without the last, so that rounding cannot lead beyond it
    return (uniform[:, None, None] >= edges).sum(-1).astype(jnp.int32)
