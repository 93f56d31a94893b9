"""What the accelerator can do: products, copies, launches."""

import platform
import shutil
import subprocess
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from accelerator_sections import Report, precision_of_products, precisions, seconds_per_call
from ebbtide.bench.configs import find_config
from ebbtide.bench.work import products

CONFIGS = ("2L-shared", "2L", "12L")
LARGEST = 3
"""How many of a configuration's products are measured, those with the most operations."""
BFLOAT16 = "bfloat16"
"""Factors and results that are stored as bfloat16."""
MOST_BYTES = 8e9
NUMBERS = np.random.default_rng(0).standard_normal(999_983).astype(np.float32)
STEPS = 1000
"""Turns of the loop by which the cost of a launch inside a program is measured."""


def measure_machine(report: Report) -> None:
    """The rows of this machine."""
    describe(report)
    on_cpu = jax.default_backend() == "cpu"
    large = (1, *(3 * [128 if report.small else 2048 if on_cpu else 8192]))
    for precision in (*precisions(), BFLOAT16):
        multiply(report, "large product", large, precision)
    launches(report)
    for size in (2**16,) if report.small else (2**22, 2**28) if on_cpu else (2**22, 2**28, 2**31):
        copy(report, size)
    for config in CONFIGS[: 1 if report.small else None]:
        spec, members = find_config(config).spec, 2 if report.small else 256
        own = sorted({(p.flops(), p.name, p.m, p.k, p.n) for p in products(spec) if p.times <= 2}, reverse=True)
        for _, name, *shape in own[: 1 if report.small else LARGEST]:
            for precision in (*precisions(), BFLOAT16):
                multiply(report, f"product of {name}", (members, *shape), precision, config)


def describe(report: Report) -> None:
    """The devices, their driver, and versions."""
    devices = jax.local_devices()
    memory = (devices[0].memory_stats() or {}).get("bytes_limit")
    report.row(what="device", value=devices[0].device_kind, unit=f"{len(devices)} of them", devices=len(devices))
    if memory:
        report.row(what="memory that JAX may use", value=memory / 1e9, unit="GB")
    if found := driver():
        report.row(what="driver", value=found)
    versions = {name: version(name) for name in ("jax", "jaxlib", "numpy")} | {"Python": platform.python_version()}
    report.row(what="versions", value=", ".join(f"{name} {one}" for name, one in versions.items()))


def driver() -> str | None:
    """The driver's version, as nvidia-smi says it; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def random(shape: tuple[int, ...], kind: Any = jnp.float32) -> jax.Array:
    """Normal numbers, which repeat in a large array. Products of zeros or ones can be faster than those of data."""
    return jax.device_put(np.resize(NUMBERS, shape).astype(kind))


def multiply(report: Report, what: str, shape: tuple[int, ...], precision: str, config: str | None = None) -> None:
    """Operations per second of products [members, m, k] x [members, k, n]."""
    members, m, k, n = shape
    kind, size = (jnp.bfloat16, 2) if precision == BFLOAT16 else (jnp.float32, 4)
    about: dict[str, Any] = {"config": config, "what": f"{what}, {m} x {k} x {n}", "precision": precision}
    about |= {"members": members if config else None}
    if members * (m * k + k * n + m * n) * size > MOST_BYTES:
        return
    if not report.fits(0.5 if report.small else 3.0, **about):
        return
    asked: Any = None if precision == BFLOAT16 else precision_of_products(precision)  # pyright: ignore[reportArgumentType]
    a, b = random((members, m, k), kind), random((members, k, n), kind)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=asked))
    took = seconds_per_call(lambda: product(a, b), min(report.seconds, 0.2), jax.block_until_ready)
    report.row(**about, value=2 * members * m * k * n / took / 1e12, unit="TFLOP/s")


def copy(report: Report, size: int) -> None:
    """Bytes per second of adding 1 to an array of `size` bytes, read and written both counted."""
    about = {"what": f"read and write {size / 2**20:g} MiB"}
    if not report.fits(0.2 if report.small else 2.0, **about):
        return
    x, add = random((size // 4,)), jax.jit(lambda x: x + 1)
    took = seconds_per_call(lambda: add(x), min(report.seconds, 0.2), jax.block_until_ready)
    report.row(**about, value=2 * size / took / 1e12, unit="TB/s")


def launches(report: Report) -> None:
    """Microseconds of an operation on one number: called from Python, and as a turn of a loop inside a program."""
    x, add = jnp.ones(()), jax.jit(lambda x: x + 1)
    took = seconds_per_call(lambda: add(x), min(report.seconds, 0.2), jax.block_until_ready)
    report.row(what="launch from Python", value=took * 1e6, unit="us")
    loop = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, lambda _, y: jnp.sin(y) + 1, x))
    took = seconds_per_call(lambda: loop(x, STEPS), min(report.seconds, 0.2), jax.block_until_ready)
    report.row(what="turn of a loop of one operation", value=took / STEPS * 1e6, unit="us")
