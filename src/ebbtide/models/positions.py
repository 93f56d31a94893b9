"""Positional encodings: learned, sinusoidal, rotary, a learned mark of the token's kind only, none."""

import math
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key

from ebbtide.errors import require

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Learned(msgspec.Struct, frozen=True, tag="learned", forbid_unknown_fields=True):
    """A learned vector for each position, added to the token (initially normal with standard deviation `init_sd`).

    `spare` further vectors serve prompts longer than those of training, which leaves them at their initial values; so
    it is in the public GPT-2 that Garg et al. 2022 (arXiv 2208.01066) and others train.

    >>> eb.Transformer(positions=eb.Learned(spare=8)).positions.init_sd
    0.1
    """

    init_sd: Positive = 0.1
    spare: Annotated[int, msgspec.Meta(ge=0)] = 0

    def init(self, key: Key[Array, ""], tokens: int, width: int) -> dict[str, Array]:
        table = self._vectors(key, tokens, width)
        if self.spare:
            more = self._vectors(jax.random.fold_in(key, 1), self.spare, width)
            table = jnp.concatenate([table, more])
        return {"table": table}

    def _vectors(self, key: Key[Array, ""], count: int, width: int) -> Float[Array, "count width"]:
        """Initial vectors."""
        return self.init_sd * jax.random.normal(key, (count, width))

    def add(self, params: dict[str, Array], x: Float[Array, "tokens batch d"]) -> Float[Array, "tokens batch d"]:
        """The tokens with their positional vectors added. Raises `InputError` for more tokens than there are
        vectors."""
        tokens, rows = len(x), len(params["table"])
        require(tokens <= rows, "tokens", tokens, f"positions.spare must be at least {tokens - rows} larger for them")
        return x + params["table"][:tokens, None, :]

    def rotate(self, x: Float[Array, "tokens batch heads k"], last: int) -> Float[Array, "tokens batch heads k"]:
        return x


class LearnedUniform(Learned, frozen=True, tag="learned_uniform", forbid_unknown_fields=True):
    """`Learned`, with entries that are initially uniform between -sqrt(3) `init_sd` and sqrt(3) `init_sd`.

    The public code of Singh et al. 2025 (arXiv 2503.05631) has 32 vectors, uniform within 1/sqrt(32), whatever the
    length of a prompt. For the 5 tokens of two pairs and a query that is

    >>> public = eb.LearnedUniform(init_sd=96**-0.5, spare=27)
    >>> table = public.init(jax.random.key(0), 5, 64)["table"]
    >>> table.shape, round(float(abs(table).max()), 3)
    ((32, 64), 0.177)
    """

    def _vectors(self, key: Key[Array, ""], count: int, width: int) -> Float[Array, "count width"]:
        """Initial vectors."""
        return self.init_sd * math.sqrt(3) * jax.random.uniform(key, (count, width), minval=-1, maxval=1)


class Sinusoidal(msgspec.Struct, frozen=True, tag="sinusoidal", forbid_unknown_fields=True):
    """sin and cos of position * max_time^(-2 floor(i/2) / d), interleaved, added to the token.

    `max_time` is 30 in both public code bases of the transience paper, not the usual 10,000.

    >>> eb.Transformer(positions=eb.Sinusoidal(max_time=10_000)).positions.max_time
    10000
    """

    max_time: Positive = 30.0

    def init(self, key: Key[Array, ""], tokens: int, width: int) -> dict[str, Array]:
        return {}

    def add(self, params: dict[str, Array], x: Float[Array, "tokens batch d"]) -> Float[Array, "tokens batch d"]:
        tokens, _, width = x.shape
        frequency = self.max_time ** (-2.0 * (jnp.arange(width) // 2) / width)
        angle = jnp.arange(tokens)[:, None] * frequency[None, :]
        table = jnp.where(jnp.arange(width) % 2 == 0, jnp.sin(angle), jnp.cos(angle))
        return x + table[:, None, :]

    def rotate(self, x: Float[Array, "tokens batch heads k"], last: int) -> Float[Array, "tokens batch heads k"]:
        return x


class Rotary(msgspec.Struct, frozen=True, tag="rotary", forbid_unknown_fields=True):
    """Rotary positional encoding (RoPE, arXiv 2104.09864) on interleaved pairs of queries and keys: pair i at position
    p is turned by the angle p * max_time^(-2i / k), k the width of a head.

    Args:
        max_time: the base of the angles.

    >>> eb.Transformer(positions=eb.Rotary()).positions.max_time
    10000.0
    """

    max_time: Positive = 10_000.0

    def init(self, key: Key[Array, ""], tokens: int, width: int) -> dict[str, Array]:
        return {}

    def add(self, params: dict[str, Array], x: Float[Array, "tokens batch d"]) -> Float[Array, "tokens batch d"]:
        return x

    def rotate(self, x: Float[Array, "tokens batch heads k"], last: int) -> Float[Array, "tokens batch heads k"]:
        """The queries or keys `x`, every pair turned according to its token's position; the last token is at position
        `last`."""
        tokens, _, _, k = x.shape
        position = jnp.arange(last + 1 - tokens, last + 1)
        angle = position[:, None] * self.max_time ** (-2.0 * jnp.arange(k // 2) / k)
        cos, sin = jnp.cos(angle)[:, None, None, :], jnp.sin(angle)[:, None, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


class Identical(msgspec.Struct, frozen=True, tag="identical", forbid_unknown_fields=True):
    """The same learned vector for all tokens of a kind, wherever they stand (initially normal with standard deviation
    `init_sd`).

    `kinds = "role"`: one vector for the demonstrations' tokens and one for the query, the last token. `"token"`, for
    interleaved tokens: one vector for inputs, the query among them, and one for responses. The identical encodings of
    Chen et al. 2023 (arXiv 2311.18194) are of this sort; its abstract does not say which of the two. Prompts may have
    any length.

    >>> eb.Transformer(positions=eb.Identical(kinds="token")).positions.kinds
    'token'
    """

    init_sd: Positive = 0.1
    kinds: Literal["role", "token"] = "role"

    def init(self, key: Key[Array, ""], tokens: int, width: int) -> dict[str, Array]:
        return {"table": self.init_sd * jax.random.normal(key, (2, width))}

    def add(self, params: dict[str, Array], x: Float[Array, "tokens batch d"]) -> Float[Array, "tokens batch d"]:
        at = jnp.arange(len(x))
        kind = (at == len(x) - 1 if self.kinds == "role" else at % 2).astype(jnp.int32)
        return x + params["table"][kind][:, None, :]

    def rotate(self, x: Float[Array, "tokens batch heads k"], last: int) -> Float[Array, "tokens batch heads k"]:
        return x


class NoPositions(msgspec.Struct, frozen=True, tag="none", forbid_unknown_fields=True):
    """No positional encoding: the order of tokens enters through the causal mask alone.

    >>> eb.Transformer(positions=eb.NoPositions()).positions
    NoPositions()
    """

    def init(self, key: Key[Array, ""], tokens: int, width: int) -> dict[str, Array]:
        return {}

    def add(self, params: dict[str, Array], x: Float[Array, "tokens batch d"]) -> Float[Array, "tokens batch d"]:
        return x

    def rotate(self, x: Float[Array, "tokens batch heads k"], last: int) -> Float[Array, "tokens batch heads k"]:
        return x


Positions = Learned | LearnedUniform | Sinusoidal | Rotary | Identical | NoPositions
