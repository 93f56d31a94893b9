"""A run's curves in the file layout of the public code of Singh et al. 2024 and 2025, for its plotting notebooks."""

import os
from pathlib import Path

import msgspec
import numpy as np

from ebbtide.errors import InputError, require
from ebbtide.runs import atomic
from ebbtide.runs.atomic import TEMPORARY
from ebbtide.runs.folder import RunFolder

NAMES = {
    "accuracy": "acc",
    "in_context_accuracy": "in_context_acc",
    "in_context_probability": "in_context_prob",
    "context_mass": "use_context_prob",
}
"""Names of our metrics in the public code."""


def write_hdf5(run: RunFolder, out: Path) -> int:
    """Writes `out/member_000/log.h5` and `config.json` for every member, all or nothing; returns the number of
    evaluations.

    `eval_iter` and `train_iter` count sequences, as in the public code. Every `EVALUATOR/METRIC` is [evaluation, 1]:
    the public code has one column per evaluation sequence, a run stores their mean, so that the mean over columns is
    the same. The standard error of that mean is `EVALUATOR/METRIC_error`; `batch`, and `headline` and `chance` of every
    evaluator, are attributes (`report.read_hdf5` reads all of it again). Raises `InputError` when `out` exists or h5py
    is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise InputError("format", "hdf5", "needs h5py: pip install 'ebbtide[hdf5]'") from error
    require(out.parent.is_dir(), "out", str(out), f"the folder {out.parent} does not exist")
    require(not os.path.lexists(out), "out", str(out), "exists; give the name of a new folder")
    temporary = out.with_name(TEMPORARY + out.name)
    if temporary.exists():
        atomic.remove(temporary)
    atomic.make_folder(temporary)
    try:
        curves = run.metrics()
        for member in range(run.header.spec["members"]):
            folder = temporary / f"member_{member:03d}"
            atomic.make_folder(folder)
            config = run.header.spec | {"member": member, "digest": run.header.digest}
            atomic.write_file(folder / "config.json", msgspec.json.format(msgspec.json.encode(config), indent=1))
            with h5py.File(folder / "log.h5", "w") as file:
                _fill(file, run, curves, member)
        atomic.rename(temporary, out, "export")
    except BaseException:
        atomic.remove(temporary)
        raise
    return len(curves["sequences"]) * run.header.spec["members"]


def _fill(file, run: RunFolder, curves: dict[str, np.ndarray], member: int) -> None:
    file.attrs["about"] = "means over the evaluation sequences; *_error is their standard error; *_iter are sequences"
    file.attrs["batch"] = run.header.spec["batch"]
    file["eval_iter"] = curves["sequences"]
    file["train_iter"] = curves["sequences"][1:]
    file["train_loss"] = curves["train_loss"][member, 1:]
    for one in run.header.instruments:
        for metric in run.header.metrics:
            name = f"{one.name}/{metric}"
            file[f"{one.name}/{NAMES.get(metric, metric)}"] = curves[name][member][:, None]
            file[f"{one.name}/{NAMES.get(metric, metric)}_error"] = curves[f"{name}/error"][member][:, None]
        file[one.name].attrs["headline"] = one.headline
        if one.chance is not None:
            file[one.name].attrs["chance"] = one.chance
