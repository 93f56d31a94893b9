"""The kind of device that computes a run: this machine's processors, or the accelerators that JAX finds."""

from collections.abc import Callable
from typing import Literal

import jax

from ebbtide.errors import nearest, require
from ebbtide.kernel import native
from ebbtide.training.spec import Spec

Device = Literal["cpu", "gpu"]
"""`cpu`: worker processes of one thread each; `gpu`: accelerators of any make, in this process."""
DEVICES = ("cpu", "gpu")
FEW_MEMBERS = 10
"""Members below which a run that the compiled kernel serves is left to the processors. A guess, between two
measurements of `quick`: one member took 95,900 sequences/s on an H200 (2026-11-28) and 233,000 on one processor core
(2026-11-25), and 64 members together 4.31 million on the H200."""


def here() -> Device:
    """The kind of device that this process computes on."""
    return kind_of(jax.default_backend())


def kind_of(platform: str) -> Device:
    """The kind of device of a platform of JAX (`cpu`, `gpu`, `tpu` ...)."""
    return "cpu" if platform == "cpu" else "gpu"


def choose_device(
    spec: Spec,
    requested: str | None = None,
    processes: int | None = None,
    begun: Device | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Device:
    """The kind of device for a run of `spec`: what is `requested`; else what `processes` implies (worker processes
    compute on the CPU); else, where it is there, what the run was `begun` on; else on a machine with an accelerator
    that one, but for few members that the compiled kernel serves. Says in one line why, where there was a choice.
    Raises `InputError` for a device that is not there, and for processes that do not go with it."""
    allowed = f"must be one of {', '.join(DEVICES)}{nearest(str(requested), DEVICES)}"
    require(requested in (None, *DEVICES), "device", requested, allowed)
    if here() == "cpu":
        require(requested != "gpu", "device", "gpu", "JAX finds no accelerator on this machine: must be cpu")
        if begun == "gpu":
            say("note: begun on an accelerator, continued on the CPU: this run is not repeatable any more")
        return "cpu"
    workers = processes is not None and processes > 0
    if requested == "gpu":
        require(not workers, "processes", processes, "must be 0 with --device gpu: worker processes compute on the CPU")
        return "gpu"
    if requested == "cpu":
        allowed = "must be at least 1 with --device cpu: this process computes on the accelerator"
        require(processes != 0, "processes", processes, allowed)
        require(
            spec.product_precision() == "float32",
            "precision",
            spec.product_precision(),
            "must be float32 with --device cpu",
        )
        return "cpu"
    if processes is not None:
        return "cpu" if workers else "gpu"
    if begun is not None:
        return begun
    served = native.unsupported_reason(spec.model, spec.shape()) is None
    if spec.product_precision() == "float32" and spec.members < FEW_MEMBERS and served:
        say(f"note: trained on the CPU: fewer than {FEW_MEMBERS} members (--device gpu for the accelerator)")
        return "cpu"
    say("note: trained on the accelerator, members side by side (--device cpu for the CPU)")
    return "gpu"
