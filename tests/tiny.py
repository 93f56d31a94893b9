"""A run small enough to train in a moment, and run folders written by hand."""

from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
from msgspec.structs import replace

from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.records import Header, Instrument
from ebbtide.runs.signed import SCHEMA
from ebbtide.runs.writer import Writer, load_state
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import METRICS, FewShot
from ebbtide.training.feasible import check_feasible
from ebbtide.training.optimizer import Adam
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec
from ebbtide.training.start import PREFIX, to_dotted
from ebbtide.training.watch import Watch

SPEC = Spec(
    task=FewShot(),
    source=Gaussian(classes=64, exemplars=2, dim=8, holdout_classes=8, holdout_exemplars=2),
    model=Transformer(layers=1, width=16, heads=2),
    optimizer=Adam(lr=3e-3),
    batch=16,
    sequences=1024,
    members=2,
    schedule=Schedule(evaluations=5, checkpoints=3),
    evaluators=("icl", "iwl"),
    evaluation_sequences=50,
)
"""64 steps of two members; evaluations at 0, 256 ... 1024, checkpoints kept at 0, 512 and 1024."""

LONG = replace(SPEC, members=4, sequences=102_400, schedule=Schedule(evaluations=21, checkpoints=21))
"""Some seconds of training that commit often: for what must be caught on its way."""

CHANCE = {"iwl": 1 / 66, "iwl_exemplar": 1 / 66, "train": 0.5, "flip": 0.5, "ciwl": 0.5}


def check_both(spec: Spec) -> None:
    """Raises `InputError` unless a spec describes a run that this machine can make, as `train` does."""
    spec.check()
    check_feasible(spec)


def contents(folder: Path, *but: str) -> dict[str, bytes]:
    """Every file below a folder with its bytes; not the lock, nor what lies in the folders `but`."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "lock"]
    return {name: p.read_bytes() for p in files if (name := str(p.relative_to(folder))).split("/")[0] not in but}


def final_state(run: RunFolder) -> dict[str, np.ndarray]:
    """The arrays of the newest good checkpoint."""
    found = run.latest()
    assert found is not None
    return load_state(run, found[1])


def same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Whether two sets of arrays have the same names, types, shapes and bits (so nan equals nan)."""
    assert a.keys() == b.keys()
    return all(a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes() for k in a)


def header(spec: Spec = SPEC, names: tuple[str, ...] | None = None, **changes: Any) -> Header:
    """The run.json of a spec, made without any training."""
    instruments = [
        Instrument(n, "accuracy" if n.startswith("iwl") else "in_context_accuracy", CHANCE.get(n, 0.5))
        for n in (spec.evaluators if names is None else names)
    ]
    made = Header(
        SCHEMA,
        spec.digest(),
        msgspec.to_builtins(spec),
        instruments,
        list(METRICS),
        {"jax": "none"},
        {"study": "transience", "preset": "quick"},
        "2026-01-01T00:00:00+00:00",
    )
    return replace(made, **changes)


def evaluations(head: Header, curves: dict[str, np.ndarray], loss: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
    """Curves [member, row] in the shape of a segment. A headline metric is its curve and every other
    metric a hundredth of it plus its index; the standard error is a tenth of the value."""
    values = np.zeros((*loss.shape, len(head.instruments), len(METRICS), 2), np.float32)
    for i, one in enumerate(head.instruments):
        for j, metric in enumerate(METRICS):
            values[:, :, i, j, 0] = curves[one.name] if metric == one.headline else curves[one.name] / 100 + j
    values[..., 1] = values[..., 0] / 10
    return {"sequences": at.astype(np.int64), "train_loss": loss.astype(np.float32), "values": values}


def watched(members: int) -> dict[str, np.ndarray]:
    """What a checkpoint holds of a run's watch, before it has seen anything."""
    return {f"watch.{name}": array for name, array in Watch(members, None).arrays().items()}


def write_run(
    path: Path, curves: dict[str, Any], loss: Any, spec: Spec = SPEC, models: bool = False, **changes: Any
) -> RunFolder:
    """A complete run folder whose evaluators show these curves [member, evaluation], evenly spaced; with `models`
    its checkpoint has parameters, equal in all members."""
    loss = np.asarray(loss, np.float32)
    spec = replace(spec, members=loss.shape[0])
    head = header(spec, tuple(curves), **changes)
    at = np.linspace(0, spec.sequences, loss.shape[1]).round()
    writer = Writer(path, head)
    rows = evaluations(head, {k: np.asarray(v, np.float32) for k, v in curves.items()}, loss, at)
    state = {"step": np.full(loss.shape[0], spec.steps(), np.uint32), **watched(loss.shape[0])}
    if models:
        params = to_dotted(spec.model.init(jax.random.key(0), **spec.shape()))
        state |= {f"{PREFIX}{name}": np.stack([leaf] * loss.shape[0]) for name, leaf in params.items()}
    writer.commit(sequences=spec.sequences, state=state, evaluations=rows, kept=True, finished=True, seconds=1.0)
    writer.close()
    return RunFolder(path)
