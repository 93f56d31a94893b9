"""The task of regression in context: pairs (x, y) of one function, then a query input."""

from typing import Annotated, Literal, get_args

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Int, Key, UInt
from msgspec.structs import replace

from ebbtide.errors import require
from ebbtide.sources.bank import SourceLike, Split
from ebbtide.sources.functions import FunctionBank, Functions
from ebbtide.tasks.prompt import FunctionPrompt, function_prompts
from ebbtide.tasks.task import FunctionTask, check_pairs
from ebbtide.traced import kind_name

Shift = Literal[
    "none",
    "skewed",
    "subspace",
    "shrunk",
    "stretched",
    "orthants",
    "orthogonal",
    "repeated",
    "sorted",
    "noisy",
]
"""Names of the differences between an evaluator's prompts and training's: see `Regression`."""
SHIFTS: tuple[Shift, ...] = get_args(Shift)[1:]
STRETCH = 2.0
NOISY = 1.0


class Regression(FunctionTask, frozen=True, tag="regression", forbid_unknown_fields=True):
    r"""Sequences of `context` pairs and a query, $y_t = f(x_t) + \sigma \epsilon_t$ with $x_t \sim N(0, I_d)$ and one
    function f for the whole prompt (Garg et al. 2022, arXiv 2208.01066).

    Args:
        context: the number of pairs before the query.
        noise: standard deviations $\sigma$, one of which is chosen at random for every prompt.
        draw: "pool": f has weights from the source's pool, where it has one; "prior": new weights for every prompt. In
            both cases its representation is chosen at random among those of the source (`Functions`).
        link: the response: "linear": y; "sign": the class 1[y > 0]; "step": the number -1 or +1; "mixed": y or its
            step, at random for every prompt.
        lengths: "random": a prompt has 1 to `context` pairs, uniformly, and the others are masked; for models that read
            the query alone.
        shift: how the inputs of a prompt differ from standard normal ones; see below.

    Shifts, with d the dimension (after Garg et al. 2022, section 4, and Ahuja & Lopez-Paz 2023, arXiv 2305.16704):
    - `skewed`: covariance with eigenvalues ~ 1/i^2 in a random basis, trace d;
    - `subspace`: all inputs in a random subspace of ceil(d/2) dimensions, squared norm d on average;
    - `shrunk`, `stretched`: inputs divided or multiplied by 2;
    - `orthants`: context inputs in one random orthant, the query free;
    - `orthogonal`: the query is orthogonal to the context's inputs (as far as context < d leaves room);
    - `repeated`: the query is one of the context's inputs, with a response of its own noise;
    - `sorted`: context pairs in order of increasing response;
    - `noisy`: noise of standard deviation 1, whatever `noise` says.

    Prompt i of a stream is a pure function of (root key, i), whatever the batch size.

    >>> task, source = eb.Regression(context=4, noise=(0.1,)), eb.Functions(dim=2)
    >>> index, split = jax.numpy.arange(5, dtype="uint32"), source.sizes().split()
    >>> task.sample(jax.random.key(0), index, source, source.build(), split).inputs.shape  # [slot, batch, dim]
    (5, 5, 2)
    """

    context: Annotated[int, msgspec.Meta(ge=1)] = 16
    noise: tuple[Annotated[float, msgspec.Meta(ge=0)], ...] = (0.5,)
    draw: Literal["pool", "prior"] = "pool"
    link: Literal["linear", "sign", "step", "mixed"] = "linear"
    lengths: Literal["full", "random"] = "full"
    shift: Shift = "none"

    def check(self, source: SourceLike) -> None:
        """Raises `InputError` unless the source is `Functions` and the fields go together."""
        tag = kind_name(source)
        require(isinstance(source, Functions), "source", tag, "must be functions for the task regression")
        assert isinstance(source, Functions)
        require(source.history == 1, "source.history", source.history, "must be 1: it is for the task dynamics")
        require(0 < len(self.noise) <= 64, "task.noise", list(self.noise), "name 1 to 64 standard deviations")
        if self.shift == "orthogonal":
            allowed = f"needs context = {self.context} below source.dim = {source.dim}"
            require(self.context < source.dim, "task.shift", self.shift, allowed)

    def check_pairing(self, pairing: str) -> None:
        """Raises `InputError` for a model over states, and, for prompts of random lengths, for a model that predicts at
        every length anyway."""
        check_pairs(pairing)
        allowed = "must be full for a model that answers every length anyway (all but those over joint tokens)"
        require(pairing == "joint" or self.lengths == "full", "task.lengths", self.lengths, allowed)

    def evaluators(self) -> tuple[str, ...]:
        """Names of the evaluators, in the order of their stream numbers: see `variant`."""
        return ("train", "prior", *SHIFTS)

    def variant(self, name: str) -> "Regression":
        """The task of the evaluator `name`: `train` (prompts as in training), `prior` (new weights for every prompt, so
        that a memorised pool does not help), or a shift, with functions as in training. All prompts have their full
        length."""
        full = replace(self, lengths="full")
        if name == "train":
            return full
        return replace(full, draw="prior") if name == "prior" else replace(full, shift=name)

    def outputs(self, source: SourceLike) -> int:
        """Number of labels: 2 for the link "sign", else 0 (a response is a real number)."""
        return 2 if self.link == "sign" else 0

    def sample(
        self, key: Key[Array, ""], index: UInt[Array, " batch"], source: SourceLike, bank: FunctionBank, split: Split
    ) -> FunctionPrompt:
        """Prompts with the numbers `index` of the stream `key`."""
        assert isinstance(source, Functions)
        return function_prompts(lambda own: self._one(own, source, bank), key, index)

    def _one(
        self, key: Key[Array, ""], source: Functions, bank: FunctionBank
    ) -> tuple[Float[Array, "slots dim"], Array, Array, dict[str, Array]]:
        inputs_key, weights_key, choice_key, noise_key, shift_key = jax.random.split(key, 5)
        choices = jax.random.bits(choice_key, (4,), "uint32")

        def choose(i: int, of: int) -> Int[Array, ""]:
            return (choices[i] % jnp.uint32(of)).astype(jnp.int32)

        pooled = self.draw == "pool" and source.pool > 0
        member = choose(0, source.pool) if pooled else jnp.int32(-1)
        weights = bank.pool[member] if pooled else source.sample_prior(weights_key)
        which, level = choose(1, source.representations), choose(2, len(self.noise))
        x = apply_shift(self.shift, jax.random.normal(inputs_key, (self.context + 1, source.dim)), shift_key)
        clean = source.represent(bank, which, x) @ weights
        sd = NOISY if self.shift == "noisy" else jnp.asarray(self.noise, x.dtype)[level]
        y = clean + sd * jax.random.normal(noise_key, clean.shape)
        if self.shift == "sorted":
            order = jnp.append(jnp.argsort(y[:-1]), self.context)
            x, y = x[order], y[order]
        length = 1 + choose(3, self.context) if self.lengths == "random" else self.context
        present = jnp.arange(self.context) < length
        latent = {"weights": weights, "member": member, "representation": which, "level": level}
        return x, self._response_of(y, choice_key), present, latent

    def _response_of(self, y: Float[Array, " slots"], key: Key[Array, ""]) -> Array:
        """The response to y: y itself, its class or its step (see `link`)."""
        step = jnp.where(y > 0, 1.0, -1.0)
        match self.link:
            case "linear":
                return y
            case "sign":
                return (y > 0).astype(jnp.int32)
            case "step":
                return step
        return jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 1)), step, y)


def apply_shift(shift: Shift, x: Float[Array, "slots dim"], key: Key[Array, ""]) -> Float[Array, "slots dim"]:
    """Inputs under a shift, made from standard normal ones; the query is the last slot."""
    dim = x.shape[1]
    match shift:
        case "skewed" | "subspace":
            basis = jnp.linalg.qr(jax.random.normal(key, (dim, dim)))[0]
            rank = jnp.arange(dim)
            spread = 1.0 / (rank + 1.0) ** 2 if shift == "skewed" else (rank < -(-dim // 2)) * 1.0
            return x * jnp.sqrt(spread * dim / spread.sum()) @ basis.T
        case "shrunk":
            return x / STRETCH
        case "stretched":
            return x * STRETCH
        case "orthants":
            signs = jnp.where(jax.random.bernoulli(key, shape=(dim,)), 1.0, -1.0)
            return x.at[:-1].set(jnp.abs(x[:-1]) * signs)
        case "orthogonal":
            span = jnp.linalg.qr(x[:-1].T)[0]
            rest = x[-1] - span @ (span.T @ x[-1])
            return x.at[-1].set(rest * jnp.sqrt(dim / jnp.maximum((rest**2).sum(), 1e-12)))
        case "repeated":
            return x.at[-1].set(x[jax.random.randint(key, (), 0, x.shape[0] - 1)])
    return x
