"""The ceiling of this machine: rates of float32 matrix products and of copies, by the fastest library installed."""

import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ebbtide.bench import plain_torch
from ebbtide.bench.work import products
from ebbtide.training.spec import Spec

LARGE = (2048, 1024, 1024)
"""A product [m, k] x [k, n] large enough for every library to reach its highest rate, and small enough to be quick."""
LARGE_COPY = 256_000_000
"""Bytes of a copy that no cache holds."""

Shape = tuple[int, int, int]


def shapes(spec: Spec) -> list[Shape]:
    """The shapes of the model's own products, without the tiny ones inside attention, and `LARGE`."""
    own = {(p.m, p.k, p.n) for p in products(spec) if p.times <= 2}
    return [*sorted(own), LARGE]


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fastest(call: Callable[[], Any], seconds: float) -> float:
    """Seconds of one call: the best of several stretches that take about `seconds` together."""
    call()
    began = time.perf_counter()
    call()
    repeats = max(1, int(seconds / 8 / max(time.perf_counter() - began, 1e-7)))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        best = min(best, (time.perf_counter() - began) / repeats)
    return best


def multiply_rates(shape: Shape, seconds: float) -> dict[str, float]:
    """Floating-point operations per second of a product [m, k] x [k, n] of float32, by library."""
    m, k, n = shape
    a, b = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    out = np.empty((m, n), np.float32)
    calls: dict[str, Callable[[], Any]] = {"numpy": lambda: np.dot(a, b, out=out)}
    import jax

    product, ja, jb = jax.jit(jax.numpy.dot), jax.numpy.asarray(a), jax.numpy.asarray(b)
    calls["jax"] = lambda: product(ja, jb).block_until_ready()
    if plain_torch.is_installed():
        torch = plain_torch.load()
        ta, tb, tout = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(out)
        calls["torch"] = lambda: torch.mm(ta, tb, out=tout)
    return {name: 2 * m * k * n / fastest(call, seconds) for name, call in calls.items()}


def copy_rate(size: int, seconds: float) -> float:
    """Bytes per second of a copy with a working set of `size` bytes; a byte read and written counts as two."""
    source = np.ones(max(size // 8, 1), np.float32)
    target = np.zeros_like(source)
    return 2 * source.nbytes / fastest(lambda: np.copyto(target, source), seconds)


def describe() -> dict[str, Any]:
    """The processor, the number of cores, and the versions of libraries."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return {
        "cpu": model or platform.processor(),
        "vector": next((name for name in ("avx512f", "avx2", "sse2") if name in flags), ""),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("ebbtide", "jax", "numpy", "torch")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
