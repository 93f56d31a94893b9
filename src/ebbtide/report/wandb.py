"""Upload of a run's curves to Weights & Biases, after the run: training never waits for a network."""

from importlib import import_module
from typing import Any

import numpy as np

from ebbtide.errors import InputError, require
from ebbtide.runs.folder import RunFolder


def log_to_wandb(run: RunFolder, project: str) -> int:
    """Creates one run of `project` for every member (group: the run folder) with all evaluations over `sequences`;
    returns their number. WANDB_MODE=offline keeps everything on this machine. Raises `InputError` when wandb is not
    installed."""
    try:
        client: Any = import_module("wandb")
    except ModuleNotFoundError as error:
        raise InputError("format", "wandb", "needs wandb: pip install 'ebbtide[wandb]'") from error
    require(not set(project) & set("/\\#?%:"), "out", project, "is the name of a project: without / \\ # ? % :")
    curves, spec = run.metrics(), run.header.spec
    names = [name for name in curves if name not in ("sequences", "steps") and not name.endswith("/error")]
    for member in range(spec["members"]):
        varied = {name: values[member] for name, values in spec["vary"].items()}
        config = {**spec, "member": member, "varied": varied, "digest": run.header.digest}
        name = f"{run.path.name}/{member}"
        with client.init(project=project, group=run.path.name, name=name, config=config, reinit=True) as log:
            log.define_metric("sequences")
            log.define_metric("*", step_metric="sequences")
            for i, count in enumerate(curves["sequences"].tolist()):
                values = {name: float(curves[name][member, i]) for name in names}
                log.log({"sequences": count, **{k: v for k, v in values.items() if np.isfinite(v)}})
    return len(curves["sequences"]) * spec["members"]
