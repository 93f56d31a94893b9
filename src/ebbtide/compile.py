"""How programs are compiled: quickly where they run only once or twice, and with products of a stated precision."""

import contextlib
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

import jax

Precision = Literal["float32", "tf32", "bf16"]
"""The precision of a model's matrix products: `Spec.precision`."""
PRODUCTS = {"float32": "highest", "tf32": "TF32_TF32_F32", "bf16": "BF16_BF16_F32"}
"""The names of precisions in JAX; the last two say how factors and sums are rounded. The default of JAX itself is not
float32 on accelerators."""
P = ParamSpec("P")
T = TypeVar("T")


def compile_fast(function: Callable[P, T]) -> Callable[P, T]:
    """`jax.jit(function)` without XLA's expensive optimisations, for programs that run once or twice.

    Drawing initial weights or evaluation prompts takes milliseconds, compiling the program takes seconds. Without
    optimisation the evaluation prompts are ready after 1.9 s in place of 3.3 s (LOG.md, 2026-11-23).
    """
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def products_in(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """The context in which matrix products are traced with this precision, whatever JAX is set to. A CPU multiplies in
    float32 in any case: there it does nothing, so that programs stay as they are to the bit.

    tf32 rounds the factors to 10 bits, bf16 to 7 (float32 has 23); sums are in float32. Convolutions have no such
    choice in JAX: under both they are what the device does by default, TF32 on NVIDIA's.
    """
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(PRODUCTS[precision])
