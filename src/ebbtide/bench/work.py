"""What a training step must do at least: floating-point operations and bytes, counted from the spec."""

from typing import NamedTuple

from ebbtide.models.product import Product
from ebbtide.training.spec import Spec

BYTES_PER_PARAMETER = 24
"""Float32 parameter and both moments of Adam, each read once and written once a step."""


def products(spec: Spec) -> list[Product]:
    """Every matrix product of one step of `batch` sequences, a convolution counted as the product it amounts to."""
    return spec.model.products(batch=spec.batch, **spec.shape())


def flops(spec: Spec) -> int:
    """Floating-point operations of one step's matrix products, forward and backward."""
    return sum(product.flops() for product in products(spec))


def traffic(spec: Spec) -> int:
    """Bytes one step must move, read and written: parameters and optimiser state, nothing else."""
    return BYTES_PER_PARAMETER * spec.parameters()


class Ceiling(NamedTuple):
    """What one core can do: float32 operations per second in matrix products, bytes per second copied
    (read and written both counted)."""

    flops: float
    bandwidth: float

    def seconds(self, spec: Spec) -> float:
        """The roofline: seconds one step takes at least,
        max(operations / matrix ceiling, bytes / copy bandwidth)."""
        return max(flops(spec) / self.flops, traffic(spec) / self.bandwidth)

    def fraction(self, spec: Spec, sequences_per_second: float, processes: int = 1) -> float:
        """Share of the roofline that a pace reaches, per core in use."""
        return self.seconds(spec) * sequences_per_second / spec.batch / processes
