"""The choice of the kernel that trains a run: XLA, or the compiled kernel where it is requested, serves the spec and
can be built."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ebbtide.errors import InputError, nearest, require
from ebbtide.kernel import build, native
from ebbtide.tasks.prompt import CellPrompt, Prompt, SignPrompt
from ebbtide.training.device import Device, here
from ebbtide.training.spec import Spec

VARIABLE = "EBBTIDE_KERNEL"
KINDS = ("auto", "xla", "native")


class Choice(NamedTuple):
    """The kernel of a run: the path of the compiled library (None: XLA), and its name in the run's identity."""

    library: Path | None = None
    name: str = "xla"


XLA = Choice()


def requested_kernel() -> str:
    """The requested kernel: auto, xla or native, the value of $EBBTIDE_KERNEL (`--kernel`). Raises `InputError` for
    another."""
    kind = os.environ.get(VARIABLE) or "auto"
    require(kind in KINDS, "kernel", kind, f"must be one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    return kind


def unsupported_reason(spec: Spec, device: Device | None = None) -> str | None:
    """Why the compiled kernel does not serve a spec on a kind of device (None: that of this process); None where it
    does."""
    if (device or here()) != "cpu":
        return "it runs on the CPU only"
    if spec.product_precision() != "float32":
        return "its products are in float32"
    if spec.interventions:
        return "it cannot apply interventions"
    if spec.task.prompt_type is SignPrompt:
        return "it has no hinge loss"
    if spec.task.prompt_type is CellPrompt:
        return "it has no loss of cells"
    if spec.task.prompt_type is Prompt and spec.model.pairing == "states":
        return "it answers every state of a stream, never the last alone"
    return native.unsupported_reason(spec.model, spec.shape())


def choose(
    spec: Spec,
    *,
    alone: bool = True,
    before: str | None = None,
    device: Device | None = None,
    say: Callable[[str], None] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> Choice:
    """The kernel for a run of `spec`. `alone`: members are trained one at a time in their process; `before`: the name
    of the kernel that the run was begun with; `device`: the kind of device that computes it (None: that of this
    process).

    `auto` takes the compiled kernel where it serves the spec, and builds it when this machine has not yet; it stays
    with XLA where the run was begun with XLA. Where the kernel cannot be had on a CPU it says so in one line and takes
    XLA. Raises `InputError` where `native` is requested and cannot be had or the compiler was killed (a run keeps the
    kernel it was begun with), and `Interrupted` once `stop` returns true.
    """
    kind = requested_kernel()
    if kind == "xla" or (kind == "auto" and before == XLA.name):
        return XLA
    against = unsupported_reason(spec, device) if alone else "members are trained side by side, or on several hosts"
    if against is None:
        try:
            path = build.ready(say, stop)
            return Choice(path, f"native {build.short_name(path)}")
        except build.EndedError as error:
            raise InputError("kernel", kind, f"{error}; run the command again, or give --kernel xla") from error
        except build.BuildError as error:
            against = str(error)
    if kind == "native":
        raise InputError("kernel", "native", f"cannot be used here: {against}")
    if (device or here()) == "cpu":
        say(f"note: trained by XLA, not by the compiled kernel: {against}")
    return XLA
