"""A process of a distributed run, which tells its end: `hosts_child.py PORT COUNT INDEX FOLDER WIDTH [WHAT]`, where
WHAT is a number of sequences, `long`, or `data`: a source that reads x.npz."""

import os
import sys
from pathlib import Path

port, count, index, folder, wide, *more = sys.argv[1:]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import jax

    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.distributed.initialize(f"localhost:{port}", int(count), int(index))
    from msgspec.structs import replace

    from ebbtide.errors import InputError, Interrupted
    from ebbtide.sources.features import Features
    from ebbtide.training.driver import train
    from tiny import LONG, SPEC

    what = more[0] if more else str(SPEC.sequences)
    spec = replace(SPEC, members=4, sequences=int(what)) if what.isdigit() else replace(LONG, members=4)
    if what == "data":
        spec = replace(
            spec, source=Features(path="x.npz", classes=64, exemplars=2, holdout_classes=8, holdout_exemplars=2)
        )
    side_by_side = int(wide)
    width, devices = (side_by_side, jax.local_device_count()) if side_by_side > 1 else (None, None)
    code = 0
    try:
        run = train(spec, folder, distributed=True, deterministic=side_by_side == 1, width=width, devices=devices)
        sys.stdout.write(f"done {run.status()}\n")
    except InputError as error:
        sys.stdout.write(f"refused {error}\n")
        code = 2
    except Interrupted:
        sys.stdout.write("interrupted\n")
        code = 130
    sys.stdout.flush()
    jax.distributed.shutdown()
    sys.exit(code)
