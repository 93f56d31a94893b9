"""What a training step must do at least: floating-point operations and bytes, counted from the spec."""

import math
from typing import NamedTuple

import jax

from ebbtide.training.spec import Spec

BYTES_PER_PARAMETER = 24
"""Float32 parameter and both moments of Adam, each read once and written once a step."""


class Product(NamedTuple):
    """`times` matrix products [m, k] x [k, n] of the forward pass of one step."""

    name: str
    times: int
    m: int
    k: int
    n: int
    gradients: int = 2
    """Products of the same size in the backward pass: one for each factor that needs a gradient."""

    def flops(self) -> int:
        """Operations of the forward and the backward products; a multiply-add counts as two."""
        return 2 * self.times * self.m * self.k * self.n * (1 + self.gradients)


def products(spec: Spec) -> list[Product]:
    """Every matrix product of one step of `batch` sequences.

    Only what the loss reads: the last layer's queries, output, MLP and the read-out are for the query
    token alone. Exemplars are data and need no gradient.
    """
    model, batch, context = spec.model, spec.batch, spec.task.context
    sizes, d, tokens = spec.source.sizes(), model.width, 2 * context + 1
    hidden, head = d * model.mlp_ratio, d // model.heads
    found = [Product("exemplars", 1, (context + 1) * batch, sizes.dim, d, gradients=1)]
    for layer in range(model.layers):
        asked = 1 if layer == model.layers - 1 else tokens
        found += [
            Product("q, o", 2, asked * batch, d, d),
            Product("k, v", 2, tokens * batch, d, d),
            Product("scores", batch * model.heads, asked, head, tokens),
            Product("z", batch * model.heads, asked, tokens, head),
        ]
        if hidden:
            found += [Product("mlp in", 1, asked * batch, d, hidden), Product("mlp out", 1, asked * batch, hidden, d)]
    return [*found, Product("readout", 1, batch, d, spec.task.outputs(sizes.classes))]


def flops(spec: Spec) -> int:
    """Floating-point operations of one step's matrix products, forward and backward."""
    return sum(product.flops() for product in products(spec))


def parameters(spec: Spec) -> int:
    """How many numbers the model has."""
    sizes = spec.source.sizes()
    outputs = spec.task.outputs(sizes.classes)
    shapes = jax.eval_shape(
        lambda key: spec.model.init(key, context=spec.task.context, dim=sizes.dim, labels=outputs), jax.random.key(0)
    )
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def traffic(spec: Spec) -> int:
    """Bytes one step must move, read and written: parameters and optimiser state, nothing else."""
    return BYTES_PER_PARAMETER * parameters(spec)


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
