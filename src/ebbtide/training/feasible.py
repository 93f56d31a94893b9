"""Whether this machine can run a spec now: it has the data, the memory and the run to start from."""

from ebbtide.training import limits
from ebbtide.training.spec import Spec


def check_feasible(spec: Spec) -> None:
    """Raises `InputError` in one line when this machine lacks what a spec needs: files, memory, a checkpoint.

    The spec has been checked (`Spec.check`). Another machine, or this one tomorrow, may answer otherwise.
    """
    spec.source.check_data()
    spec.model.encoder.check(spec.source.sizes().dim)
    limits.check_memory(spec)
    if spec.start is not None:
        spec.start.check(spec.model, spec.shape(), [spec.number(m) for m in range(spec.members)])
