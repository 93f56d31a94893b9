"""Building blocks of models: initial weights, norms, and matrix products in the form that is fastest on a CPU."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ebbtide.models.fence import fence

EPSILON = 1e-5
"""Added to the variance by every norm."""


def weight(key: Key[Array, ""], *shape: int) -> Float[Array, "..."]:
    """Initial weights, LeCun normal: truncated at two standard deviations, variance 1 / fan-in. The last axis is the
    output, all others are inputs: [fan_in, fan_out], or [height, width, fan_in, fan_out] of a convolution."""
    return jax.nn.initializers.lecun_normal()(key, shape)


def init_norm(width: int) -> dict[str, Array]:
    """Initial parameters of a norm: scale 1, offset 0."""
    return {"scale": jnp.ones(width), "offset": jnp.zeros(width)}


def linear(
    x: Float[Array, "*rows d_in"], w: Float[Array, "d_in d_out"], b: Float[Array, " d_out"] | None = None
) -> Float[Array, "*rows d_out"]:
    """x w + b as one two-dimensional product, the form that XLA's CPU back end multiplies fastest."""
    y = x.reshape(-1, x.shape[-1]) @ w
    return (y if b is None else y + b).reshape(*x.shape[:-1], w.shape[1])


def linear_down(
    x: Float[Array, "*rows d_in"], w: Float[Array, "d_in d_out"], b: Float[Array, " d_out"]
) -> Float[Array, "*rows d_out"]:
    """x w + b where d_in > d_out. The gradient of w is computed as its transpose and transposed behind an optimisation
    barrier: as a long thin product it is half as fast."""
    turned = fence(w.T)
    y = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), turned, (((1,), (1,)), ((), ())))
    return (y + b).reshape(*x.shape[:-1], w.shape[1])


def layer_norm(params: dict[str, Array], x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """LayerNorm: every row standardised to mean 0 and variance 1, then scaled and shifted."""
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * params["scale"] + params["offset"]
