"""Trains the tiny spec in several layouts over four devices made of one processor, and writes what came of it:
`python sharding_child.py FOLDER`, with XLA_FLAGS that make the devices. test_sharding.py judges it."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from msgspec.structs import replace

from ebbtide.errors import InputError, Interrupted
from ebbtide.runs.folder import RunFolder
from ebbtide.training import driver
from ebbtide.training.driver import train
from ebbtide.training.members import Members
from ebbtide.training.programs import Data
from ebbtide.training.progress import Progress
from ebbtide.training.schedule import Schedule
from ebbtide.training.start import to_dotted
from effort import THOROUGH
from tiny import SPEC, final_state

MEMBERS = 6
STEPS = 12
LAYOUTS = {"alone": (1, 1), "4 over 4": (4, 4)} | ({"4 over 2": (4, 2), "3 over 1": (3, 1)} if THOROUGH else {})
"""(width, devices); with width 4 two places of the second group are filled up."""
WIDE = replace(
    SPEC,
    members=MEMBERS,
    schedule=Schedule(evaluations=5, checkpoints=2),
    evaluators=("icl",),
)

Arrays = dict[str, np.ndarray]


def first_batches(members: Members) -> Arrays:
    """The first batch of every member, drawn as the training program of this layout draws it."""
    spec = members.spec
    split, index = spec.source.sizes().split(), jnp.arange(spec.batch, dtype=jnp.uint32)

    def draw(data: Any) -> Any:
        return spec.task.sample(data.key, index, spec.source, data.bank, split)._asdict()

    each: Any = Data(0, None, 0)  # pyright: ignore - axes, not arrays: the bank is shared by all
    program = jax.jit(draw if members.width == 1 else jax.vmap(draw, in_axes=(each,)))
    groups = [jax.tree.map(np.asarray, program(group.data)) for group in members.groups]
    join = np.stack if members.width == 1 else np.concatenate
    return {name: join([group[name] for group in groups])[: len(members.members)] for name in groups[0]}


def spread(members: Members) -> Arrays:
    """Of every array of every group: on how many devices it lies, and the members on one of them."""
    leaves = [leaf for group in members.groups for leaf in to_dotted(group.state).values()]
    found = [(len(x.sharding.device_set), x.sharding.shard_shape(x.shape)[0] if x.ndim else 0) for x in leaves]
    return {"devices": np.array([d for d, _ in found]), "members": np.array([m for _, m in found])}


def trained(members: list[int], width: int, devices: int) -> Arrays:
    """All there is to say about some members trained in one layout."""
    made = Members(WIDE, members, None, width, devices)
    found = {f"start/{name}": array for name, array in made.state().items()}
    found |= {f"batch/{name}": array for name, array in first_batches(made).items()}
    made.train(STEPS // 2)
    made.evaluate()
    made.train(STEPS)
    found |= {f"spread/{name}": array for name, array in spread(made).items()}
    found |= {f"state/{name}": array for name, array in made.state().items()}
    found |= {f"seen/{name}": array for name, array in made.evaluate().items()}
    made.train(WIDE.steps())
    return found | {f"end/{name}": array for name, array in made.state().items()}


def interrupt(progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def run(folder: Path, name: str, *, stop: bool = False, **how: Any) -> Arrays:
    """A run from beginning to end in this process; with `stop`, interrupted once and continued without
    being told how."""
    if stop:
        driver.SLICE_SECONDS = 1e-9
        try:
            train(WIDE, folder / name, report=interrupt, **how)
            raise AssertionError("the run was not interrupted")
        except Interrupted:
            how = {}
    done = train(WIDE, folder / name, **how)
    assert RunFolder(done.path).status() == "complete"
    found = done.latest()
    assert found is not None
    told = {key: np.array(found[1].identity[key]) for key in ("processes", "width", "devices", "chosen")}
    state = {f"state/{key}": array for key, array in final_state(done).items()}
    return told | state | {f"seen/{key}": array for key, array in done.arrays().items()}


def main(folder: Path) -> None:
    def write(name: str, arrays: dict[str, Any]) -> None:
        np.savez(folder / f"{name}.npz", **arrays)

    for name, (width, devices) in LAYOUTS.items():
        write(name, trained(list(range(MEMBERS)), width, devices))
    write("4 over 4, unfilled", trained([4, 5, 0, 1], 4, 4))
    write("run over 4", run(folder, "wide", processes=0, width=4, devices=4))
    write("run over 4, continued", run(folder, "continued", stop=True, processes=0, width=4, devices=4))
    try:
        train(WIDE, folder / "refused", processes=0, width=8, devices=8)
    except InputError as error:
        write("refused", {"message": np.array(str(error))})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
