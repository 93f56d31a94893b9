"""The task of affine recurrences in context: terms of one recurrence, each of which is predicted from those before."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.sources.recurrences import ModularBank, ModularRecurrences, RecurrenceBank, Recurrences
from ebbtide.tasks import draws
from ebbtide.tasks.prompt import FunctionPrompt, Parts, function_prompts
from ebbtide.tasks.task import FunctionTask, check_stream
from ebbtide.traced import kind_name


class Recurrence(FunctionTask, frozen=True, tag="recurrence", forbid_unknown_fields=True):
    r"""Sequences of the terms $s_0, s_1, \dots$ of one affine recurrence, $s_{n+1} = a s_n + b + \sigma \epsilon_n$
    with $\epsilon_n \sim N(0, 1)$ (Bhargav & Gu 2024, arXiv 2410.17438, without noise).

    The input of slot n is $s_n$ and its response $s_{n+1}$; the query is slot number `context`. Of
    `Recurrences` terms are vectors of real numbers. Of `ModularRecurrences` they are symbols: inputs are one-hot,
    responses labels, and there is no noise.

    Args:
        context: the number of slots before the query: a prompt shows `context` + 1 terms and asks for one more.
        noise: the standard deviation of the noise, sigma.
        draw: "pool": recurrences of the source's pool, where it has one; "prior": recurrences that are not in the pool.
        zipf: the exponent a of the probabilities of the pool's recurrences, p(c) ~ (c + 1)^-a for number c; 0: all are
            equally likely.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size. `latent` has the recurrence, `a`
    and `b` (a matrix [batch, dim, dim] and a vector [batch, dim], or whole numbers [batch]), and its number in the
    pool, `member` (-1: not from a pool).

    >>> task, source = eb.Recurrence(context=6), eb.Recurrences(pool=4)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> prompt = task.sample(jax.random.key(0), index, source, source.build(), split)
    >>> prompt.responses.shape, prompt.latent["a"].shape  # [slot, batch, dim], [batch, dim, dim]
    ((7, 5, 1), (5, 1, 1))
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 14
    noise: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    draw: Literal["pool", "prior"] = "pool"
    zipf: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source has recurrences, and the noise is one that its terms can have."""
        known = isinstance(source, Recurrences | ModularRecurrences)
        allowed = "must be recurrences or modular_recurrences for the task recurrence"
        require(known, "source", kind_name(source), allowed)
        symbols = isinstance(source, ModularRecurrences)
        require(not symbols or self.noise == 0, "task.noise", self.noise, "must be 0 for symbols")
        assert isinstance(source, Recurrences | ModularRecurrences)
        draws.check_pool_weights(self.zipf, source.pool)

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` unless the model reads states."""
        check_stream(pairing, "recurrence")

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `variant`."""
        return ("train", "prior")

    def variant(self, name: str) -> "Recurrence":
        """The task of the evaluator `name`: `train` (prompts as in training) or `prior` (recurrences outside the pool,
        which cannot have been memorised)."""
        return self if name == "train" else replace(self, draw="prior")

    def outputs(self, source: SourceLike) -> int:
        """Number of symbols; 0 where a response is a vector of real numbers."""
        return source.modulus if isinstance(source, ModularRecurrences) else 0

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: object, split: Split
    ) -> FunctionPrompt:
        """Prompts with the numbers `index` of the stream `key`."""
        if isinstance(source, ModularRecurrences):
            assert isinstance(bank, ModularBank)
            return function_prompts(lambda own: self._symbols(own, source, bank), key, index)
        assert isinstance(source, Recurrences) and isinstance(bank, RecurrenceBank)
        return function_prompts(lambda own: self._numbers(own, source, bank), key, index)

    def _numbers(self, key: Key[Array, ""], source: Recurrences, bank: RecurrenceBank) -> Parts:
        choice_key, prior_key, start_key, noise_key = jax.random.split(key, 4)
        if source.pool and self.draw == "pool":
            member = draws.pool_member(choice_key, source.pool, self.zipf)
            a, b = bank.matrices[member], bank.offsets[member]
        else:
            member, (a, b) = jnp.int32(-1), source.sample_prior(prior_key)
        shocks = self.noise * jax.random.normal(noise_key, (self.context + 1, source.dim))

        def after(term: Array, shock: Array) -> tuple[Array, Array]:
            new = (a * term).sum(-1) + b + shock
            return new, new

        first = source.sample_start(start_key)
        _, terms = jax.lax.scan(after, first, shocks)
        inputs = jnp.concatenate([first[None], terms[:-1]])
        return inputs, terms, jnp.ones(self.context, bool), {"a": a, "b": b, "member": member}

    def _symbols(self, key: Key[Array, ""], source: ModularRecurrences, bank: ModularBank) -> Parts:
        choice_key, start_key = jax.random.split(key)
        p = source.modulus
        pooled = source.pool > 0 and self.draw == "pool"
        if pooled:
            member = draws.pool_member(choice_key, source.pool, self.zipf)
        else:
            member = jax.random.randint(choice_key, (), source.pool, source.recurrences)
        a, b = bank.order[member] // p, bank.order[member] % p

        def after(term: Array, _: None) -> tuple[Array, Array]:
            return (a * term + b) % p, term

        first = jax.random.randint(start_key, (), 0, p)
        last, terms = jax.lax.scan(after, first, None, length=self.context + 1)
        responses = jnp.append(terms[1:], last).astype(jnp.int32)
        latent = {"a": a, "b": b, "member": member if pooled else jnp.int32(-1)}
        return jax.nn.one_hot(terms, p), responses, jnp.ones(self.context, bool), latent
