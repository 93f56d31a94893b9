"""Programs that run once or twice: compiled quickly rather than to run quickly."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def compile_fast(function: Callable[P, T]) -> Callable[P, T]:
    """`function` compiled as one program without the compiler's costly optimisations.

    Drawing initial weights or evaluation prompts takes milliseconds; compiling it takes seconds. So
    compiled, evaluation prompts take 1.9 s in place of 3.3 s (LOG.md, 2026-11-23).
    """
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
