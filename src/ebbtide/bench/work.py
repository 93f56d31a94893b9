"""The least work of a training step: floating-point operations and bytes, counted from the spec."""

from typing import NamedTuple

from ebbtide.models.product import Product
from ebbtide.training.spec import Spec

BYTES_PER_PARAMETER = 24
"""A float32 parameter and both moments of Adam, each read once and written once per step."""


def products(spec: Spec) -> list[Product]:
    """Every matrix product of one step of `batch` sequences; a convolution counts as the equivalent product."""
    return spec.model.products(batch=spec.batch, **spec.shape())


def flops(spec: Spec) -> int:
    """Floating-point operations of one step's matrix products, forward and backward."""
    return sum(product.flops() for product in products(spec))


def traffic(spec: Spec) -> int:
    """Bytes that one step must read and write: parameters and optimiser state only."""
    return BYTES_PER_PARAMETER * spec.parameters()


class Ceiling(NamedTuple):
    """The ceiling of one core: float32 operations per second in matrix products, and bytes per second copied (read and
    written both counted)."""

    flops: float
    bandwidth: float

    def seconds(self, spec: Spec) -> float:
        """The roofline: the least seconds of one step, max(operations / matrix ceiling, bytes / copy bandwidth)."""
        return max(flops(spec) / self.flops, traffic(spec) / self.bandwidth)

    def fraction(self, spec: Spec, sequences_per_second: float, processes: int = 1) -> float:
        """The share of the roofline that a pace reaches, per core in use."""
        return self.seconds(spec) * sequences_per_second / spec.batch / processes
