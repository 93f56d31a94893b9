"""A line that the CPU compiler does not fuse across."""

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float


@jax.jit
def _same(x: Array) -> Array:
    return jax.lax.optimization_barrier(x)  # without it the call would be seen to do nothing


def fence(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x, computed once and stored, in the forward and in the backward pass; the identity on accelerators.

    XLA's CPU back end fuses a chain of residual additions into every one of its readers, so that the
    backward pass computes the gradient of layer i again in all layers below it. It drops optimisation
    barriers before it fuses; a call that it may not inline is a border that it keeps. Costs one copy.
    """
    if jax.default_backend() != "cpu":
        return x
    with set_xla_metadata(inlineable="false"):
        return _same(x)
