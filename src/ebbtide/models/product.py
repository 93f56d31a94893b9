"""The matrix products of a model, from which its cost is counted."""

from typing import NamedTuple


class Product(NamedTuple):
    """`times` matrix products [m, k] x [k, n] in the forward pass of one step."""

    name: str
    times: int
    m: int
    k: int
    n: int
    gradients: int = 2
    """Products of the same size in the backward pass: one for each factor that needs a gradient."""

    def flops(self) -> int:
        """Floating-point operations of the forward and the backward products; a multiply-add counts as two."""
        return 2 * self.times * self.m * self.k * self.n * (1 + self.gradients)
