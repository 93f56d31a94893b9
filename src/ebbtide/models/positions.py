"""Where a token stands: learned, sinusoidal or rotary positions, what it is alone, or none."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from jaxtyping import Array, Float, Key

from ebbtide.errors import require

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Learned(msgspec.Struct, frozen=True, tag="learned", forbid_unknown_fields=True):
    """A learned vector for each position, added to the token (normal, sd `init_sd`).

    `spare` further vectors stand ready for prompts longer than those of training, which leaves them as they were drawn:
    so it is with the public GPT-2 that Garg et al. 2022 (arXiv 2208.01066) and others train.
    """

    init_sd: Positive = 0.1
    spare: Annotated[int, msgspec.Meta(ge=0)] = 0

    def init(self, key: Key[Array, ""], tokens: int, width: int) -> dict[str, Array]:
        table = self.init_sd * jax.random.normal(key, (tokens, width))
        if self.spare:
            more = self.init_sd * jax.random.normal(jax.random.fold_in(key, 1), (self.spare, width))
            table = jnp.concatenate([table, more])
        return {"table": table}

    def add(self, params: dict[str, Array], x: Float[Array, "tokens batch d"]) -> Float[Array, "tokens batch d"]:
        """Raises `InputError` for more tokens than there are vectors."""
        tokens, rows = len(x), len(params["table"])
        require(tokens <= rows, "tokens", tokens, f"positions.spare must be at least {tokens - rows} larger for them")
        return x + params["table"][:tokens, None, :]

    def rotate(self, x: Float[Array, "tokens batch heads k"], last: int) -> Float[Array, "tokens batch heads k"]:
        return x


class Sinusoidal(msgspec.Struct, frozen=True, tag="sinusoidal", forbid_unknown_fields=True):
    """sin and cos of position * max_time^(-2 floor(i/2) / d), interleaved, added to the token.

    `max_time` is 30 in both public code bases of the transience paper, not the usual 10,000.
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
    """Rotary positions (RoPE, arXiv 2104.09864) on interleaved pairs of q and k: pair i at position p
    is turned by p * max_time^(-2i / k)."""

    max_time: Positive = 10_000.0

    def init(self, key: Key[Array, ""], tokens: int, width: int) -> dict[str, Array]:
        return {}

    def add(self, params: dict[str, Array], x: Float[Array, "tokens batch d"]) -> Float[Array, "tokens batch d"]:
        return x

    def rotate(self, x: Float[Array, "tokens batch heads k"], last: int) -> Float[Array, "tokens batch heads k"]:
        """Turns the pairs of every token of `x`, the last of which is at position `last`."""
        tokens, _, _, k = x.shape
        position = jnp.arange(last + 1 - tokens, last + 1)
        angle = position[:, None] * self.max_time ** (-2.0 * jnp.arange(k // 2) / k)
        cos, sin = jnp.cos(angle)[:, None, None, :], jnp.sin(angle)[:, None, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


class Identical(msgspec.Struct, frozen=True, tag="identical", forbid_unknown_fields=True):
    """The same learned vector for all tokens of a kind, added to them (normal, sd `init_sd`), wherever they stand.

    `kinds = "role"`: one vector for the demonstrations' tokens and one for the query, the last. `"token"`, over
    interleaved tokens: one for inputs, the query among them, and one for responses. The identical encodings of Chen et
    al. 2023 (arXiv 2311.18194) are of this sort; which of the two, its abstract does not say. Prompts may have any
    length.
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
    """No positions: order is known only through the causal mask."""

    def init(self, key: Key[Array, ""], tokens: int, width: int) -> dict[str, Array]:
        return {}

    def add(self, params: dict[str, Array], x: Float[Array, "tokens batch d"]) -> Float[Array, "tokens batch d"]:
        return x

    def rotate(self, x: Float[Array, "tokens batch heads k"], last: int) -> Float[Array, "tokens batch heads k"]:
        return x


Positions = Learned | Sinusoidal | Rotary | Identical | NoPositions
