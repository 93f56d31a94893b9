"""An optimisation barrier for XLA on the CPU."""

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float


@jax.jit
def _same(x: Array) -> Array:
    return jax.lax.optimization_barrier(x)  # without it the call would be seen to do nothing


def fence(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x unchanged, but computed once and stored, in the forward and the backward pass; on accelerators simply x.

    XLA's CPU back end fuses a chain of residual additions into every operation that reads it, so that the backward pass
    recomputes the gradient of layer i in all layers below. It drops ordinary optimisation barriers before it fuses; a
    call that it may not inline is a barrier that it keeps. The cost is one copy.
    """
    if jax.default_backend() != "cpu":
        return x
    with set_xla_metadata(inlineable="false"):
        return _same(x)
