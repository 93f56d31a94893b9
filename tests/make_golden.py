"""Makes the golden run folder, a run of this version for every later version to read:
`python tests/make_golden.py`, once for each schema of the run folder, and never to please a test. It prints
the constants of test_golden_run.py.

It is interrupted on purpose, so that it also holds a rolling checkpoint; member 0 has stopped early."""

import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from ebbtide.errors import Interrupted
from ebbtide.models.transformer import Transformer
from ebbtide.runs.folder import RunFolder
from ebbtide.runs.writer import load_state
from ebbtide.sources.gaussian import Gaussian
from ebbtide.tasks.fewshot import FewShot
from ebbtide.training import driver
from ebbtide.training.driver import train
from ebbtide.training.optimizer import Adam
from ebbtide.training.progress import Progress
from ebbtide.training.schedule import Schedule
from ebbtide.training.spec import Spec
from ebbtide.training.watch import EarlyStopping

GOLDEN = Path(__file__).parent / "golden/run"
SPEC = Spec(
    task=FewShot(context=2, burst=1),
    source=Gaussian(classes=8, exemplars=2, dim=4, noise=0.2, holdout_classes=2, holdout_exemplars=1),
    model=Transformer(layers=1, width=4, heads=2, mlp_ratio=1),
    optimizer=Adam(lr=3e-3),
    batch=16,
    sequences=1024,
    members=2,
    vary={"optimizer.lr": [1e-12, 1e-2]},
    schedule=Schedule(evaluations=9, checkpoints=3),
    evaluators=("icl", "iwl", "ciwl"),
    evaluation_sequences=50,
    keep_best="iwl",
    stopping=EarlyStopping(patience=512, evaluator="iwl", window=1),
)


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of the name, type, shape and bytes of every array, by name."""
    text = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        text.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return text.hexdigest()


def stop(progress: Progress) -> None:
    if progress.sequences >= 600:
        os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    driver.SLICE_SECONDS = 1e-9
    try:
        train(SPEC, GOLDEN, processes=2, deterministic=True, label={"study": "transience"}, report=stop)
    except Interrupted:
        (GOLDEN / "lock").unlink()  # names a process and a machine
    run = RunFolder(GOLDEN)
    assert run.status() == "interrupted"
    states = [f'    {m.sequences}: "{fingerprint(load_state(run, m))}",\n' for _, m in run.manifests()]
    sys.stdout.write(f'DIGEST = "{run.header.digest}"\nMETRICS = "{fingerprint(run.arrays())}"\n')
    sys.stdout.write(f"STATES = {{\n{''.join(states)}}}\n")


if __name__ == "__main__":
    main()
